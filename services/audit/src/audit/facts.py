"""What an entry says, for questions: whole but for what is bulky or signed. Pure.

Left out are frozen inputs, texts of policies, signatures, and the list of an artifact's files. The entry has them.
"""

from typing import Any

from audit.domain import Reading
from contracts import approval, registry
from contracts.payload import Message, Payload

BULKY: dict[type[Message], Any] = {
    registry.VersionRegistered: {"content": {"artifact": {"files"}}},
    registry.StageChanged: {"decision"},
    registry.StageRefused: {"decision"},
    registry.AliasChanged: {"decision"},
    registry.VersionRevoked: {"revocation"},
    approval.PolicyPublished: {"document"},
    approval.PolicyProposed: {"document", "inputs"},
    approval.RequestOpened: {"inputs"},
    approval.RequestRebound: {"inputs"},
    approval.RequestDecided: {"inputs", "documents", "jws"},
    approval.RevocationOrdered: {"jws"},
}
NOT_TOLD = (registry.ServingReported, registry.CommandRejected)
# Who did it, where a message or the document in it says so.
_DOERS = (
    "by", "voter", "reviewer", "requested_by", "registered_by", "revoked_by", "posted_by", "author", "published_by",
    "ended_by", "delegator",
)  # fmt: skip
_INNER = ("vote", "waiver", "glass", "decision", "revocation", "evidence")


def fact_of(reading: Reading) -> dict[str, Any] | None:
    """`person`, `request` and `data` of a message that questions are asked about; None for others."""
    message = reading.message
    if not isinstance(message, registry.EVENTS + approval.EVENTS) or isinstance(message, NOT_TOLD):
        return None
    parts = [part for name in _INNER if isinstance(part := getattr(message, name, None), Payload)]
    return {
        "person": _first([message, *parts], _DOERS),
        "request": _first([message, *parts], ("request_id", "transition_id")),
        "data": message.model_dump(mode="json", exclude=BULKY.get(type(message))),
    }


def _first(sources: list[Any], names: tuple[str, ...]) -> str | None:
    found = (getattr(source, name, None) for source in sources for name in names)
    return next((value for value in found if isinstance(value, str)), None)
