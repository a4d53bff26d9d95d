"""When an endpoint is left in peace, and how fast it is sent to."""

from datetime import UTC, datetime, timedelta

import pytest

from notifier.breaker import Breaker, Rate, rates_of

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def tried(outcomes: str, seconds: float = 1.0, breaker: Breaker | None = None) -> Breaker:
    """After one try each `seconds`: x ill, . well."""
    breaker = breaker or Breaker()
    for n, outcome in enumerate(outcomes):
        breaker = breaker.after(outcome == "x", AT + timedelta(seconds=n * seconds), probe=False)
    return breaker


@pytest.mark.parametrize(
    ("outcomes", "seconds", "opens"),
    [
        ("xxxxxxxxx", 1, False),  # nine are too few
        ("xxxxxxxxxx", 1, True),
        ("...xxxxxxx", 1, True),  # 7 of 10
        ("....xxxxxx", 1, False),
        ("xxxxxxx...", 1, False),  # the last try was well
        ("....xxxxxxxxxx", 1, True),  # 10 of 14
        ("xxxxxxxxxx", 40, False),  # never ten within five minutes
        ("." * 30 + "x" * 10, 30, True),  # what is older than five minutes does not count
        ("." * 10 + "x" * 10, 1, False),
    ],
)
def test_it_opens_at_seventy_percent_of_ten_tries_in_five_minutes(outcomes: str, seconds: float, opens: bool) -> None:
    assert tried(outcomes, seconds).open is opens


def test_only_the_probe_finds_an_open_one_ill_and_each_time_it_waits_longer() -> None:
    breaker, at = tried("x" * 10), AT + timedelta(seconds=9)
    assert breaker.probe_at == at + timedelta(seconds=30)
    assert breaker.after(True, at, probe=False) == breaker
    waits = []
    for _ in range(7):
        breaker = breaker.after(True, at, probe=True)
        assert breaker.probe_at is not None
        waits.append((breaker.probe_at - at).total_seconds())
    assert waits == [60, 120, 240, 480, 600, 600, 600]
    assert breaker.after(False, at, probe=False) == breaker.after(False, at, probe=True) == Breaker()


def test_rates_are_per_second_minute_or_hour() -> None:
    assert rates_of("slack=1/s, pagerduty=120/min,email=1800/h") == {
        "slack": Rate(1.0),
        "pagerduty": Rate(2.0),
        "email": Rate(0.5),
    }
    assert rates_of("") == {}


@pytest.mark.parametrize(
    "text", ["slack", "slack=1", "slack=x/s", "slack=0/s", "slack=-1/s", "slack=1/day", "slack=nan/s"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate such as"):
        rates_of(text)


def test_a_bucket_fills_up_to_its_burst() -> None:
    assert Rate(2.0).filled(0.5, 0.5) == 1.5
    assert Rate(2.0).filled(0.5, 60) == 2.0
    assert Rate(0.5).filled(0.0, 60) == 1.0
    assert Rate(0.5).filled(0.5, -1) == 0.5
