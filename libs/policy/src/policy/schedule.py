"""When a change may go live: windows, freezes and business hours, in the time zones of people.

Hours are what the clock on the wall shows. Where it is set back, a window may open twice; where it is set forward, the
hours it leaps over do not happen. Nothing here reads a clock: the caller says what time it is.
"""

import heapq
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from contracts.payload import Line, Payload

HORIZON = timedelta(days=400)
# Longer than 9999 weeks: 9999 business days end before, even when one day a week is such.
BUSINESS_HORIZON = timedelta(days=200 * 366)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
WEEK = timedelta(days=7)
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
# What a machine's zone directory holds too, but means something else on the next machine.
LOCAL_ZONES = {"localtime", "posixrules", "Factory"}

_DURATION = r"^[1-9][0-9]{0,3}[smhd]$"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_RANGE = "(?:{0})(?:-(?:{0}))?".format("|".join(WEEKDAYS))
_MOMENT = rf"^2[0-9]{{3}}-[0-9]{{2}}-[0-9]{{2}}(?:T{_TIME}(?::[0-5][0-9])?(?:Z|[+-]{_TIME})?)?$"

Span = tuple[datetime, datetime]


def _like(pattern: str, hint: str) -> tuple[BeforeValidator, Any]:
    """A text of this pattern. YAML reads 16:00 without quotes as the number 960, so the error says how to write it."""

    def check(value: object) -> object:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(f"write it as {hint}")
        return value

    return BeforeValidator(check), Field(json_schema_extra={"pattern": pattern})


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones() - LOCAL_ZONES)


def _zone(name: str) -> str:
    if name not in _zones():
        raise ValueError(f"{name[:100]!r} is no time zone of IANA; write one such as 'Europe/Berlin' or 'UTC'")
    return name


def _date(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"there is no {text[:10]}") from error
    return text


Duration = Annotated[str, StringConstraints(pattern=_DURATION)]
Zone = Annotated[str, AfterValidator(_zone)]
Days = Annotated[str, *_like(f"^{_RANGE}(?:,{_RANGE}){{0,6}}$", '"Mon-Fri" or "Mon,Wed"')]
Start = Annotated[str, *_like(f"^{_TIME}$", 'hours and minutes in quotes, such as "09:00"')]
End = Annotated[str, *_like(f"^(?:{_TIME}|24:00)$", 'hours and minutes in quotes, such as "17:00"')]
Moment = Annotated[
    str, *_like(_MOMENT, 'a date "2026-12-20" or a time "2026-12-20T18:00", in quotes'), AfterValidator(_date)
]


def duration(text: str) -> timedelta:
    """`90m` as a timedelta.

    Raises:
        ValueError: not a number from 1 to 9999 with s, m, h or d.
    """
    if not re.fullmatch(_DURATION, text):
        raise ValueError(f"{text!r} is no duration; write one such as 90m")
    return timedelta(**{UNITS[text[-1]]: int(text[:-1])})


class _Hours(Payload):
    """Hours of some days of the week. An end before the start is on the next day; `24:00` ends the day itself."""

    tz: Zone
    days: Days
    starts: Annotated[Start, Field(alias="from")]
    ends: Annotated[End, Field(alias="to")]

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.starts == self.ends:
            raise ValueError('from and to are equal; a whole day is from "00:00" to "24:00"')
        return self

    def day(self) -> timedelta:
        """How long one day of these hours is, when the clock is not changed in it."""
        length = _since_midnight(self.ends) - _since_midnight(self.starts)
        return length if length > timedelta(0) else length + DAY

    def week(self) -> timedelta:
        return self.day() * len(_weekdays(self.days))


class Window(_Hours):
    """A change may go live in these hours. The days are those on which a window starts."""

    days: Days = "Mon-Sun"


class BusinessHours(_Hours):
    """The hours that count when a policy speaks of business time."""

    tz: Zone = "UTC"
    days: Days = "Mon-Fri"
    starts: Annotated[Start, Field(alias="from")] = "09:00"
    ends: Annotated[End, Field(alias="to")] = "17:00"


class Freeze(Payload):
    """Nothing goes live from `from` to `to`: whole days (the last included), or times of `tz`, or times with an offset.

    A time that the clock shows twice freezes as long as it can; a time that the clock leaps over is the leap.
    """

    name: Line
    tz: Zone
    starts: Annotated[Moment, Field(alias="from")]
    ends: Annotated[Moment, Field(alias="to")]

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        since, until = self.span()
        if since >= until:
            raise ValueError("from must be before to")
        return self

    def span(self) -> Span:
        """The first instant of the freeze and the first one after it, in UTC."""
        return _instant(self.starts, self.tz, end=False), _instant(self.ends, self.tz, end=True)


def _written_out(value: object) -> object:
    if isinstance(value, str):
        example = "{name: year-end, tz: Europe/Berlin, from: '2026-12-20', to: '2027-01-06'}"
        raise ValueError(f"there are no calendars to name; write the days out, such as {example}")
    return value


class Schedule(Payload):
    """Open in any of the windows (always, when there are none) and in none of the freezes."""

    windows: Annotated[tuple[Window, ...], Field(max_length=20)] = ()
    freezes: Annotated[tuple[Annotated[Freeze, BeforeValidator(_written_out)], ...], Field(max_length=100)] = ()
    min_wait: Duration | None = None


