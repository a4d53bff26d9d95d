"""The queue of deliveries in PostgreSQL: what goes in, and what is taken out again. Kafka carries events; these tables
carry timers. `leasing` says what goes next.

Locks are taken in one order, so that nobody waits in a circle: streams, subscriptions, lanes, deliveries; several of a
kind in the order of their names.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope
from contracts.notifier import Order
from notifier import endpoints
from notifier.domain import Subscription, delivery_id
from notifier.matching import Seen
from notifier.reminders import cancel_key
from notifier.tables import BundleRow, DeliveryRow, LaneRow, SecretRow, SourceEventRow, SubscriptionRow
from notifier.views import t

ACTOR = "hallmark/notifier"

LANES = (sa.bindparam("ids", type_=ARRAY(sa.Text)), sa.bindparam("lanes", type_=ARRAY(sa.Text)))
INSERT_EVENTS = sa.text(
    """
    insert into notifier.source_event (event_id, type, workspace, at, headers, stream, value, known)
    select event_id, type, workspace, at, headers::json, stream, value, :known
    from unnest(:ids, :types, :workspaces, :ats, :headers, :streams, :bodies) with ordinality
      u (event_id, type, workspace, at, headers, stream, value, n)
    order by n
    on conflict do nothing returning event_id, position
    """
).bindparams(
    *(sa.bindparam(name, type_=ARRAY(sa.Text)) for name in ("ids", "types", "workspaces", "headers", "streams")),
    sa.bindparam("known", type_=sa.BigInteger),
    sa.bindparam("ats", type_=ARRAY(sa.DateTime(timezone=True))),
    sa.bindparam("bodies", type_=ARRAY(sa.LargeBinary)),
)
INSERT_DELIVERIES = sa.text(
    """
    insert into notifier.delivery (delivery_id, subscription_id, event_id, event_type, subject, lane, event_position,
      status, open, attempts, tries, due_at, closed_at, held_by, cancel_key)
    select delivery_id, subscription_id, event_id, event_type, subject, lane, event_position,
      status, open, 0, 0, now(), case when over then now() end, held_by, cancel_key
    from unnest(:ids, :subscriptions, :events, :types, :subjects, :lanes, :positions, :statuses, :opens, :overs,
      :holders, :cancel_keys) with ordinality
      u (delivery_id, subscription_id, event_id, event_type, subject, lane, event_position, status, open, over,
        held_by, cancel_key, n)
    order by n
    on conflict do nothing returning subscription_id, lane, open
    """
).bindparams(
    sa.bindparam("ids", type_=ARRAY(sa.Uuid)),
    sa.bindparam("positions", type_=ARRAY(sa.BigInteger)),
    *(sa.bindparam(name, type_=ARRAY(sa.Boolean)) for name in ("opens", "overs")),
    *(
        sa.bindparam(name, type_=ARRAY(sa.Text))
        for name in ("subscriptions", "events", "types", "subjects", "lanes", "statuses", "holders", "cancel_keys")
    ),
)
# One that is there keeps its time: its oldest goes first. It is locked even so: who has just seen its last delivery
# closed would take it away.
OPEN_LANES = sa.text(
    """
    insert into notifier.lane (subscription_id, lane, due_at)
    select subscription_id, lane, now() from unnest(:ids, :lanes) u (subscription_id, lane)
    order by subscription_id, lane
    on conflict (subscription_id, lane) do update set due_at = lane.due_at where false
    """
).bindparams(*LANES)
# What reminds of `keys` and came before the event that ended them, by that event.
NEEDLESS = sa.text(
    """
    select distinct on (d.delivery_id) d.delivery_id, d.subscription_id, d.lane, u.by_
    from notifier.delivery d
    join unnest(:keys, :bys, :positions) u (key, by_, position) on u.key = d.cancel_key
    where d.event_position < u.position and (d.open or d.status = 'waiting')
    order by d.delivery_id, u.position
    """
).bindparams(
    sa.bindparam("keys", type_=ARRAY(sa.Text)),
    sa.bindparam("bys", type_=ARRAY(sa.Text)),
    sa.bindparam("positions", type_=ARRAY(sa.BigInteger)),
)
CANCEL = sa.text(
    """
    update notifier.delivery d set status = 'cancelled', open = false, closed_at = now(), held_by = u.by_
    from unnest(:ids, :bys) u (delivery_id, by_)
    where d.delivery_id = u.delivery_id and (d.open or d.status = 'waiting')
    """
).bindparams(sa.bindparam("ids", type_=ARRAY(sa.Uuid)), sa.bindparam("bys", type_=ARRAY(sa.Text)))


async def keep(tx: AsyncConnection, events: Sequence[Seen], known: int | None = None) -> dict[str, int]:
    """The events, whoever wants them: deliveries carry them, filters are tried on them. Gives the position of each by
    its id, in the order given; a repetition changes nothing. `known`: what the subscriptions were is told by our events
    up to this position (`views.settle_matching`); None when it is none of those that are matched."""
    rows = [
        (
            event.envelope.id,
            event.envelope.type,
            event.workspace,
            event.envelope.time,
            json.dumps([[name, value.decode()] for name, value in event.envelope.headers()]),
            event.envelope.key,
            event.envelope.value,
        )
        for event in events
    ]
    names = ("ids", "types", "workspaces", "ats", "headers", "streams", "bodies")
    values = _columns(names, rows) | {"known": known}
    found = {row.event_id: int(row.position) for row in await tx.execute(INSERT_EVENTS, values)}
    if missing := [row[0] for row in rows if row[0] not in found]:
        source = t(SourceEventRow)
        there = sa.select(source.c.event_id, source.c.position).where(source.c.event_id.in_(missing))
        found |= {row.event_id: int(row.position) for row in await tx.execute(there)}
    return found


@dataclass(frozen=True)
class Held:
    """A delivery that is not sent, and `by` what. `over`: it never will be."""

    status: str
    by: str
    over: bool = True


@dataclass(frozen=True)
class Wanted:
    """An event that a subscription gets, the event's position, and what keeps it from being sent."""

    subscription: Subscription
    envelope: Envelope
    position: int
    held: Held | None = None


