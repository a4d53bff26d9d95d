"""Windows, freezes and business hours: what may be written, and what it means on the days when clocks change."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import TypeAdapter, ValidationError

from contracts.canonical import canonical_json
from policy.schedule import (
    BUSINESS_HORIZON,
    HORIZON,
    BusinessHours,
    Duration,
    Freeze,
    Schedule,
    Window,
    add_business,
    duration,
    next_open,
    open_until,
)

BERLIN = "Europe/Berlin"
OFFICE = {"tz": BERLIN, "days": "Mon-Thu", "from": "09:00", "to": "16:00"}
AS_DATE = 'write it as a date "2026-12-20" or a time "2026-12-20T18:00", in quotes'
YEAR_END = {"name": "year-end", "tz": BERLIN, "from": "2026-12-20", "to": "2027-01-06"}


def schedule(*windows: dict[str, Any], freezes: tuple[dict[str, Any], ...] = ()) -> Schedule:
    given = {"windows": list(windows), "freezes": list(freezes)}
    return Schedule.model_validate_json(canonical_json(given), strict=True)


def local(text: str, tz: str = BERLIN, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(tz), fold=fold)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def hours(**fields: str) -> BusinessHours:
    return BusinessHours.model_validate({name.removesuffix("_"): value for name, value in fields.items()})


def wrong(kind: type[Any], **fields: Any) -> str:
    """The one mistake of a document, as `field: message`."""
    given = canonical_json({name.removesuffix("_"): value for name, value in fields.items()})
    with pytest.raises(ValidationError) as caught:
        kind.model_validate_json(given, strict=True)
    (error,) = caught.value.errors()
    return f"{'.'.join(map(str, error['loc']))}: {error['msg'].removeprefix('Value error, ')}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1s", timedelta(seconds=1)),
        ("90m", timedelta(minutes=90)),
        ("72h", timedelta(days=3)),
        ("9999d", timedelta(days=9999)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, expected: timedelta) -> None:
    assert duration(TypeAdapter[str](Duration).validate_python(text)) == expected


@pytest.mark.parametrize("text", ["", "0s", "07m", "5", "m", "10000s", "1w", "-1h", "1.5h", "1 h", "1h\n", "\u0661h"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[str](Duration).validate_python(text)
    with pytest.raises(ValueError, match="write one such as 90m"):
        duration(text)


@pytest.mark.parametrize(
    ("days", "starting_on"),
    [
        (None, "Mon Tue Wed Thu Fri Sat Sun"),
        ("Mon-Fri", "Mon Tue Wed Thu Fri"),
        ("Mon,Wed", "Mon Wed"),
        ("Sat-Mon", "Mon Sat Sun"),
        ("Tue", "Tue"),
        ("Mon-Tue,Thu,Sat-Sun", "Mon Tue Thu Sat Sun"),
        ("Wed-Wed", "Wed"),
    ],
)
def test_days(days: str | None, starting_on: str) -> None:
    window = {"tz": "UTC", "from": "12:00", "to": "13:00"} | ({"days": days} if days else {})
    monday = utc("2026-06-01T12:30")
    opens = [at for n in range(7) if next_open([schedule(window)], at := monday + timedelta(days=n)) == at]
    assert " ".join(at.strftime("%a") for at in opens) == starting_on


def test_a_window_says_what_is_wrong_with_it() -> None:
    right = {"tz": BERLIN, "from_": "09:00", "to": "17:00"}
    assert Window.model_validate({"tz": BERLIN, "from": "09:00", "to": "17:00"}).days == "Mon-Sun"
    assert wrong(Window, **right | {"tz": "Mars/Base"}) == (
        "tz: 'Mars/Base' is no time zone of IANA; write one such as 'Europe/Berlin' or 'UTC'"
    )
    assert wrong(Window, **right | {"days": "Monday"}) == 'days: write it as "Mon-Fri" or "Mon,Wed"'
    # What YAML makes of 16:00 without quotes.
    assert wrong(Window, **right | {"to": 960}) == 'to: write it as hours and minutes in quotes, such as "17:00"'
    assert wrong(Window, **right | {"from_": "24:00"}).startswith("from: write it as hours and minutes")
    assert wrong(Window, **right | {"to": "09:00"}) == (
        ': from and to are equal; a whole day is from "00:00" to "24:00"'
    )
    assert wrong(Window, **right | {"starts": "09:00"}) == "starts: Extra inputs are not permitted"


@pytest.mark.parametrize(
    "tz",
    ["", "europe/berlin", "Europe", "../../etc/passwd", "/etc/localtime", "localtime", "right/UTC", "\0", "x" * 9999],
)
def test_only_names_of_iana_are_time_zones(tz: str) -> None:
    assert "is no time zone of IANA" in wrong(Window, tz=tz, from_="09:00", to="17:00")


@pytest.mark.parametrize("text", ["9:00", "09:60", "25:00", "24:01", "09:00:00", "0900", "09:00\n", "", "noon"])
def test_times_are_hours_and_minutes(text: str) -> None:
    assert wrong(Window, tz="UTC", from_="00:00", to=text).startswith("to: write it as hours and minutes")


@pytest.mark.parametrize(
    ("start", "end", "mistake"),
    [
        ("2026-12-20", "2026-12-19", ": from must be before to"),
        ("2026-12-20T10:00", "2026-12-20T10:00", ": from must be before to"),
        ("2026-12-20T10:00", "2026-12-20T10:00+02:00", ": from must be before to"),
        ("2026-03-29T02:10", "2026-03-29T02:50", ": from must be before to"),
        ("2026-02-30", "2026-12-20", "from: there is no 2026-02-30"),
        ("20261220", "2026-12-22", f"from: {AS_DATE}"),
        ("2026-W01-1", "2026-12-22", f"from: {AS_DATE}"),
        ("2026-12-20", 5, f"to: {AS_DATE}"),
        ("2026-12-20", "2026-12-22T24:00", f"to: {AS_DATE}"),
        ("1999-12-20", "2026-12-22", f"from: {AS_DATE}"),
    ],
)
def test_a_freeze_says_what_is_wrong_with_it(start: str, end: Any, mistake: str) -> None:
    assert wrong(Freeze, name="f", tz=BERLIN, from_=start, to=end) == mistake


def test_a_schedule_has_at_most_20_windows_and_100_freezes() -> None:
    assert wrong(Schedule, windows=[OFFICE] * 21).startswith("windows: Tuple should have at most 20 items")
    assert wrong(Schedule, freezes=[YEAR_END] * 101).startswith("freezes: Tuple should have at most 100 items")
    assert wrong(Schedule, min_wait="soon").startswith("min_wait: String should match pattern")


def test_the_json_schema_says_how_to_write_each_field() -> None:
    fields = Window.model_json_schema()["properties"]
    assert fields["from"]["type"] == "string"
    assert fields["from"]["pattern"] == "^(?:[01][0-9]|2[0-3]):[0-5][0-9]$"
    assert fields["days"]["default"] == "Mon-Sun"


def test_without_windows_and_freezes_it_is_always_open() -> None:
    at = local("2026-06-06T03:00")
    assert next_open([], at) is at
    assert next_open([Schedule()], at) is at


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-06-01T09:00:00", "2026-06-01T09:00:00"),
        ("2026-06-01T15:59:59.999999", "2026-06-01T15:59:59.999999"),
        ("2026-06-01T16:00:00", "2026-06-02T09:00:00"),
        ("2026-06-04T16:00:00", "2026-06-08T09:00:00"),
        ("2026-06-01T08:59:59.999999", "2026-06-01T09:00:00"),
        ("2026-12-17T16:00:00", "2027-01-07T09:00:00"),
    ],
)
def test_the_next_window_outside_the_freezes(at: str, expected: str) -> None:
    assert next_open([schedule(OFFICE, freezes=(YEAR_END,))], local(at)) == local(expected)


def test_a_window_over_midnight_belongs_to_the_day_it_starts() -> None:
    night = schedule({"tz": BERLIN, "days": "Fri", "from": "22:00", "to": "06:00"})
    saturday, sunday = local("2026-06-06T05:59"), local("2026-06-07T05:59")
    assert next_open([night], saturday) == saturday
    assert next_open([night], sunday) == local("2026-06-12T22:00")


def test_a_whole_day_ends_at_24() -> None:
    sunday = schedule({"tz": BERLIN, "days": "Sun", "from": "00:00", "to": "24:00"})
    last = local("2026-06-07T23:59:59")
    assert next_open([sunday], last) == last
    assert next_open([sunday], local("2026-06-08T00:00")) == local("2026-06-14T00:00")


def test_every_schedule_must_be_open() -> None:
    here = schedule(OFFICE)
    there = schedule({"tz": "America/New_York", "days": "Mon-Fri", "from": "09:00", "to": "17:00"})
    assert next_open([here, there], local("2026-06-01T10:00")) == local("2026-06-01T15:00")
    assert next_open([here, there], local("2026-06-01T15:30")) == local("2026-06-01T15:30")
    # Three weeks a year, New York is an hour nearer.
    assert next_open([there, here], local("2026-03-16T10:00")) == local("2026-03-16T14:00")


def test_hours_that_the_clock_leaps_over_do_not_happen() -> None:
    leapt = schedule({"tz": BERLIN, "days": "Sun", "from": "02:10", "to": "02:50"})
    part = schedule({"tz": BERLIN, "days": "Sun", "from": "02:30", "to": "03:30"})
    assert next_open([leapt], local("2026-03-29T00:00")) == local("2026-04-05T02:10")
    assert next_open([part], local("2026-03-29T00:00")) == utc("2026-03-29T01:00")
    assert next_open([part], utc("2026-03-29T01:30")) == local("2026-04-05T02:30")


def test_hours_that_the_clock_shows_twice_happen_twice() -> None:
    twice = schedule({"tz": BERLIN, "days": "Sun", "from": "02:10", "to": "02:50"})
    first, second = utc("2026-10-25T00:10"), utc("2026-10-25T01:10")
    assert next_open([twice], local("2026-10-25T00:00")) == first
    assert next_open([twice], first + timedelta(minutes=40)) == second
    assert next_open([twice], second + timedelta(minutes=40)) == local("2026-11-01T02:10")


@pytest.mark.parametrize(
    ("start", "end", "since", "until"),
    [
        ("2026-12-20", "2026-12-20", "2026-12-19T23:00", "2026-12-20T23:00"),
        ("2026-03-29", "2026-03-29", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("2026-10-25", "2026-10-25", "2026-10-24T22:00", "2026-10-25T23:00"),
        ("2026-12-20T18:00", "2026-12-21T06:00:30", "2026-12-20T17:00", "2026-12-21T05:00:30"),
        ("2026-12-20T18:00Z", "2026-12-20T18:00-05:00", "2026-12-20T18:00", "2026-12-20T23:00"),
        ("2026-12-20T18:00", "2026-12-21", "2026-12-20T17:00", "2026-12-21T23:00"),
        # As long as it can be: from the first 02:30 to the second.
        ("2026-10-25T02:30", "2026-10-25T02:30:01", "2026-10-25T00:30", "2026-10-25T01:30:01"),
        # From the leap, and to the leap.
        ("2026-03-29T02:30", "2026-03-29T04:00", "2026-03-29T01:00", "2026-03-29T02:00"),
        ("2026-03-29T01:00", "2026-03-29T02:30", "2026-03-29T00:00", "2026-03-29T01:00"),
    ],
)
def test_what_a_freeze_covers(start: str, end: str, since: str, until: str) -> None:
    freeze = {"name": "f", "tz": BERLIN, "from": start, "to": end}
    frozen = schedule(freezes=(freeze,))
    assert Freeze.model_validate(freeze).span() == (utc(since), utc(until))
    before = utc(since) - timedelta.resolution
    assert next_open([frozen], before) == before
    assert next_open([frozen], utc(since)) == utc(until)
    assert next_open([frozen], utc(until)) == utc(until)


def test_a_day_that_begins_with_a_leap_is_frozen_from_there() -> None:
    # In Cairo, 00:00 of that day did not happen.
    freeze = {"name": "f", "tz": "Africa/Cairo", "from": "2024-04-26", "to": "2024-04-26"}
    assert Freeze.model_validate(freeze).span() == (utc("2024-04-25T22:00"), utc("2024-04-26T21:00"))


def test_freezes_that_overlap_or_touch_are_one() -> None:
    def freeze(start: str, end: str) -> dict[str, Any]:
        return {"name": "f", "tz": "UTC", "from": start, "to": end}

    frozen = schedule(
        freezes=(
            freeze("2026-06-05", "2026-06-06"),
            freeze("2026-06-01", "2026-06-04"),
            freeze("2026-06-02", "2026-06-03"),
        )
    )
    assert next_open([frozen], utc("2026-06-01T12:00")) == utc("2026-06-07T00:00")


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-06-01T09:00:00", "2026-06-01T16:00:00"),
        ("2026-06-01T15:59:59.999999", "2026-06-01T16:00:00"),
        ("2026-06-01T16:00:00", "2026-06-01T16:00:00"),  # closed
        ("2026-12-17T12:00:00", "2026-12-17T16:00:00"),
    ],
)
def test_how_long_a_window_is_open(at: str, expected: str) -> None:
    assert open_until([schedule(OFFICE, freezes=(YEAR_END,))], local(at)) == local(expected)


def test_the_first_that_closes_counts() -> None:
    here = schedule(OFFICE)
    there = schedule({"tz": "America/New_York", "days": "Mon-Fri", "from": "09:00", "to": "17:00"})
    freeze = {"name": "f", "tz": BERLIN, "from": "2026-06-01T15:45", "to": "2026-06-02"}
    at = local("2026-06-01T15:30")
    assert open_until([here, there], at) == local("2026-06-01T16:00")
    assert open_until([there], at) == local("2026-06-01T23:00")
    assert open_until([there, schedule(freezes=(freeze,)), here], at) == local("2026-06-01T15:45")
    assert open_until([schedule(freezes=(YEAR_END,))], at) == local("2026-12-20T00:00")


def test_windows_that_overlap_or_touch_are_one() -> None:
    def window(start: str, end: str, **more: str) -> dict[str, Any]:
        return {"tz": "UTC", "from": start, "to": end, **more}

    at = utc("2026-06-01T12:30")
    day = schedule(window("14:00", "18:00"), window("12:00", "14:00"), window("13:00", "13:30"))
    assert open_until([day], at) == utc("2026-06-01T18:00")
    workdays = schedule(window("00:00", "24:00", days="Mon-Fri"))
    assert open_until([workdays], at) == utc("2026-06-06T00:00")
    assert open_until([schedule(window("00:00", "24:00"))], at) is None
    assert open_until([schedule(), schedule()], at) is None
    assert open_until([], at) is None


@pytest.mark.parametrize(
    ("day", "start", "end", "at", "expected"),
    [
        # The clock leaps from 02:00 to 03:00, and is set back from 03:00 to 02:00: neither ends a window.
        ("Sun", "01:00", "05:00", "2026-03-29T00:30", "2026-03-29T03:00"),
        ("Sun", "01:00", "05:00", "2026-10-25T00:30", "2026-10-25T04:00"),
        # It shows 02:10 to 02:50 twice.
        ("Sun", "02:10", "02:50", "2026-10-25T00:20", "2026-10-25T00:50"),
        ("Sun", "02:10", "02:50", "2026-10-25T01:20", "2026-10-25T01:50"),
        # It never shows 02:30.
        ("Sun", "01:00", "02:30", "2026-03-29T00:30", "2026-03-29T01:00"),
        ("Sat", "22:00", "06:00", "2026-10-24T23:00", "2026-10-25T05:00"),
    ],
)
def test_how_long_a_window_is_open_when_the_clock_is_set(
    day: str, start: str, end: str, at: str, expected: str
) -> None:
    window = {"tz": BERLIN, "days": day, "from": start, "to": end}
    assert open_until([schedule(window)], utc(at)) == utc(expected)


def test_nothing_within_400_days_is_none() -> None:
    at = utc("2026-06-01T12:00")
    monday = schedule({"tz": "UTC", "days": "Mon", "from": "09:00", "to": "10:00"})
    tuesday = schedule({"tz": "UTC", "days": "Tue", "from": "09:00", "to": "10:00"})
    assert next_open([monday, tuesday], at) is None
    last = (at + HORIZON - timedelta(minutes=1)).isoformat()
    until = (at + HORIZON).isoformat()
    almost = schedule(freezes=({"name": "f", "tz": "UTC", "from": "2026-01-01", "to": last},))
    beyond = schedule(freezes=({"name": "f", "tz": "UTC", "from": "2026-01-01", "to": until},))
    assert next_open([almost], at) == at + HORIZON - timedelta(minutes=1)
    assert next_open([beyond], at) is None


def test_the_work_is_bounded_for_schedules_that_never_meet() -> None:
    def window(minute: int) -> dict[str, Any]:
        return {
            "tz": BERLIN,
            "from": f"{minute // 60:02}:{minute % 60:02}",
            "to": f"{minute // 60:02}:{minute % 60 + 5:02}",
        }

    freezes = tuple(
        {"name": "f", "tz": BERLIN, "from": f"2027-{n % 12 + 1:02}-01", "to": "2028-01-01"} for n in range(100)
    )
    some = schedule(*(window(minute) for minute in range(0, 1200, 60)), freezes=freezes)
    others = schedule(*(window(minute) for minute in range(30, 1230, 60)))
    before = datetime.now(UTC)
    assert next_open([some, others] * 5, utc("2026-01-01T00:00")) is None
    assert datetime.now(UTC) - before < timedelta(seconds=10)


def test_a_time_without_a_zone_is_refused() -> None:
    naive = datetime.fromisoformat("2026-06-01T12:00")
    with pytest.raises(ValueError, match="without its time zone"):
        next_open([Schedule()], naive)
    with pytest.raises(ValueError, match="without its time zone"):
        open_until([Schedule()], naive)
    with pytest.raises(ValueError, match="without its time zone"):
        add_business(naive, timedelta(0), BusinessHours())


@pytest.mark.parametrize(
    ("at", "delta", "expected"),
    [
        ("2026-06-01T10:00", "4h", "2026-06-01T14:00"),
        ("2026-06-01T16:00", "1h", "2026-06-01T17:00"),
        ("2026-06-01T16:00", "61m", "2026-06-02T09:01"),
        ("2026-06-05T16:00", "2h", "2026-06-08T10:00"),
        ("2026-06-06T12:00", "1s", "2026-06-08T09:00:01"),
        ("2026-06-01T09:00", "40h", "2026-06-05T17:00"),
        ("2026-06-05T18:00", "40h", "2026-06-12T17:00"),
        ("2026-06-01T09:00", "80h", "2026-06-12T17:00"),
    ],
)
def test_business_time_counts_in_business_hours_only(at: str, delta: str, expected: str) -> None:
    assert add_business(utc(at), duration(delta), BusinessHours()) == utc(expected)


def test_no_business_time_is_at_once() -> None:
    saturday = local("2026-06-06T12:00")
    assert add_business(saturday, timedelta(0), BusinessHours()) is saturday
    with pytest.raises(ValueError, match="only goes forward"):
        add_business(saturday, timedelta(seconds=-1), BusinessHours())


def test_business_days_are_days_of_those_hours() -> None:
    office = hours(tz=BERLIN)
    assert (office.day(), office.week()) == (timedelta(hours=8), timedelta(hours=40))
    assert hours(from_="22:00", to="06:00", days="Sat-Mon").week() == timedelta(hours=24)
    assert hours(from_="00:00", to="24:00").day() == timedelta(days=1)
    friday = local("2026-06-05T15:00")
    assert add_business(friday, 2 * office.day(), office) == local("2026-06-09T15:00")


def test_a_night_shift_is_an_hour_longer_or_shorter_when_the_clock_changes() -> None:
    nights = hours(tz=BERLIN, days="Sat", from_="22:00", to="06:00")
    for day, length in (("2026-03-28", 7), ("2026-10-24", 9), ("2026-06-06", 8)):
        start = local(f"{day}T22:00")
        end = local(f"{day}T06:00") + timedelta(days=1)
        assert add_business(start, timedelta(hours=length), nights) == end


def test_business_time_ends_after_200_years() -> None:
    at = utc("2026-06-01T12:00")
    minute = hours(days="Mon", from_="09:00", to="09:01")
    assert add_business(at, duration("9999d"), minute) == at + BUSINESS_HORIZON
    assert add_business(at, minute.day() * 9999, minute) == utc("2218-01-19T09:01")
    assert add_business(at, duration("9999d"), BusinessHours()) == utc("2141-05-24T12:00")


def test_business_hours_that_equal_a_default_are_refused_too() -> None:
    assert wrong(BusinessHours, from_="17:00").startswith(": from and to are equal")


def test_time_zones_need_nothing_of_the_machine() -> None:
    code = "from policy.schedule import BusinessHours; print(BusinessHours(tz='Europe/Berlin').tz)"
    environment = os.environ | {"PYTHONTZPATH": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(  # the search path is read once, when Python starts
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == BERLIN
