"""The rules of stages and aliases: every move, every refusal, and random walks under lifecycles of any shape."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.approval import BreakGlass, Choice, Decision, PolicyRef, Verdict, Vote
from contracts.envelope import now
from contracts.keys import LEEWAY_SECONDS
from contracts.lifecycle import Lifecycle, Stage, StageRule, TransitionKind
from contracts.registry import (
    AliasChanged,
    RequestTransition,
    RollBack,
    StageChanged,
    StageRefused,
    StageRequested,
    Transition,
)
from registry import stages
from registry.domain import Model, Refused, Rules, Status, Version
from registry.stages import Asked, Open

DIGEST = "sha256:" + "a" * 64
ARTIFACT = "sha256:" + "b" * 64
CHURN = Model("default", "churn", exists=True, versions=3, title="churn")
BEFORE, LATER = now() - timedelta(hours=1), now() + timedelta(hours=1)
ASKED = Asked("t1", "ana", LATER)
GATED = {Stage.STAGING, Stage.PRODUCTION}
MOVES = {
    (Stage.DEVELOPMENT, Stage.STAGING),
    (Stage.STAGING, Stage.PRODUCTION),
    (Stage.STAGING, Stage.DEVELOPMENT),
    (Stage.DEVELOPMENT, Stage.ARCHIVED),
    (Stage.STAGING, Stage.ARCHIVED),
    (Stage.PRODUCTION, Stage.ARCHIVED),
    (Stage.ARCHIVED, Stage.DEVELOPMENT),
}


def version(number: int = 1, stage: Stage = Stage.DEVELOPMENT, *, been: frozenset[Stage] = frozenset()) -> Version:
    return Version(number, DIGEST, ARTIFACT, stage, been)


def request(v: Version, to: Stage, expected: Stage | None = None) -> list[StageRequested | StageChanged]:
    command = RequestTransition(model="churn", version=v.number, to_stage=to, reason="because", expected_from=expected)
    return stages.decide_request(CHURN, v, command, ASKED)


def waiting(v: Version, to: str = Stage.STAGING, kind: TransitionKind = TransitionKind.PROMOTION) -> Open:
    transition = Transition(
        transition_id="t1",
        kind=kind,
        workspace="default",
        model="churn",
        version=v.number,
        digest=v.digest,
        artifact_digest=v.artifact_digest,
        from_stage=v.stage,
        to_stage=to,
    )
    return Open(transition, requested_by="ana", reason="because", requested_at=BEFORE, expires_at=LATER)


def decision(for_: Open, *, verdict: Verdict = Verdict.APPROVED, **changed: Any) -> Decision:
    vote = Vote(
        voter="ben",
        choice=Choice.APPROVE,
        rule="people",
        meaning="I reviewed it",
        at=now(),
        auth_method="token",
        request_digest=DIGEST,
    )
    base = Decision(
        **for_.transition.model_dump(),
        decision_id="d1",
        verdict=verdict,
        reason="",
        requested_by="ana",
        policies=(PolicyRef(name="p", revision=1, digest=DIGEST),),
        gates=(),
        votes=(vote,),
        inputs_digest=DIGEST,
        request_digest=DIGEST,
        decided_at=now(),
        expires_at=LATER,
    )
    return base.model_copy(update=changed)


def outcome(
    v: Version, for_: Open, d: Decision, *, occupant: Version | None = None
) -> list[StageChanged | StageRefused]:
    model = replace(CHURN, occupants={occupant.stage: (occupant,)} if occupant else {})
    events = stages.decide_outcome(model, v, for_, d, "jws", "p r1", now())
    return [event for event in events if not isinstance(event, AliasChanged)]


@pytest.mark.parametrize("origin", list(Stage))
@pytest.mark.parametrize("to", list(Stage))
def test_every_move(origin: Stage, to: Stage) -> None:
    v = version(stage=origin)
    if (origin, to) not in MOVES:
        with pytest.raises(Refused) as refused:
            request(v, to)
        assert refused.value.code == ("already-in-stage" if origin == to else "move-not-allowed")
        return
    [event] = request(v, to)
    assert (event.from_stage, event.to_stage, event.requested_by) == (origin, to, "ana")
    # Law 5: a gated stage is never entered without a decision.
    assert isinstance(event, StageRequested if to in GATED else StageChanged)


def test_production_is_entered_from_staging_only() -> None:
    assert {origin for origin, to in MOVES if to is Stage.PRODUCTION} == {Stage.STAGING}


def test_an_expected_stage_guards_against_a_race() -> None:
    with pytest.raises(Refused, match="not in Development as expected"):
        request(version(stage=Stage.STAGING), Stage.PRODUCTION, expected=Stage.DEVELOPMENT)


def test_an_approved_decision_changes_the_stage_and_says_who_and_why() -> None:
    v = version()
    [changed] = outcome(v, waiting(v), decision(waiting(v)))
    assert isinstance(changed, StageChanged)
    assert (changed.to_stage, changed.requested_by, changed.reason) == (Stage.STAGING, "ana", "because")
    assert [a.name for a in changed.approved_by] == ["ben"]
    assert (changed.decision_id, changed.decision) == ("d1", "jws")


def test_the_former_occupant_is_archived_in_the_same_breath() -> None:
    v, former = version(2, Stage.STAGING), version(1, Stage.PRODUCTION)
    for_ = waiting(v, Stage.PRODUCTION)
    archived, changed = outcome(v, for_, decision(for_), occupant=former)
    assert isinstance(archived, StageChanged)
    assert (archived.version, archived.to_stage, archived.superseded_by) == (1, Stage.ARCHIVED, 2)
    assert archived.kind is TransitionKind.SUPERSEDED
    assert isinstance(changed, StageChanged)
    assert (changed.version, changed.to_stage, changed.replaces) == (2, Stage.PRODUCTION, 1)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"verdict": Verdict.REJECTED, "reason": "too slow"}, "rejected"),
        ({"expires_at": now() - timedelta(seconds=1)}, "decision-expired"),
    ],
)
def test_a_refusal_closes_the_transition(change: dict[str, Any], code: str) -> None:
    v = version()
    [refused] = outcome(v, waiting(v), decision(waiting(v), **change))
    assert isinstance(refused, StageRefused)
    assert refused.code == code


def test_a_version_that_moved_meanwhile_is_refused() -> None:
    v = version()
    [refused] = outcome(replace(v, stage=Stage.ARCHIVED), waiting(v), decision(waiting(v)))
    assert isinstance(refused, StageRefused)
    assert refused.code == "stage-moved"


@pytest.mark.parametrize(
    "change",
    [
        {"transition_id": "t2"},
        {"kind": TransitionKind.ROLLBACK},
        {"workspace": "other"},
        {"model": "other"},
        {"version": 2},
        {"digest": ARTIFACT},
        {"artifact_digest": DIGEST},
        {"from_stage": Stage.STAGING},
        {"to_stage": Stage.PRODUCTION},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_decision_for_anything_else_changes_nothing(change: dict[str, Any]) -> None:
    v = version()
    with pytest.raises(Refused) as refused:
        outcome(v, waiting(v), decision(waiting(v), **change))
    assert refused.value.code == "decision-mismatch"
    assert next(iter(change)) in refused.value.detail


def test_a_decision_that_names_another_requester_changes_nothing() -> None:
    v = version()
    with pytest.raises(Refused, match="mallory"):
        outcome(v, waiting(v), decision(waiting(v), requested_by="mallory"))


@pytest.mark.parametrize("author", ["ben", "ana"])
def test_the_registry_itself_knows_four_eyes(author: str) -> None:
    """ben approved. He must be neither the author nor the requester, whatever the approval service says."""
    v = replace(version(), registered_by=author)
    asked_by = "ana" if author == "ben" else "ben"
    for_ = replace(waiting(v), requested_by=asked_by)
    with pytest.raises(Refused) as refused:
        outcome(v, for_, decision(for_, requested_by=asked_by))
    assert refused.value.code == "decision-own-vote"


@pytest.mark.parametrize("own", ["ana", "cleo"])
def test_nobody_approves_in_the_name_of_the_requester_or_the_author(own: str) -> None:
    v = replace(version(), registered_by="cleo")
    said = decision(waiting(v))
    delegated = said.votes[0].model_copy(update={"on_behalf_of": own})
    with pytest.raises(Refused) as refused:
        outcome(v, waiting(v), said.model_copy(update={"votes": (delegated,)}))
    assert refused.value.code == "decision-own-vote"


def test_a_decision_after_the_request_expired_is_too_late() -> None:
    v = version()
    for_ = replace(waiting(v), expires_at=now() - timedelta(seconds=1))
    [refused] = outcome(v, for_, decision(for_))
    assert isinstance(refused, StageRefused)
    assert refused.code == "request-expired"


def test_the_bound_fields_are_those_tested_above() -> None:
    assert set(stages.BOUND) == {
        *("transition_id", "kind", "workspace", "model", "version"),
        *("digest", "artifact_digest", "from_stage", "to_stage"),
    }


def roll_back(target: Version | None, stage: Stage = Stage.PRODUCTION) -> list[StageRequested]:
    command = RollBack(model="churn", stage=stage, reason="errors")
    return stages.decide_rollback(CHURN, target, command, Asked("t1", "olga", LATER))


def test_rollback_asks_for_a_decision_too() -> None:
    [event] = roll_back(version(1, Stage.ARCHIVED, been=frozenset({Stage.PRODUCTION})))
    assert (event.kind, event.from_stage, event.to_stage) == (
        TransitionKind.ROLLBACK,
        Stage.ARCHIVED,
        Stage.PRODUCTION,
    )


@pytest.mark.parametrize(
    ("target", "stage", "code"),
    [
        (None, Stage.PRODUCTION, "nothing-to-roll-back-to"),
        (version(1, Stage.ARCHIVED), Stage.PRODUCTION, "never-been-there"),
        (version(1, Stage.PRODUCTION, been=frozenset({Stage.PRODUCTION})), Stage.PRODUCTION, "already-in-stage"),
        (version(1, Stage.DEVELOPMENT), Stage.ARCHIVED, "not-a-gated-stage"),
        # Back in Development it takes the ordinary way; and the occupant of Production does not fall to Staging.
        (version(1, Stage.DEVELOPMENT, been=frozenset({Stage.PRODUCTION})), Stage.PRODUCTION, "not-archived"),
        (version(1, Stage.PRODUCTION, been=frozenset({Stage.STAGING})), Stage.STAGING, "not-archived"),
    ],
)
def test_rollback_refusals(target: Version | None, stage: Stage, code: str) -> None:
    with pytest.raises(Refused) as refused:
        roll_back(target, stage)
    assert refused.value.code == code


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from(list(Stage)), st.booleans()), max_size=30))
def test_production_never_holds_two_and_only_by_decision(steps: list[tuple[int, Stage, bool]]) -> None:
    versions = {n: version(n) for n in (1, 2, 3)}
    for number, to, approve in steps:
        v = versions[number]
        try:
            [event] = request(v, to)
        except Refused:
            continue
        events: list[StageChanged | StageRefused] = [event] if isinstance(event, StageChanged) else []
        if isinstance(event, StageRequested):
            for_ = waiting(v, to)
            occupant = next((o for o in versions.values() if o.stage is Stage.PRODUCTION), None)
            verdict = Verdict.APPROVED if approve else Verdict.REJECTED
            events = outcome(v, for_, decision(for_, verdict=verdict), occupant=occupant)
        for e in events:
            if isinstance(e, StageChanged):
                assert e.to_stage not in GATED or e.decision_id == "d1"
                versions[e.version] = replace(versions[e.version], stage=e.to_stage)
        assert sum(v.stage is Stage.PRODUCTION for v in versions.values()) <= 1


# -- quarantine, and what happened meanwhile ----------------------------------------------------------------------


def code(act: Callable[[], object]) -> str:
    with pytest.raises(Refused) as refused:
        act()
    return refused.value.code


def of(status: Status, stage: Stage = Stage.DEVELOPMENT) -> Version:
    return replace(version(stage=stage), status=status)


@pytest.mark.parametrize(
    ("status", "expected"), [(Status.PENDING, "version-not-ready"), (Status.REJECTED, "version-rejected")]
)
def test_what_is_not_verified_goes_nowhere(status: Status, expected: str) -> None:
    for to in (Stage.STAGING, Stage.ARCHIVED):
        assert code(lambda to=to: request(of(status), to)) == expected  # type: ignore[misc]
    v = version()
    [refused] = outcome(of(status), waiting(v), decision(waiting(v)))
    assert isinstance(refused, StageRefused)
    assert refused.code == "version-not-ready"


def test_a_quarantined_version_leaves_development_by_a_waiver_only() -> None:
    v = of(Status.QUARANTINED)
    assert code(lambda: request(v, Stage.ARCHIVED)) == "version-quarantined"
    [asked] = request(v, Stage.STAGING)
    assert isinstance(asked, StageRequested)
    for_ = waiting(v)
    [refused] = outcome(v, for_, decision(for_, waivers=("another",)))
    assert isinstance(refused, StageRefused)
    assert refused.code == "version-quarantined"
    [changed] = outcome(v, for_, decision(for_, waivers=("another", "unsafe-artifact")))
    assert isinstance(changed, StageChanged)


@pytest.mark.parametrize(
    ("stage", "to"),
    [
        (Stage.PRODUCTION, Stage.ARCHIVED),
        (Stage.STAGING, Stage.ARCHIVED),
        (Stage.STAGING, Stage.DEVELOPMENT),
        (Stage.ARCHIVED, Stage.DEVELOPMENT),
    ],
)
def test_a_version_found_unsafe_later_is_taken_out(stage: Stage, to: Stage) -> None:
    [changed] = request(of(Status.QUARANTINED, stage), to)
    assert isinstance(changed, StageChanged)


SMALL = Lifecycle(
    stages=(StageRule(name="Development"), StageRule(name="Archived")), initial="Development", archive="Archived"
)


@pytest.mark.parametrize(
    ("model", "v", "expected"),
    [
        (replace(CHURN, deleted=True), version(), "model-deleted"),
        (CHURN, replace(version(), stage="Archived"), "stage-moved"),
        (replace(CHURN, rules=Rules(lifecycle=SMALL)), version(), "unknown-stage"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_changed_meanwhile_refuses_the_transition(model: Model, v: Version, expected: str) -> None:
    for_ = waiting(version())
    [refused] = stages.decide_outcome(model, v, for_, decision(for_), "jws", "p", now())
    assert isinstance(refused, StageRefused)
    assert refused.code == expected


def test_an_open_transition_is_taken_back_or_ends() -> None:
    for_ = waiting(version())
    cancelled = stages.decide_cancel(for_, "ana", "a leak")
    assert (cancelled.code, cancelled.detail) == ("cancelled", "ana took it back: a leak")
    assert Transition(**cancelled.model_dump(include=set(stages.BOUND))) == for_.transition
    assert stages.decide_expiry(for_).code == "request-expired"


@pytest.mark.parametrize(("seconds", "counts"), [(0, True), (LEEWAY_SECONDS, True), (LEEWAY_SECONDS + 1, False)])
def test_no_decision_is_older_than_the_request(seconds: int, counts: bool) -> None:
    v = version()
    dated = decision(waiting(v), decided_at=BEFORE - timedelta(seconds=seconds))
    if counts:
        assert isinstance(outcome(v, waiting(v), dated)[0], StageChanged)
    else:
        with pytest.raises(Refused) as refused:
            outcome(v, waiting(v), dated)
        assert refused.value.code == "decision-backdated"


@pytest.mark.parametrize(
    ("compared_with", "present", "applied"),
    [(0, 0, True), (1, 1, True), (None, 2, True), (1, 2, False), (0, 2, False), (1, 0, False), (1, None, False)],
)
def test_a_decision_counts_against_the_occupant_that_it_was_compared_with(
    compared_with: int | None, present: int | None, applied: bool
) -> None:
    """Records from before it was in them (None) do not say which."""
    v = version(3, Stage.STAGING)
    for_ = replace(waiting(v, Stage.PRODUCTION), occupant=present)
    [event] = outcome(v, for_, decision(for_, baseline=compared_with))
    assert isinstance(event, StageChanged if applied else StageRefused)
    if isinstance(event, StageRefused):
        assert event.code == "occupant-moved"


def test_an_emergency_is_not_held_up_by_who_came_in_meanwhile() -> None:
    v = version(3, Stage.STAGING)
    for_ = replace(waiting(v, Stage.PRODUCTION), occupant=2)
    glass = BreakGlass(
        by="otto",
        groups=("oncall",),
        reason="it burns",
        at=now(),
        auth_method="token",
        request_digest=DIGEST,
        skips=("approvals",),
        page=(),
        until=LATER,
        review=("risk",),
        review_count=1,
        review_by=LATER,
    )
    [event] = outcome(v, for_, decision(for_, baseline=1, break_glass=glass))
    assert isinstance(event, StageChanged)
