"""A service that signs what it must not: its signature is good, and what it says does not follow."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.policy.conftest import (
    AT,
    HOOK,
    HOUR,
    LEADS,
    OTHER,
    REVIEW,
    asks,
    document,
    glass,
    in_force,
    inputs,
    needs_at,
    person,
    vote,
    with_votes,
)
from tests.unit.policy.records import (
    ACCURATE,
    OFFICE,
    OLD,
    PLAIN,
    SCAN,
    STEPPED,
    TWO,
    Act,
    Record,
    added,
    answers,
    changed,
    failed,
    gated,
    judged,
    keys,
    record,
    resigned,
    text,
    votes,
    waives,
)

from contracts.approval import Choice, Verdict
from contracts.lifecycle import TransitionKind
from policy.case import Case
from policy.glass import broken
from policy.judge import judge
from policy.matching import InForce

SECOND = timedelta(seconds=1)


def lies(policies: InForce, *acts: Act, **options: Any) -> list[str]:
    """What fails when the key of the service signs this, verdict and all."""
    changes = {"verdict": Verdict.APPROVED, **options.pop("changes", {})}
    return judged(record(policies, *acts, changes=changes, **options))


def forged(**changes: Any) -> Act:
    return lambda case: with_votes(case, vote(case, **changes))


def seen(cases: list[Case]) -> Act:
    """Takes the case along as it is by then."""

    def act(case: Case) -> Case:
        cases.append(case)
        return case

    return act


def raw(*acts: Act, policies: InForce = PLAIN, **options: Any) -> Record:
    """With all votes as they are, whether or not they count."""
    made: list[Case] = []
    record(policies, *acts, seen(made), **options)
    return record(policies, *acts, changes={"verdict": Verdict.APPROVED, "votes": made[0].votes}, **options)


@pytest.mark.parametrize(
    ("policies", "acts", "options", "expected"),
    [
        (PLAIN, (), {}, ["quorum", "verdict"]),
        (TWO, (votes(TWO),), {}, ["quorum", "verdict"]),
        (PLAIN, (votes(),), {"given": inputs(candidate={"metrics": {"accuracy": 0.5}})}, ["verdict"]),
        (PLAIN, (votes(),), {"at": AT + 3 * 24 * HOUR, "expires_at": AT}, ["expiry", "verdict"]),
        (PLAIN, (votes(),), {"expires_at": AT}, ["expiry"]),
        (PLAIN, (votes(),), {"expires_at": AT + timedelta(days=9)}, ["expiry"]),
        (OFFICE, (votes(OFFICE),), {"at": AT + 2 * HOUR}, ["expiry", "schedule", "verdict"]),
        (OFFICE, (votes(OFFICE),), {"expires_at": AT + HOUR + SECOND}, ["expiry"]),
        (OLD, (votes(OLD),), {"expires_at": AT + HOUR + SECOND}, ["expiry"]),
        (in_force(document("p", request={"fields": {"ticket": {"required": True}}})), (), {}, ["verdict"]),
        (in_force(document("p", request={"evidence": ["card"]})), (), {}, ["verdict"]),
        (in_force(document("p", {"transition": {"to": "Staging"}})), (), {}, ["verdict"]),
        (gated(HOOK), (), {}, ["verdict"]),
        (gated(HOOK), (answers("fail"),), {}, ["verdict"]),
        (gated({**HOOK, **LEADS}), (answers("fail"),), {}, ["verdict"]),
        (gated(SCAN), (), {}, ["verdict"]),
    ],
)
def test_an_approval_that_does_not_follow(
    policies: InForce, acts: tuple[Act, ...], options: dict[str, Any], expected: list[str]
) -> None:
    assert lies(policies, *acts, **options) == expected


@pytest.mark.parametrize(
    ("act", "expected", "words"),
    [
        (forged(voter="ana"), ["vote of ana", "quorum", "verdict"], "ana asked for this"),
        (forged(voter="trainer"), ["vote of trainer", "quorum", "verdict"], "trainer registered"),
        (forged(email="TRAINER"), ["vote of ben", "quorum", "verdict"], "trainer registered"),
        (forged(groups=("others",)), ["vote of ben", "quorum", "verdict"], "asked are: reviewers"),
        (forged(groups=()), ["vote of ben", "quorum", "verdict"], "asked are: reviewers"),
        (forged(rule="p/other"), ["vote of ben", "quorum", "verdict"], "may not vote here"),
        (forged(request_digest=OTHER), ["vote of ben", "quorum", "verdict"], "not the request you saw"),
        (forged(on_behalf_of="rita"), ["vote of ben for rita", "quorum", "verdict"], "nobody vote for somebody else"),
        (forged(at=AT + HOUR), ["vote of ben", "verdict"], "dated after the decision"),
        (forged(meaning="whatever"), ["vote of ben"], "the rule means 'I reviewed it'"),
    ],
)
def test_votes_that_cannot_have_been_cast(act: Act, expected: list[str], words: str) -> None:
    found = judge(raw(act), keys())
    assert failed(found) == expected
    assert words in text(found, expected[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"authenticated_at": AT - HOUR, "auth_method": "otp"}, "sign in again"),
        ({"authenticated_at": None, "auth_method": "otp"}, "sign in again"),
        ({"auth_method": "password"}, "sign in by otp"),
    ],
)
def test_a_vote_without_step_up(changes: dict[str, Any], words: str) -> None:
    found = judge(record(STEPPED, forged(**changes)), keys())
    assert failed(found) == ["vote of ben"]
    assert words in text(found, "vote of ben")


def test_separation_of_duties_is_judged_again() -> None:
    duties = {"exclude": ["requester", "version.author", "version.committers", "policy.last_editor"]}
    policies = in_force(document("p", **asks(REVIEW, separation_of_duties=duties)))
    given = inputs(candidate={"lineage": {"committers": ["BEN@example.org"]}}, request={"policy_editors": ["eve"]})
    for who in (forged(email="ben@example.org"), forged(voter="eve")):
        assert judged(raw(who, policies=policies, given=given))[0].startswith("vote of ")


def test_a_person_who_votes_twice() -> None:
    policies = in_force(document("p", **asks({**REVIEW, "count": 2})))
    assert judged(raw(forged(), forged(), policies=policies)) == ["vote of ben", "quorum", "verdict"]
    again = forged(voter="bo", on_behalf_of="ben")
    assert judged(raw(forged(), again, policies=policies))[:1] == ["vote of bo for ben"]


def test_a_vote_that_was_too_old_does_not_count() -> None:
    found = judge(raw(forged(at=AT - 2 * HOUR, authenticated_at=AT - 2 * HOUR), policies=OLD), keys())
    assert failed(found) == ["quorum", "verdict"]
    assert text(found, "quorum") == "failed: p/review has 0 of 1; ben: the vote is older than the policy allows"


def test_an_approval_over_a_rejection() -> None:
    against = forged(voter="bo", choice=Choice.REJECT)
    assert judged(raw(votes(), against)) == ["denial", "verdict"]


def test_a_rejection_that_nobody_asked_for() -> None:
    assert judged(record(PLAIN, votes(), changes={"verdict": Verdict.REJECTED})) == ["verdict"]
    assert judged(record(PLAIN, changes={"verdict": Verdict.REJECTED})) == ["verdict"]


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ({"result": "pass"}, ["gate p/accuracy"]),
        ({"result": "waived"}, ["gate p/accuracy"]),
        ({"expression": "true"}, ["gate p/accuracy"]),
        ({"gate": "p/other"}, ["gates"]),
        ({"message": "of no account"}, ["gate p/accuracy"]),
    ],
)
def test_gates_that_say_something_else(gate: dict[str, Any], expected: list[str]) -> None:
    policies = gated({**ACCURATE, "level": "warn"})
    given = inputs(candidate={"metrics": {"accuracy": 0.5}})
    made = record(policies, given=given)
    said = [{**made["decision"]["gates"][0], **gate}]
    assert judged(resigned(changed(made, "gates", said))) == expected


def test_an_attestation_that_is_not_in_the_inputs() -> None:
    made = record(gated(SCAN), changes={"verdict": Verdict.APPROVED})
    said = [{**made["decision"]["gates"][0], "result": "pass"}]
    assert judged(resigned(changed(made, "gates", said))) == ["gate p/scan", "verdict"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"by": "ana"}, "ana asked for this"),
        ({"groups": ("others",)}, "none of the groups"),
        ({"request_digest": OTHER}, "another request"),
        ({"at": AT + HOUR}, "dated after"),
        ({"at": AT - 3 * HOUR}, "before the request rested on"),
    ],
)
def test_waivers_that_do_not_hold(changes: dict[str, Any], words: str) -> None:
    policies = gated({**ACCURATE, **LEADS})
    given = inputs(candidate={"metrics": {"accuracy": 0.5}})
    made = record(policies, waives("p/accuracy"), given=given)
    waived = [{**made["decision"]["waived"][0], **json.loads(json.dumps(changes, default=str))}]
    found = judge(resigned(changed(made, "waived", waived)), keys())
    name = f"waiver of p/accuracy by {changes.get('by', 'lea')}"
    assert name in failed(found)
    assert words in text(found, name)


def test_a_waiver_of_what_is_never_skipped() -> None:
    policies = gated({**ACCURATE, "never_skip": True})
    made = record(policies, given=inputs(candidate={"metrics": {"accuracy": 0.5}}))
    case = made["decision"]
    pardon = {"gate": "p/accuracy", "by": "lea", "groups": ["leads"], "reason": "x", "at": case["decided_at"],
              "auth_method": "token", "request_digest": case["request_digest"]}  # fmt: skip
    found = judge(resigned(changed(made, "waived", [pardon])), keys())
    assert text(found, "waiver of p/accuracy by lea") == "failed: nobody may waive it"
    lost = {**pardon, "gate": "p/none"}
    assert failed(judge(resigned(changed(made, "waived", [lost])), keys())) == ["waiver of p/none by lea"]


@pytest.mark.parametrize(
    "changes", [{"waivers": ("unsafe-artifact",)}, {"rollback_to": 7}], ids=["a waiver", "a version"]
)
def test_more_granted_than_was_asked_for(changes: dict[str, Any]) -> None:
    assert judged(record(PLAIN, votes(), changes=changes)) == ["grants"]


def test_approvers_that_no_policy_adds() -> None:
    made = record(PLAIN, added, votes(PLAIN, person("lea", "leads")))
    assert judged(made) == ["approvers added to p/review", "vote of lea"]


@pytest.mark.parametrize(
    "changes",
    [
        {"request_digest": OTHER},
        {"digest": OTHER},
        {"artifact_digest": OTHER},
        {"to_stage": "Archived"},
        {"from_stage": "Archived"},
        {"transition_id": "t-2"},
        {"workspace": "elsewhere"},
        {"version": 3},
        {"requested_by": "bo"},
        {"kind": TransitionKind.ROLLBACK},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_decision_for_another_transition(changes: dict[str, Any]) -> None:
    bound = next(iter(changes)) in (
        "request_digest",
        "digest",
        "artifact_digest",
        "to_stage",
        "from_stage",
        "transition_id",
    )
    found = judged(record(PLAIN, votes(), changes=changes))
    assert ("request" in found, "transition" in found) == (bound, "request_digest" not in changes)


def test_a_policy_that_is_not_about_the_request() -> None:
    """A lenient policy is named in the place of the strict one."""
    lenient = in_force(document("staging", {"transition": {"to": "Staging"}}))
    made = record(lenient, given=inputs(request={"to": "Staging"}))
    assert judged(made) == []
    given = inputs()
    forged = record(lenient, given=given, changes={"policies": tuple(ref for ref, _ in lenient)})
    forged = {**forged, "documents": {ref.digest: policy.text for ref, policy in lenient}}
    assert "match" in judged(forged)


# -- emergencies --------------------------------------------------------------------------------------------------

BREAK: dict[str, Any] = {
    "allowed": ["group:oncall"],
    "skips": ["approvals", "schedule"],
    "page": ["group:risk"],
    "review": {"from": ["group:risk"], "within": "2d"},
}
URGENT = in_force(document("p", gates=[ACCURATE], **asks(REVIEW), break_glass=BREAK))


def breaks(policies: InForce = URGENT, **changes: Any) -> Act:
    def act(case: Case) -> Case:
        needs = needs_at(policies, dict(case.inputs))
        made = broken(needs, person("olga", "oncall"), "production is down", AT, case.request_digest)
        return replace(case, glass=made.model_copy(update=changes))  # type: ignore[union-attr]

    return act


def test_an_emergency_holds() -> None:
    found = judge(record(URGENT, breaks()), keys())
    assert found.ok, found.failed
    assert text(found, "quorum") == "ok: skipped in an emergency"
    assert text(found, "schedule") == "ok: skipped in an emergency"
    assert text(found, "emergency") == "ok: olga might break the glass, without approvals, schedule"
    assert text(found, "emergency sign-in").startswith("not checkable")
    assert text(found, "verdict") == "ok: approved: emergency: olga broke the glass: production is down"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"groups": ("others",)}, "somebody of oncall may"),
        ({"skips": ("approvals", "gates", "schedule")}, "another skips"),
        ({"until": AT + 99 * HOUR}, "another until"),
        ({"review_by": AT + 99 * HOUR}, "another review_by"),
        ({"review": ("oncall",)}, "another review"),
        ({"review_count": 0}, "another review_count"),
        ({"page": ()}, "another page"),
        ({"at": AT + HOUR}, "it was on from"),
        ({"at": AT - 3 * HOUR}, "it began before the request rested on"),
        ({"reason": " "}, "say why"),
    ],
)
def test_emergencies_that_are_none(changes: dict[str, Any], words: str) -> None:
    found = judge(record(URGENT, breaks(**changes)), keys())
    assert "emergency" in failed(found)
    assert words in text(found, "emergency")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({"request_digest": OTHER}, ["emergency"]), ({"until": AT}, ["expiry", "emergency", "verdict"])],
)
def test_an_emergency_of_another_request_or_time(changes: dict[str, Any], expected: list[str]) -> None:
    made = record(URGENT, breaks())
    spoilt = {**made["decision"]["break_glass"], **json.loads(json.dumps(changes, default=str))}
    assert judged(resigned(changed(made, "break_glass", spoilt))) == expected


def test_a_decision_that_outlives_its_emergency() -> None:
    assert judged(record(URGENT, breaks(), expires_at=AT + 4 * HOUR)) == []
    found = judge(record(URGENT, breaks(), expires_at=AT + 4 * HOUR + SECOND), keys())
    assert failed(found) == ["expiry"]
    assert text(found, "expiry").endswith(f"it outlives what it rests on, which ends at {(AT + 4 * HOUR).isoformat()}")


def test_an_emergency_that_no_policy_knows() -> None:
    made = record(PLAIN, lambda case: replace(case, glass=glass(case)))
    assert judged(made) == ["emergency"]


def test_an_emergency_skips_no_gate_that_is_never_skipped() -> None:
    policies = in_force(
        document("p", gates=[{**ACCURATE, "never_skip": True}], break_glass={**BREAK, "skips": ["approvals", "gates"]})
    )
    made: list[Case] = []
    act = breaks(policies)
    given = inputs(candidate={"metrics": {"accuracy": 0.5}})
    record(policies, act, seen(made), given=given)
    changes = {"verdict": Verdict.APPROVED, "reason": "emergency: x", "break_glass": made[0].glass}
    found = judge(record(policies, act, given=given, changes=changes), keys())
    assert failed(found) == ["expiry", "emergency", "verdict"]
    assert "not even an emergency skips p/accuracy" in text(found, "emergency")


@pytest.mark.parametrize(("there", "said"), [(1, 0), (1, 3), (None, 1)])
def test_another_version_to_compare_with(there: int | None, said: int) -> None:
    given = inputs(baseline={"version": there, "metrics": {"accuracy": 0.9}} if there else None)
    assert judged(record(PLAIN, votes(), given=given)) == []
    assert judged(record(PLAIN, votes(), given=given, changes={"baseline": said})) == ["transition"]
