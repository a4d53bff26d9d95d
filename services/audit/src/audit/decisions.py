"""Whether an event rests on the signed document it carries. Trust in the topics is not enough (law 5)."""

from dataclasses import replace
from typing import Any

from audit.domain import NOT_VERIFIED, Flaw, Reading, decided, target_of
from contracts.approval import (
    DECISION_TYPE,
    REVOCATION_TYPE,
    Decision,
    RequestDecided,
    Revocation,
    RevocationOrdered,
    Verdict,
    approvals_of,
    policies_of,
)
from contracts.lifecycle import TransitionKind
from contracts.payload import Payload
from contracts.registry import AliasChanged, StageChanged, StageRefused, Transition, VersionRevoked
from kit import signed
from kit.auth import KeySource

Outcome = StageChanged | StageRefused | AliasChanged
BOUND = (*Transition.model_fields, "decision_id", "requested_by")
REVOKED = ("workspace", "model", "version", "digest", "revoked_by", "reason", "fallback")


class NotVerified(ValueError):
    """The event has no good signature; the text says why."""


class Decisions:
    """What is signed is judged by the keys as they are when it is logged. A key that is revoked later takes nothing
    back: the registry has carried the change out, and a rebuild asks again only about what was not believed. What is
    signed with a revoked key and logged afterwards is not believed, whatever date it bears.

    Nothing that an event tells in clear beside its signature is believed unless it is what was signed.
    """

    def __init__(self, keys: KeySource) -> None:
        self._keys = keys

    async def check(self, reading: Reading) -> Reading:
        """The reading, with a flaw when what it carries is not signed, or is not for exactly it.

        Raises:
            Transient: the keys cannot be read.
        """
        try:
            match reading.message:
                case VersionRevoked() as event:
                    order = await self._revocation(event.revocation)
                    _compare("revocation", order, {name: getattr(event, name) for name in REVOKED})
                case RevocationOrdered() as event:
                    _same("revocation", await self._revocation(event.jws), event.revocation)
                case RequestDecided() as event:
                    _same("decision", await self._decision(event.jws), event.decision)
                case StageChanged() | StageRefused() | AliasChanged() as event if decided(event):
                    await self._outcome(event)
        except NotVerified as error:
            return replace(reading, flaw=Flaw(NOT_VERIFIED, str(error)))
        return reading

    async def _outcome(self, event: Outcome) -> None:
        if event.decision is None:
            raise NotVerified("the change carries no signed decision")
        decision = await self._decision(event.decision)
        if not isinstance(event, StageRefused) and decision.verdict is not Verdict.APPROVED:
            raise NotVerified(f"the decision {decision.decision_id} says {decision.verdict}")
        _compare("decision", decision, _bound(event))
        if isinstance(event, AliasChanged) and decision.kind not in ALIAS_KINDS:
            raise NotVerified(f"the decision is for kind={decision.kind}")
        for name, said in _repeated(decision).items():
            if getattr(event, name, said) != said:
                raise NotVerified(f"{name} is not what the decision says")

    async def _decision(self, token: str) -> Decision:
        try:
            return await signed.read(token, DECISION_TYPE, Decision, self._keys, lambda said: said.decided_at)
        except signed.Refused as error:
            raise _refused("decision", error) from error

    async def _revocation(self, token: str) -> Revocation:
        try:
            return await signed.read(token, REVOCATION_TYPE, Revocation, self._keys, lambda said: said.revoked_at)
        except signed.Refused as error:
            raise _refused("revocation", error) from error


# A protected alias returns to its last good version by a rollback.
ALIAS_KINDS = (TransitionKind.ALIAS, TransitionKind.ROLLBACK)


def _refused(what: str, error: signed.Refused) -> NotVerified:
    late = "; what was logged before that stays believed" if error.code == "revoked-key" else ""
    return NotVerified(f"the {what} was refused: {error.detail}{late}")


def _compare(what: str, document: Payload, wanted: dict[str, object]) -> None:
    for name, said in wanted.items():
        if getattr(document, name) != said:
            raise NotVerified(f"the {what} is for {name}={getattr(document, name)}")


def _same(what: str, document: Payload, clear: Payload) -> None:
    names = [name for name in type(document).model_fields if getattr(document, name) != getattr(clear, name)]
    if names:
        raise NotVerified(f"the {what} that was signed has another {', '.join(names)}")


def _bound(event: Outcome) -> dict[str, object]:
    """What the decision must say. An alias does not tell where its version was."""
    said = {name: getattr(event, name) for name in BOUND if hasattr(event, name)}
    if isinstance(event, AliasChanged):
        said["to_stage"] = target_of(event)
    return said


def _repeated(decision: Decision) -> dict[str, Any]:
    """What the registry repeats of the decision."""
    return {"approved_by": approvals_of(decision), "criteria": decision.gates, "policy": policies_of(decision)}
