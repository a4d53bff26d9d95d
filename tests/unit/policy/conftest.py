"""Policies, requests and people, for tests without a service."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.approval import BreakGlass, Choice, GateAnswered, PolicyRef, Vote, Waiver
from policy.case import Ballot, Case, Person, Refusal
from policy.document import digest_of, parse
from policy.matching import InForce, applicable
from policy.needs import Needs, needs_of
from policy.outlook import Outlook, outlook
from policy.people import judged

AT = datetime(2026, 1, 14, 12, tzinfo=UTC)  # a Wednesday
OPENED = AT - timedelta(hours=2)
DIGEST = f"sha256:{'3' * 64}"
OTHER = f"sha256:{'9' * 64}"
HOUR = timedelta(hours=1)
PRODUCTION = {"transition": {"to": "Production"}}
REVIEW = {"id": "review", "meaning": "I reviewed it", "from": ["group:reviewers"]}
RISK = {"id": "risk", "meaning": "I accept the risk", "from": ["group:risk"]}
# Windows, gates, and who may waive them.
SOON = [{"tz": "UTC", "from": "14:00", "to": "16:00"}]
NOW = [{"tz": "UTC", "from": "11:00", "to": "13:00"}]
GOOD, BAD = {"id": "good", "cel": "true"}, {"id": "bad", "cel": "false", "message": "too low"}
COMPARES = {"id": "compares", "cel": "candidate.metrics.auc >= baseline.metrics.auc"}
BROKEN = {"id": "broken", "cel": "candidate.metrics.none > 0.5"}
HOOK = {"id": "hook", "webhook": {"url": "https://checks.example.org/x", "secret": "checks"}, "timeout": "3h"}
SCAN = {"id": "scan", "attestation": {"type": "scan", "from": ["group:ci", "user:scanner"]}, "timeout": "3h"}
LEADS = {"waivable_by": ["group:leads"]}
YES, NO = Ballot(Choice.APPROVE), Ballot(Choice.REJECT, "because")


def document(name: str = "p", match: Any = None, **spec: Any) -> str:
    """A policy's text; JSON is YAML."""
    given = {"match": match or PRODUCTION, **spec}
    return json.dumps({"kind": "PromotionPolicy", "metadata": {"name": name}, "spec": given})


def asks(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The part of a policy that asks people."""
    return {"approvals": {"rules": list(rules), **more}}


def in_force(*texts: str) -> InForce:
    policies = [parse(text) for text in texts]
    return [(PolicyRef(name=policy.name, revision=1, digest=policy.digest), policy) for policy in policies]


def inputs(**changes: Any) -> dict[str, Any]:
    """Frozen inputs; `candidate`, `model` and `request` are changed field by field."""
    given: dict[str, Any] = {
        "candidate": {
            "version": 2,
            "digest": DIGEST,
            "artifact": {"digest": DIGEST, "size": 10, "filename": "model.onnx"},
            "metrics": {"accuracy": 0.95, "auc": 0.9},
            "parameters": {},
            "tags": {},
            "stages": ["Staging"],
            "registered_by": "trainer",
            "registered_at": "2026-01-13T00:00:00+00:00",
            "lineage": {"committers": []},
            "evaluations": [],
            "evidence": {},
            "attestations": [],
            "unsafe": False,
        },
        "baseline": None,
        "model": {"workspace": "default", "name": "fraud", "owner": "", "description": "", "tags": {}},
        "request": {
            "transition_id": "t-1",
            "kind": "promotion",
            "model": "fraud",
            "from": "Staging",
            "to": "Production",
            "reason": "it is better",
            "requested_by": "ana",
            "fields": {},
            "change_class": "normal",
            "expires_at": (AT + timedelta(days=3)).isoformat(),
            "policy_editors": [],
        },
    }
    for name, change in changes.items():
        given[name] = {**given[name], **change} if isinstance(change, dict) and given[name] else change
    return given


def case_of(given: dict[str, Any] | None = None, **changes: Any) -> Case:
    given = inputs() if given is None else given
    case = Case(given["request"]["requested_by"], digest_of(given), given, opened_at=OPENED, bound_at=OPENED)
    return replace(case, **changes)


def needs_at(policies: InForce, given: dict[str, Any] | None = None, at: datetime = AT) -> Needs:
    """What those of the policies ask that apply."""
    given = inputs() if given is None else given
    return needs_of(applicable(policies, given, at), given, opened_at=OPENED, now=at)


def stands(case: Case, *texts: str, at: datetime = AT, **options: Any) -> Outlook:
    """How the case stands under these policies."""
    return outlook(case, needs_at(in_force(*texts), dict(case.inputs), at), at, **options)


def person(subject: str = "ben", *groups: str, **changes: Any) -> Person:
    known = Person(subject, frozenset(groups or ("reviewers",)), True, True, "token", AT)
    return replace(known, **changes)


def vote(case: Case, voter: str = "ben", *groups: str, **changes: Any) -> Vote:
    """A vote as it might be recorded, whether or not it could be cast."""
    given: dict[str, Any] = {
        "voter": voter,
        "choice": Choice.APPROVE,
        "rule": "p/review",
        "meaning": "I reviewed it",
        "at": AT,
        "auth_method": "token",
        "request_digest": case.request_digest,
        "groups": groups or ("reviewers",),
        "authenticated_at": AT,
    }
    if changes.get("choice") is Choice.REJECT:
        given |= {"rule": "deny", "meaning": "I object to this", "comment": "because"}
    return Vote(**(given | changes))


def with_votes(case: Case, *votes: Vote) -> Case:
    return replace(case, votes=(*case.votes, *votes))


def cast(case: Case, needs: Needs, voter: Person, ballot: Ballot = YES, at: datetime = AT, **more: Any) -> Case:
    """The case with this vote, which must be taken."""
    taken = judged(case, needs, voter, ballot, at, **more)
    assert isinstance(taken, Vote), taken
    return with_votes(case, taken)


def code(outcome: Vote | Refusal | None) -> str:
    return outcome.code if isinstance(outcome, Refusal) else "taken" if outcome else "nothing"


def waiver(case: Case, gate: str, by: str = "lea", *groups: str, **changes: Any) -> Waiver:
    given: dict[str, Any] = {
        "gate": gate,
        "by": by,
        "groups": groups or ("leads",),
        "reason": "known and harmless",
        "at": AT,
        "auth_method": "token",
        "request_digest": case.request_digest,
    }
    return Waiver(**(given | changes))


def answer(case: Case, gate: str, result: str, message: str = "", digest: str | None = None) -> GateAnswered:
    return GateAnswered(
        request_id="t-1",
        gate=gate,
        result=result,
        message=message,
        by="scanner",
        request_digest=digest or case.request_digest,
    )


def glass(case: Case, *skips: str, **changes: Any) -> BreakGlass:
    given: dict[str, Any] = {
        "by": "olga",
        "groups": ("oncall",),
        "reason": "production is down",
        "at": AT,
        "auth_method": "token",
        "request_digest": case.request_digest,
        "skips": skips or ("approvals", "schedule"),
        "page": ("group:risk",),
        "until": AT + timedelta(hours=4),
        "review": ("risk",),
        "review_count": 1,
        "review_by": AT + timedelta(days=2),
    }
    return BreakGlass(**(given | changes))


def policy(*gates: dict[str, Any], rules: tuple[dict[str, Any], ...] = (REVIEW,), **more: Any) -> str:
    return document("p", gates=list(gates), **asks(*rules), **more)


def told(found: Outlook) -> tuple[str, str]:
    return (str(found.verdict) if found.verdict else found.phase), found.reason
