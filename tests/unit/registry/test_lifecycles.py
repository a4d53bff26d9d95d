"""Lifecycles of a workspace's own: what must hold under any of them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.registry.test_stages import ASKED, CHURN, code, decision, version

from contracts.approval import Verdict
from contracts.envelope import now
from contracts.lifecycle import DEFAULT_LIFECYCLE, Lifecycle, Move, StageRule, TransitionKind
from contracts.registry import RequestTransition, RollBack, StageChanged, StageRefused, StageRequested, Transition
from registry import stages
from registry.domain import Model, Refused, Rules, Version
from registry.stages import Open

NAMES = ("Lab", "QA", "Canary", "Live", "Attic")


@st.composite
def lifecycles(draw: st.DrawFn) -> Lifecycle:
    """The first stage is the initial one, the last the archive."""
    names = NAMES[: draw(st.integers(2, 4))] + NAMES[-1:]
    middle = [
        StageRule(name=n, gated=draw(st.booleans()), holds=draw(st.none() | st.integers(1, 3))) for n in names[1:-1]
    ]
    pairs = [(a, b) for a in names for b in names]
    moves = draw(st.lists(st.sampled_from(pairs), max_size=len(pairs), unique=True))
    return Lifecycle(
        stages=(StageRule(name=names[0]), *middle, StageRule(name=names[-1])),
        moves=tuple(Move(origin=a, to=b) for a, b in moves),
        initial=names[0],
        archive=names[-1],
        open_moves=draw(st.booleans()),
    )


STEPS = st.lists(
    st.tuples(st.integers(1, 5), st.sampled_from(NAMES), st.booleans(), st.booleans(), st.booleans()), max_size=60
)


class Walk:
    """A naive model of the same rules: where each version is, and in which order they came."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.lifecycle = lifecycle
        self.versions = {n: replace(version(n), stage=lifecycle.initial) for n in range(1, 6)}
        self.present: dict[str, list[int]] = {lifecycle.initial: [1, 2, 3, 4, 5]}

    def model(self) -> Model:
        occupants = {
            rule.name: tuple(self.versions[n] for n in self.present.get(rule.name, []))
            for rule in self.lifecycle.stages
            if rule.holds is not None
        }
        return replace(CHURN, versions=5, occupants=occupants, rules=Rules(lifecycle=self.lifecycle))

    def ask(self, v: Version, to: str, *, back: bool) -> list[StageRequested | StageChanged]:
        if back:
            rollback = RollBack(model="churn", stage=to, to_version=v.number, reason="x")
            return list(stages.decide_rollback(self.model(), v, rollback, ASKED))
        wish = RequestTransition(model="churn", version=v.number, to_stage=to.upper(), reason="x")
        return stages.decide_request(self.model(), v, wish, ASKED)

    def decided(self, asked: StageRequested, *, approve: bool) -> list[StageChanged | StageRefused]:
        transition = Transition(**asked.model_dump(include=set(Transition.model_fields)))
        for_ = Open(transition, "ana", "x", now(), asked.expires_at)
        verdict = Verdict.APPROVED if approve else Verdict.REJECTED
        v = self.versions[asked.version]
        found = stages.decide_outcome(self.model(), v, for_, decision(for_, verdict=verdict), "jws", "p", now())
        assert not any(e.TYPE.startswith("hallmark.alias") for e in found)
        return found  # type: ignore[return-value]

    def apply(self, e: StageChanged) -> None:
        v = self.versions[e.version]
        assert v.stage == e.from_stage
        self.present[e.from_stage].remove(e.version)
        self.present.setdefault(e.to_stage, []).append(e.version)
        self.versions[e.version] = replace(v, stage=e.to_stage, has_been=v.has_been | {e.to_stage})


