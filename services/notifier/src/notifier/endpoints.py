"""Where subscriptions lead: what holds for all that go to one address (breaker, rate), and for each (health)."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from notifier.breaker import Breaker, Rate
from notifier.health import Health
from notifier.retrying import Outcome, Verdict
from notifier.tables import EndpointRow, LaneRow, TargetRow
from notifier.views import Document, t

OVERLOADED = 429


@dataclass(frozen=True)
class Heard:
    """What one try said of the endpoint that its subscription leads to. `probe`: it was sent to find that out."""

    subscription_id: str
    outcome: Outcome
    probe: bool


async def register(tx: AsyncConnection, subscription_id: str, endpoint: str) -> None:
    """A subscription leads to the endpoint of this name; those with the same name share its breaker and its rate."""
    await tx.execute(insert(t(EndpointRow)).values(endpoint=endpoint).on_conflict_do_nothing())
    await tx.execute(insert(t(TargetRow)).values(subscription_id=subscription_id, endpoint=endpoint))


async def forget(tx: AsyncConnection, subscription_id: str) -> None:
    """What is known of the endpoint too, where no other subscription leads to it."""
    target, endpoint = t(TargetRow), t(EndpointRow)
    mine = sa.delete(target).where(target.c.subscription_id == subscription_id).returning(target.c.endpoint)
    names = (await tx.scalars(mine)).all()
    used = sa.select(target.c.endpoint).where(target.c.endpoint == endpoint.c.endpoint)
    await tx.execute(sa.delete(endpoint).where(endpoint.c.endpoint.in_(names), ~used.exists()))


async def refresh(tx: AsyncConnection, subscription_id: str) -> None:
    """As if nothing had failed: it was enabled again."""
    target, endpoint = t(TargetRow), t(EndpointRow)
    mine = target.c.subscription_id == subscription_id
    await tx.execute(sa.update(target).where(mine).values(failing_since=None, failures=0, told=0))
    name = sa.select(target.c.endpoint).where(mine).scalar_subquery()
    fresh: dict[str, Any] = {"slots": [], "probe_at": None, "probes": 0, "paused_until": None}
    await tx.execute(sa.update(endpoint).where(endpoint.c.endpoint == name).values(fresh))


async def grant(
    tx: AsyncConnection, wanted: Mapping[str, int], rates: Mapping[str, Rate], seconds: float
) -> dict[str, int]:
    """How many of the `wanted` tries may go to each endpoint, and takes their tokens; a probe is nobody else's for
    `seconds`."""
    endpoint = t(EndpointRow)
    query = sa.select(endpoint, sa.func.now().label("at")).where(endpoint.c.endpoint.in_(sorted(wanted)))
    granted = {}
    for row in (await tx.execute(query.order_by(endpoint.c.endpoint).with_for_update())).all():
        new: dict[str, Any] = {}
        count = wanted[row.endpoint]
        if row.probe_at is not None:
            count = min(count, 1) if row.probe_at <= row.at else 0
            new |= {"probe_at": row.at + timedelta(seconds=seconds)} if count else {}
        if (rate := rates.get(row.endpoint)) is not None:
            tokens = rate.filled(row.tokens, (row.at - row.refilled_at).total_seconds())
            count = min(count, int(tokens))
            new |= {"tokens": tokens - count, "refilled_at": row.at}
        granted[row.endpoint] = count
        if new:
            await tx.execute(sa.update(endpoint).where(endpoint.c.endpoint == row.endpoint).values(new))
    return granted


async def failing(tx: AsyncConnection, heard: Sequence[Heard], at: datetime) -> set[str]:
    """The subscriptions that these tries may disable."""
    healths = await _healths(tx, {one.subscription_id for one in heard if _failed(one.outcome)})
    return {name for name, (health, _) in healths.items() if health.after(True, at).lapsed(at)}


async def note_health(tx: AsyncConnection, heard: Sequence[Heard], at: datetime) -> dict[str, Health]:
    """Counts the failures in a row of each subscription. Gives those whose owner is to be told, or which are to be
    disabled. The caller holds the streams of the subscriptions."""
    target, told = t(TargetRow), dict[str, Health]()
    known = await _healths(tx, {one.subscription_id for one in heard})
    now = {name: health for name, (health, _) in known.items()}
    for one in heard:
        if one.subscription_id in now and not one.outcome.ours:
            now[one.subscription_id] = now[one.subscription_id].after(_failed(one.outcome), at)
    for name, health in sorted(now.items()):
        step = health.step(at)
        if step is not None or health.lapsed(at):
            told[name] = health
        kept = Health(health.failing_since, health.failures, step or health.told)
        if kept != known[name][0]:
            values = {"failing_since": kept.failing_since, "failures": kept.failures, "told": kept.told}
            await tx.execute(sa.update(target).where(target.c.subscription_id == name).values(values))
    return told


async def note_breakers(tx: AsyncConnection, heard: Sequence[Heard], at: datetime) -> None:
    """Counts what says that endpoints are ill; call it last, when lanes are settled. What waits for one that is well
    again may go."""
    endpoint, by_name = t(EndpointRow), defaultdict[str, list[Heard]](list)
    known = await _healths(tx, {one.subscription_id for one in heard})
    for one in heard:
        if one.subscription_id in known and not one.outcome.ours:
            by_name[known[one.subscription_id][1]].append(one)
    query = sa.select(endpoint).where(endpoint.c.endpoint.in_(sorted(by_name)))
    for row in (await tx.execute(query.order_by(endpoint.c.endpoint).with_for_update())).all():
        was = breaker = Breaker(tuple(tuple(slot) for slot in row.slots), row.probe_at, row.probes)
        paused: datetime | None = row.paused_until
        for one in by_name[row.endpoint]:
            breaker = breaker.after(one.outcome.ill, at, probe=one.probe)
            if one.outcome.status == OVERLOADED and one.outcome.retry_after:
                paused = max(paused or at, at + timedelta(seconds=one.outcome.retry_after))
        values = {
            "slots": [list(slot) for slot in breaker.slots],
            "probe_at": breaker.probe_at,
            "probes": breaker.probes,
            "paused_until": paused,
        }
        await tx.execute(sa.update(endpoint).where(endpoint.c.endpoint == row.endpoint).values(values))
        if was.open and not breaker.open:
            await _bring_forward(tx, row.endpoint)


async def _bring_forward(tx: AsyncConnection, name: str) -> None:
    """Lanes that another transaction holds are about to be settled anyway."""
    lane, target = t(LaneRow), t(TargetRow)
    mine = sa.select(target.c.subscription_id).where(target.c.endpoint == name)
    waiting = sa.select(lane.c.subscription_id, lane.c.lane).where(
        lane.c.subscription_id.in_(mine), lane.c.due_at > sa.func.now(), lane.c.leased_until.is_(None)
    )
    locked = waiting.with_for_update(skip_locked=True).cte("waiting")
    same = sa.and_(lane.c.subscription_id == locked.c.subscription_id, lane.c.lane == locked.c.lane)
    await tx.execute(sa.update(lane).where(same).values(due_at=sa.func.now()))


def _failed(outcome: Outcome) -> bool:
    return outcome.verdict is not Verdict.SUCCEEDED and not outcome.ours


async def _healths(tx: AsyncConnection, subscription_ids: Collection[str]) -> dict[str, tuple[Health, str]]:
    """By subscription, with the name of its endpoint."""
    target = t(TargetRow)
    rows = await tx.execute(sa.select(target).where(target.c.subscription_id.in_(subscription_ids)))
    return {r.subscription_id: (Health(r.failing_since, r.failures, r.told), r.endpoint) for r in rows}


async def held(tx: AsyncConnection) -> int:
    """How many endpoints are left in peace because they are ill."""
    endpoint = t(EndpointRow)
    query = sa.select(sa.func.count()).select_from(endpoint).where(endpoint.c.probe_at.is_not(None))
    return int(await tx.scalar(query) or 0)


async def health(tx: AsyncConnection, subscription_id: str) -> Document:
    """As the API shows it; all is well where nothing is known."""
    target, endpoint = t(TargetRow), t(EndpointRow)
    query = sa.select(target.c.failing_since, target.c.failures, endpoint.c.probe_at, endpoint.c.paused_until)
    query = query.join(endpoint, endpoint.c.endpoint == target.c.endpoint)
    row = (await tx.execute(query.where(target.c.subscription_id == subscription_id))).first()
    if row is None:
        return {"failing_since": None, "failures": 0, "held_until": None}
    until = [moment for moment in (row.probe_at, row.paused_until) if moment is not None]
    return {
        "failing_since": row.failing_since.isoformat() if row.failing_since else None,
        "failures": row.failures,
        "held_until": max(until).isoformat() if until else None,
    }
