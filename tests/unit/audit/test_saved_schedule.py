"""When saved searches are due."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from audit.saved.schedule import Every, following

DUE = datetime(2026, 11, 22, 12, tzinfo=UTC)
EVERY: TypeAdapter[timedelta] = TypeAdapter(Every)


@pytest.mark.parametrize(
    ("given", "seconds"), [(60, 60), ("PT15M", 900), ("P1D", 86_400), ("PT1M", 60), (31_622_400, 31_622_400)]
)
def test_seconds_or_a_duration(given: object, seconds: int) -> None:
    assert EVERY.validate_python(given).total_seconds() == seconds


@pytest.mark.parametrize("given", [0, -60, 59, 60.5, "PT59S", "P367D", "soon", float("nan"), float("inf"), "PT60.25S"])
def test_what_is_no_schedule(given: object) -> None:
    with pytest.raises(ValidationError):
        EVERY.validate_python(given)


@pytest.mark.parametrize(("late", "then"), [(0, 60), (59, 60), (60, 120), (61, 120), (3_599, 3_600), (-30, 60)])
def test_what_was_missed_is_not_made_up(late: int, then: int) -> None:
    found = following(DUE, timedelta(seconds=60), DUE + timedelta(seconds=late))
    assert found == DUE + timedelta(seconds=then)


@given(every=st.integers(60, 10**7), late=st.integers(0, 10**8))
def test_it_is_the_next_instant_of_the_grid(every: int, late: int) -> None:
    at = DUE + timedelta(seconds=late)
    found = following(DUE, timedelta(seconds=every), at)
    assert at < found <= at + timedelta(seconds=every)
    assert (found - DUE) % timedelta(seconds=every) == timedelta(0)
