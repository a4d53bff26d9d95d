"""The rules of deleting and restoring versions, and of a deleted model that begins anew."""

from dataclasses import replace

import pytest
from tests.unit.registry.test_stages import ASKED, CHURN, GATED, code, version, waiting

from contracts.lifecycle import Lifecycle, Stage, StageRule
from contracts.payload import Message
from contracts.registry import AliasRemoved, ModelRecreated, StageChanged, StageRefused, VersionDeleted
from registry import deletion, revocation
from registry.domain import Model, Rules, Version

STAGES = ("Development", "Staging", "Production", "Archived")
OPEN = Lifecycle(
    stages=tuple(StageRule(name=name) for name in STAGES),
    initial="Development",
    archive="Archived",
    open_moves=True,
)
FREE = replace(CHURN, rules=Rules(OPEN), aliases={"best": 1, "other": 2})


def delete(v: Version, model: Model = FREE, *, open_: bool = False) -> list[Message]:
    return deletion.decide_delete_version(model, v, [waiting(v)] if open_ else [], ASKED, "wrong data")


def test_it_first_leaves_what_it_stood_for() -> None:
    refused, removed, moved, deleted = delete(version(stage=Stage.PRODUCTION), open_=True)
    assert isinstance(refused, StageRefused)
    assert isinstance(removed, AliasRemoved)
    assert isinstance(moved, StageChanged)
    assert isinstance(deleted, VersionDeleted)
    assert (refused.code, removed.alias, removed.previous, deleted.reason) == (
        "version-deleted", "best", 1, "wrong data",
    )  # fmt: skip
    assert (moved.from_stage, moved.to_stage) == ("Production", "Archived")


@pytest.mark.parametrize("stage", [Stage.DEVELOPMENT, Stage.ARCHIVED])
def test_what_stands_for_nothing_is_deleted_at_once(stage: Stage) -> None:
    [deleted] = delete(version(3, stage))
    assert isinstance(deleted, VersionDeleted)


@pytest.mark.parametrize("stage", sorted(GATED))
def test_a_version_in_a_gated_stage_stays(stage: Stage) -> None:
    assert code(lambda: delete(version(3, stage), CHURN)) == "version-in-use"


def test_a_version_that_a_protected_alias_points_at_stays() -> None:
    guarded = replace(FREE, rules=Rules(OPEN, protected_aliases=frozenset({"BEST"})))
    assert code(lambda: delete(version(1), guarded)) == "version-in-use"
    assert len(delete(version(2), guarded)) == 2, "another alias is removed with its version"


def test_only_a_deleted_version_is_restored() -> None:
    assert code(lambda: deletion.decide_restore_version(CHURN, version(), "x")) == "not-deleted"
    [restored] = deletion.decide_restore_version(CHURN, replace(version(), deleted=True), "mistake")
    assert (restored.version, restored.reason) == (1, "mistake")


@pytest.mark.parametrize("act", ["delete", "restore"])
def test_of_a_deleted_model_neither(act: str) -> None:
    gone, v = replace(CHURN, deleted=True), replace(version(), deleted=act == "restore")
    both = {
        "delete": lambda: delete(v, gone),
        "restore": lambda: deletion.decide_restore_version(gone, v, "x"),
    }
    assert code(both[act]) == "model-deleted"


def test_a_deleted_version_takes_nobodys_place() -> None:
    archived = version(stage=Stage.ARCHIVED, been=frozenset({Stage.PRODUCTION}))
    assert revocation.may_take_over(CHURN, archived, Stage.PRODUCTION)
    assert not revocation.may_take_over(CHURN, replace(archived, deleted=True), Stage.PRODUCTION)


def test_a_model_begins_anew() -> None:
    staged = [version(1, Stage.STAGING), version(2, Stage.PRODUCTION)]
    events = deletion.decide_recreate(
        replace(FREE, deleted=True), "churn", "second", {"a": "b"}, staged, [waiting(staged[0])], ASKED
    )
    assert [type(event) for event in events] == [
        StageRefused, AliasRemoved, AliasRemoved, StageChanged, StageChanged, ModelRecreated,
    ]  # fmt: skip
    moves = [event for event in events if isinstance(event, StageChanged)]
    assert len({move.transition_id for move in moves}) == 2, "each move is a transition of its own"
    anew = events[-1]
    assert isinstance(anew, ModelRecreated)
    assert (anew.versions, anew.description, anew.tags) == (3, "second", {"a": "b"})


def test_a_model_that_lives_does_not_begin_anew() -> None:
    assert code(lambda: deletion.decide_recreate(FREE, "churn", "", {}, [], [], ASKED)) == "model-exists"


def test_the_naming_rule_holds_for_a_new_beginning() -> None:
    ruled = replace(CHURN, deleted=True, rules=Rules(naming="x-.*"))
    assert code(lambda: deletion.decide_recreate(ruled, "churn", "", {}, [], [], ASKED)) == "bad-name"
