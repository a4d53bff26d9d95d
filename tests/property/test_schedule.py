"""Schedules and business time against an oracle that knows nothing of offsets: it looks at the clock every minute."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.schedule import HORIZON, WEEKDAYS, BusinessHours, Schedule, add_business, next_open, open_until

MINUTE = timedelta(minutes=1)
LOOK = timedelta(days=2)
# Changes of the clock: by an hour, by half an hour (Lord Howe), at midnight (Cairo), and none at all.
CHANGES = [
    ("Europe/Berlin", "2026-03-29T01:00"),
    ("Europe/Berlin", "2026-10-25T01:00"),
    ("America/New_York", "2026-03-08T07:00"),
    ("America/New_York", "2026-11-01T06:00"),
    ("Australia/Lord_Howe", "2026-04-04T15:00"),
    ("Australia/Lord_Howe", "2026-10-03T15:30"),
    ("Africa/Cairo", "2026-04-23T22:00"),
    ("Africa/Cairo", "2026-10-29T21:00"),
    ("Asia/Kathmandu", "2025-12-31T18:15"),
]
ZONES = [*sorted({zone for zone, _ in CHANGES}), "UTC", "Pacific/Kiritimati"]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


CLOCK = st.builds("{:02}:{:02}".format, st.integers(0, 23) | st.integers(0, 4), st.integers(0, 59) | st.just(0))
DAYS = st.lists(
    st.sampled_from(WEEKDAYS) | st.builds("{}-{}".format, st.sampled_from(WEEKDAYS), st.sampled_from(WEEKDAYS)),
    min_size=1,
    max_size=3,
).map(",".join)
HOURS = st.fixed_dictionaries(
    {"from": CLOCK, "to": CLOCK | st.just("24:00")}, optional={"days": DAYS | st.just("Mon-Sun")}
).filter(lambda hours: hours["from"] != hours["to"])


@st.composite
def moments(draw: st.DrawFn) -> tuple[str, datetime]:
    """A time zone and an instant near a change of its clock."""
    zone, change = draw(st.sampled_from(CHANGES))
    return zone, instant(change) + draw(st.integers(-36 * 60, 36 * 60)) * MINUTE


@st.composite
def freezes(draw: st.DrawFn, near: datetime, zone: str) -> dict[str, str]:
    start, length = near + draw(st.integers(-1500, 1500)) * MINUTE, draw(st.integers(1, 2000)) * MINUTE
    form = draw(st.sampled_from(["days", "local", "offset"]))
    if form == "offset":
        since, until = (at.isoformat(timespec="minutes") for at in (start, start + length))
    else:
        # No clock leaps over two hours.
        walls = (start.replace(tzinfo=None), start.replace(tzinfo=None) + length + timedelta(hours=2))
        since, until = (
            wall.date().isoformat() if form == "days" else wall.isoformat(timespec="minutes") for wall in walls
        )
    return {"name": "freeze", "tz": zone, "from": since, "to": until}


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[dict[str, Any]], datetime]:
    """Schedules as written, and an instant, at a fraction of a minute too."""
    zone, at = draw(moments())
    zones = st.just(zone) | st.sampled_from(ZONES)
    windows = st.builds(lambda hours, tz: {**hours, "tz": tz}, HOURS, zones)
    schedules = st.fixed_dictionaries(
        {
            "windows": st.lists(windows, max_size=3),
            "freezes": st.lists(zones.flatmap(lambda tz: freezes(at, tz)), max_size=2),
        }
    )
    given_schedules = draw(st.lists(schedules, max_size=3))
    return given_schedules, at + draw(st.sampled_from([0, 0, 1, 59_999_999])) * timedelta.resolution


class Oracle:
    """What the documents say, minute by minute."""

    def __init__(self, schedules: Sequence[dict[str, Any]], near: datetime) -> None:
        self.schedules = schedules
        self.frozen = [_frozen(f, near) for s in schedules for f in s["freezes"]]

    def open(self, at: datetime) -> bool:
        return all(
            not schedule["windows"] or any(shows(hours, at) for hours in schedule["windows"])
            for schedule in self.schedules
        ) and not any(since <= at < until for since, until in self.frozen)


def shows(hours: dict[str, Any], at: datetime) -> bool:
    """Whether the clock on the wall shows one of these hours."""
    wall = at.astimezone(ZoneInfo(hours["tz"]))
    now, days = f"{wall.hour:02}:{wall.minute:02}", named(hours.get("days", "Mon-Sun"))
    today, yesterday = wall.weekday() in days, (wall.weekday() - 1) % 7 in days
    if hours["from"] < hours["to"]:
        return today and hours["from"] <= now < hours["to"]
    return (today and now >= hours["from"]) or (yesterday and now < hours["to"])


@cache
def named(text: str) -> frozenset[int]:
    found = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        day = WEEKDAYS.index(first)
        found.add(day)
        while last and WEEKDAYS[day] != last:
            day = (day + 1) % 7
            found.add(day)
    return frozenset(found)


def _frozen(freeze: dict[str, str], near: datetime) -> tuple[datetime, datetime]:
    """From the first minute at which the clock has reached `from` to the last at which it has not reached `to`."""
    start, end = (datetime.fromisoformat(freeze[name]) for name in ("from", "to"))
    if start.tzinfo is not None:
        return start, end
    if "T" not in freeze["to"]:
        end += timedelta(days=1)
    zone, since, until = ZoneInfo(freeze["tz"]), None, near
    for n in range(-3 * 24 * 60, 5 * 24 * 60):
        at = near + n * MINUTE
        wall = at.astimezone(zone).replace(tzinfo=None)
        if since is None and wall >= start:
            since = at
        if wall < end:
            until = at + MINUTE
    assert since is not None
    return since, until


@settings(max_examples=100)
@given(case=cases())
def test_the_next_open_instant_is_the_first(case: tuple[list[dict[str, Any]], datetime]) -> None:
    documents, at = case
    schedules = [Schedule.model_validate(document) for document in documents]
    found = next_open(schedules, at)
    minute = at.replace(second=0, microsecond=0)
    oracle = Oracle(documents, minute)
    if oracle.open(at):
        assert found == at
        return
    if found is not None:
        assert at < found < at + HORIZON
        assert oracle.open(found)
    while (minute := minute + MINUTE) < min(found or at + LOOK, at + LOOK):
        assert not oracle.open(minute)


@settings(max_examples=100)
@given(case=cases())
def test_it_is_open_until_the_first_minute_at_which_it_is_not(case: tuple[list[dict[str, Any]], datetime]) -> None:
    documents, at = case
    schedules = [Schedule.model_validate(document) for document in documents]
    found = open_until(schedules, at)
    minute = at.replace(second=0, microsecond=0)
    oracle = Oracle(documents, minute)
    assert (found == at) is not oracle.open(at)
    if found is not None:
        assert at <= found < at + HORIZON
        assert not oracle.open(found)
    while (minute := minute + MINUTE) < min(found or at + LOOK, at + LOOK):
        assert oracle.open(minute)


@settings(max_examples=100)
@given(case=cases(), minutes=st.lists(st.integers(0, 10_000), min_size=2, max_size=4).map(sorted))
def test_a_later_request_never_opens_earlier(case: tuple[list[dict[str, Any]], datetime], minutes: list[int]) -> None:
    documents, at = case
    schedules = [Schedule.model_validate(document) for document in documents]
    found = [next_open(schedules, at + n * MINUTE) for n in minutes]
    for one, two in pairwise(found):
        assert two is None or (one is not None and one <= two)
    for instant in found:
        assert instant is None or next_open(schedules, instant) == instant


@settings(max_examples=150)
@given(near=moments(), fields=HOURS, minutes=st.integers(0, 1500))
def test_business_time_is_counted_by_the_minute(
    near: tuple[str, datetime], fields: dict[str, Any], minutes: int
) -> None:
    zone, at = near
    given_hours = {"days": "Mon-Fri", **fields, "tz": zone}
    found = add_business(at, minutes * MINUTE, BusinessHours.model_validate(given_hours))
    minute, left = at, minutes
    while left and minute < at + LOOK:
        left -= shows(given_hours, minute)
        minute += MINUTE
    assert found == minute if left == 0 else found > minute


DELTAS = st.timedeltas(timedelta(0), timedelta(days=60)) | st.integers(0, 3000).map(lambda n: n * MINUTE)


@settings(max_examples=300)
@given(near=moments(), fields=HOURS, one=DELTAS, two=DELTAS)
def test_business_time_adds_up_and_never_goes_back(
    near: tuple[str, datetime], fields: dict[str, Any], one: timedelta, two: timedelta
) -> None:
    zone, at = near
    hours = BusinessHours.model_validate({**fields, "tz": zone})
    in_two_steps = add_business(add_business(at, one, hours), two, hours)
    # The horizon counts from where each step begins.
    limit = add_business(at, timedelta(days=999_999), hours)
    assert min(in_two_steps, limit) == add_business(at, one + two, hours)
    assert at + one <= add_business(at, one, hours) <= in_two_steps
    assert add_business(at, two, hours) <= add_business(at + one, two, hours)


@settings(max_examples=50)
@given(near=moments(), fields=HOURS, pieces=st.integers(2, 200))
def test_whole_weeks_are_skipped_as_if_walked(near: tuple[str, datetime], fields: dict[str, Any], pieces: int) -> None:
    zone, at = near
    hours = BusinessHours.model_validate({**fields, "tz": zone})
    walked = at
    for _ in range(pieces):
        walked = add_business(walked, hours.day() / 2, hours)
    assert walked == add_business(at, pieces * (hours.day() / 2), hours)