@given(lifecycles(), STEPS)
def test_what_holds_under_every_lifecycle(lifecycle: Lifecycle, steps: list[tuple[int, str, bool, bool, bool]]) -> None:
    walk = Walk(lifecycle)
    for number, to, approve, late, back in steps:
        if lifecycle.rule(to) is None:
            continue
        v = walk.versions[number]
        try:
            asked = walk.ask(v, to, back=back)
        except Refused:
            assert back or v.stage == to or not lifecycle.allows(v.stage, to), "a move that is allowed was refused"
            continue
        assert back or lifecycle.allows(v.stage, to)
        events: list[StageChanged | StageRefused] = [e for e in asked if isinstance(e, StageChanged)]
        if isinstance(asked[-1], StageRequested):
            assert lifecycle.gated(to)
            if late:  # somebody moves it meanwhile
                walk.apply(_moved(walk, v, lifecycle.archive))
            events = walk.decided(asked[-1], approve=approve)
        else:
            assert not lifecycle.gated(to), "no gated stage without a decision"
        before = list(walk.present.get(to, []))
        changes = [e for e in events if isinstance(e, StageChanged)]
        out = [e.version for e in changes if e.kind is TransitionKind.SUPERSEDED]
        assert out == before[: len(out)], "the longest-standing leave first"
        assert all(e.to_stage == lifecycle.archive for e in changes if e.kind is TransitionKind.SUPERSEDED)
        for e in changes:
            assert not lifecycle.gated(e.to_stage) or e.decision_id == "d1"
            walk.apply(e)
        for rule in lifecycle.stages:
            holds = len(walk.present.get(rule.name, []))
            assert rule.holds is None or holds <= rule.holds
            assert not out or rule.name != to or holds == rule.holds, "nobody leaves for nothing"


def _moved(walk: Walk, v: Version, to: str) -> StageChanged:
    transition = stages.transition_of(walk.model(), v, TransitionKind.RETIREMENT, to, "t0")
    return StageChanged(**transition.model_dump(), requested_by="olga", reason="x")


def test_capitals_do_not_matter_but_the_stage_keeps_its_own() -> None:
    walk = Walk(DEFAULT_LIFECYCLE)
    [asked] = walk.ask(walk.versions[1], "sTaGiNg", back=False)
    assert asked.to_stage == "Staging"
    guarded = RequestTransition(model="churn", version=1, to_stage="staging", expected_from="DEVELOPMENT", reason="x")
    assert stages.decide_request(walk.model(), walk.versions[1], guarded, ASKED)
    unknown = guarded.model_copy(update={"expected_from": "Nowhere"})
    assert code(lambda: stages.decide_request(walk.model(), walk.versions[1], unknown, ASKED)) == "unknown-stage"
    assert code(lambda: walk.ask(walk.versions[1], "Prod", back=False)) == "unknown-stage"


def test_open_moves_open_every_way_but_no_gate() -> None:
    free = DEFAULT_LIFECYCLE.model_copy(update={"moves": (), "open_moves": True})
    closed = free.model_copy(update={"open_moves": False})
    for lifecycle, expected in ((free, None), (closed, "move-not-allowed")):
        walk = Walk(lifecycle)
        for to in ("Production", "Staging", "Archived"):
            if expected is not None:
                assert code(lambda to=to, walk=walk: walk.ask(walk.versions[1], to, back=False)) == expected  # type: ignore[misc]
                continue
            [event] = walk.ask(walk.versions[1], to, back=False)
            assert isinstance(event, StageRequested) == (to != "Archived")


@pytest.mark.parametrize("holds", [1, 2, 3])
def test_a_stage_whose_room_shrank_is_emptied_by_the_next_to_enter(holds: int) -> None:
    """Three stand in Live; its room is made smaller; a fourth comes."""
    rules = (StageRule(name="Lab"), StageRule(name="Live", holds=holds), StageRule(name="Attic"))
    walk = Walk(Lifecycle(stages=rules, initial="Lab", archive="Attic", open_moves=True))
    for n in (2, 1, 3):
        walk.apply(_moved(walk, walk.versions[n], "Live"))
    *leaving, entering = walk.ask(walk.versions[4], "Live", back=False)
    assert [e.version for e in leaving] == [2, 1, 3][: 4 - holds]
    assert isinstance(entering, StageChanged)
    assert entering.version == 4
