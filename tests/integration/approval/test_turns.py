"""One at a time: of the requests that would enter one stage, each is decided against who is there when it is carried
out."""

from typing import Any

import pytest
from tests.integration.approval.conftest import Direct, transition_id
from tests.integration.approval.test_emergencies import breaks
from tests.integration.approval.test_features import (
    GLASS,
    REVIEW,
    approvals,
    document,
    noted,
    only,
    status,
    vote,
)

from approval import standing
from contracts.envelope import Envelope
from contracts.lifecycle import Stage, TransitionKind
from contracts.registry import AliasChanged, StageRequested

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ["only"]
BETTER = {"id": "better", "cel": "candidate.metrics.accuracy >= baseline.metrics.accuracy", "on_no_baseline": "pass"}
LONG = 360_000


async def three(direct: Direct, **spec: Any) -> list[Envelope]:
    """Version 1 (0.8) is in Production; 2 (0.95), 3 (0.85) and 4 (0.96) ask to follow it. The first waits least."""
    await direct.publish(document(gates=[BETTER], **approvals(REVIEW), **spec))
    for version, accuracy in ((1, 0.8), (2, 0.95), (3, 0.85), (4, 0.96)):
        await direct.registry.register("m", version, accuracy=accuracy)
    await direct.registry.changed(await direct.registry.request("m", 1))
    lives = {2: 3600, 3: LONG, 4: LONG}
    return [await direct.registry.request("m", version, expires_in=lives[version]) for version in lives]


async def agreed(direct: Direct, *asked: Envelope) -> list[str]:
    """Ben approves each; how they stand then."""
    for one in asked:
        await vote(direct, transition_id(one), "ben", "reviewers")
    return [await status(direct, transition_id(one)) for one in asked]


async def told(direct: Direct, asked: Envelope) -> str:
    async with direct.db.snapshot() as tx:
        rows = await standing.of_requests(tx, [transition_id(asked)])
    return str(rows[transition_id(asked)].waits_for)


async def test_the_second_is_compared_with_the_first(only: Direct) -> None:
    two, three_, four = await three(only)
    assert await agreed(only, two, three_, four) == ["approved", "open", "open"]
    first = await only.request(transition_id(two))
    assert first.decision is not None
    assert first.decision.baseline == 1
    assert (await noted(only, transition_id(three_)))[0] == "schedule"
    assert transition_id(two) in await told(only, three_)
    await only.registry.changed(two)
    assert await status(only, transition_id(three_)) == "rejected"  # 0.85 is less than 0.95
    late = await only.request(transition_id(four))
    assert (late.status, late.votes, late.inputs["baseline"]["version"]) == ("open", (), 2)
    assert await agreed(only, four) == ["approved"]


async def test_two_that_become_due_in_the_same_sweep(only: Direct) -> None:
    two, three_, four = await three(only, schedule={"min_wait": "30m"})
    assert await agreed(only, two, three_, four) == ["open", "open", "open"]
    await only.later(minutes=31)
    assert sorted([await status(only, transition_id(one)) for one in (two, three_, four)]) == [
        "approved",
        "open",
        "open",
    ]


async def test_the_next_goes_on_when_the_first_is_refused(only: Direct) -> None:
    two, three_, four = await three(only)
    await agreed(only, two, three_, four)
    await only.registry.refused(two, "version-quarantined")
    assert [await status(only, transition_id(one)) for one in (three_, four)] == ["approved", "open"]
    assert transition_id(three_) in await told(only, four)


async def test_nobody_waits_for_an_approval_that_has_expired(only: Direct) -> None:
    two, three_, _ = await three(only)
    await agreed(only, two, three_)
    await only.later(minutes=59)
    assert await status(only, transition_id(three_)) == "open"
    await only.later(minutes=2)
    assert await status(only, transition_id(three_)) == "approved"


async def test_who_waits_may_still_be_rejected_or_expire(only: Direct) -> None:
    two, three_, four = await three(only)
    await agreed(only, two, three_, four)
    await vote(only, transition_id(three_), "bo", "reviewers", choice="reject")
    assert await status(only, transition_id(three_)) == "rejected"
    await only.registry.changed(two)
    assert await status(only, transition_id(four)) == "open"


async def test_an_emergency_waits_for_nobody(only: Direct) -> None:
    two, three_, four = await three(only, break_glass=GLASS)
    await agreed(only, two, three_)
    done = await breaks(only, transition_id(four))
    assert done.decision is not None
    assert (done.status, done.decision.baseline) == ("approved", 1)
    await only.registry.refused(two, "stage-moved")
    assert transition_id(four) in await told(only, three_)


async def test_a_way_back_that_was_approved_beforehand_waits_for_nobody(only: Direct) -> None:
    any_kind = {"transition": {"kind": "any", "to": "Production"}, "models": ["m"]}
    await only.publish(document(match=any_kind, **approvals(REVIEW)))
    asked = []
    for version, fields in ((1, {}), (2, {"rollback_to": "1"}), (3, {})):
        await only.registry.register("m", version, accuracy=0.95)
        asked.append(await only.registry.request("m", version, fields=fields))
        await agreed(only, asked[-1])
        if version < 3:
            await only.registry.changed(asked[-1])
    assert await status(only, transition_id(asked[2])) == "approved"
    back = await only.registry.request("m", 1, from_=Stage.ARCHIVED, kind=TransitionKind.ROLLBACK)
    found = await only.request(transition_id(back))
    assert found.decision is not None
    assert (found.status, found.decision.baseline) == ("approved", 2)


async def test_other_targets_do_not_wait_and_an_alias_is_one(only: Direct) -> None:
    any_kind = {"transition": {"kind": "any"}, "models": ["m"]}
    await only.publish(document(match=any_kind, **approvals(REVIEW)))
    for version in (1, 2):
        await only.registry.register("m", version, accuracy=0.95)

    async def alias(version: int) -> Envelope:
        move = only.registry.transition("m", version, Stage.STAGING, Stage.STAGING, TransitionKind.ALIAS)
        given = {**move.model_dump(), "to_stage": "@best", "requested_by": "ana", "reason": "test"}
        until = (await only.request(transition_id(stage))).opened.expires_at
        return await only.registry.publish(StageRequested(**given, expires_at=until), "m", version)

    stage = await only.registry.request("m", 1)
    first, second = await alias(1), await alias(2)
    assert await agreed(only, stage, first, second) == ["approved", "approved", "open"]
    asked = first.payload(StageRequested)
    names = {"workspace", "model", "version", "digest", "artifact_digest", "requested_by", "reason", "transition_id"}
    await only.registry.publish(AliasChanged(alias="best", **asked.model_dump(include=names)), "m", 1)
    assert await agreed(only, second) == ["approved"]
