"""What an entry says, for questions: whole but for what is bulky or signed. Pure.

Left out are frozen inputs, texts of policies, signatures, and the list of an artifact's files. The entry has them.
"""

from functools import cache
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
    if not isinstance(message, _TOLD):
        return None
    person, request = _places(type(message))
    return {
        "person": _at(message, person),
        "request": _at(message, request),
        "data": message.model_dump(mode="json", exclude=BULKY.get(type(message))),
    }


_TOLD = tuple(kind for kind in registry.EVENTS + approval.EVENTS if kind not in NOT_TOLD)
_REQUESTS = ("request_id", "transition_id")


@cache
def _places(kind: type[Message]) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]:
    """Where messages of a kind say who did it, and what request it belongs to: paths of attributes, best first."""
    fields = kind.model_fields
    parts = ((name, fields[name].annotation) for name in _INNER if name in fields)
    inner = [(name, part.model_fields) for name, part in parts if isinstance(part, type) and issubclass(part, Payload)]
    found = []
    for wanted in (_DOERS, _REQUESTS):
        outer = [(name,) for name in wanted if name in fields]
        found.append((*outer, *((part, name) for part, names in inner for name in wanted if name in names)))
    return found[0], found[1]


def _at(message: Message, paths: tuple[tuple[str, ...], ...]) -> str | None:
    """The first of these that is a text."""
    for path in paths:
        value: Any = message
        for name in path:
            value = getattr(value, name)
        if isinstance(value, str):
            return value
    return None
