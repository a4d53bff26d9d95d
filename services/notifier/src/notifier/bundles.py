"""Messages about many events: which deliveries wait for one another, and the one event that tells of them all.

A delivery that waits is a row like any other, held by its bundle. When the bundle is due, one event of the notifier's
own is appended and delivered like every event, and the rows are held by that delivery: what comes of it comes of them.
Memory is bounded by what one message shows, however many rows there are.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope, now
from contracts.notifier import Digest, GroupComposed, Grouped, Told
from kit.db import Database
from kit.events import Cause, EventLog, New
from notifier import queue, views
from notifier.bundling import first_due, labels_of
from notifier.domain import Subscription, delivery_id
from notifier.matching import Seen
from notifier.notices import one_line
from notifier.queue import ACTOR, Held, Wanted
from notifier.reminders import cancels, request_key
from notifier.rights import Rights
from notifier.tables import BundleRow, DeliveryRow, SourceEventRow, SubscriptionRow
from notifier.views import stream_of, t
from notifier.wording import notice

log = structlog.get_logger()
WAITING, GROUPED, DENIED = "waiting", "grouped", "denied"
SHOWN, KINDS, HEADLINE = 10, 40, 300
PAGE = 50
FORGOTTEN = timedelta(days=8)


async def assign(tx: AsyncConnection, event: Seen, wanted: Sequence[Subscription], at: datetime) -> dict[str, Held]:
    """Of subscriptions that want messages about many events: what holds this one. Call it with the subscriptions
    locked, and `no_longer_open` before it."""
    held = dict[str, Held]()
    for subscription in sorted(wanted, key=lambda one: one.subscription_id):
        if subscription.bundling is None:
            continue
        labels = labels_of(subscription, event)
        if not await _at_once(tx, subscription, labels, event, at):
            held[subscription.subscription_id] = Held(WAITING, labels, over=False)
    return held


async def no_longer_open(tx: AsyncConnection, requests: Sequence[str]) -> None:
    """These requests have ended: nobody is told of them again."""
    table = t(BundleRow)
    await tx.execute(sa.update(table).where(table.c.request.in_(requests)).values(request=None))


async def _at_once(tx: AsyncConnection, subscription: Subscription, labels: str, event: Seen, at: datetime) -> bool:
    """Puts the event into its bundle; True when it is the first after a quiet time, and goes out alone."""
    table, bundling = t(BundleRow), subscription.bundling
    mine = sa.and_(table.c.subscription_id == subscription.subscription_id, table.c.labels == labels)
    by_request = isinstance(bundling, Grouped) and "request" in bundling.by and event.request is not None
    open_ = by_request and event.request is not None and cancels(event.envelope) is None
    row = {
        "subscription_id": subscription.subscription_id,
        "labels": labels,
        "due_at": first_due(subscription, at),
        "event_at": at,
        "request": request_key(event.request) if open_ and event.request is not None else None,
    }
    quiet = bundling.first_at_once_seconds if isinstance(bundling, Digest) else None
    if quiet is not None:
        made = insert(table).values(row | {"due_at": None}).on_conflict_do_nothing().returning(table.c.labels)
        if (await tx.execute(made)).first() is not None:
            return True
        found = (await tx.execute(sa.select(table).where(mine).with_for_update())).one()
        alone = found.due_at is None and at - found.event_at >= timedelta(seconds=quiet)
        due = None if alone else found.due_at or row["due_at"]
        await tx.execute(sa.update(table).where(mine).values(event_at=at, due_at=due))
        return alone
    # What is there keeps its time, unless that is when an open request is told of again, or of a wrong clock. It is
    # locked even so, and not written: who sends it sees this event, or waits.
    statement = insert(table).values(row)
    soon: Any = statement.excluded.due_at
    if isinstance(bundling, Grouped):
        soon = sa.func.greatest(table.c.sent_at + timedelta(seconds=bundling.interval_seconds), soon)
    there = statement.on_conflict_do_update(
        index_elements=["subscription_id", "labels"],
        set_={"due_at": soon},
        where=sa.or_(table.c.due_at.is_(None), table.c.due_at > soon),
    )
    await tx.execute(there)
    return False


async def due(tx: AsyncConnection, at: datetime) -> list[tuple[str, str]]:
    """Bundles whose time has come, the oldest first; not those of who has paused."""
    table, of = t(BundleRow), t(SubscriptionRow)
    query = sa.select(table.c.subscription_id, table.c.labels).join(of, of.c.subscription_id == table.c.subscription_id)
    query = query.where(table.c.due_at <= at, of.c.status == "active", of.c.paused.is_(False))
    return [(row[0], row[1]) for row in await tx.execute(query.order_by(table.c.due_at).limit(PAGE))]


async def flush(
    tx: AsyncConnection, log_: EventLog, rights: Rights, subscription_id: str, labels: str, at: datetime
) -> bool:
    """Sends what waits in one message, and says when to look again. False: there was nothing to send. What the owner
    may not read any more is not in it."""
    last = await log_.lock(tx, stream_of(subscription_id))
    of, table = t(SubscriptionRow), t(BundleRow)
    await tx.execute(sa.select(of.c.status).where(of.c.subscription_id == subscription_id).with_for_update(read=True))
    state = await views.subscription(tx, subscription_id)
    mine = sa.and_(table.c.subscription_id == subscription_id, table.c.labels == labels)
    query = sa.select(table).where(mine, table.c.due_at <= at).with_for_update()
    row = (await tx.execute(query)).first()
    if row is None or state is None or not state.active or state.paused:
        return False
    delivery = t(DeliveryRow)
    members = sa.and_(
        delivery.c.subscription_id == subscription_id, delivery.c.status == WAITING, delivery.c.held_by == labels
    )
    subjects = (await tx.scalars(sa.select(delivery.c.subject).where(members).distinct())).all()
    for subject, why in (await rights.unreadable(state, subjects)).items():
        denied = {"status": DENIED, "closed_at": sa.func.now(), "held_by": why}
        await tx.execute(sa.update(delivery).where(members, delivery.c.subject == subject).values(denied))
    told = await _told(tx, subscription_id, labels)
    if told is None:
        return await _look_again(tx, log_, state, row, last, at)
    made = GroupComposed(subscription_id=subscription_id, labels=labels, **told)
    sent = await _send(tx, log_, state, made, last)
    held = {"status": GROUPED, "held_by": str(delivery_id(subscription_id, sent.id))}
    await tx.execute(sa.update(delivery).where(members).values(held))
    grouped = state.bundling if isinstance(state.bundling, Grouped) else None
    after = at + timedelta(seconds=grouped.interval_seconds) if grouped else None
    values = {"due_at": after, "sent_at": at, "message": made.model_dump(mode="json")}
    await tx.execute(sa.update(table).where(mine).values(values))
    return True


async def _look_again(
    tx: AsyncConnection, log_: EventLog, state: Subscription, row: Any, last: int, at: datetime
) -> bool:
    """Nothing new came. A request that is still open is told of again after a while; everything else is forgotten."""
    table, grouped = t(BundleRow), state.bundling
    mine = sa.and_(table.c.subscription_id == state.subscription_id, table.c.labels == row.labels)
    if row.request is None or row.sent_at is None or row.message is None or not isinstance(grouped, Grouped):
        await tx.execute(sa.delete(table).where(mine))
        return False
    again = row.sent_at + timedelta(seconds=grouped.repeat_seconds)
    if again <= at:
        await _send(tx, log_, state, GroupComposed.model_validate(row.message | {"repeats": True}), last)
        await tx.execute(
            sa.update(table).where(mine).values(sent_at=at, due_at=at + timedelta(seconds=grouped.repeat_seconds))
        )
        return True
    await tx.execute(sa.update(table).where(mine).values(due_at=again))
    return False


async def _send(tx: AsyncConnection, log_: EventLog, state: Subscription, made: GroupComposed, last: int) -> Envelope:
    # A subject of its own: no subscription hears of it.
    stream = stream_of(state.subscription_id)
    [sent] = await log_.append(tx, stream, last, [New(made, stream)], Cause(actor=ACTOR))
    position = (await queue.keep(tx, [Seen(sent)]))[sent.id]
    await queue.enqueue(tx, [Wanted(state, sent, position)])
    return sent


async def _told(tx: AsyncConnection, subscription_id: str, labels: str) -> dict[str, Any] | None:
    """What a message says of the events that wait; None when there are none."""
    delivery, source = t(DeliveryRow), t(SourceEventRow)
    waiting = sa.and_(
        delivery.c.subscription_id == subscription_id, delivery.c.status == WAITING, delivery.c.held_by == labels
    )
    kinds = sa.select(delivery.c.event_type, sa.func.count().label("count")).where(waiting)
    counted = (await tx.execute(kinds.group_by(delivery.c.event_type).order_by(sa.desc("count"), "event_type"))).all()
    if not counted:
        return None
    joined = sa.join(delivery, source, source.c.event_id == delivery.c.event_id)
    span = sa.select(sa.func.min(source.c.at), sa.func.max(source.c.at)).select_from(joined).where(waiting)
    first, latest = (await tx.execute(span)).one()
    newest = sa.select(source).select_from(joined).where(waiting).order_by(source.c.position.desc()).limit(SHOWN)
    return {
        "count": sum(row.count for row in counted),
        "first_at": first,
        "last_at": latest,
        "kinds": {row.event_type: row.count for row in counted[:KINDS]},
        "newest": tuple(_line(views.envelope_of(row)) for row in await tx.execute(newest)),
    }


def _line(envelope: Envelope) -> Told:
    headline = one_line(notice(envelope).headline)[:HEADLINE]
    return Told(event_id=envelope.id, type=envelope.type, subject=envelope.subject, at=envelope.time, headline=headline)


async def settle(tx: AsyncConnection, outcomes: Sequence[tuple[str, str]]) -> None:
    """What came of messages, each a delivery's id and its status, came of the deliveries they told of."""
    delivery = t(DeliveryRow)
    for message, status in sorted(outcomes):
        members = sa.update(delivery).where(delivery.c.held_by == message, delivery.c.open.is_(False))
        await tx.execute(members.values(status=status, closed_at=sa.func.now()))


class Bundler:
    """Sends messages about many events when they are due. Any number may run against one database."""

    def __init__(
        self,
        db: Database,
        log_: EventLog,
        wake: asyncio.Event,
        rights: Rights,
        *,
        poll_seconds: float = 1,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._db, self._log, self._wake, self._rights = db, log_, wake, rights
        self._poll, self._clock = poll_seconds, clock

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                while await self.once() == PAGE:
                    pass
            except Exception as error:
                log.error("messages about many events not sent; trying again", exc_info=error)
            await asyncio.sleep(self._poll)

    async def once(self) -> int:
        """Looks at bundles that are due, each in a transaction of its own; gives how many."""
        at = self._clock()
        async with self._db.transaction() as tx:
            found = await due(tx, at)
        for subscription_id, labels in found:
            async with self._db.transaction() as tx:
                sent = await flush(tx, self._log, self._rights, subscription_id, labels, at)
            if sent:
                self._wake.set()
        if not found:
            table = t(BundleRow)
            async with self._db.transaction() as tx:
                stale = sa.and_(table.c.due_at.is_(None), table.c.event_at < at - FORGOTTEN)
                await tx.execute(sa.delete(table).where(stale))
        return len(found)
