"""When events that go out together go out: after a while, or at a time of the reader's day. Pure."""

from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

from contracts.notifier import Digest, Grouped, Weekday
from notifier.domain import Subscription
from notifier.matching import Seen
from notifier.quiet import label

WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def labels_of(subscription: Subscription, event: Seen) -> str:
    """What the events of one message have in common, as one text; empty when they need nothing in common."""
    bundling = subscription.bundling
    by = bundling.by if isinstance(bundling, Grouped) else ()
    return ", ".join(f"{name} {label(event, name) or '-'}" for name in by)


def knows(zone: str) -> bool:
    """Whether it is a time zone (IANA)."""
    return zone in available_timezones()


def next_digest(digest: Digest, after: datetime) -> datetime:
    """The first time after `after` when a clock in the reader's zone shows the digest's hour, on its day.

    An hour that a clock change leaves out is passed when the clock is set forward by as much: 02:30 is 03:30 then. One
    that comes twice counts the first time.
    """
    zone = ZoneInfo(digest.zone)
    hour, minute = map(int, digest.at.split(":"))
    day = after.astimezone(zone).date()
    for n in range(-1, 9):
        local = datetime.combine(day + timedelta(days=n), time(hour, minute), tzinfo=zone)
        moment = datetime.fromtimestamp(local.timestamp(), tz=after.tzinfo)
        due = digest.every == "day" or WEEKDAYS[local.weekday()] == digest.weekday
        if due and moment > after:
            return moment
    raise AssertionError("a week has every weekday")


def first_due(subscription: Subscription, at: datetime) -> datetime:
    """When the first event of a message makes it go out."""
    match subscription.bundling:
        case Grouped() as grouped:
            return at + timedelta(seconds=grouped.wait_seconds)
        case Digest() as digest:
            return next_digest(digest, at)
    return at
