"""Decisions judged again from their records: the good ones hold."""

import json
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.policy.conftest import (
    AT,
    DIGEST,
    HOOK,
    HOUR,
    LEADS,
    NO,
    OPENED,
    REVIEW,
    asks,
    document,
    in_force,
    inputs,
    person,
    vote,
    with_votes,
)
from tests.unit.policy.records import (
    ACCURATE,
    BACK,
    DELEGATED,
    ESCALATED,
    OFFICE,
    OLD,
    PLAIN,
    SCAN,
    SHORT,
    STEPPED,
    TWO,
    WAITS,
    Act,
    added,
    answers,
    changed,
    gated,
    good,
    judged,
    keys,
    rebinds,
    record,
    resigned,
    text,
    votes,
    waives,
)

from contracts.approval import RequestDecided, Verdict
from policy.case import Member
from policy.judge import judge
from policy.matching import InForce


def test_an_approval_holds() -> None:
    found = judge(good(), keys())
    assert found.ok, found.failed
    assert found.decision is not None
    assert found.decision.verdict is Verdict.APPROVED
    assert [(check.name, check.result) for check in found.checks] == [
        ("record", "ok"),
        ("signature", "ok"),
        ("key", "ok"),
        ("payload", "ok"),
        ("inputs", "ok"),
        ("transition", "ok"),
        ("policies", "ok"),
        ("request", "ok"),
        ("match", "ok"),
        ("other policies", "not checkable"),
        ("times", "ok"),
        ("gates", "ok"),
        ("gate p/accuracy", "ok"),
        ("gate p/fresh", "ok"),
        ("vote of ben", "ok"),
        ("people", "not checkable"),
        ("denial", "ok"),
        ("quorum", "ok"),
        ("expiry", "ok"),
        ("schedule", "ok"),
        ("grants", "ok"),
        ("verdict", "ok"),
        ("reason", "ok"),
    ]
    assert text(found, "verdict") == "ok: approved: approved by ben"


def test_the_event_itself_can_be_given() -> None:
    assert judge(RequestDecided.model_validate(good()), keys()).ok


NO_METRICS = {"given": inputs(candidate={"metrics": {}})}
REJECTIONS: list[tuple[str, InForce, tuple[Act, ...], dict[str, Any]]] = [
    ("a failing gate", PLAIN, (), {"given": inputs(candidate={"metrics": {"accuracy": 0.5}})}),
    ("a missing metric", PLAIN, (), NO_METRICS),
    ("too old by then", PLAIN, (votes(),), {"at": AT + timedelta(hours=47)}),
    ("a veto", PLAIN, (votes(), votes(PLAIN, person("bo"), ballot=NO)), {}),
    ("no policy", in_force(document("p", {"transition": {"to": "Staging"}})), (), {}),
    ("doubt", in_force(document("p", {"transition": {}, "when": "model.tags.x == 'y'"})), (), {}),
    ("a missing field", in_force(document("p", request={"fields": {"ticket": {"required": True}}})), (), {}),
    ("nobody voted in time", SHORT, (), {"expires_at": AT}),
    ("nobody voted in time, and now a gate fails", SHORT, (), {"at": AT + 3 * 24 * HOUR, "expires_at": AT}),
    ("it lived for a shorter time before", PLAIN, (rebinds,), {"expires_at": AT}),
]


@pytest.mark.parametrize(
    ("policies", "acts", "options"), [one[1:] for one in REJECTIONS], ids=[r[0] for r in REJECTIONS]
)
def test_rejections_hold(policies: InForce, acts: tuple[Act, ...], options: dict[str, Any]) -> None:
    found = judge(record(policies, *acts, **options), keys())
    assert found.ok, found.failed
    assert found.decision is not None
    assert found.decision.verdict is Verdict.REJECTED


