"""The queue of deliveries in PostgreSQL: enqueue, lease, record. Kafka carries events; this table carries timers.

Several workers may lease at once. A lane is one stream for one subscription: only its oldest open delivery may go,
so that a receiver sees a model's events in order and only that model waits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope
from contracts.notifier import SubscriptionDisabled
from kit.events import Cause, EventLog, New
from notifier import views
from notifier.domain import Subscription, delivery_id
from notifier.matching import Seen
from notifier.retrying import Next, Outcome, Schedule, Try, decide
from notifier.tables import AttemptRow, DeliveryRow, SecretRow, SourceEventRow, SubscriptionRow
from notifier.views import stream_of, t

ACTOR = "hallmark/notifier"

# Per subscription, so that one with a long queue takes no more than its share of the page. The recursion steps from
# the head of one lane to the head of the next: what waits behind a head costs nothing, however much it is.
DUE = sa.text(
    """
    select d.delivery_id
    from notifier.subscription s
    left join unnest(:busy_ids, :busy_counts) busy (subscription_id, count) using (subscription_id)
    cross join lateral (
      with recursive head as (
        (select h.delivery_id, h.stream from notifier.delivery h
         where h.subscription_id = s.subscription_id and h.open
         order by h.stream, h.position limit 1)
        union all
        (select next.delivery_id, next.stream from head cross join lateral (
           select h.delivery_id, h.stream from notifier.delivery h
           where h.subscription_id = s.subscription_id and h.open and h.stream > head.stream
           order by h.stream, h.position limit 1) next)
      )
      select q.delivery_id, q.due_at from notifier.delivery q
      where q.delivery_id in (select delivery_id from head)
        and q.open and q.due_at <= now() and (q.leased_until is null or q.leased_until <= now())
      order by q.due_at limit greatest(:share - coalesce(busy.count, 0), 0)
      for update of q skip locked
    ) d
    where s.status = 'active' and not s.paused
    order by d.due_at limit :free
    """
).bindparams(
    sa.bindparam("busy_ids", type_=ARRAY(sa.Text)),
    sa.bindparam("busy_counts", type_=ARRAY(sa.Integer)),
    sa.bindparam("share", type_=sa.Integer),
)


@dataclass(frozen=True)
class Lease:
    """A delivery that this worker may send now. `attempt` is the fence: a later lease has a higher one."""

    delivery_id: UUID
    subscription: Subscription
    envelope: Envelope
    attempt: int
    tries: int
    secrets: Mapping[str, bytes] = field(repr=False)


async def keep(tx: AsyncConnection, event: Seen) -> None:
    """The event, whoever wants it: deliveries carry it, filters are tried on it. A repetition changes nothing."""
    envelope = event.envelope
    row = {
        "event_id": envelope.id,
        "type": envelope.type,
        "workspace": event.workspace,
        "headers": [[name, value.decode()] for name, value in envelope.headers()],
        "stream": envelope.key,
        "value": envelope.value,
    }
    await tx.execute(insert(t(SourceEventRow)).values(row).on_conflict_do_nothing())


async def enqueue(tx: AsyncConnection, envelope: Envelope, wanted: Sequence[Subscription]) -> None:
    """A delivery per subscription. A repetition changes nothing."""
    # Waits for a removal under way, so that no delivery is left behind for a subscription that has ended.
    of = t(SubscriptionRow)
    still = sa.select(of.c.subscription_id).where(
        of.c.subscription_id.in_([s.subscription_id for s in wanted]), of.c.status == "active"
    )
    ids = (await tx.scalars(still.order_by(of.c.subscription_id).with_for_update(read=True))).all() if wanted else []
    if not ids:
        return
    common = {
        "event_id": envelope.id,
        "event_type": envelope.type,
        "subject": envelope.subject,
        "stream": envelope.key,
        "status": "pending",
        "open": True,
        "attempts": 0,
        "tries": 0,
        "due_at": sa.func.now(),
    }
    rows = [common | {"delivery_id": delivery_id(s, envelope.id), "subscription_id": s} for s in ids]
    await tx.execute(insert(t(DeliveryRow)).values(rows).on_conflict_do_nothing())


async def lease(tx: AsyncConnection, *, free: int, share: int, busy: Mapping[str, int], seconds: float) -> list[Lease]:
    """Takes due deliveries for `seconds` and writes down that a try begins.

    `free` is how many at most, `share` how many per subscription, `busy` how many this worker has under way.
    """
    delivery, attempt = t(DeliveryRow), t(AttemptRow)
    values = {"busy_ids": list(busy), "busy_counts": list(busy.values()), "share": share, "free": free}
    ids = (await tx.scalars(DUE, values)).all()
    if not ids:
        return []
    taken = (
        await tx.execute(
            sa.update(delivery)
            .where(delivery.c.delivery_id.in_(ids))
            .values(
                attempts=delivery.c.attempts + 1,
                tries=delivery.c.tries + 1,
                leased_until=sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds),
            )
            .returning(delivery)
        )
    ).all()
    begun = [{"delivery_id": row.delivery_id, "attempt": row.attempts, "started_at": sa.func.now()} for row in taken]
    await tx.execute(insert(attempt).values(begun))
    return await _load(tx, taken)


async def _load(tx: AsyncConnection, taken: Sequence[Any]) -> list[Lease]:
    """What the senders need of the rows just leased."""
    of, source, secret = t(SubscriptionRow), t(SourceEventRow), t(SecretRow)
    wanted = {row.subscription_id for row in taken}
    subscriptions = {
        row.subscription_id: views.read(row)
        for row in await tx.execute(sa.select(of).where(of.c.subscription_id.in_(wanted)))
    }
    events = {
        row.event_id: views.envelope_of(row)
        for row in await tx.execute(sa.select(source).where(source.c.event_id.in_({row.event_id for row in taken})))
    }
    secrets: dict[str, dict[str, bytes]] = {subscription_id: {} for subscription_id in wanted}
    counting = sa.or_(secret.c.until.is_(None), secret.c.until > sa.func.now())
    for row in await tx.execute(sa.select(secret).where(secret.c.subscription_id.in_(wanted), counting)):
        secrets[row.subscription_id][row.name] = row.value
    return [
        Lease(
            delivery_id=row.delivery_id,
            subscription=subscriptions[row.subscription_id],
            envelope=events[row.event_id],
            attempt=row.attempts,
            tries=row.tries,
            secrets=secrets[row.subscription_id],
        )
        for row in taken
    ]


async def record(
    tx: AsyncConnection,
    log: EventLog,
    held: Lease,
    outcome: Outcome,
    latency_ms: float,
    schedule: Schedule,
    chance: float,
) -> Next | None:
    """Writes the try, its event and what follows. None: the lease ran out and another worker has the delivery."""
    subscription_id = held.subscription.subscription_id
    delivery, attempt = t(DeliveryRow), t(AttemptRow)
    last = await log.lock(tx, stream_of(subscription_id))
    await tx.execute(
        sa.update(attempt)
        .where(attempt.c.delivery_id == held.delivery_id, attempt.c.attempt == held.attempt)
        .values(
            outcome=str(outcome.verdict),
            status=outcome.status,
            latency_ms=latency_ms,
            detail=outcome.detail,
            response=outcome.response,
            headers={"sent": dict(outcome.sent), "received": dict(outcome.received)},
        )
    )
    mine = sa.and_(delivery.c.delivery_id == held.delivery_id, delivery.c.attempts == held.attempt)
    at = await tx.scalar(sa.select(sa.func.now()).select_from(delivery).where(mine).with_for_update())
    if at is None:
        return None
    state = await views.subscription(tx, subscription_id)
    done = Try(
        delivery_id=str(held.delivery_id),
        subscription_id=subscription_id,
        event_id=held.envelope.id,
        event_type=held.envelope.type,
        attempt=held.attempt,
        tries=held.tries,
        latency_ms=latency_ms,
    )
    active = state is not None and state.active
    own = state and state.retry_seconds
    schedule = Schedule(own) if own else schedule
    follows = decide(done, outcome, schedule, at=at, chance=chance, active=active)
    closed = follows.due_at is None
    await tx.execute(
        sa.update(delivery)
        .where(mine)
        .values(
            status=follows.status,
            open=not closed,
            due_at=follows.due_at or delivery.c.due_at,
            leased_until=None,
            closed_at=sa.func.now() if closed else None,
        )
    )
    cause = Cause(actor=ACTOR, correlationid=held.envelope.correlationid, causationid=held.envelope.id)
    news = [New(event, held.envelope.subject) for event in follows.events]
    for envelope in await log.append(tx, stream_of(subscription_id), last, news, cause):
        await views.project(tx, envelope)
        if envelope.type == SubscriptionDisabled.TYPE:
            await close_down(tx, subscription_id)
    return follows


async def close_down(tx: AsyncConnection, subscription_id: str) -> None:
    """What waits for an ended subscription is cancelled (a try under way still records how it ended), and its secrets
    are forgotten."""
    delivery, secret = t(DeliveryRow), t(SecretRow)
    await tx.execute(
        sa.update(delivery)
        .where(delivery.c.subscription_id == subscription_id, delivery.c.open)
        .values(status="cancelled", open=False, closed_at=sa.func.now())
    )
    await tx.execute(sa.delete(secret).where(secret.c.subscription_id == subscription_id))


async def backlog(tx: AsyncConnection) -> tuple[int, float]:
    """How many deliveries are open, and how many seconds the oldest has waited since its event was taken in. What a
    pause holds does not count."""
    delivery, of = t(DeliveryRow), t(SubscriptionRow)
    paused = sa.select(of.c.subscription_id).where(of.c.paused)
    age = sa.func.extract("epoch", sa.func.now() - sa.func.min(delivery.c.created_at))
    query = sa.select(sa.func.count(), age).where(delivery.c.open, delivery.c.subscription_id.not_in(paused))
    row = (await tx.execute(query)).one()
    return int(row[0]), float(row[1] or 0.0)
