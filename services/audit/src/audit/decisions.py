"""Whether a change rests on the signed decision it carries. Trust in the registry's topic is not enough (law 5)."""

from dataclasses import replace

from audit.domain import NOT_VERIFIED, Flaw, Reading, decided, target_of
from contracts.approval import DECISION_TYPE, Decision, Verdict
from contracts.lifecycle import TransitionKind
from contracts.registry import AliasChanged, StageChanged, Transition
from kit import signed
from kit.auth import KeySource

BOUND = (*Transition.model_fields, "decision_id", "requested_by")


class NotVerified(ValueError):
    """The change has no good decision; the text says why."""


class Decisions:
    """A change is judged by the keys as they are when it is logged. A key that is revoked later takes nothing back: the
    registry has carried the change out, and a rebuild asks again only about what was not believed. What is signed with
    a revoked key and logged afterwards is not believed, whatever date it bears."""

    def __init__(self, keys: KeySource) -> None:
        self._keys = keys

    async def check(self, reading: Reading) -> Reading:
        """The reading, with a flaw when it carries a decision that is not for exactly it.

        Raises:
            Transient: the keys cannot be read.
        """
        change = reading.message
        if not isinstance(change, StageChanged | AliasChanged) or not decided(change):
            return reading
        try:
            await self._verify(change)
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
            late = "; what was logged before that stays believed" if error.code == "revoked-key" else ""
            raise NotVerified(f"the decision was refused: {error.detail}{late}") from error
        if decision.verdict is not Verdict.APPROVED:
            raise NotVerified(f"the decision {decision.decision_id} says {decision.verdict}")
        for name, said in _bound(change).items():
            if getattr(decision, name) != said:
                raise NotVerified(f"the decision is for {name}={getattr(decision, name)}")


def _bound(change: StageChanged | AliasChanged) -> dict[str, object]:
    """What the decision must say. An alias does not tell where its version was."""
    said = {name: getattr(change, name) for name in BOUND if hasattr(change, name)}
    if isinstance(change, AliasChanged):
        said |= {"kind": TransitionKind.ALIAS, "to_stage": target_of(change)}
    return said
