"""Many events in one transaction come to the same as one after the other."""

import random
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope, EnvelopeError
from notifier.fanning import fan_out

from .asking import As, made_by
from .conftest import Rig
from .test_quiet import closing, reminder, silenced

HOOK = {"channel": "webhook", "address": "http://127.0.0.1:9/hook"}
# Identities are made anew in each transaction, and so are times: what is left must be equal.
LEFT = (
    "select subscription_id, event_id, status, held_by, open, lane from notifier.delivery order by position",
    "select subscription_id, lane from notifier.lane order by 1, 2",
    "select subscription_id, labels, due_at is null, request from notifier.bundle order by 1, 2",
    "select inhibition_id, labels, event_id from notifier.alarm order by 1, 2",
    "select subscription_id, count, detail, event_id from notifier.filter_error order by 1",
    "select event_id, workspace, stream, headers::text, value from notifier.source_event order by position",
)


async def left(tx: AsyncConnection) -> list[list[tuple[Any, ...]]]:
    return [[tuple(row) for row in await tx.execute(sa.text(query))] for query in LEFT]


async def after(rig: Rig, *batches: Sequence[Envelope]) -> list[list[tuple[Any, ...]]]:
    """What the tables hold after these batches; then it is as if they had never come."""
    async with rig.db.engine.connect() as connection:
        transaction = await connection.begin()
        for batch in batches:
            await fan_out(connection, rig.log, batch)
        found = await left(connection)
        await transaction.rollback()
    return found


async def everybody(ana: httpx2.AsyncClient, root: httpx2.AsyncClient) -> None:
    """Every way to want an event, and every way to keep it from somebody."""
    await made_by(ana, **HOOK, types=["hallmark.*"])
    await made_by(ana, **HOOK, types=["hallmark.*"], order="any")
    await made_by(ana, **HOOK, model="churn")
    await made_by(ana, **HOOK, types=["hallmark.*"], bundling={"mode": "grouped", "by": ["request"]})
    digest = {"mode": "digest", "at": "08:00", "zone": "Europe/Berlin", "first_at_once_seconds": 600}
    await made_by(ana, **HOOK, types=["hallmark.*"], bundling=digest)
    await made_by(ana, **HOOK, types=["hallmark.*"], cel="data.version > 1")  # reminders have none
    await silenced(ana, model="quiet")
    rule = {
        "source_types": ["hallmark.request.escalated.v1"],
        "until_types": ["hallmark.request.closed.v1"],
        "target_types": ["hallmark.stage.changed.v1"],
        "equal": ["model"],
        "seconds": 3600,
        "comment": "an emergency",
    }
    assert (await root.post("/v1/inhibitions", json=rule)).status_code == 201


async def test_a_batch_comes_to_the_same_as_its_events_one_after_the_other(
    rig: Rig, ana: httpx2.AsyncClient, person: As
) -> None:
    await everybody(ana, person("root", "admins"))
    luck, seen = random.Random(1), set[str]()
    for _ in range(12):
        events = [
            luck.choice(
                (
                    lambda: rig.event(luck.choice(("churn", "quiet", "fraud")), luck.randint(1, 3)),
                    lambda: reminder(rig, f"t-{luck.randint(1, 2)}"),
                    lambda: closing(rig, f"t-{luck.randint(1, 2)}"),
                )
            )()
            for _ in range(12)
        ]
        cut = luck.randint(1, 11)
        alone = await after(rig, *([event] for event in events))
        assert await after(rig, events) == alone
        assert await after(rig, events[:cut], events[cut:]) == alone
        seen |= {row[2] for row in alone[0]}
    assert seen == {"pending", "waiting", "cancelled", "silenced", "inhibited"}


async def test_a_bad_body_leaves_nothing_of_its_batch(rig: Rig, ana: httpx2.AsyncClient) -> None:
    await made_by(ana, **HOOK)
    bad = rig.event("churn", 2).model_copy(update={"value": b'{"version": "x"}'})
    with pytest.raises(EnvelopeError):
        await rig.happens(rig.event("churn", 1), bad)
    async with rig.db.snapshot() as tx:
        assert [rows for rows in await left(tx) if rows] == []
