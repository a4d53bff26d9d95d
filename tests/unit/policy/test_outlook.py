"""Where a request stands: gates before people, people before time, and what passes over which of them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.policy.conftest import (
    AT,
    BAD,
    BROKEN,
    COMPARES,
    GOOD,
    HOOK,
    HOUR,
    LEADS,
    NO,
    NOW,
    OPENED,
    OTHER,
    REVIEW,
    RISK,
    SCAN,
    SOON,
    asks,
    case_of,
    cast,
    document,
    glass,
    in_force,
    inputs,
    needs_at,
    person,
    policy,
    stands,
    told,
    vote,
    waiver,
    with_votes,
)

from contracts.approval import Choice, Verdict
from policy.case import Case, Member


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
    case = case_of(inputs(candidate={"evidence": {"card": {"url": "https://wiki.example/card"}}}))
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
        (COMPARES, "gates"),  # inconclusive: those of the rules are asked
        ({**COMPARES, "asks": []}, "rejected"),  # nobody is asked
        ({**COMPARES, "never_skip": True}, "rejected"),
        ({**COMPARES, "asks": ["group:leads"]}, "gates"),
        ({**COMPARES, **LEADS}, "gates"),
        ({**COMPARES, "on_no_baseline": "pass"}, "approved"),
        ({**COMPARES, "on_no_baseline": "fail", "asks": ["group:leads"]}, "rejected"),
        ({**COMPARES, "level": "warn"}, "approved"),
        (BROKEN, "rejected"),
        ({**BROKEN, "on_error": "inconclusive"}, "gates"),
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
    years = [{"name": f"{year}", "tz": "UTC", "from": f"{year}-01-01", "to": f"{year}-12-31"} for year in (2026, 2027)]
    found = stands(approved(), policy(schedule={"freezes": years}))
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
