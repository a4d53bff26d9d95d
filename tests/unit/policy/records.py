"""Decisions as the approval service records them, and keys to sign them with."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from joserfc import jws
from joserfc.jwk import OKPKey
from tests.unit.policy.conftest import (
    AT,
    HOUR,
    REVIEW,
    RISK,
    answer,
    asks,
    case_of,
    cast,
    document,
    in_force,
    inputs,
    needs_at,
    person,
    waiver,
)

from contracts.approval import DECISION_TYPE, Decision, RequestDecided, Verdict
from contracts.canonical import canonical_json
from contracts.lifecycle import TransitionKind
from contracts.registry import Transition
from policy.binding import digest_of_transition
from policy.case import Case, Members, Person, nobody
from policy.document import digest_of
from policy.findings import Judgement
from policy.holding import holds_until
from policy.judge import judge
from policy.matching import InForce, applicable
from policy.needs import needs_of
from policy.outlook import holding, not_in_time, outlook
from policy.people import counted

KEY = OKPKey.generate_key("Ed25519", auto_kid=True)
STRANGER = OKPKey.generate_key("Ed25519", auto_kid=True)
HEADER = {"alg": "EdDSA", "kid": KEY.kid, "typ": DECISION_TYPE}
Record = dict[str, Any]
Act = Callable[[Case], Case]


def keys(*known: OKPKey, **members: Any) -> dict[str, Any]:
    return {"keys": [{**key.as_dict(private=False), "kid": key.kid, **members} for key in known or (KEY,)]}


def signed(payload: Any, header: dict[str, Any] | None = None, key: OKPKey = KEY) -> str:
    data = payload if isinstance(payload, bytes) else canonical_json(payload)
    return jws.serialize_compact(header or HEADER, data, key, algorithms=["EdDSA"])


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def transition(given: dict[str, Any]) -> Transition:
    request, candidate = given["request"], given["candidate"]
    return Transition(
        transition_id=request["transition_id"],
        kind=TransitionKind(request["kind"]),
        workspace=given["model"]["workspace"],
        model=request["model"],
        version=candidate["version"],
        digest=candidate["digest"],
        artifact_digest=candidate["artifact"]["digest"],
        from_stage=request["from"],
        to_stage=request["to"],
    )


def record(
    policies: InForce,
    *acts: Act,
    given: dict[str, Any] | None = None,
    at: datetime = AT,
    members: Members = nobody,
    expires_at: datetime | None = None,
    changes: dict[str, Any] | None = None,
) -> Record:
    """What is recorded when the request is decided at that time, after these acts.

    `changes` are made to the decision before it is signed: what a service that has been taken over might sign.
    """
    given = inputs() if given is None else given
    bound = applicable(policies, given, at)
    refs = tuple(ref for ref, _ in bound)
    asked, inputs_digest = transition(given), digest_of(given)
    case = replace(case_of(given), request_digest=digest_of_transition(asked, refs, inputs_digest))
    for act in acts:
        case = act(case)
    needs = needs_of(bound, given, opened_at=case.opened_at, now=at)
    found = outlook(case, needs, at, members=members)
    glass = case.glass if found.reason.startswith("emergency: ") else None
    ends = holds_until(case, needs, at, glass=glass, members=members) if found.verdict is Verdict.APPROVED else None
    until = expires_at or min(AT + timedelta(days=2), ends or AT + timedelta(days=2))
    decision = Decision(
        **asked.model_dump(),
        decision_id="d-1",
        verdict=found.verdict or "rejected",
        reason=not_in_time(until) if at >= until and found.verdict is not Verdict.APPROVED else found.reason,
        requested_by=case.requested_by,
        policies=refs,
        gates=found.gates,
        votes=counted(case, needs, at, members),
        inputs_digest=inputs_digest,
        request_digest=case.request_digest,
        decided_at=at,
        expires_at=until,
        waivers=found.waivers,
        waived=holding(case, needs, found.gates, members),
        rollback_to=needs.rollback_to,
        break_glass=glass,
        added_approvers={rule: tuple(sorted(groups)) for rule, groups in case.added.items()},
        opened_at=case.opened_at,
        bound_at=case.bound_at,
        baseline=(given["baseline"] or {}).get("version", 0),
    ).model_copy(update=changes or {})
    clear = decision.model_dump(mode="json")
    decided = RequestDecided(
        decision=Decision.model_validate(clear),
        jws=signed(clear),
        inputs=given,
        documents={ref.digest: policy.text for ref, policy in bound},
    )
    return dict(json.loads(decided.model_dump_json()))


# -- policies, acts, and what is found ------------------------------------------------------------------------------

ACCURATE = {"id": "accuracy", "cel": "candidate.metrics.accuracy >= 0.9", "message": "too low"}
FRESH = {"id": "fresh", "cel": "now - candidate.registered_at < duration('48h')"}
PLAIN = in_force(document("p", gates=[ACCURATE, FRESH], **asks(REVIEW)))
SHORT = in_force(document("p", gates=[ACCURATE, FRESH], request={"expires_after": "2h"}, **asks(REVIEW)))  # until AT


def votes(policies: InForce = PLAIN, *who: Person, **more: Any) -> Act:
    """These people approve."""

    def act(case: Case) -> Case:
        needs = needs_at(policies, dict(case.inputs))
        for one in who or (person(),):
            case = cast(case, needs, one, **more)
        return case

    return act


def failed(found: Judgement) -> list[str]:
    return [check.name for check in found.failed]


def judged(given: Record, known: dict[str, Any] | None = None) -> list[str]:
    """The names of the checks that fail."""
    return failed(judge(given, known or keys()))


def text(found: Judgement, name: str) -> str:
    return next(f"{check.result}: {check.text}" for check in found.checks if check.name == name)


def good() -> Record:
    return record(PLAIN, votes())


# It has timed out by AT.
SCAN = {"id": "scan", "attestation": {"type": "scan", "from": ["group:ci"]}, "timeout": "1h"}
DELEGATED = in_force(document("p", **asks(REVIEW, delegation={"allowed": True})))
ESCALATED = in_force(
    document(
        "p",
        **asks(REVIEW),
        escalation=[{"after": "1h", "do": "add_approvers", "rule": "review", "to": ["group:leads"]}],
    )
)
TWO = in_force(document("p", gates=[ACCURATE], **asks(REVIEW)), document("q", **asks({**RISK, "count": 2})))
STEPPED = in_force(document("p", **asks(REVIEW, signature={"reauthenticate_within": "5m", "methods": ["otp"]})))
OLD = in_force(document("p", **asks(REVIEW, valid_for="1h")))
OFFICE = in_force(document("p", **asks(REVIEW), schedule={"windows": [{"tz": "UTC", "from": "11:00", "to": "13:00"}]}))
WAITS = in_force(document("p", **asks(REVIEW), schedule={"min_wait": "1h"}))
BACK = in_force(document("p", {"transition": {"kind": "rollback"}}))


def waives(gate: str, **changes: Any) -> Act:
    return lambda case: replace(case, waivers=(*case.waivers, waiver(case, gate, **changes)))


def answers(result: str) -> Act:
    return lambda case: replace(case, answers=(answer(case, "p/hook", result),))


def gated(*gates: dict[str, Any], **more: Any) -> InForce:
    return in_force(document("p", gates=list(gates), **more))


def added(case: Case) -> Case:
    return replace(case, added={"p/review": frozenset({"leads"})})


def rebinds(case: Case) -> Case:
    return replace(case, bound_at=case.opened_at + HOUR)


def resigned(given: Record, header: dict[str, Any] | None = None, key: OKPKey = KEY) -> Record:
    return {**given, "jws": signed(given["decision"], header, key)}


def changed(given: Record, name: str, value: Any) -> Record:
    """Another decision in clear."""
    return {**given, "decision": {**given["decision"], name: value}}
