"""Which changes need a decision, at any moment of a workspace's life."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from audit.rules import OVERLAP, History, Rules
from contracts.lifecycle import DEFAULT_LIFECYCLE, Lifecycle, StageRule

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
END = datetime.max.replace(tzinfo=UTC)
START = datetime.min.replace(tzinfo=UTC)


def lifecycle(*gated: str, open_stages: tuple[str, ...] = ()) -> Lifecycle:
    stages = [StageRule(name="Draft"), StageRule(name="Attic")]
    stages += [StageRule(name=name, gated=True) for name in gated] + [StageRule(name=name) for name in open_stages]
    return Lifecycle(stages=tuple(stages), initial="Draft", archive="Attic")


def rules(
    sequence: int, hours: float, *gated: str, opens: tuple[str, ...] = (), index: int = 0, **more: object
) -> Rules:
    protected = frozenset(more.get("protected", ()))  # type: ignore[call-overload]
    at = NOON + timedelta(hours=hours)
    return Rules(lifecycle(*gated, open_stages=opens), protected, sequence, at, index or sequence)


def at(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


def test_without_rules_the_default_lifecycle_is_in_force() -> None:
    history = History([])
    opens = {
        s: history.opens(s, NOON) for s in ("Development", "Staging", "Production", "Archived", "QA", "production")
    }
    assert opens == {
        "Development": True,
        "Staging": False,
        "Production": False,
        "Archived": True,
        "QA": False,  # nobody knows it
        "production": False,
    }
    assert history.opens("@champion", NOON)
    assert history.in_force(NOON)[0].lifecycle == DEFAULT_LIFECYCLE


def test_rules_hold_from_their_time_until_the_next() -> None:
    found = [rules(1, 0, "QA", protected=("champion",)), rules(2, 2, "Live", opens=("QA",))]
    for order in permutations(found):
        history = History(order)
        assert [history.opens("QA", at(h)) for h in (-1, 1, 3)] == [False, False, True]
        assert [history.opens("Live", at(h)) for h in (-1, 1, 3)] == [False, False, False]
        assert [history.opens("Draft", at(h)) for h in (-1, 1, 3)] == [False, True, True]
        assert [history.opens("@champion", at(h)) for h in (-1, 1, 3)] == [True, False, True]
        assert [history.opens("Archived", at(h)) for h in (-1, 1)] == [True, False]


def test_rules_with_a_gap_before_them_do_not_count_yet() -> None:
    late = [rules(2, 1, opens=("Live",)), rules(5, 2, opens=("Live",))]
    assert not History(late).opens("Live", at(3))
    assert History([*late, rules(1, 0, "Live")]).opens("Live", at(3))
    assert not History([rules(1, 0, "Live"), late[1]]).opens("Live", at(3))


def test_forged_rules_beside_true_ones_close_a_gate_and_never_open_one() -> None:
    true, forged = rules(1, 1, "Live", opens=("QA",), index=7), rules(1, -5, "QA", opens=("Live",), index=9)
    history = History([forged, true])
    for hours in (-4, 2):
        assert not history.opens("Live", at(hours))
        assert not history.opens("QA", at(hours))
        assert history.opens("Draft", at(hours))


def test_it_tells_from_when_on_new_rules_matter() -> None:
    first, second, gap = rules(1, 0, "QA"), rules(2, 2, "Live"), rules(4, 1, "Live")
    contesting = rules(1, 5, "Live", index=9)
    assert History([first]).changed_since(History([])) == at(0)
    assert History([first, second]).changed_since(History([second])) == at(0)
    assert History([first, second]).changed_since(History([first])) == at(2)
    assert History([first, gap]).changed_since(History([first])) is None
    # Two in one place count from the earlier one on, and from there on the verdicts may change.
    assert History([first, second, contesting]).changed_since(History([first, second])) == at(0)


@pytest.mark.parametrize("seconds", [-1, 0, 1])
def test_clocks_and_transactions_overlap_around_new_rules(seconds: int) -> None:
    history = History(
        [rules(1, 0, opens=("QA", "Live")), rules(2, 2, "QA", opens=("Live",)), rules(3, 4, opens=("QA",))]
    )
    near = OVERLAP * 0.9 if seconds else timedelta(0)
    assert history.opens("QA", at(2) + seconds * near)
    assert history.opens("QA", at(4) + seconds * near)
    assert not history.opens("QA", at(2) + OVERLAP * 1.1)
    assert not history.opens("QA", at(4) - OVERLAP * 1.1)


def test_the_ends_of_time_are_judged_too() -> None:
    history = History([rules(1, 0, "QA")])
    assert history.opens("Development", START)
    assert not history.opens("QA", END)


def test_the_spelling_of_a_stage_is_the_workspaces_own_of_that_time() -> None:
    history = History([rules(1, 0, "QA"), rules(2, 2, "Qa", opens=("Live",))])
    assert [history.spelling("qa", at(h)) for h in (1, 3)] == ["QA", "Qa"]
    assert history.spelling("qa", at(-1)) == "Qa"
    assert history.spelling("live", at(1)) == "Live"
    assert history.spelling("PRODUCTION", at(3)) == "Production"
    assert history.spelling("nowhere", at(1)) == "nowhere"