def next_open(schedules: Iterable[Schedule], at: datetime) -> datetime | None:
    """`at` itself when every schedule is open then; else the first later instant at which all are, in UTC.

    None when there is none within 400 days. `min_wait` plays no part: it counts from the opening of the request.

    Raises:
        ValueError: `at` has no time zone.
    """
    moment = start = _utc(at)
    needs = [need for schedule in schedules for need in _needs(schedule, start, start + HORIZON)]
    heads = [next(need, None) for need in needs]
    while True:
        before = moment
        for n, need in enumerate(needs):
            head = heads[n]
            while head is not None and head[1] <= moment:
                head = next(need, None)
            if head is None:
                return None
            heads[n], moment = head, max(moment, head[0])
        if moment == before:
            return at if moment == start else moment


def open_until(schedules: Iterable[Schedule], at: datetime) -> datetime | None:
    """The first instant, in UTC, at which one of the schedules is closed, when all are open at `at`; else `at` itself.

    None when they stay open for 400 days.

    Raises:
        ValueError: `at` has no time zone.
    """
    start = _utc(at)
    end = start + HORIZON
    closes = min((_end_of_first(need, start) for s in schedules for need in _needs(s, start, end)), default=end)
    return None if closes >= end else max(closes, at)


def add_business(at: datetime, delta: timedelta, hours: BusinessHours) -> datetime:
    """The first instant, in UTC, when `delta` of business time has passed since `at`; `at` itself for no time.

    What is further away than 200 years is given as 200 years.

    Raises:
        ValueError: `at` has no time zone, or `delta` is negative.
    """
    start = _utc(at)
    if delta < timedelta(0):
        raise ValueError("business time only goes forward")
    if not delta:
        return at
    left, limit = delta, start + BUSINESS_HORIZON
    for since, until, offset in _offsets(hours.tz, start, limit):
        # Whole weeks of one offset are alike; the last one is walked, for the end may be within it.
        weeks = min((until - since) // WEEK, (left - timedelta.resolution) // hours.week())
        left -= weeks * hours.week()
        for opens, closes in _spans_of_offset(hours, since + weeks * WEEK, until, offset):
            if left <= closes - opens:
                return opens + left
            left -= closes - opens
    return limit


def _needs(schedule: Schedule, start: datetime, end: datetime) -> Iterator[Iterator[Span]]:
    """What must all be open: each an iterator of spans, sorted by their start."""
    if schedule.windows:
        yield heapq.merge(*(_spans(window, start, end) for window in schedule.windows))
    if schedule.freezes:
        yield _outside((freeze.span() for freeze in schedule.freezes), start, end)


def _end_of_first(spans: Iterable[Span], start: datetime) -> datetime:
    """The end of what is open at `start` without a gap; spans overlap and touch."""
    end = start
    for since, until in spans:
        if since > end:
            break
        end = max(end, until)
    return end


def _outside(spans: Iterable[Span], start: datetime, end: datetime) -> Iterator[Span]:
    for since, until in sorted(spans):
        if start < min(since, end):
            yield start, min(since, end)
        start = max(start, until)
    if start < end:
        yield start, end


def _spans(hours: _Hours, start: datetime, end: datetime) -> Iterator[Span]:
    for since, until, offset in _offsets(hours.tz, start, end):
        yield from _spans_of_offset(hours, since, until, offset)


def _spans_of_offset(hours: _Hours, since: datetime, until: datetime, offset: timedelta) -> Iterator[Span]:
    """The parts of a time of one UTC offset in which the clock shows these hours."""
    days, length, starts = _weekdays(hours.days), hours.day(), _since_midnight(hours.starts)
    # From the day before: its hours may go over midnight.
    midnight = (since + offset).replace(hour=0, minute=0, second=0, microsecond=0) - DAY
    while (opens := midnight + starts - offset) < until:
        if midnight.weekday() in days and opens + length > since:
            yield max(opens, since), min(opens + length, until)
        midnight += DAY


def _offsets(tz: str, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, timedelta]]:
    """Cuts a time into parts of one UTC offset each."""
    for year in range(start.year, end.year + 1):
        for since, until, offset in _offsets_of_year(tz, year):
            if max(since, start) < min(until, end):
                yield max(since, start), min(until, end), offset


@lru_cache(maxsize=2000)
def _offsets_of_year(tz: str, year: int) -> tuple[tuple[datetime, datetime, timedelta], ...]:
    zone = ZoneInfo(tz)
    since, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    offset, day, found = _offset(zone, since), since, []
    while day < end:
        day += DAY
        while _offset(zone, day) != offset:
            same, other = max(since, day - DAY), day
            while other - same > SECOND:
                middle = same + (other - same) // SECOND // 2 * SECOND
                same, other = (middle, other) if _offset(zone, middle) == offset else (same, middle)
            found.append((since, other, offset))
            since, offset = other, _offset(zone, other)
    return (*found, (since, end, offset))


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


@lru_cache(maxsize=2000)
def _instant(text: str, tz: str, *, end: bool) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    wall = moment.replace(tzinfo=UTC) + (DAY if end and "T" not in text else timedelta(0))
    parts = list(_offsets(tz, wall - 2 * DAY, wall + 2 * DAY))
    if end:
        return next(min(until, wall - offset) for since, until, offset in reversed(parts) if since <= wall - offset)
    return next(max(since, wall - offset) for since, until, offset in parts if wall - offset < until)


@lru_cache(maxsize=500)
def _weekdays(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, last = (WEEKDAYS.index(day) for day in (part[:3], part[-3:]))
        found |= {(first + n) % 7 for n in range((last - first) % 7 + 1)}
    return frozenset(found)


@lru_cache(maxsize=2000)
def _since_midnight(text: str) -> timedelta:
    hours, minutes = text.split(":")
    return timedelta(hours=int(hours), minutes=int(minutes))


def _utc(at: datetime) -> datetime:
    if at.utcoffset() is None:
        raise ValueError("a time without its time zone")
    return at.astimezone(UTC)