async def lock_living(tx: AsyncConnection, subscription_ids: Collection[str]) -> set[str]:
    """Those that have not ended. A removal under way is waited for, and others wait for us, so that no delivery is left
    behind for a subscription that has ended."""
    of = t(SubscriptionRow)
    mine = of.c.subscription_id.in_(subscription_ids)
    still = sa.select(of.c.subscription_id).where(mine, of.c.status == "active")
    return set((await tx.scalars(still.order_by(of.c.subscription_id).with_for_update(read=True))).all())


async def enqueue(tx: AsyncConnection, wanted: Sequence[Wanted]) -> None:
    """A delivery of each, in the order given; a repetition changes nothing. The caller has locked the subscriptions."""
    if not wanted:
        return
    made = await tx.execute(INSERT_DELIVERIES, _columns(DELIVERY, [_row(one) for one in wanted]))
    await open_lanes(tx, [(row.subscription_id, row.lane) for row in made if row.open])


DELIVERY = (
    *("ids", "subscriptions", "events", "types", "subjects", "lanes", "positions"),
    *("statuses", "opens", "overs", "holders", "cancel_keys"),
)


def _row(wanted: Wanted) -> tuple[Any, ...]:
    subscription, envelope, held = wanted.subscription, wanted.envelope, wanted.held
    identity = delivery_id(subscription.subscription_id, envelope.id)
    lane = envelope.key if subscription.order is Order.FIFO else str(identity)
    what = (identity, subscription.subscription_id, envelope.id, envelope.type, envelope.subject, lane, wanted.position)
    if held is None:
        return (*what, "pending", True, False, None, cancel_key(envelope))
    return (*what, held.status, False, held.over, held.by, cancel_key(envelope))


async def open_lanes(tx: AsyncConnection, made: Collection[tuple[str, str]]) -> None:
    """A row per lane, a subscription and a name, in which a delivery was opened."""
    if made:
        await tx.execute(OPEN_LANES, _columns(("ids", "lanes"), sorted(set(made))))


async def lock_lanes(tx: AsyncConnection, lanes: Sequence[tuple[str, str]]) -> None:
    """Locks lanes, each a subscription and a name, until the transaction ends."""
    await tx.execute(LOCK_LANES, _lanes(lanes))


async def settle_lanes(tx: AsyncConnection, lanes: Sequence[tuple[str, str]], *, ends: bool = True) -> None:
    """Lets the next of each lane go when it is due; a lane without an open delivery is taken away. Lock them first.

    `ends`: the try that was under way there has ended.
    """
    await tx.execute(SETTLE_LANES, _lanes(lanes) | {"ends": ends})


async def reopen(tx: AsyncConnection, delivery_ids: Sequence[UUID]) -> None:
    """Makes deliveries due again, with the full schedule before them."""
    delivery = t(DeliveryRow)
    mine = delivery.c.delivery_id.in_(delivery_ids)
    lanes = (await tx.execute(sa.select(delivery.c.subscription_id, delivery.c.lane).where(mine).distinct())).all()
    await open_lanes(tx, [(subscription_id, lane) for subscription_id, lane in lanes])
    again = {"status": "pending", "open": True, "tries": 0, "due_at": sa.func.now(), "closed_at": None}
    await tx.execute(sa.update(delivery).where(mine).values(**again, held_by=None))
    await settle_lanes(tx, [(subscription_id, lane) for subscription_id, lane in lanes], ends=False)


async def cancel(tx: AsyncConnection, ended: Sequence[tuple[str, str, int]]) -> None:
    """Nobody is reminded any more of what is over: a key each, and since which event, with its position. A try under
    way still goes out.

    Its lanes are locked after those of the event itself. Should two such wait for each other, the database ends one,
    and it is tried again.
    """
    if not ended:
        return
    found = (await tx.execute(NEEDLESS, _columns(("keys", "bys", "positions"), ended))).all()
    if found:
        lanes = sorted({(row.subscription_id, row.lane) for row in found})
        await lock_lanes(tx, lanes)
        await tx.execute(CANCEL, _columns(("ids", "bys"), [(row.delivery_id, row.by_) for row in found]))
        await settle_lanes(tx, lanes, ends=False)


def _lanes(lanes: Sequence[tuple[str, str]]) -> dict[str, list[Any]]:
    return _columns(("ids", "lanes"), lanes)


def _columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """Rows as parameters, a list for each column."""
    return {name: [row[n] for row in rows] for n, name in enumerate(names)}


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
