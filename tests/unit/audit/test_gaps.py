"""Ranges that are explained, taken out of gaps."""

from hypothesis import given
from hypothesis import strategies as st

from audit.gaps import Hole, without

ranges = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 8)).map(lambda r: (r[0], r[0] + r[1])), max_size=8)


def members(found: list[Hole]) -> set[int]:
    return {offset for first, until in found for offset in range(first, until)}


@given(st.sets(st.integers(0, 40)), ranges)
def test_what_is_left_is_what_no_range_explains(missing: set[int], explained: list[Hole]) -> None:
    holes = [(offset, offset + 1) for offset in sorted(missing)]
    left = without(holes, sorted(explained))
    assert members(left) == missing - members(explained)
    assert all(first < until for first, until in left)


@given(ranges)
def test_a_large_gap_falls_apart(explained: list[Hole]) -> None:
    assert members(without([(5, 30)], sorted(explained))) == set(range(5, 30)) - members(explained)
