"""How long a subscription has known nothing but failures."""

from datetime import UTC, datetime, timedelta

import pytest

from notifier.health import SPAN, Health

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("days", "failures", "told", "step", "lapsed"),
    [
        (2.4, 50, 0, None, False),
        (2.5, 50, 0, 50, False),
        (2.5, 50, 50, None, False),
        (3.5, 50, 50, 70, False),
        (4.5, 50, 0, 90, False),  # not one after the other what is over already
        (5.0, 50, 90, None, True),
        (5.0, 9, 90, None, False),
        (2.5, 9, 0, None, False),
    ],
)
def test_the_owner_is_told_before_it_is_disabled(
    days: float, failures: int, told: int, step: int | None, lapsed: bool
) -> None:
    health = Health(AT, failures, told)
    assert (health.step(AT + timedelta(days=days)), health.lapsed(AT + timedelta(days=days))) == (step, lapsed)


def test_one_success_is_enough() -> None:
    failing = Health().after(True, AT).after(True, AT + SPAN)
    assert failing == Health(AT, 2, 0)
    assert failing.after(False, AT) == Health()
    assert Health().step(AT) is None
