"""The bundles that are kept in memory: the ones read last, never more than so many bytes."""

from audit.tlog.archive import Bundles


def test_the_oldest_goes_first_and_the_bytes_are_bounded() -> None:
    kept = Bundles(100)
    for number in range(3):
        kept.put(number, [b"x" * 20, b"y" * 20])
    assert [kept.get(number) is not None for number in range(3)] == [False, True, True]
    assert kept.get(1) == [b"x" * 20, b"y" * 20]
    kept.put(3, [b"z" * 40])
    assert [kept.get(number) is not None for number in range(4)] == [False, True, False, True]


def test_one_that_is_larger_than_all_is_kept_alone() -> None:
    kept = Bundles(100)
    kept.put(1, [b"x" * 60])
    kept.put(2, [b"y" * 1_000])
    assert (kept.get(1), kept.get(2)) == (None, [b"y" * 1_000])
    kept.put(3, [b"z"])
    assert (kept.get(2), kept.get(3)) == (None, [b"z"])
    kept.drop(3)
    assert kept.get(3) is None
