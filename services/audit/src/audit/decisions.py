"""Whether an event rests on the signed document it carries. Trust in the registry's topic is not enough (law 5)."""

from dataclasses import replace

from audit.domain import NOT_VERIFIED, Flaw, Reading, decided, target_of
from contracts.approval import DECISION_TYPE, REVOCATION_TYPE, Decision, Revocation, Verdict
from contracts.lifecycle import TransitionKind
from contracts.payload import Payload
from contracts.registry import AliasChanged, StageChanged, Transition, VersionRevoked
from kit import signed
from kit.auth import KeySource

BOUND = (*Transition.model_fields, "decision_id", "requested_by")
REVOKED = ("workspace", "model", "version", "digest", "revoked_by", "reason", "fallback")


class NotVerified(ValueError):
    """The event has no good signature; the text says why."""


class Decisions:
    """A change is judged by the keys as they are when it is logged. A key that is revoked later takes nothing back: the
    registry has carried the change out, and a rebuild asks again only about what was not believed. What is signed with
    a revoked key and logged afterwards is not believed, whatever date it bears. The same holds of revocations."""

    def __init__(self, keys: KeySource) -> None:
        self._keys = keys

    async def check(self, reading: Reading) -> Reading:
        """The reading, with a flaw when it carries a decision or a revocation that is not for exactly it.

        Raises:
            Transient: the keys cannot be read.
        """
        event = reading.message
        try:
            if isinstance(event, VersionRevoked):
                await self._verify_revocation(event)
            elif isinstance(event, StageChanged | AliasChanged) and decided(event):
                await self._verify(event)
        except NotVerified as error:
            return replace(reading, flaw=Flaw(NOT_VERIFIED, str(error)))
        return reading

    async def _verify(self, change: StageChanged | AliasChanged) -> None:
        token = change.decision
        if token is None:
            raise NotVerified("the change carries no signed decision")
        try:
            decision = await signed.read(token, DECISION_TYPE, Decision, self._keys, lambda said: said.decided_at)
        except signed.Refused as error:
            raise _refused("decision", error) from error
        if decision.verdict is not Verdict.APPROVED:
            raise NotVerified(f"the decision {decision.decision_id} says {decision.verdict}")
        _compare("decision", decision, _bound(change))
        if isinstance(change, AliasChanged) and decision.kind not in ALIAS_KINDS:
            raise NotVerified(f"the decision is for kind={decision.kind}")

    async def _verify_revocation(self, event: VersionRevoked) -> None:
        try:
            order = await signed.read(
                event.revocation, REVOCATION_TYPE, Revocation, self._keys, lambda said: said.revoked_at
            )
        except signed.Refused as error:
            raise _refused("revocation", error) from error
        _compare("revocation", order, {name: getattr(event, name) for name in REVOKED})


# A protected alias returns to its last good version by a rollback.
ALIAS_KINDS = (TransitionKind.ALIAS, TransitionKind.ROLLBACK)


def _refused(what: str, error: signed.Refused) -> NotVerified:
    late = "; what was logged before that stays believed" if error.code == "revoked-key" else ""
    return NotVerified(f"the {what} was refused: {error.detail}{late}")


def _compare(what: str, document: Payload, wanted: dict[str, object]) -> None:
    for name, said in wanted.items():
        if getattr(document, name) != said:
            raise NotVerified(f"the {what} is for {name}={getattr(document, name)}")


def _bound(change: StageChanged | AliasChanged) -> dict[str, object]:
    """What the decision must say. An alias does not tell where its version was."""
    said = {name: getattr(change, name) for name in BOUND if hasattr(change, name)}
    if isinstance(change, AliasChanged):
        said["to_stage"] = target_of(change)
    return said
