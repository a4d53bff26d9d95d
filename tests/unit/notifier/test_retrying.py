"""When to try again, and what an outcome means."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from notifier.retrying import Outcome, Schedule, Try, Verdict, decide, redact, retry_after_seconds
from notifier.settings import NotifierSettings

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def test_the_default_schedule_is_the_one_of_standard_webhooks() -> None:
    pauses = NotifierSettings.model_fields["retry_seconds"].default
    assert pauses == (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    assert sum(pauses) == 75 * 3600 + 35 * 60 + 5


@pytest.mark.parametrize(
    ("tries", "retry_after", "chance", "pause"),
    [
        (1, None, 0.5, 10.0),
        (1, None, 0.0, 8.0),
        (1, None, 1.0, 12.0),
        (2, None, 0.5, 100.0),
        (3, None, 0.5, None),
        (1, 60.0, 0.5, 60.0),
        (1, 1.0, 0.5, 10.0),
        (1, 10.0**9, 0.5, 86400.0),
        (3, 60.0, 0.5, None),
    ],
)
def test_pauses_are_spread_and_honour_the_receiver(
    tries: int, retry_after: float | None, chance: float, pause: float | None
) -> None:
    assert Schedule((10.0, 100.0)).pause(tries, retry_after, chance) == (pause and pytest.approx(pause))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("9" * 400, 86400.0),
        ("-5", None),
        ("soon", None),
        ("²", None),
        ("Sat, 21 Nov 2026 12:02:00 GMT", 120.0),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
        ("Sat, 21 Nov 2026 12:02:00 -0000", 120.0),
        ("Tue, 21 Nov 2028 12:00:00 GMT", 86400.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, AT) == seconds


TRY = Try("d1", "s1", "e1", "hallmark.stage.changed.v1", attempt=7, tries=1, latency_ms=12.5)


@pytest.mark.parametrize(
    ("verdict", "tries", "active", "status", "due", "kinds"),
    [
        (Verdict.SUCCEEDED, 1, True, "succeeded", None, ["delivery.succeeded"]),
        (Verdict.SUCCEEDED, 1, False, "succeeded", None, ["delivery.succeeded"]),
        (Verdict.RETRY, 1, True, "pending", 10.0, ["delivery.failed"]),
        (Verdict.RETRY, 2, True, "dead", None, ["delivery.dead"]),
        (Verdict.RETRY, 1, False, "dead", None, ["delivery.dead"]),
        (Verdict.REFUSED, 1, True, "dead", None, ["delivery.dead"]),
        (Verdict.GONE, 1, True, "dead", None, ["delivery.dead", "subscription.disabled"]),
        (Verdict.GONE, 1, False, "dead", None, ["delivery.dead"]),
    ],
)
def test_what_follows_from_an_outcome(
    verdict: Verdict, tries: int, active: bool, status: str, due: float | None, kinds: list[str]
) -> None:
    follows = decide(
        replace(TRY, tries=tries), Outcome(verdict, "HTTP 000"), Schedule((10.0,)), at=AT, chance=0.5, active=active
    )
    assert (follows.status, [m.TYPE.removeprefix("hallmark.").removesuffix(".v1") for m in follows.events]) == (
        status,
        kinds,
    )
    assert follows.due_at == (AT + timedelta(seconds=due) if due else None)
    assert follows.events[0].model_dump()["attempt"] == 7


def test_secrets_and_control_characters_are_taken_out() -> None:
    assert (
        redact("a whsec_abc b\x00\x1b[31m abc", ["abc", "whsec_abc", ""]) == "a [redacted] b\ufffd\ufffd[31m [redacted]"
    )
    assert len(redact("x" * 5000, [])) == 2048
    assert "whsec_abc" not in redact("x" * 2045 + "whsec_abc", ["whsec_abc"])


@pytest.mark.parametrize("active", [True, False])
def test_a_receiver_that_takes_it_and_asks_for_no_more_ends_the_subscription(active: bool) -> None:
    taken = Outcome(Verdict.SUCCEEDED, "HTTP 200 OK", status=200, disable=True)
    follows = decide(TRY, taken, Schedule((10.0,)), at=AT, chance=0.5, active=active)
    assert (follows.status, follows.due_at) == ("succeeded", None)
    kinds = [event.TYPE for event in follows.events]
    assert kinds == ["hallmark.delivery.succeeded.v1", "hallmark.subscription.disabled.v1"][: 1 + active]


@pytest.mark.parametrize(
    ("outcome", "ill"),
    [
        (Outcome(Verdict.RETRY, "no answer"), True),
        (Outcome(Verdict.RETRY, "HTTP 500", status=500), True),
        (Outcome(Verdict.RETRY, "HTTP 503", status=503), True),
        (Outcome(Verdict.RETRY, "HTTP 429", status=429), True),
        (Outcome(Verdict.RETRY, "HTTP 400", status=400), False),
        (Outcome(Verdict.RETRY, "HTTP 302", status=302), False),
        (Outcome(Verdict.RETRY, "451 greylisted", status=451), False),
        (Outcome(Verdict.RETRY, "sealed with another key", ours=True), False),
        (Outcome(Verdict.REFUSED, "550 no such user", status=550), False),
        (Outcome(Verdict.GONE, "HTTP 410", status=410), False),
        (Outcome(Verdict.SUCCEEDED, "HTTP 200", status=200), False),
    ],
)
def test_a_refused_message_does_not_make_an_endpoint_ill(outcome: Outcome, ill: bool) -> None:
    assert outcome.ill is ill
