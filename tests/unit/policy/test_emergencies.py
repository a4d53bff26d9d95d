"""Break-glass, and models that are frozen because nobody looked at one in time."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.unit.policy.conftest import (
    AT,
    BAD,
    BROKEN,
    GOOD,
    HOOK,
    HOUR,
    LEADS,
    OPENED,
    OTHER,
    REVIEW,
    SCAN,
    SOON,
    asks,
    case_of,
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

from contracts.approval import BreakGlass, Verdict
from policy.case import Case, Member, Person, Refusal
from policy.glass import broken
from policy.outlook import gates_of, unskippable


def approved(case: Case | None = None) -> Case:
    """With the vote of Ben."""
    case = case or case_of()
    return with_votes(case, vote(case))


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


@pytest.mark.parametrize("until", [AT, AT - HOUR])
def test_an_emergency_is_for_a_time(until: datetime) -> None:
    case = case_of()
    found = stands(replace(case, glass=glass(case, until=until)), policy())
    assert (found.phase, found.next_at) == ("people", None)


@pytest.mark.parametrize(
    ("text", "until", "expected"),
    [
        (policy(schedule={"min_wait": "3h"}), AT + 4 * HOUR, OPENED + 3 * HOUR),
        (policy(schedule={"min_wait": "3h"}), AT + HOUR / 2, AT + HOUR / 2),
        (policy(schedule={"windows": SOON}), AT + 4 * HOUR, AT + 2 * HOUR),
        (policy(HOOK), AT + 4 * HOUR, OPENED + 3 * HOUR),
        (policy({**BAD, **LEADS}), AT + 4 * HOUR, AT + 4 * HOUR),
        # It waits for the window with the others, who do not wait for people.
        (policy(rules=(), schedule={"windows": SOON}), AT + HOUR, AT + HOUR),
    ],
)
def test_when_time_may_change_what_an_emergency_waits_for(text: str, until: datetime, expected: datetime) -> None:
    case = case_of()
    found = stands(replace(case, glass=glass(case, "approvals", until=until)), text)
    assert (found.verdict, found.next_at) == (None, expected)


def test_an_emergency_that_waited() -> None:
    case = case_of()
    broken = replace(case, glass=glass(case, "approvals"))
    text = policy(schedule={"min_wait": "3h"})
    found = stands(broken, text)
    assert found.next_at is not None
    assert stands(broken, text, at=found.next_at - timedelta(microseconds=1)).verdict is None
    assert stands(broken, text, at=found.next_at).emergency


@pytest.mark.parametrize(
    ("known", "stays"),
    [
        (Member(frozenset(), breaking=frozenset({"oncall", "staff"})), True),
        (Member(frozenset({"oncall", "staff"})), False),
        (Member(frozenset(), breaking=frozenset({"oncall"})), False),
        (Member(frozenset(), person=False, breaking=frozenset({"oncall", "staff"})), False),
    ],
    ids=["no approver", "no role", "one group", "no person"],
)
def test_who_broke_the_glass_is_checked_again(known: Member, stays: bool) -> None:
    case = case_of()
    broken = replace(case, glass=glass(case, "approvals"))
    text = policy(break_glass={**BREAK, "allowed": ["group:oncall"]})
    other = document("q", break_glass={**BREAK, "allowed": ["group:staff"]})
    found = stands(broken, text, other, members={"olga": known}.get)
    assert (found.emergency, found.phase) == ((True, "decided") if stays else (False, "people"))


def test_votes_in_an_emergency_are_checked_again_too() -> None:
    case = approved()
    broken = replace(case, glass=glass(case, "schedule"))
    text = policy(schedule={"windows": SOON})
    assert stands(broken, text).verdict is Verdict.APPROVED
    assert told(stands(broken, text, members={"ben": Member(frozenset())}.get)) == ("people", "p/review: 0 of 1")


@pytest.mark.parametrize(
    ("gates", "skips", "expected"),
    [
        ([BAD], ["approvals", "gates"], "gates"),
        ([BROKEN], ["gates"], "gates"),
        ([BAD], ["approvals", "schedule"], "rejected"),
        ([{**BAD, "never_skip": True}], ["gates"], "rejected"),
        ([BAD, {**BROKEN, "never_skip": True}], ["gates"], "rejected"),
        ([BAD, {**GOOD, "never_skip": True}], ["gates"], "gates"),
    ],
)
def test_what_an_emergency_could_skip_is_not_rejected(gates: list[Any], skips: list[str], expected: str) -> None:
    """Else nobody could ever break the glass: the request would be over before."""
    text = policy(*gates, break_glass={**BREAK, "skips": skips})
    found = stands(approved(), text)
    assert told(found)[0] == expected
    if expected == "gates":
        assert found.reason.endswith("only an emergency may skip it")
        case = approved()
        assert stands(replace(case, glass=glass(case, *skips)), text).verdict is Verdict.APPROVED


def test_people_are_not_asked_while_only_an_emergency_helps() -> None:
    found = stands(case_of(), policy(BAD, break_glass={**BREAK, "skips": ["gates"]}))
    assert told(found) == ("gates", "p/bad is fail, too low: only an emergency may skip it")


def test_an_emergency_that_not_every_policy_knows_holds_nothing_open() -> None:
    own = policy(BAD, break_glass={**BREAK, "skips": ["gates"]})
    assert told(stands(approved(), own, document("other")))[0] == "rejected"


def test_what_no_emergency_skips() -> None:
    text = policy({**BAD, "never_skip": True}, {**GOOD, "never_skip": True}, {"id": "other", "cel": "false"})
    needs = needs_at(in_force(text))
    assert [one.gate for one in unskippable(needs, gates_of(case_of(), needs, AT))] == ["p/bad"]


# -- who may break the glass --------------------------------------------------------------------------------------

BREAK: dict[str, Any] = {
    "allowed": ["group:oncall"],
    "reason": {"min_length": 10},
    "reauthenticate_within": "5m",
    "page": ["service:pager", "group:risk"],
    "grants_for": "1h",
    "review": {"from": ["group:risk"], "count": 2, "within": "2d"},
}
WHY = "production is down"
OTP = {"methods": ["otp"]}


def attempt(who: Person, reason: str = WHY, **more: Any) -> BreakGlass | Refusal:
    signature = {"signature": more.pop("signature", {})}
    needs = needs_at(in_force(document("p", break_glass={**BREAK, **more}, **asks(REVIEW, **signature))))
    return broken(needs, who, reason, AT, OTHER)


def test_breaking_the_glass() -> None:
    assert attempt(person("olga", "oncall", "x", method="otp")) == BreakGlass(
        by="olga",
        groups=("oncall", "x"),
        reason=WHY,
        at=AT,
        auth_method="otp",
        request_digest=OTHER,
        skips=("approvals", "schedule"),
        page=("service:pager", "group:risk"),
        until=AT + HOUR,
        review=("risk",),
        review_count=2,
        review_by=AT + timedelta(days=2),
    )


@pytest.mark.parametrize(
    ("who", "reason", "more", "code"),
    [
        (person("olga", "oncall", person=False), WHY, {}, "service-account"),
        (person("olga", "others"), WHY, {}, "not-entitled"),
        (person("olga", "oncall"), "short", {}, "reason-required"),
        (person("olga", "oncall"), "short" + " " * 20, {}, "reason-required"),
        (person("olga", "oncall", authenticated_at=AT - timedelta(minutes=6)), WHY, {}, "authentication-too-old"),
        (person("olga", "oncall", authenticated_at=AT - timedelta(minutes=5)), WHY, {}, None),
        (person("olga", "oncall", authenticated_at=AT - HOUR), WHY, {"reauthenticate": False}, None),
        (person("olga", "oncall"), WHY, {"signature": OTP}, "authentication-too-weak"),
        (person("olga", "oncall", method="otp"), WHY, {"signature": OTP}, None),
        (person("ana", "oncall"), WHY, {}, None),  # who asked for it may: others review it
        (person("olga", "oncall", may_vote=False), WHY, {}, None),  # they need not be approvers
    ],
)
def test_who_may_break_the_glass(who: Person, reason: str, more: dict[str, Any], code: str | None) -> None:
    outcome = attempt(who, reason, **more)
    assert (outcome.code if isinstance(outcome, Refusal) else None) == code


def test_a_policy_that_knows_no_emergency() -> None:
    outcome = broken(needs_at(in_force(document("p"))), person("olga", "oncall"), WHY, AT, OTHER)
    assert isinstance(outcome, Refusal)
    assert outcome.code == "no-break-glass"