SCANNED = {"type": "scan", "posted_by": "x", "groups": ["ci"], "title": "a scan", "digest": DIGEST, "result": "pass"}
ASKED = gated({**HOOK, "asks": ["group:leads"]})
APPROVALS: list[tuple[str, InForce, tuple[Act, ...], dict[str, Any]]] = [
    ("nobody is asked", gated(ACCURATE), (), {}),
    ("two policies", TWO, (votes(TWO, person(), person("rita", "risk"), person("rolf", "risk")),), {}),
    ("a vote for somebody else", DELEGATED, (votes(DELEGATED, person("ben", "x"), principal=person("rita")),), {}),
    ("approvers that were added", ESCALATED, (added, votes(ESCALATED, person("lea", "leads"))), {}),
    ("step-up", STEPPED, (votes(STEPPED, person(method="otp", authenticated_at=AT - timedelta(minutes=4))),), {}),
    ("step-up by two methods", STEPPED, (votes(STEPPED, person(method="pwd otp")),), {}),
    ("a vote cast anew", OLD, (lambda c: with_votes(c, vote(c, at=OPENED)), votes(OLD)), {}),
    ("in its window", OFFICE, (votes(OFFICE),), {}),
    ("after its minimum wait", WAITS, (lambda c: with_votes(c, vote(c, at=OPENED)),), {}),
    ("a waived gate", gated({**ACCURATE, **LEADS}), (waives("p/accuracy"),), NO_METRICS),
    ("a warning", gated({**ACCURATE, "level": "warn"}), (), NO_METRICS),
    ("a webhook", gated(HOOK), (answers("pass"),), {}),
    ("a waived webhook", gated({**HOOK, **LEADS}), (answers("fail"), waives("p/hook")), {}),
    ("a webhook somebody was asked about", ASKED, (answers("inconclusive"), waives("p/hook")), {}),
    ("a webhook that failed and may", gated({**HOOK, "level": "warn"}), (answers("error"),), {}),
    ("a webhook that said nothing and may", gated({**HOOK, "level": "warn"}), (), {}),
    ("a webhook that was too late and may", gated({**HOOK, "level": "warn"}), (), {"at": AT + 2 * HOUR}),
    ("an attestation that is missing and may", gated({**SCAN, "level": "warn"}), (), {}),
    (
        "an attestation",
        gated(SCAN),
        (),
        {"given": inputs(candidate={"attestations": [SCANNED]})},
    ),
    (
        "an unsafe artifact",
        gated(unsafe_artifact={"waivable_by": ["group:leads"]}),
        (waives("registry/unsafe-artifact"),),
        {"given": inputs(candidate={"unsafe": True})},
    ),
    ("a rollback", BACK, (), {"given": inputs(request={"kind": "rollback"})}),
    ("a version to return to", PLAIN, (votes(),), {"given": inputs(request={"fields": {"rollback_to": "1"}})}),
    ("a model with another name by now", PLAIN, (votes(),), {"given": inputs(model={"name": "fraud-detection"})}),
]


@pytest.mark.parametrize(("policies", "acts", "options"), [one[1:] for one in APPROVALS], ids=[a[0] for a in APPROVALS])
def test_approvals_hold(policies: InForce, acts: tuple[Act, ...], options: dict[str, Any]) -> None:
    found = judge(record(policies, *acts, **options), keys())
    assert found.ok, found.failed
    assert found.decision is not None
    assert found.decision.verdict is Verdict.APPROVED


def test_what_the_record_alone_cannot_tell_is_said() -> None:
    found = judge(record(gated(HOOK, {**SCAN, "level": "warn"}), answers("pass")), keys())
    assert text(found, "gate p/hook") == "not checkable: pass, taken from the record: a webhook cannot be asked again"
    assert text(found, "gate p/scan") == "ok: error, evaluated again"
    assert text(found, "other policies").startswith("not checkable")


def test_records_from_before_the_time_of_opening_was_in_them() -> None:
    undated = {"opened_at": None, "bound_at": None}
    waited = judge(record(WAITS, votes(WAITS), changes=undated), keys())
    assert waited.ok
    assert text(waited, "times") == "not checkable: when the request was opened is not in the record"
    assert text(waited, "minimum wait").startswith("not checkable: 1:00:00")
    late = record(gated({**SCAN, "level": "warn"}), at=AT + 2 * HOUR, changes=undated)
    assert text(judge(late, keys()), "gate p/scan").startswith("not checkable: error, taken from the record")


def test_what_nobody_answered_in_time_is_judged_by_the_time_it_was_asked() -> None:
    late = record(gated({**SCAN, "level": "warn"}), at=AT + 2 * HOUR)
    assert text(judge(late, keys()), "gate p/scan") == "ok: error, evaluated again"


def test_members_that_left_are_not_in_the_record_of_an_approval() -> None:
    """Who rejected and has left the groups since does not count; a record holds the votes that do."""
    policies = in_force(document("p", **asks(REVIEW, deny={"count": 2})))
    acts = (votes(policies), votes(policies, person("gone"), person("bo"), ballot=NO))
    members = {"gone": Member(frozenset())}.get
    made = record(policies, *acts, members=members)
    assert [one["voter"] for one in made["decision"]["votes"]] == ["ben", "bo"]
    assert judged(made) == []


def test_records_from_before_the_occupant_was_in_them() -> None:
    """Nothing is said of it, and the bytes that were signed stay good, whether or not the reader adds what is new."""
    old = {name: value for name, value in good()["decision"].items() if name != "baseline"}
    given = resigned({**good(), "decision": old})
    assert judged(given) == []
    read = RequestDecided.model_validate_json(json.dumps(given))
    assert read.decision.baseline is None
    assert judge(read, keys()).ok
    assert judged(changed(given, "baseline", 1)) == ["payload", "transition"]
