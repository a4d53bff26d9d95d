"""The queue of deliveries in PostgreSQL: enqueue and lease. Kafka carries events; these tables carry timers.

Several workers may lease at once. A lane is one stream for one subscription: only its oldest open delivery may go,
so that a receiver sees a model's events in order and only that model waits.

Locks are taken in one order, so that nobody waits in a circle: streams, subscriptions, lanes, deliveries; several of a
kind in the order of their names.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope
from contracts.notifier import Order
from notifier import endpoints, views
from notifier.breaker import Rate
from notifier.domain import Subscription, delivery_id
from notifier.matching import Seen
from notifier.reminders import cancel_key
from notifier.tables import BundleRow, DeliveryRow, LaneRow, SecretRow, SourceEventRow, SubscriptionRow
from notifier.views import t

ACTOR = "hallmark/notifier"

# Per subscription, so that one with a long queue takes no more than its share of the page: however much waits there,
# no more than `share` lanes of it are looked at (and those that are under way).
DUE = sa.text(
    """
    select l.subscription_id, l.lane, e.endpoint, e.probe_at is not null as probe, s.channel
    from notifier.subscription s
    left join notifier.target g using (subscription_id)
    left join notifier.endpoint e using (endpoint)
    left join unnest(:channels, :rates, :bursts) r (channel, rate, burst) on r.channel = s.channel
    left join unnest(:busy_ids, :busy_counts) busy (subscription_id, count) using (subscription_id)
    cross join lateral (
      select q.subscription_id, q.lane, q.due_at from notifier.lane q
      where q.subscription_id = s.subscription_id and q.due_at <= now()
        and (q.leased_until is null or q.leased_until <= now())
      order by q.due_at limit greatest(least(
        :share - coalesce(busy.count, 0),
        case when e.probe_at is not null then 1 end,
        floor(least(r.burst, e.tokens + r.rate * extract(epoch from now() - e.refilled_at)))::int
      ), 0)
      for update skip locked
    ) l
    where s.status = 'active' and not s.paused
      and (e.probe_at is null or e.probe_at <= now()) and (e.paused_until is null or e.paused_until <= now())
    order by l.due_at limit :free
    """
).bindparams(
    sa.bindparam("busy_ids", type_=ARRAY(sa.Text)),
    sa.bindparam("channels", type_=ARRAY(sa.Text)),
    sa.bindparam("rates", type_=ARRAY(sa.Float)),
    sa.bindparam("bursts", type_=ARRAY(sa.Float)),
    sa.bindparam("busy_counts", type_=ARRAY(sa.Integer)),
    sa.bindparam("share", type_=sa.Integer),
)
LANES = (sa.bindparam("ids", type_=ARRAY(sa.Text)), sa.bindparam("lanes", type_=ARRAY(sa.Text)))
# The oldest open delivery of each lane; what the senders need is read along.
TAKE = sa.text(
    """
    with taken as (
      update notifier.lane l set leased_until = now() + make_interval(secs => :seconds)
      from unnest(:ids, :lanes) u (subscription_id, lane)
      where l.subscription_id = u.subscription_id and l.lane = u.lane
      returning l.subscription_id, l.lane
    ), begun as (
      update notifier.delivery d set attempts = d.attempts + 1, tries = d.tries + 1
      from taken cross join lateral (
        select h.delivery_id from notifier.delivery h
        where h.open and h.subscription_id = taken.subscription_id and h.lane = taken.lane
        order by h.event_position limit 1
      ) head
      where d.delivery_id = head.delivery_id
      returning d.*
    ), noted as (
      insert into notifier.attempt (delivery_id, attempt, started_at) select delivery_id, attempts, now() from begun
    )
    select b.delivery_id, b.subscription_id, b.lane, b.attempts, b.tries, e.stream, e.headers, e.value
    from begun b join notifier.source_event e using (event_id)
    """
).bindparams(*LANES, sa.bindparam("seconds", type_=sa.Float))


@dataclass(frozen=True)
class Lease:
    """A delivery that this worker may send now. `attempt` is the fence: a later lease has a higher one."""

    delivery_id: UUID
    lane: str
    subscription: Subscription
    envelope: Envelope
    attempt: int
    tries: int
    probe: bool
    secrets: Mapping[str, bytes] = field(repr=False)


async def keep(tx: AsyncConnection, event: Seen) -> int:
    """The event, whoever wants it: deliveries carry it, filters are tried on it. Gives its position; a
    repetition changes nothing."""
    envelope = event.envelope
    row = {
        "event_id": envelope.id,
        "type": envelope.type,
        "workspace": event.workspace,
        "at": envelope.time,
        "headers": [[name, value.decode()] for name, value in envelope.headers()],
        "stream": envelope.key,
        "value": envelope.value,
    }
    source = t(SourceEventRow)
    made = insert(source).values(row).on_conflict_do_nothing().returning(source.c.position)
    position = await tx.scalar(made)
    if position is None:
        position = await tx.scalar(sa.select(source.c.position).where(source.c.event_id == envelope.id))
    assert position is not None
    return int(position)


@dataclass(frozen=True)
class Held:
    """A delivery that is not sent, and `by` what. `over`: it never will be."""

    status: str
    by: str
    over: bool = True


async def lock_living(tx: AsyncConnection, wanted: Sequence[Subscription]) -> set[str]:
    """The ids of those that have not ended. A removal under way is waited for, and others wait for us, so that no
    delivery is left behind for a subscription that has ended."""
    of = t(SubscriptionRow)
    mine = of.c.subscription_id.in_([s.subscription_id for s in wanted])
    still = sa.select(of.c.subscription_id).where(mine, of.c.status == "active")
    return set((await tx.scalars(still.order_by(of.c.subscription_id).with_for_update(read=True))).all())


async def enqueue(
    tx: AsyncConnection,
    envelope: Envelope,
    position: int,
    wanted: Sequence[Subscription],
    held: Mapping[str, Held] = MappingProxyType({}),
) -> None:
    """A delivery of the event kept at `position` per subscription; those of the subscriptions in `held` are not sent. A
    repetition changes nothing."""
    if not wanted:
        return
    ids = await lock_living(tx, wanted)
    key = cancel_key(envelope)
    rows = [
        {**_row(s, envelope, position), **_held(held.get(s.subscription_id)), "cancel_key": key}
        for s in wanted
        if s.subscription_id in ids
    ]
    if not rows:
        return
    delivery = t(DeliveryRow)
    made = insert(delivery).values(rows).on_conflict_do_nothing()
    lanes = made.returning(delivery.c.subscription_id, delivery.c.lane, delivery.c.open)
    await open_lanes(tx, [(row.subscription_id, row.lane) for row in await tx.execute(lanes) if row.open])


async def add(tx: AsyncConnection, subscription: Subscription, events: Sequence[tuple[Envelope, int]]) -> None:
    """A delivery of each event, with its position, for one subscription whose stream the caller holds."""
    rows = [{**_row(subscription, envelope, at), **_held(None), "cancel_key": None} for envelope, at in events]
    if rows:
        delivery = t(DeliveryRow)
        made = insert(delivery).values(rows).on_conflict_do_nothing()
        lanes = made.returning(delivery.c.subscription_id, delivery.c.lane)
        await open_lanes(tx, [(row.subscription_id, row.lane) for row in await tx.execute(lanes)])


def _row(subscription: Subscription, envelope: Envelope, position: int) -> dict[str, Any]:
    identity = delivery_id(subscription.subscription_id, envelope.id)
    return {
        "delivery_id": identity,
        "subscription_id": subscription.subscription_id,
        "event_id": envelope.id,
        "event_type": envelope.type,
        "subject": envelope.subject,
        "lane": envelope.key if subscription.order is Order.FIFO else str(identity),
        "event_position": position,
        "attempts": 0,
        "tries": 0,
        "due_at": sa.func.now(),
    }


async def open_lanes(tx: AsyncConnection, made: Sequence[Any]) -> None:
    """A row per lane in which a delivery was opened. One that is there keeps its time: its oldest goes first.

    It is locked even so: who has just seen its last delivery closed would take it away.
    """
    lane = t(LaneRow)
    rows = [
        {"subscription_id": s, "lane": name, "due_at": sa.func.now()} for s, name in sorted({tuple(m) for m in made})
    ]
    if rows:
        statement = insert(lane).values(rows)
        there = statement.on_conflict_do_update(
            index_elements=["subscription_id", "lane"], set_={"due_at": lane.c.due_at}, where=sa.false()
        )
        await tx.execute(there)


def _held(held: Held | None) -> dict[str, Any]:
    if held is None:
        return {"status": "pending", "open": True, "closed_at": None, "held_by": None}
    closed = sa.func.now() if held.over else None
    return {"status": held.status, "open": False, "closed_at": closed, "held_by": held.by}


async def lease(
    tx: AsyncConnection,
    *,
    free: int,
    share: int,
    busy: Mapping[str, int],
    seconds: float,
    rates: Mapping[str, Rate] = MappingProxyType({}),
) -> list[Lease]:
    """Takes due deliveries for `seconds` and writes down that a try begins.

    `free` is how many at most, `share` how many per subscription, `busy` how many this worker has under way, `rates`
    how fast an endpoint of a channel is sent to.
    """
    values: dict[str, Any] = {"busy_ids": list(busy), "busy_counts": list(busy.values()), "share": share, "free": free}
    values |= {"channels": list(rates), "rates": [rate.per_second for rate in rates.values()]}
    values |= {"bursts": [rate.burst for rate in rates.values()]}
    due = await _granted(tx, (await tx.execute(DUE, values)).all(), rates, seconds)
    if not due:
        return []
    lanes = {"ids": [row.subscription_id for row in due], "lanes": [row.lane for row in due], "seconds": seconds}
    probes = {(row.subscription_id, row.lane) for row in due if row.probe}
    return await _load(tx, (await tx.execute(TAKE, lanes)).all(), probes)


async def _granted(tx: AsyncConnection, due: Sequence[Any], rates: Mapping[str, Rate], seconds: float) -> list[Any]:
    """Without those for which another worker was quicker to take the token, or the probe."""
    wanted, own = Counter[str](), dict[str, Rate]()
    for row in due:
        if row.endpoint is not None and (row.probe or row.channel in rates):
            wanted[row.endpoint] += 1
            own |= {row.endpoint: rates[row.channel]} if row.channel in rates else {}
    left = await endpoints.grant(tx, wanted, own, seconds) if wanted else {}
    kept = []
    for row in due:
        if row.endpoint in left:
            if left[row.endpoint] <= 0:
                continue
            left[row.endpoint] -= 1
        kept.append(row)
    return kept


async def _load(tx: AsyncConnection, taken: Sequence[Any], probes: Collection[tuple[str, str]]) -> list[Lease]:
    """What the senders need of the rows just leased."""
    of, secret = t(SubscriptionRow), t(SecretRow)
    wanted = {row.subscription_id for row in taken}
    subscriptions = {
        row.subscription_id: views.read(row)
        for row in await tx.execute(sa.select(of).where(of.c.subscription_id.in_(wanted)))
    }
    secrets: dict[str, dict[str, bytes]] = {subscription_id: {} for subscription_id in wanted}
    counting = sa.or_(secret.c.until.is_(None), secret.c.until > sa.func.now())
    for row in await tx.execute(sa.select(secret).where(secret.c.subscription_id.in_(wanted), counting)):
        secrets[row.subscription_id][row.name] = row.value
    return [
        Lease(
            delivery_id=row.delivery_id,
            lane=row.lane,
            subscription=subscriptions[row.subscription_id],
            envelope=views.envelope_of(row),
            attempt=row.attempts,
            tries=row.tries,
            probe=(row.subscription_id, row.lane) in probes,
            secrets=secrets[row.subscription_id],
        )
        for row in taken
    ]


async def lock_lanes(tx: AsyncConnection, lanes: Sequence[tuple[str, str]]) -> None:
    """Locks lanes, each a subscription and a name, until the transaction ends."""
    await tx.execute(LOCK_LANES, _columns(lanes))


async def settle_lanes(tx: AsyncConnection, lanes: Sequence[tuple[str, str]], *, ends: bool = True) -> None:
    """Lets the next of each lane go when it is due; a lane without an open delivery is taken away. Lock them first.

    `ends`: the try that was under way there has ended.
    """
    await tx.execute(SETTLE_LANES, _columns(lanes) | {"ends": ends})


async def reopen(tx: AsyncConnection, delivery_ids: Sequence[UUID]) -> None:
    """Makes deliveries due again, with the full schedule before them."""
    delivery = t(DeliveryRow)
    mine = delivery.c.delivery_id.in_(delivery_ids)
    lanes = (await tx.execute(sa.select(delivery.c.subscription_id, delivery.c.lane).where(mine).distinct())).all()
    await open_lanes(tx, lanes)
    again = {"status": "pending", "open": True, "tries": 0, "due_at": sa.func.now(), "closed_at": None}
    await tx.execute(sa.update(delivery).where(mine).values(**again, held_by=None))
    await settle_lanes(tx, [(subscription_id, lane) for subscription_id, lane in lanes], ends=False)


async def cancel(tx: AsyncConnection, keys: Collection[str], by: str) -> None:
    """Nobody is reminded any more of what `keys` name: it is over since the event `by`. A try under way still goes out.

    Its lanes are locked after those of the event itself. Should two such wait for each other, the database ends one,
    and it is tried again.
    """
    delivery = t(DeliveryRow)
    waiting = sa.and_(delivery.c.cancel_key.in_(keys), sa.or_(delivery.c.open, delivery.c.status == "waiting"))
    found = sa.select(delivery.c.subscription_id, delivery.c.lane).where(waiting).distinct()
    lanes = [(row.subscription_id, row.lane) for row in await tx.execute(found)]
    if lanes:
        await lock_lanes(tx, lanes)
        over = {"status": "cancelled", "open": False, "closed_at": sa.func.now(), "held_by": by}
        await tx.execute(sa.update(delivery).where(waiting).values(over))
        await settle_lanes(tx, lanes, ends=False)


def _columns(lanes: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    return {"ids": [subscription_id for subscription_id, _ in lanes], "lanes": [lane for _, lane in lanes]}


LOCK_LANES = sa.text(
    """
    select 1 from notifier.lane l join unnest(:ids, :lanes) u (subscription_id, lane) using (subscription_id, lane)
    order by l.subscription_id, l.lane for update of l
    """
).bindparams(*LANES)
SETTLE_LANES = sa.text(
    """
    with head as (
      select u.subscription_id, u.lane, (
        select d.due_at from notifier.delivery d
        where d.open and d.subscription_id = u.subscription_id and d.lane = u.lane
        order by d.event_position limit 1) as due_at
      from unnest(:ids, :lanes) u (subscription_id, lane)
    ), gone as (
      delete from notifier.lane l using head
      where head.due_at is null and l.subscription_id = head.subscription_id and l.lane = head.lane
    )
    update notifier.lane l set due_at = head.due_at, leased_until = case when not :ends then l.leased_until end
    from head
    where head.due_at is not null and l.subscription_id = head.subscription_id and l.lane = head.lane
    """
).bindparams(*LANES, sa.bindparam("ends", type_=sa.Boolean))


async def close_down(tx: AsyncConnection, subscription_id: str) -> None:
    """What waits for an ended subscription is cancelled; a try under way still records how it ended."""
    delivery, lane, bundle = t(DeliveryRow), t(LaneRow), t(BundleRow)
    mine = lane.c.subscription_id == subscription_id
    await tx.execute(sa.select(lane.c.lane).where(mine).order_by(lane.c.lane).with_for_update())
    await tx.execute(
        sa.update(delivery)
        .where(
            delivery.c.subscription_id == subscription_id,
            sa.or_(delivery.c.open, delivery.c.status.in_(("waiting", "grouped"))),
        )
        .values(status="cancelled", open=False, closed_at=sa.func.now())
    )
    await tx.execute(sa.delete(bundle).where(bundle.c.subscription_id == subscription_id))
    await tx.execute(sa.delete(lane).where(mine))


async def forget(tx: AsyncConnection, subscription_id: str) -> None:
    """Its secrets, and where it led; after this it cannot be enabled again."""
    secret = t(SecretRow)
    await tx.execute(sa.delete(secret).where(secret.c.subscription_id == subscription_id))
    await endpoints.forget(tx, subscription_id)


async def backlog(tx: AsyncConnection) -> tuple[int, float]:
    """How many deliveries are open, and how many seconds the oldest has waited since its event was taken in. What a
    pause holds does not count."""
    delivery, of = t(DeliveryRow), t(SubscriptionRow)
    paused = sa.select(of.c.subscription_id).where(of.c.paused)
    age = sa.func.extract("epoch", sa.func.now() - sa.func.min(delivery.c.created_at))
    query = sa.select(sa.func.count(), age).where(delivery.c.open, delivery.c.subscription_id.not_in(paused))
    row = (await tx.execute(query)).one()
    return int(row[0]), float(row[1] or 0.0)
