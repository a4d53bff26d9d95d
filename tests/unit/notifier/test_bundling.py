"""When digests are due, whatever the clocks do; what a message about many events says."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.notifier import Digest, GroupComposed, Grouped, Told
from notifier.bundling import first_due, knows, labels_of, next_digest
from notifier.links import links_of

from .rendering import mail, said, slack
from .test_matching import PLAIN, PROMOTED, seen


def moments(digest: Digest, start: datetime, count: int) -> list[str]:
    found, at = [], start
    for _ in range(count):
        at = next_digest(digest, at)
        found.append(at.isoformat())
    return found


def test_a_daily_digest_follows_the_readers_clock_over_both_changes() -> None:
    berlin = Digest(at="09:00", zone="Europe/Berlin")
    assert moments(berlin, datetime(2026, 3, 27, 12, tzinfo=UTC), 3) == [  # 2026-03-29: forward
        "2026-03-28T08:00:00+00:00",
        "2026-03-29T07:00:00+00:00",
        "2026-03-30T07:00:00+00:00",
    ]
    assert moments(berlin, datetime(2026, 10, 23, 12, tzinfo=UTC), 3) == [  # 2026-10-25: back
        "2026-10-24T07:00:00+00:00",
        "2026-10-25T08:00:00+00:00",
        "2026-10-26T08:00:00+00:00",
    ]


def test_an_hour_that_is_left_out_and_one_that_comes_twice_each_bring_one_digest() -> None:
    night = Digest(at="02:30", zone="Europe/Berlin")
    assert moments(night, datetime(2026, 3, 28, 12, tzinfo=UTC), 2) == [
        "2026-03-29T01:30:00+00:00",  # 02:30 is not; the clock shows 03:30
        "2026-03-30T00:30:00+00:00",
    ]
    assert moments(night, datetime(2026, 10, 24, 12, tzinfo=UTC), 2) == [
        "2026-10-25T00:30:00+00:00",  # the first of two
        "2026-10-26T01:30:00+00:00",
    ]


def test_a_weekly_digest_is_of_its_day_where_the_reader_is() -> None:
    weekly = Digest(every="week", weekday="mon", at="00:30", zone="Asia/Tokyo")
    assert moments(weekly, datetime(2026, 11, 21, tzinfo=UTC), 2) == [
        "2026-11-22T15:30:00+00:00",
        "2026-11-29T15:30:00+00:00",
    ]


@given(
    st.sampled_from(
        ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"]
    ),
    st.integers(0, 23),
    st.integers(0, 59),
    st.integers(1_577_836_800, 1_893_456_000),  # the years 2020 to 2029
    st.booleans(),
)
def test_the_next_digest_is_later_and_not_later_than_its_period(
    zone: str, hour: int, minute: int, start: int, weekly: bool
) -> None:
    digest = Digest(every="week" if weekly else "day", at=f"{hour:02}:{minute:02}", zone=zone)
    after = datetime.fromtimestamp(start, tz=UTC)
    due = next_digest(digest, after)
    assert after < due <= after + timedelta(days=8 if weekly else 1, hours=2)
    assert next_digest(digest, due) - due >= timedelta(days=7 if weekly else 1) - timedelta(hours=2)


def test_zones_are_those_of_iana() -> None:
    assert knows("Europe/Berlin")
    assert knows("UTC")
    assert not knows("Europe/Nowhere")
    assert not knows("../../etc/passwd")


@pytest.mark.parametrize(
    ("bundling", "labels"),
    [
        (Grouped(by=("model", "type")), "model churn, type hallmark.stage.changed.v1"),
        (Grouped(by=("request",)), "request -"),
        (Grouped(), ""),
        (Digest(), ""),
    ],
)
def test_events_of_one_message_have_their_labels_in_common(bundling: Any, labels: str) -> None:
    assert labels_of(replace(PLAIN, bundling=bundling), seen(PROMOTED)) == labels


def test_the_first_event_of_a_group_waits_for_others() -> None:
    at = datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert first_due(replace(PLAIN, bundling=Grouped(wait_seconds=45)), at) == at + timedelta(seconds=45)
    assert first_due(replace(PLAIN, bundling=Digest(at="12:30")), at) == at + timedelta(minutes=30)


AT = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
NEWEST = tuple(
    Told(event_id=f"e{n}", type="hallmark.stage.changed.v1", subject="default/churn/2", at=AT, headline=f"<b>{n}</b>")
    for n in range(10)
)
COMPOSED = GroupComposed(
    subscription_id="s",
    labels="model churn",
    count=10_000,
    first_at=AT,
    last_at=AT,
    kinds={"hallmark.stage.changed.v1": 9_000, "hallmark.vote.cast.v1": 1_000},
    newest=NEWEST,
)


def test_a_message_about_many_counts_them_shows_the_newest_and_says_where_the_rest_is() -> None:
    for text in ("\n".join(slack(COMPOSED, "subscription:s")), "\n".join(mail(COMPOSED, "subscription:s"))):
        assert "10000 events of model churn" in text
        assert "stage.changed: 9000, vote.cast: 1000" in text
        assert "and 9990 more" in text
        assert "hallmark notify deliveries --in " in text
        assert "&lt;b&gt;9&lt;/b&gt;" in text
    assert len(slack(COMPOSED, "subscription:s")[1]) < 3_000
    _, text, _ = mail(COMPOSED, "subscription:s")
    assert text.count("\n") < 40
    again = COMPOSED.model_copy(update={"repeats": True})
    assert "still open, nothing new" in slack(again, "subscription:s")[0]


def test_its_link_lists_all() -> None:
    [(title, url)] = links_of(said(COMPOSED, "subscription:s"), "https://h.example/")
    assert title == "All 10000"
    assert url.startswith("https://h.example/deliveries?in=")
    assert links_of(said(COMPOSED, "subscription:s"), None) == ()
