"""Where subscriptions lead: what holds for all that go to one address (breaker, rate), and for each (health)."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from notifier.breaker import Breaker, Rate
from notifier.health import Health
from notifier.retrying import Outcome, Verdict
from notifier.tables import EndpointRow, LaneRow, TargetRow
from notifier.views import Document, t

OVERLOADED = 429
STAMPS, TEXTS, NUMBERS = ARRAY(sa.DateTime(timezone=True)), ARRAY(sa.Text), ARRAY(sa.Integer)
HEALTHS = sa.text(
    """
    update notifier.target g set failing_since = u.failing_since, failures = u.failures, told = u.told
    from unnest(:ids, :since, :failures, :told) u (subscription_id, failing_since, failures, told)
    where g.subscription_id = u.subscription_id
    """
).bindparams(
    sa.bindparam("ids", type_=TEXTS),
    sa.bindparam("since", type_=STAMPS),
    sa.bindparam("failures", type_=NUMBERS),
    sa.bindparam("told", type_=NUMBERS),
)
LOCK_ENDPOINTS = sa.text(
    "select * from notifier.endpoint where endpoint = any(:names) order by endpoint for update"
).bindparams(sa.bindparam("names", type_=TEXTS))
BREAKERS = sa.text(
    """
    update notifier.endpoint e
    set slots = u.slots::jsonb, probe_at = u.probe_at, probes = u.probes, paused_until = u.paused
    from unnest(:names, :slots, :probe_ats, :probes, :pauses) u (endpoint, slots, probe_at, probes, paused)
    where e.endpoint = u.endpoint
    """
).bindparams(
    sa.bindparam("names", type_=TEXTS),
    sa.bindparam("slots", type_=TEXTS),
    sa.bindparam("probe_ats", type_=STAMPS),
    sa.bindparam("probes", type_=NUMBERS),
    sa.bindparam("pauses", type_=STAMPS),
)


@dataclass(frozen=True)
class Heard:
    """What one try said of the endpoint that its subscription leads to. `probe`: it was sent to find that out."""

    subscription_id: str
    outcome: Outcome
    probe: bool


@dataclass(frozen=True)
class Fares:
    """Where a subscription leads, and how it has fared there."""

    endpoint: str
    health: Health


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


def failing(heard: Sequence[Heard], fares: Mapping[str, Fares], at: datetime) -> set[str]:
    """The subscriptions that these tries may disable."""
    names = {one.subscription_id for one in heard if _failed(one.outcome)} & fares.keys()
    return {name for name in names if fares[name].health.after(True, at).lapsed(at)}


async def note_health(
    tx: AsyncConnection, heard: Sequence[Heard], fares: Mapping[str, Fares], at: datetime
) -> dict[str, Health]:
    """Counts the failures in a row of each subscription. Gives those whose owner is to be told, or which are to be
    disabled. The caller holds the streams of the subscriptions."""
    now, told, changed = {name: one.health for name, one in fares.items()}, dict[str, Health](), list[tuple[Any, ...]]()
    for one in heard:
        if one.subscription_id in now and not one.outcome.ours:
            now[one.subscription_id] = now[one.subscription_id].after(_failed(one.outcome), at)
    for name, health in sorted(now.items()):
        step = health.step(at)
        if step is not None or health.lapsed(at):
            told[name] = health
        kept = Health(health.failing_since, health.failures, step or health.told)
        if kept != fares[name].health:
            changed.append((name, kept.failing_since, kept.failures, kept.told))
    if changed:
        await tx.execute(HEALTHS, _columns(("ids", "since", "failures", "told"), changed))
    return told


async def note_breakers(tx: AsyncConnection, heard: Sequence[Heard], fares: Mapping[str, Fares], at: datetime) -> None:
    """Counts what says that endpoints are ill; call it last, when lanes are settled. What waits for one that is well
    again may go."""
    by_name = defaultdict[str, list[Heard]](list)
    for one in heard:
        if one.subscription_id in fares and not one.outcome.ours:
            by_name[fares[one.subscription_id].endpoint].append(one)
    if not by_name:
        return
    changed, well = list[tuple[Any, ...]](), list[str]()
    for row in (await tx.execute(LOCK_ENDPOINTS, {"names": list(by_name)})).all():
        was = breaker = Breaker(tuple(tuple(slot) for slot in row.slots), row.probe_at, row.probes)
        paused: datetime | None = row.paused_until
        for one in by_name[row.endpoint]:
            breaker = breaker.after(one.outcome.ill, at, probe=one.probe)
            if one.outcome.status == OVERLOADED and one.outcome.retry_after:
                paused = max(paused or at, at + timedelta(seconds=one.outcome.retry_after))
        slots = json.dumps(breaker.slots)
        changed.append((row.endpoint, slots, breaker.probe_at, breaker.probes, paused))
        well += [row.endpoint] if was.open and not breaker.open else []
    await tx.execute(BREAKERS, _columns(("names", "slots", "probe_ats", "probes", "pauses"), changed))
    for name in well:
        await _bring_forward(tx, name)


def _columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


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
