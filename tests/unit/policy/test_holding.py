"""How long an approval holds: its votes, its emergency and the window that is open."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.unit.policy.conftest import (
    AT,
    HOUR,
    NOW,
    REVIEW,
    RISK,
    asks,
    case_of,
    document,
    glass,
    in_force,
    needs_at,
    vote,
    with_votes,
)

from policy.case import Case, Member
from policy.holding import holds_until

DAY = timedelta(days=1)
FREEZE = {"name": "f", "tz": "UTC", "from": "2026-01-14T12:30", "to": "2026-01-20"}


def cast(*ages: float, **more: Any) -> Case:
    """A case with approvals of people who voted that many hours ago."""
    case = case_of()
    return with_votes(case, *(vote(case, f"p{n}", at=AT - age * HOUR, **more) for n, age in enumerate(ages)))


def until(case: Case, *texts: str, **more: Any) -> datetime | None:
    return holds_until(case, needs_at(in_force(*texts)), AT, **more)


def test_nothing_ends_it() -> None:
    assert until(cast(2), document("p", **asks(REVIEW))) is None
    assert until(case_of(), document("p", **asks(valid_for="1d"))) is None


@pytest.mark.parametrize(
    ("count", "ages", "left"),
    [(1, (2,), 22), (2, (2, 20), 4), (2, (20, 2), 4), (1, (2, 20), 22), (2, (20, 2, 5), 19), (2, (2, 25, 3), 21)],
)
def test_it_ends_with_the_quorum(count: int, ages: tuple[float, ...], left: float) -> None:
    """The votes that the rule can do without may lapse; those that lapsed before never counted."""
    text = document("p", **asks({**REVIEW, "count": count}, valid_for="1d"))
    assert until(cast(*ages), text) == AT + left * HOUR


def test_it_ends_with_the_first_rule_that_is_short() -> None:
    case = case_of()
    votes = (vote(case, at=AT - 2 * HOUR), vote(case, "rita", "risk", rule="p/risk", at=AT - 9 * HOUR))
    assert until(with_votes(case, *votes), document("p", **asks(REVIEW, RISK, valid_for="1d"))) == AT + 15 * HOUR


def test_the_votes_of_people_who_have_left_hold_nothing() -> None:
    text = document("p", **asks(REVIEW, valid_for="1d"))
    assert until(cast(2, 20), text, members={"p0": Member(frozenset())}.get) == AT + 4 * HOUR


@pytest.mark.parametrize(("schedule", "left"), [({"windows": NOW}, 60), ({"windows": NOW, "freezes": [FREEZE]}, 30)])
def test_it_ends_with_the_window(schedule: dict[str, Any], left: int) -> None:
    assert until(cast(2), document("p", schedule=schedule, **asks(REVIEW))) == AT + timedelta(minutes=left)


@pytest.mark.parametrize(
    ("skips", "left"),
    [
        (("approvals", "schedule"), 4 * HOUR),
        (("approvals", "schedule", "gates"), 4 * HOUR),
        (("schedule",), 2 * HOUR),
        (("approvals",), HOUR),
        (("gates",), HOUR),
    ],
)
def test_it_ends_with_the_emergency_and_with_what_that_did_not_skip(skips: tuple[str, ...], left: timedelta) -> None:
    case = cast(22)
    text = document("p", schedule={"windows": NOW}, **asks(REVIEW, valid_for="1d"))
    assert until(case, text, glass=glass(case, *skips)) == AT + left
