"""Requests as their events make them, for tests without a database."""

from datetime import UTC, datetime, timedelta
from typing import Any

from approval.domain import Request, evolve, request_digest
from contracts.approval import GatesEvaluated, PolicyRef, RequestOpened
from contracts.lifecycle import Stage, TransitionKind
from contracts.registry import StageRequested

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
POLICY = PolicyRef(name="production", revision=1, digest=f"sha256:{'1' * 64}")
INPUTS_DIGEST = f"sha256:{'2' * 64}"


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
            "request": {"expires_at": of.expires_at.isoformat()},
        },
        inputs_digest=INPUTS_DIGEST,
        request_digest=request_digest(of, policies, INPUTS_DIGEST),
        expires_at=of.expires_at,
    )


def apply(request: Request | None, *messages: Any) -> Request:
    for n, message in enumerate(messages):
        request = evolve(request, message, at=AT, correlationid="c-1", event_id=f"e-{n}")
    assert request is not None
    return request


def waiting(*, passed: bool = True, policies: tuple[PolicyRef, ...] = (POLICY,)) -> Request:
    """A request whose gates were evaluated."""
    gates = GatesEvaluated(request_id="t-1", gates=(), passed=passed, inputs_digest=INPUTS_DIGEST)
    return apply(None, opened(policies), gates)
