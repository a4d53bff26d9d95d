"""Requests as their events make them, for tests without a database."""

from datetime import UTC, datetime, timedelta
from typing import Any

from approval.domain import Request, evolve
from contracts.approval import (
    BreakGlass,
    Choice,
    GatesEvaluated,
    PolicyProposed,
    PolicyRef,
    RequestOpened,
    Vote,
    Waiver,
)
from contracts.lifecycle import Stage, TransitionKind
from contracts.registry import StageRequested
from policy.binding import digest_of_proposal, digest_of_transition

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
POLICY = PolicyRef(name="production", revision=1, digest=f"sha256:{'1' * 64}")
PROPOSED = PolicyRef(name="production", revision=2, digest=f"sha256:{'5' * 64}")
INPUTS_DIGEST = f"sha256:{'2' * 64}"
OTHER = f"sha256:{'9' * 64}"


def asked(**changes: Any) -> StageRequested:
    given: dict[str, Any] = {
        "transition_id": "t-1",
        "kind": TransitionKind.PROMOTION,
        "workspace": "default",
        "model": "fraud",
        "version": 1,
        "digest": f"sha256:{'3' * 64}",
        "artifact_digest": f"sha256:{'4' * 64}",
        "from_stage": Stage.STAGING,
        "to_stage": Stage.PRODUCTION,
        "requested_by": "ana",
        "reason": "better",
        "expires_at": AT + timedelta(hours=72),
    }
    return StageRequested(**(given | changes))


def opened(policies: tuple[PolicyRef, ...] = (POLICY,)) -> RequestOpened:
    of = asked()
    return RequestOpened(
        **of.model_dump(exclude={"expires_at", "expected"}),
        policies=policies,
        inputs={
            "candidate": {"registered_by": "trainer"},
            "request": {"kind": "promotion", "expires_at": of.expires_at.isoformat()},
        },
        inputs_digest=INPUTS_DIGEST,
        request_digest=digest_of_transition(of, policies, INPUTS_DIGEST),
        expires_at=of.expires_at,
    )


def proposed() -> PolicyProposed:
    """A change of the policy `production`."""
    return PolicyProposed(
        request_id="t-1",
        policy=PROPOSED,
        document="kind: PromotionPolicy",
        requested_by="ana",
        reason="stricter",
        policies=(POLICY,),
        inputs={
            "candidate": None,
            "request": {"kind": "policy", "expires_at": (AT + timedelta(days=30)).isoformat()},
        },
        inputs_digest=INPUTS_DIGEST,
        request_digest=digest_of_proposal("t-1", PROPOSED, (POLICY,), INPUTS_DIGEST),
        expires_at=AT + timedelta(days=30),
    )


def apply(request: Request | None, *messages: Any, at: datetime = AT) -> Request:
    for n, message in enumerate(messages):
        request = evolve(request, message, at=at, correlationid="c-1", event_id=f"e-{n}")
    assert request is not None
    return request


def waiting(*, passed: bool = True, policies: tuple[PolicyRef, ...] = (POLICY,)) -> Request:
    """A request whose gates were evaluated."""
    gates = GatesEvaluated(request_id="t-1", gates=(), passed=passed, inputs_digest=INPUTS_DIGEST)
    return apply(None, opened(policies), gates)


def vote(voter: str = "ben", **changes: Any) -> Vote:
    given: dict[str, Any] = {
        "voter": voter,
        "choice": Choice.APPROVE,
        "rule": "production/review",
        "meaning": "I reviewed it",
        "at": AT,
        "auth_method": "token",
        "request_digest": opened().request_digest,
    }
    return Vote(**(given | changes))


def waiver(gate: str = "production/accuracy", by: str = "lea") -> Waiver:
    return Waiver(gate=gate, by=by, reason="known", at=AT, auth_method="token", request_digest=opened().request_digest)


def glass() -> BreakGlass:
    return BreakGlass(
        by="olga",
        groups=("oncall",),
        reason="production is down",
        at=AT,
        auth_method="token",
        request_digest=opened().request_digest,
        skips=("approvals",),
        page=("group:risk",),
        until=AT + timedelta(hours=4),
        review=("risk",),
        review_count=2,
        review_by=AT + timedelta(days=2),
    )
