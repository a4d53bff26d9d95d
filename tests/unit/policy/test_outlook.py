"""Where a request stands: gates before people, people before time, and what passes over which of them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.policy.conftest import (
    AT,
    HOUR,
    NO,
    OPENED,
    OTHER,
    REVIEW,
    RISK,
    answer,
    asks,
    case_of,
    cast,
    document,
    glass,
    in_force,
    inputs,
    needs_at,
    person,
    stands,
    vote,
    waiver,
    with_votes,
)

from contracts.approval import Choice, Verdict
from policy.outlook import Outlook, gates_of, may_waive, unskippable
from policy.people import Case, Member

SOON = [{"tz": "UTC", "from": "14:00", "to": "16:00"}]
NOW = [{"tz": "UTC", "from": "11:00", "to": "13:00"}]
GOOD, BAD = {"id": "good", "cel": "true"}, {"id": "bad", "cel": "false", "message": "too low"}
COMPARES = {"id": "compares", "cel": "candidate.metrics.auc >= baseline.metrics.auc"}
BROKEN = {"id": "broken", "cel": "candidate.metrics.none > 0.5"}
HOOK = {"id": "hook", "webhook": {"url": "https://checks.example.org/x", "secret": "checks"}, "timeout": "3h"}
SCAN = {"id": "scan", "attestation": {"type": "scan", "from": ["group:ci", "user:scanner"]}, "timeout": "3h"}
LEADS = {"waivable_by": ["group:leads"]}


def policy(*gates: dict[str, Any], rules: tuple[dict[str, Any], ...] = (REVIEW,), **more: Any) -> str:
    return document("p", gates=list(gates), **asks(*rules), **more)


def told(found: Outlook) -> tuple[str, str]:
    return (str(found.verdict) if found.verdict else found.phase), found.reason


def approved(case: Case | None = None) -> Case:
    """With the vote of Ben."""
    case = case or case_of()
    return with_votes(case, vote(case))


# -- the order ----------------------------------------------------------------------------------------------------


def test_no_policy_refuses() -> None:
    other = document("p", {"transition": {"to": "Staging"}})
    assert told(stands(case_of(), other)) == ("rejected", "no policy allows a promotion from Staging to Production")
    assert told(stands(case_of())) == ("rejected", "no policy allows a promotion from Staging to Production")


def test_only_doubt_refuses() -> None:
    doubtful = document("p", {"transition": {}, "when": 'model.tags.risk == "high"'})
    verdict, reason = told(stands(case_of(), doubtful))
    assert verdict == "rejected"
    assert "cannot tell whether this policy applies" in reason
    assert told(stands(case_of(), doubtful, document("sure"))) == ("approved", "no approval is asked for")


def test_the_order() -> None:
    """Each waits for the one before it."""
    text = policy({**BAD, **LEADS}, request={"evidence": ["card"]}, schedule={"windows": SOON})
    case = case_of()
    assert told(stands(case, text))[0] == "gates"
    case = case_of(inputs(candidate={"evidence": {"card": {}}}))
    assert told(stands(case, text)) == ("gates", "p/bad is fail: somebody of leads may waive it")
    case = replace(case, waivers=(waiver(case, "p/bad"),))
    assert told(stands(case, text)) == ("people", "p/review: 0 of 1")
    case = approved(case)
    assert told(stands(case, text, settle=timedelta(seconds=1)))[0] == "settling"
    assert told(stands(case, text)) == ("schedule", "approved; to be carried out at 2026-01-14T14:00:00+00:00")
    assert told(stands(case, text, at=AT + 2 * HOUR)) == ("approved", "approved by ben")


def test_people_are_not_asked_while_a_gate_fails() -> None:
    """Nor do their votes help."""
    assert told(stands(approved(), policy(GOOD, BAD))) == ("rejected", "gates failed: p/bad: fail, too low")
    assert stands(approved(), policy({**BAD, **LEADS})).phase == "gates"


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        (GOOD, "approved"),
        (BAD, "rejected"),
        ({**BAD, **LEADS}, "gates"),
        ({**BAD, "level": "warn"}, "approved"),
        ({**BAD, "never_skip": True}, "rejected"),
        ({**BAD, "asks": ["group:leads"]}, "rejected"),  # they are asked about what is not certain only
        (COMPARES, "rejected"),  # inconclusive, and nobody is asked
        ({**COMPARES, "asks": ["group:leads"]}, "gates"),
        ({**COMPARES, **LEADS}, "gates"),
        ({**COMPARES, "on_no_baseline": "pass"}, "approved"),
        ({**COMPARES, "on_no_baseline": "fail", "asks": ["group:leads"]}, "rejected"),
        ({**COMPARES, "level": "warn"}, "approved"),
        (BROKEN, "rejected"),
        ({**BROKEN, "on_error": "inconclusive"}, "rejected"),
        ({**BROKEN, "on_error": "inconclusive", "asks": ["group:leads"]}, "gates"),
        ({**BROKEN, **LEADS}, "gates"),
        (HOOK, "gates"),
        ({**HOOK, "level": "warn"}, "approved"),
        (SCAN, "gates"),
    ],
)
def test_what_a_gate_does(gate: dict[str, Any], expected: str) -> None:
    assert told(stands(approved(), policy(gate)))[0] == expected


def test_one_gate_that_fails_for_good_is_enough() -> None:
    """Nobody is asked to waive the others in vain."""
    verdict, reason = told(stands(case_of(), policy({**BAD, **LEADS}, {"id": "worse", "cel": "false"}, HOOK)))
    assert verdict == "rejected"
    assert reason == "gates failed: p/bad: fail, too low; p/worse: fail; p/hook: pending, asked; no answer yet"


def test_a_request_that_lacks_something_is_refused_at_once() -> None:
    text = policy(request={"fields": {"ticket": {"required": True}}})
    assert told(stands(approved(), text)) == ("rejected", "p: the field ticket is missing")


def test_a_rejection_comes_before_everything_that_waits() -> None:
    case = with_votes(approved(), vote(case_of(), "bo", choice=Choice.REJECT))
    text = policy({**BAD, **LEADS}, schedule={"windows": SOON})
    assert told(stands(case, text)) == ("rejected", "bo rejected: because")
    broken = replace(case, glass=glass(case, "approvals", "schedule", "gates"))
    assert told(stands(broken, text)) == ("rejected", "bo rejected: because")


def test_a_rejection_for_somebody_else_says_so() -> None:
    case = case_of()
    against = vote(case, "bo", choice=Choice.REJECT, on_behalf_of="rita")
    text = document("p", **asks(REVIEW, delegation={"allowed": True}))
    assert told(stands(with_votes(case, against), text)) == ("rejected", "bo for rita rejected: because")


def test_who_approved_are_those_who_count() -> None:
    text = document("p", **asks(REVIEW, deny={"count": 2}))
    case = case_of()
    votes = (
        vote(case, "gone"),
        vote(case, "ben"),
        vote(case, "old", request_digest=OTHER),
        vote(case, "bo", choice=Choice.REJECT),
    )
    members = {"gone": Member(frozenset())}.get
    assert told(stands(with_votes(case, *votes), text, members=members)) == ("approved", "approved by ben")


# -- waivers ------------------------------------------------------------------------------------------------------


def gate(given: dict[str, Any], *waivers: dict[str, Any], members: Any = None, **changes: Any) -> str:
    """What one gate says with these waivers of `p/<its id>`."""
    case = case_of(inputs(**changes))
    made = tuple(waiver(case, **{"gate": f"p/{given['id']}", **one}) for one in waivers)
    needs = needs_at(in_force(policy(given)), dict(case.inputs))
    found = gates_of(replace(case, waivers=made), needs, AT, members or (lambda _: None))
    return found[0].result


@pytest.mark.parametrize(
    ("given", "changes", "expected"),
    [
        ({**BAD, **LEADS}, {}, "waived"),
        ({**BAD, **LEADS}, {"groups": ("others",)}, "fail"),
        ({**BAD, **LEADS}, {"request_digest": OTHER}, "fail"),
        ({**BAD, **LEADS}, {"gate": "p/other"}, "fail"),
        ({**BAD, **LEADS}, {"by": "ana"}, "fail"),
        ({**BAD, **LEADS}, {"by": "trainer"}, "fail"),
        (BAD, {}, "fail"),
        ({**BAD, "never_skip": True}, {}, "fail"),
        ({**BAD, **LEADS, "level": "warn"}, {}, "fail"),  # it blocks nobody
        ({**GOOD, **LEADS}, {}, "pass"),
        ({**HOOK, **LEADS}, {}, "pending"),  # wait for what it says
        ({**BROKEN, **LEADS}, {}, "waived"),
        ({**COMPARES, **LEADS}, {}, "waived"),
        ({**COMPARES, "asks": ["group:leads"]}, {}, "waived"),
        ({**COMPARES, "asks": ["group:risk"]}, {}, "inconclusive"),
        ({**COMPARES, "asks": ["group:risk"], **LEADS}, {}, "waived"),
    ],
)
def test_waivers(given: dict[str, Any], changes: dict[str, Any], expected: str) -> None:
    assert gate(given, changes) == expected


def test_a_waiver_says_who_and_why() -> None:
    case = case_of()
    case = replace(case, waivers=(waiver(case, "p/bad"),))
    (said,) = stands(case, policy({**BAD, **LEADS})).gates
    assert said.message == "fail; waived by lea: known and harmless; too low"


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (Member(frozenset({"leads"})), "waived"),
        (Member(frozenset()), "fail"),
        (Member(frozenset({"leads"}), person=False), "fail"),
        (None, "waived"),
    ],
)
def test_who_waived_is_checked_again(member: Member | None, expected: str) -> None:
    assert gate({**BAD, **LEADS}, {}, members=lambda _: member) == expected


def test_an_unsafe_artifact_needs_a_waiver_of_its_own() -> None:
    given = inputs(candidate={"unsafe": True})
    text = policy(rules=(), unsafe_artifact={"waivable_by": ["group:leads"]})
    case = case_of(given)
    assert told(stands(case, text))[0] == "gates"
    assert told(stands(case_of(given), policy(rules=())))[0] == "rejected"
    found = stands(replace(case, waivers=(waiver(case, "registry/unsafe-artifact"),)), text)
    assert found.verdict is Verdict.APPROVED
    assert found.waivers == ("unsafe-artifact",)
    assert stands(case_of(), text).waivers == ()


def test_one_person_of_every_group_waives_an_unsafe_artifact() -> None:
    a, b = (document(name, unsafe_artifact={"waivable_by": [f"group:{name}"]}) for name in ("a", "b"))
    case = case_of(inputs(candidate={"unsafe": True}))
    apart = (
        waiver(case, "registry/unsafe-artifact", "x", "a"),
        waiver(case, "registry/unsafe-artifact", "y", "b"),
    )
    assert stands(replace(case, waivers=apart), a, b).phase == "gates"
    both = (waiver(case, "registry/unsafe-artifact", "z", "a", "b"),)
    assert stands(replace(case, waivers=both), a, b).verdict is Verdict.APPROVED


def test_may_waive() -> None:
    (found,) = needs_at(in_force(policy({**BAD, "never_skip": True}))).gates
    assert not may_waive(found, "fail", frozenset({"leads"}))


# -- external checks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "more", "expected"),
    [
        ("pass", {}, "pass"),
        ("fail", {}, "fail"),
        ("inconclusive", {}, "inconclusive"),
        ("error", {}, "error"),
        ("error", {"on_error": "inconclusive"}, "inconclusive"),
    ],
)
def test_what_a_webhook_answers(result: str, more: dict[str, Any], expected: str) -> None:
    case = case_of()
    case = replace(case, answers=(answer(case, "p/hook", "fail"), answer(case, "p/hook", result, "seen")))
    (said,) = stands(case, policy({**HOOK, **more})).gates
    assert (said.result, said.message, said.expression) == (expected, "seen", "webhook https://checks.example.org/x")


def test_an_answer_about_another_request_is_none() -> None:
    case = case_of()
    given = (answer(case, "p/hook", "pass", digest=OTHER), answer(case, "p/other", "pass"))
    assert stands(replace(case, answers=given), policy(HOOK)).gates[0].result == "pending"


@pytest.mark.parametrize("external", [HOOK, SCAN])
@pytest.mark.parametrize(("on_error", "expected"), [("fail", "error"), ("inconclusive", "inconclusive")])
def test_a_check_that_does_not_answer(external: dict[str, Any], on_error: str, expected: str) -> None:
    text = policy({**external, "on_error": on_error, "asks": ["group:leads"]})
    end = OPENED + 3 * HOUR
    waits = stands(case_of(), text, at=end - timedelta(microseconds=1))
    assert (waits.phase, waits.next_at, waits.gates[0].result) == ("gates", end, "pending")
    late = stands(case_of(), text, at=end)
    assert (late.gates[0].result, late.gates[0].message) == (expected, "no answer within 3:00:00")
    assert told(late)[0] == ("rejected" if expected == "error" else "gates")


def test_the_time_to_answer_begins_anew_with_another_digest() -> None:
    case = replace(case_of(), bound_at=AT)
    assert stands(case, policy(HOOK)).next_at == AT + 3 * HOUR


def test_the_time_to_answer_runs_while_evidence_is_missing() -> None:
    found = stands(case_of(), policy(HOOK, request={"evidence": ["card"]}))
    assert found.reason == "evidence is missing: card; p/hook has not answered"
    assert found.next_at == OPENED + 3 * HOUR


@pytest.mark.parametrize(
    ("posted", "expected"),
    [
        ([], "pending"),
        ([{"posted_by": "scanner"}], "pass"),
        ([{"groups": ["ci"]}], "pass"),
        ([{"groups": ["others"]}], "pending"),
        ([{"groups": ["scanner"]}], "pending"),
        ([{"posted_by": "ci"}], "pending"),
        ([{"posted_by": "scanner", "type": "other"}], "pending"),
        ([{"posted_by": "scanner", "result": "fail"}], "fail"),
        ([{"posted_by": "scanner", "result": "fail"}, {"posted_by": "scanner"}], "pass"),  # the latest counts
        ([{"posted_by": "scanner"}, {"posted_by": "scanner", "result": "inconclusive"}], "inconclusive"),
        ([{"posted_by": "scanner", "result": "fail"}, {"posted_by": "mallory"}], "fail"),
    ],
)
def test_attestations(posted: list[dict[str, Any]], expected: str) -> None:
    usual: dict[str, Any] = {
        "type": "scan",
        "posted_by": "somebody",
        "groups": [],
        "title": "a scan",
        "digest": None,
        "result": "pass",
    }
    given = inputs(candidate={"attestations": [{**usual, **one} for one in posted]})
    (said,) = stands(case_of(given), policy(SCAN)).gates
    assert (said.result, said.expression) == (expected, "attestation scan")


def test_an_attestation_names_its_file() -> None:
    one = {"type": "scan", "posted_by": "scanner", "groups": [], "title": "a scan", "result": "pass"}
    given = inputs(candidate={"attestations": [{**one, "digest": f"sha256:{'ab' * 32}"}]})
    assert stands(case_of(given), policy(SCAN)).gates[0].message == "scanner: a scan (sha256 abababababab)"


# -- time ---------------------------------------------------------------------------------------------------------


def test_settling_waits_from_the_last_vote() -> None:
    found = stands(approved(), policy(), settle=timedelta(seconds=2))
    assert (found.phase, found.next_at) == ("settling", AT + timedelta(seconds=2))
    assert stands(approved(), policy(), at=AT + timedelta(seconds=2), settle=timedelta(seconds=2)).verdict is not None
    assert stands(case_of(), policy(rules=()), settle=HOUR).verdict is Verdict.APPROVED  # nobody is asked


def test_the_minimum_wait_counts_from_the_opening() -> None:
    text = policy(schedule={"min_wait": "3h"})
    assert stands(approved(), text).next_at == OPENED + 3 * HOUR
    assert stands(approved(), text, at=OPENED + 3 * HOUR).verdict is Verdict.APPROVED


@pytest.mark.parametrize(
    ("schedule", "opens"),
    [
        ({}, None),
        ({"windows": NOW}, None),
        ({"windows": SOON}, AT + 2 * HOUR),
        ({"windows": NOW, "min_wait": "4h"}, AT + 23 * HOUR),  # the wait ends after today's window
        (
            {"freezes": [{"name": "f", "tz": "UTC", "from": "2026-01-14", "to": "2026-01-20"}]},
            AT.replace(day=21, hour=0),
        ),
    ],
)
def test_windows_and_freezes(schedule: dict[str, Any], opens: Any) -> None:
    found = stands(approved(), policy(schedule=schedule))
    assert (found.phase, found.next_at) == (("decided", None) if opens is None else ("schedule", opens))


def test_a_window_that_never_opens() -> None:
    freeze = {"name": "for good", "tz": "UTC", "from": "2026-01-01", "to": "2099-01-01"}
    found = stands(approved(), policy(schedule={"freezes": [freeze]}))
    assert (found.phase, found.next_at) == ("schedule", None)
    assert "never" in found.reason


def test_the_windows_of_every_policy_must_be_open() -> None:
    a = document("a", schedule={"windows": [{"tz": "UTC", "from": "11:00", "to": "15:00"}]})
    b = document("b", schedule={"windows": [{"tz": "UTC", "from": "14:00", "to": "18:00"}]})
    assert stands(case_of(), a, b).next_at == AT + 2 * HOUR


def test_a_vote_may_grow_too_old_before_the_window_opens() -> None:
    text = document("p", **asks(REVIEW, valid_for="1h"), schedule={"windows": SOON})
    assert stands(approved(), text).phase == "schedule"
    assert told(stands(approved(), text, at=AT + 2 * HOUR)) == ("people", "p/review: 0 of 1")


# -- a frozen model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "held"), [("promotion", True), ("alias", True), ("rollback", False)])
def test_a_freeze_holds_what_goes_forward(kind: str, held: bool) -> None:
    case = case_of(inputs(request={"kind": kind}))
    text = document("p", {"transition": {"kind": "any"}})
    found = stands(case, text, frozen="a review is overdue")
    assert told(found)[0] == ("frozen" if held else "approved")


def test_a_freeze_holds_an_emergency_too() -> None:
    case = case_of()
    broken = replace(case, glass=glass(case))
    assert stands(broken, policy()).verdict is Verdict.APPROVED
    assert told(stands(broken, policy(), frozen="a review is overdue")) == ("frozen", "a review is overdue")


def test_what_fails_fails_though_the_model_is_frozen() -> None:
    assert stands(approved(), policy(BAD), frozen="a review is overdue").verdict is Verdict.REJECTED


# -- break-glass --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skips", "text", "passes"),
    [
        (("approvals",), policy(), True),
        (("schedule",), policy(), False),
        (("schedule",), policy(rules=(), schedule={"windows": SOON}), True),
        (("approvals",), policy(schedule={"windows": SOON}), False),
        (("approvals",), policy(schedule={"min_wait": "3h"}), False),
        (("approvals", "schedule"), policy(schedule={"windows": SOON, "min_wait": "9h"}), True),
        (("approvals", "schedule"), policy({**BAD, **LEADS}), False),
        (("approvals", "schedule"), policy(HOOK), False),
        (("approvals", "schedule"), policy(request={"evidence": ["card"]}), False),
        (("approvals", "gates"), policy(BAD, BROKEN, HOOK, request={"evidence": ["card"]}), True),
        (("gates",), policy(BAD), False),
        (("approvals", "gates"), policy({**BAD, "never_skip": True}), False),
        (("approvals", "gates"), policy({**SCAN, "never_skip": True}), False),
        (("approvals", "gates"), policy({**GOOD, "never_skip": True}), True),
        (("approvals", "gates"), policy(request={"fields": {"ticket": {"required": True}}}), False),
    ],
)
def test_an_emergency_skips_what_it_names(skips: tuple[str, ...], text: str, passes: bool) -> None:
    case = case_of()
    found = stands(replace(case, glass=glass(case, *skips)), text)
    assert (found.verdict is Verdict.APPROVED) is passes, found.reason
    if passes:
        assert found.reason == "emergency: olga broke the glass: production is down"


def test_an_emergency_never_skips_an_unsafe_artifact() -> None:
    case = case_of(inputs(candidate={"unsafe": True}))
    text = policy(unsafe_artifact={"waivable_by": ["group:leads"]})
    broken = replace(case, glass=glass(case, "approvals", "gates"))
    assert stands(broken, text).phase == "gates"
    assert stands(replace(broken, waivers=(waiver(case, "registry/unsafe-artifact"),)), text).verdict is not None


@pytest.mark.parametrize(
    "changes", [{"request_digest": OTHER}, {"until": AT}, {"until": AT - HOUR}], ids=["another", "now", "over"]
)
def test_an_emergency_is_for_one_request_and_a_time(changes: dict[str, Any]) -> None:
    case = case_of()
    assert stands(replace(case, glass=glass(case, **changes)), policy()).phase == "people"


def test_votes_in_an_emergency_are_checked_again_too() -> None:
    case = approved()
    broken = replace(case, glass=glass(case, "schedule"))
    text = policy(schedule={"windows": SOON})
    assert stands(broken, text).verdict is Verdict.APPROVED
    assert told(stands(broken, text, members={"ben": Member(frozenset())}.get)) == ("people", "p/review: 0 of 1")


def test_what_no_emergency_skips() -> None:
    text = policy({**BAD, "never_skip": True}, {**GOOD, "never_skip": True}, {"id": "other", "cel": "false"})
    needs = needs_at(in_force(text))
    assert [one.gate for one in unskippable(needs, gates_of(case_of(), needs, AT))] == ["p/bad"]


# -- the rest -----------------------------------------------------------------------------------------------------


def test_quorum_of_several_rules() -> None:
    text = policy(rules=(REVIEW, {**RISK, "count": 2}))
    needs, case = needs_at(in_force(text)), case_of()
    assert stands(case, text).reason == "p/review: 0 of 1; p/risk: 0 of 2"
    for who, group in (("ben", "reviewers"), ("rita", "risk")):
        case = cast(case, needs, person(who, group))
        assert stands(case, text).phase == "people"
    case = cast(case, needs, person("rolf", "risk"))
    assert told(stands(case, text)) == ("approved", "approved by ben, rita, rolf")
    assert stands(cast(case, needs, person("ruth", "risk"), NO), text).verdict is Verdict.REJECTED


def test_a_reason_fits_into_its_event() -> None:
    case = case_of()
    against = vote(case, "bo", choice=Choice.REJECT, comment="x" * 10_000)
    assert len(stands(with_votes(case, against), policy()).reason) == 9_000
