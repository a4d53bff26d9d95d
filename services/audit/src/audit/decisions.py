"""Whether a change rests on the signed decision it carries. Trust in the registry's topic is not enough (law 5)."""

from dataclasses import replace

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry
from pydantic import ValidationError

from audit.domain import NOT_VERIFIED, Flaw, Reading, decided, target_of
from contracts.approval import DECISION_TYPE, Decision, Verdict
from contracts.lifecycle import TransitionKind
from contracts.registry import AliasChanged, StageChanged, Transition
from kit.auth import KeySource

BOUND = (*Transition.model_fields, "decision_id", "requested_by")


class _Registry(JWSRegistry):
    """joserfc stops at 128 kB; a decision with many gates and comments is longer."""

    max_payload_length = 1_000_000


JWS = _Registry(algorithms=["EdDSA"])


class NotVerified(ValueError):
    """The change has no good decision; the text says why."""


class Decisions:
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
        token = change.decision or ""
        try:
            header = jws.extract_compact(token.encode(), registry=JWS).headers()
        except (JoseError, ValueError) as error:
            raise NotVerified("the change carries no signed decision") from error
        kid = header.get("kid")
        key = await self._keys.find(kid) if isinstance(kid, str) else None
        if key is None or header.get("typ") != DECISION_TYPE:
            raise NotVerified("the decision is not signed by a key of the approval service")
        try:
            decision = Decision.model_validate_json(jws.deserialize_compact(token, key, registry=JWS).payload)
        except (JoseError, ValidationError, ValueError) as error:
            raise NotVerified("the decision's signature does not verify") from error
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
