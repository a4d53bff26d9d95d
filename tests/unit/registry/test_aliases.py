"""The rules of aliases: set, moved by compare-and-set, removed, reserved and protected ones."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.registry.test_stages import ASKED, CHURN, code, decision, of, version, waiting

from contracts.approval import Verdict
from contracts.envelope import now
from contracts.lifecycle import TransitionKind
from contracts.registry import AliasChanged, SetAlias, StageRefused, StageRequested
from registry import aliases, stages
from registry.domain import Model, Rules, Status, Version


def set_alias(
    v: Version, alias: str = "best", *, model: Model = CHURN, expected: int | None = None
) -> list[StageRequested | AliasChanged]:
    command = SetAlias(model="churn", version=v.number, alias=alias, expected=expected, reason="because")
    return aliases.decide_set_alias(model, v, command, ASKED)


POINTING = replace(CHURN, aliases={"best": 1})


@pytest.mark.parametrize("alias", ["latest", "Latest", "LATEST", "v1", "V12"])
def test_reserved_aliases(alias: str) -> None:
    assert code(lambda: set_alias(version(), alias)) == "reserved-alias"


@pytest.mark.parametrize("alias", ["v", "v1a", "vv1", "latest_", "version", "w1"])
def test_aliases_that_only_look_reserved(alias: str) -> None:
    assert len(set_alias(version(), alias)) == 1


def test_an_alias_is_set_moved_and_removed() -> None:
    [made] = set_alias(version())
    [moved] = set_alias(version(2), model=POINTING)
    assert isinstance(made, AliasChanged)
    assert isinstance(moved, AliasChanged)
    assert [(a.version, a.previous, a.requested_by, a.decision) for a in (made, moved)] == [
        (1, None, "ana", None),
        (2, 1, "ana", None),
    ]
    [removed] = aliases.decide_remove_alias(POINTING, "best", "ana", "over")
    assert (removed.previous, removed.reason) == (1, "over")
    assert code(lambda: aliases.decide_remove_alias(CHURN, "best", "ana", "x")) == "alias-not-found"


def test_an_alias_that_points_there_already_gives_no_event() -> None:
    assert set_alias(version(1), model=POINTING) == []
    assert set_alias(version(1), model=POINTING, expected=1) == []
    protected = replace(POINTING, rules=Rules(protected_aliases=frozenset({"best"})))
    assert set_alias(version(1), model=protected) == []


@given(st.none() | st.integers(0, 3), st.none() | st.integers(1, 3), st.integers(1, 3))
def test_compare_and_set(expected: int | None, present: int | None, to: int) -> None:
    model = replace(CHURN, aliases={} if present is None else {"best": present})
    if expected is not None and expected != (present or 0):
        assert code(lambda: set_alias(version(to), model=model, expected=expected)) == "alias-moved"
    else:
        events = set_alias(version(to), model=model, expected=expected)
        assert [e.version for e in events] == ([] if present == to else [to])


def test_a_protected_alias_moves_by_decision_as_a_gated_stage_does() -> None:
    model = replace(POINTING, rules=Rules(protected_aliases=frozenset({"best"})))
    v = version(2)
    [asked] = set_alias(v, model=model)
    assert isinstance(asked, StageRequested)
    assert (asked.kind, asked.from_stage, asked.to_stage) == (TransitionKind.ALIAS, "Development", "@best")
    for_ = waiting(v, "@best", TransitionKind.ALIAS)
    [changed] = stages.decide_outcome(model, v, for_, decision(for_), "jws", "p", now())
    assert isinstance(changed, AliasChanged)
    assert (changed.alias, changed.version, changed.previous, changed.decision) == ("best", 2, 1, "jws")
    assert changed.transition_id == "t1"
    no = decision(for_, verdict=Verdict.REJECTED)
    [refused] = stages.decide_outcome(model, v, for_, no, "jws", "p", now())
    assert isinstance(refused, StageRefused)
    unsafe = replace(v, status=Status.QUARANTINED)
    [refused] = stages.decide_outcome(model, unsafe, for_, decision(for_), "jws", "p", now())
    assert isinstance(refused, StageRefused)
    assert refused.code == "version-quarantined"


def test_an_unsafe_version_gets_no_alias_that_nobody_decides_on() -> None:
    assert code(lambda: set_alias(of(Status.QUARANTINED))) == "version-quarantined"
    protected = replace(CHURN, rules=Rules(protected_aliases=frozenset({"best"})))
    assert isinstance(set_alias(of(Status.QUARANTINED), model=protected)[0], StageRequested)


def test_aliases_of_a_deleted_model_stay_as_they_are() -> None:
    gone = replace(POINTING, deleted=True)
    assert code(lambda: set_alias(version(2), model=gone)) == "model-deleted"
    assert code(lambda: aliases.decide_remove_alias(gone, "best", "ana", "x")) == "model-deleted"


@pytest.mark.parametrize(
    ("status", "expected"), [(Status.PENDING, "version-not-ready"), (Status.REJECTED, "version-rejected")]
)
def test_what_is_not_verified_gets_no_alias(status: Status, expected: str) -> None:
    assert code(lambda: set_alias(of(status))) == expected


@pytest.mark.parametrize(
    ("expected", "present", "applied"), [(0, None, True), (1, 1, True), (1, 2, False), (0, 2, False)]
)
def test_compare_and_set_holds_until_the_decision(expected: int, present: int | None, applied: bool) -> None:
    """Two requests may be approved; the second one must find what it was approved over."""
    v = version(3)
    for_ = replace(waiting(v, "@best", TransitionKind.ALIAS), expected=expected)
    model = replace(CHURN, aliases={"best": present} if present else {})
    [event] = stages.decide_outcome(model, v, for_, decision(for_), "jws", "p r1", now())
    assert isinstance(event, AliasChanged if applied else StageRefused)
    if isinstance(event, StageRefused):
        assert event.code == "alias-moved"
