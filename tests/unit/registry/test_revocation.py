"""The rules of revocation: whom it is for, what it ends, and who may take the place."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.registry.test_aliases import set_alias
from tests.unit.registry.test_stages import (
    ARTIFACT,
    ASKED,
    CHURN,
    DIGEST,
    code,
    decision,
    of,
    request,
    roll_back,
    version,
    waiting,
)

from contracts.approval import Revocation
from contracts.envelope import now
from contracts.lifecycle import DEFAULT_LIFECYCLE, REGISTRY, Stage, TransitionKind
from contracts.model import Inspection
from contracts.registry import AliasChanged, StageChanged, StageRefused, VersionRevoked
from registry import domain, revocation, stages
from registry.domain import Model, Revoked, Rules, Status, Version

GONE = replace(of(Status.REVOKED, Stage.PRODUCTION), revoked=Revoked("olga", "it leaks"))
PRODUCTION = frozenset({Stage.PRODUCTION})


def revoke(v: Version, **changed: Any) -> list[VersionRevoked]:
    order = Revocation(
        revocation_id="r1",
        workspace="default",
        model="churn",
        version=v.number,
        digest=v.digest,
        artifact_digest=v.artifact_digest,
        revoked_by="olga",
        reason="it leaks",
        fallback=2,
        revoked_at=now(),
    ).model_copy(update=changed)
    return revocation.decide_revoke(CHURN, v, order, "jws")


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.REVOKED])
def test_any_version_can_be_revoked_once(status: Status) -> None:
    [said] = revoke(of(status))
    assert (said.version, said.digest, said.revoked_by, said.reason) == (1, DIGEST, "olga", "it leaks")
    assert (said.fallback, said.revocation) == (2, "jws")
    assert revoke(of(Status.REVOKED)) == []


@pytest.mark.parametrize(
    "change",
    [{"workspace": "other"}, {"model": "other"}, {"version": 2}, {"digest": ARTIFACT}, {"artifact_digest": DIGEST}],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("status", [Status.READY, Status.REVOKED])
def test_a_revocation_for_anything_else_changes_nothing(change: dict[str, Any], status: Status) -> None:
    assert code(lambda: revoke(of(status), **change)) == "revocation-mismatch"


def test_what_is_found_later_does_not_bring_it_back() -> None:
    assert domain.decide_verified(CHURN, of(Status.REVOKED), Inspection(scanner="s"), None) == []


@pytest.mark.parametrize("origin", list(Stage))
@pytest.mark.parametrize("to", list(Stage))
def test_a_revoked_version_goes_to_the_archive_or_nowhere(origin: Stage, to: Stage) -> None:
    v = of(Status.REVOKED, origin)
    if to is Stage.ARCHIVED and origin is not to:
        [changed] = request(v, to)
        assert isinstance(changed, StageChanged)
    else:
        assert code(lambda: request(v, to)) in ("version-revoked", "already-in-stage")


def test_it_gets_no_alias_and_no_rollback() -> None:
    assert code(lambda: set_alias(of(Status.REVOKED))) == "version-revoked"
    protected = replace(CHURN, rules=Rules(protected_aliases=frozenset({"best"})))
    assert code(lambda: set_alias(of(Status.REVOKED), model=protected)) == "version-revoked"
    back = replace(version(1, Stage.ARCHIVED, been=PRODUCTION), status=Status.REVOKED)
    assert code(lambda: roll_back(back)) == "version-revoked"


def test_its_open_transitions_are_closed_with_who_and_why() -> None:
    [said] = revoke(version())
    closed = revocation.decide_close(waiting(version()), said)
    assert (closed.code, closed.detail) == ("version-revoked", "olga revoked version 1: it leaks")


def test_a_decision_that_comes_all_the_same_refuses_the_transition() -> None:
    for_ = waiting(version())
    [refused] = stages.decide_outcome(CHURN, of(Status.REVOKED), for_, decision(for_), "jws", "p", now())
    assert isinstance(refused, StageRefused)
    assert refused.code == "version-revoked"


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("been", [frozenset(), PRODUCTION])
def test_only_a_ready_version_that_was_there_takes_over_a_stage(
    status: Status, stage: Stage, been: frozenset[Stage]
) -> None:
    v = replace(of(status, stage), has_been=been)
    expected = status is Status.READY and stage is Stage.ARCHIVED and bool(been)
    assert revocation.may_take_over(CHURN, v, "Production") is expected


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize(("pointed_at", "was"), [((), False), ((2, 1), True), ((2,), False)])
def test_an_alias_returns_to_what_it_pointed_at_wherever_that_stands(
    status: Status, pointed_at: tuple[int, ...], was: bool
) -> None:
    expected = was and status is Status.READY
    assert revocation.may_take_over(CHURN, of(status, Stage.STAGING), "@best", pointed_at) is expected


def test_the_way_back_is_asked_for_like_any_other() -> None:
    back_to = version(2, Stage.ARCHIVED, been=PRODUCTION)
    asked = revocation.decide_return(CHURN, "Production", back_to, GONE, ASKED)
    assert (asked.kind, asked.version, asked.from_stage, asked.to_stage) == (
        *(TransitionKind.ROLLBACK, 2),
        *(Stage.ARCHIVED, Stage.PRODUCTION),
    )
    assert (asked.reason, asked.expected) == ("version 1 must not be used; olga revoked it: it leaks", None)
    alias = revocation.decide_return(CHURN, "@best", back_to, GONE, ASKED)
    assert (alias.to_stage, alias.expected) == ("@best", 1)
    long = replace(GONE, revoked=Revoked("olga", "x" * 2_000))
    assert len(revocation.decide_return(CHURN, "@best", back_to, long, ASKED).reason) == 2_000


def test_with_nowhere_to_return_to_it_leaves_without_a_decision() -> None:
    left = revocation.decide_leave(CHURN, GONE, ASKED)
    assert (left.kind, left.from_stage, left.to_stage) == (
        *(TransitionKind.RETIREMENT, Stage.PRODUCTION),
        Stage.ARCHIVED,
    )
    assert left.decision is None


def rolled_back(model: Model, *, by: str = REGISTRY) -> list[Any]:
    back_to = version(2, Stage.ARCHIVED, been=PRODUCTION)
    for_ = replace(waiting(back_to, Stage.PRODUCTION, TransitionKind.ROLLBACK), requested_by=by)
    return list(stages.decide_outcome(model, back_to, for_, decision(for_, requested_by=by), "jws", "p", now()))


def test_the_rollback_pushes_the_revoked_version_out() -> None:
    standing: dict[str, tuple[Version, ...]] = {Stage.PRODUCTION: (GONE,)}
    left, entered = rolled_back(replace(CHURN, occupants=standing, revoked=standing))
    assert (left.version, left.to_stage, left.superseded_by) == (1, Stage.ARCHIVED, 2)
    assert (entered.version, entered.to_stage, entered.replaces) == (2, Stage.PRODUCTION, 1)


def test_a_rollback_of_the_registrys_own_pushes_nobody_else_out() -> None:
    later = replace(CHURN, occupants={Stage.PRODUCTION: (version(3, Stage.PRODUCTION),)})
    [refused] = rolled_back(later)
    assert (refused.code, refused.to_stage) == ("no-longer-needed", Stage.PRODUCTION)
    # A person who asks for a rollback means it.
    assert [e.version for e in rolled_back(later, by="olga")] == [3, 2]


def test_an_alias_returns_though_the_version_moved_and_not_over_another() -> None:
    back_to = version(2, Stage.ARCHIVED)
    for_ = replace(waiting(back_to, "@best", TransitionKind.ROLLBACK), expected=1, requested_by=REGISTRY)
    said = decision(for_, requested_by=REGISTRY)
    moved = replace(back_to, stage=Stage.PRODUCTION)
    for present, expected in ((1, AliasChanged), (3, StageRefused)):
        model = replace(CHURN, aliases={"best": present})
        [event] = stages.decide_outcome(model, moved, for_, said, "jws", "p", now())
        assert isinstance(event, expected)


@given(
    st.lists(st.sampled_from([Status.READY, Status.REVOKED]), max_size=5), st.none() | st.integers(1, 3), st.booleans()
)
def test_whoever_enters_a_stage_pushes_out_every_revoked_version_and_no_more_than_must_go(
    standing: list[Status], holds: int | None, gated: bool
) -> None:
    rules = [r for r in DEFAULT_LIFECYCLE.stages if r.name != Stage.PRODUCTION]
    production = DEFAULT_LIFECYCLE.stages[2].model_copy(update={"holds": holds, "gated": gated})
    lifecycle = DEFAULT_LIFECYCLE.model_copy(update={"stages": (*rules, production), "open_moves": True})
    present = tuple(replace(of(status, Stage.PRODUCTION), number=n) for n, status in enumerate(standing, start=2))
    gone = tuple(v for v in present if v.status is Status.REVOKED)
    model = replace(
        CHURN,
        rules=Rules(lifecycle=lifecycle),
        occupants={Stage.PRODUCTION: present} if holds is not None else {},
        revoked={Stage.PRODUCTION: gone},
    )
    for_ = waiting(version(), Stage.PRODUCTION)
    *left, entered = stages.decide_outcome(model, version(), for_, decision(for_), "jws", "p", now())
    good = [v.number for v in present if v.status is Status.READY]
    surplus = max(len(good) + 1 - holds, 0) if holds is not None else 0
    assert [e.version for e in left if isinstance(e, StageChanged)] == [*(v.number for v in gone), *good[:surplus]]
    assert entered.version == 1
