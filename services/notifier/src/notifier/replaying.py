"""Sending again what failed, or what never was sent, from the events that are kept: a page of events a call, so that
the caller sees how far it is, and any history takes bounded memory. Receivers know repetitions by their ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope
from contracts.notifier import SubscriptionReplayed
from kit.db import Database
from kit.events import Cause, EventLog, New
from notifier import queue, views
from notifier.domain import Subscription
from notifier.editing import not_active
from notifier.filters import OWN_PREFIXES
from notifier.matching import Seen
from notifier.queue import Wanted
from notifier.tables import DeliveryRow, SourceEventRow
from notifier.views import Document, stream_of, t
from policy.expressions import ExpressionError

PAGE = 1000
GIVEN_UP = frozenset({"dead", "cancelled", "denied"})
# What a silence, a rule or a group keeps back is not replayed.
ENDED = GIVEN_UP | {"succeeded"}


class Which(StrEnum):
    """FAILED: what was given up. MISSING: what it hears of and was never sent. ALL: both, and what arrived."""

    FAILED = "failed"
    MISSING = "missing"
    ALL = "all"


@dataclass(frozen=True)
class Choice:
    """Of the events that happened since and before these moments, those of these types and models (patterns)."""

    which: Which
    since: datetime | None = None
    before: datetime | None = None
    types: tuple[str, ...] = ()
    model: str = "*"

    def names(self, event: Seen) -> bool:
        kind = event.envelope.type
        wanted = not self.types or any(fnmatchcase(kind, pattern) for pattern in self.types)
        return wanted and fnmatchcase(event.model, self.model) and not kind.startswith(OWN_PREFIXES)


REOPENS = {Which.FAILED: GIVEN_UP, Which.MISSING: frozenset[str](), Which.ALL: ENDED}


class Replaying:
    def __init__(self, db: Database, log: EventLog) -> None:
        self._db, self._log = db, log

    async def replay(self, subscription_id: str, by: str, choice: Choice, *, after: int, dry_run: bool) -> Document:
        """Looks at the next events after position `after` and makes due what is chosen; `next` is where to go on.

        Raises:
            Problem: 409 when the subscription has ended.
        """
        async with self._db.transaction() as tx:
            last = await self._log.lock(tx, stream_of(subscription_id))
            state = await views.subscription(tx, subscription_id)
            if state is None or not state.active:
                raise not_active(state)
            rows = await _page(tx, choice, after)
            again, new = await _chosen(tx, state, choice, rows)
            count = len(again) + len(new)
            if count and not dry_run:
                await queue.reopen(tx, again)
                await queue.enqueue(tx, [Wanted(state, envelope, position) for envelope, position in new])
                said = SubscriptionReplayed(
                    subscription_id=subscription_id, replayed_by=by, which=choice.which.value, deliveries=count
                )
                subject = f"{state.workspace}/{state.model}"
                await self._log.append(tx, stream_of(subscription_id), last, [New(said, subject)], Cause(actor=by))
        return {
            "looked_at": len(rows),
            "deliveries": count,
            "next": rows[-1].position if len(rows) == PAGE else None,
        }


async def _page(tx: AsyncConnection, choice: Choice, after: int) -> Sequence[sa.Row[tuple[object, ...]]]:
    source = t(SourceEventRow)
    query = sa.select(source).where(source.c.position > after)
    query = query.where(source.c.at >= choice.since) if choice.since else query
    query = query.where(source.c.at < choice.before) if choice.before else query
    return (await tx.execute(query.order_by(source.c.position).limit(PAGE))).all()


async def _chosen(
    tx: AsyncConnection, state: Subscription, choice: Choice, rows: Sequence[sa.Row[tuple[object, ...]]]
) -> tuple[list[UUID], list[tuple[Envelope, int]]]:
    """The deliveries to open again, and the events to make deliveries of."""
    delivery = t(DeliveryRow)
    mine = sa.and_(
        delivery.c.subscription_id == state.subscription_id,
        delivery.c.event_id.in_([row.event_id for row in rows]),
    )
    query = sa.select(delivery.c.event_id, delivery.c.delivery_id, delivery.c.status, delivery.c.open)
    there = {row.event_id: row for row in await tx.execute(query.where(mine))}
    again, new = list[UUID](), list[tuple[Envelope, int]]()
    for row in rows:
        envelope = views.envelope_of(row)
        event, known = Seen(envelope), there.get(envelope.id)
        if not choice.names(event):
            continue
        if known is None:
            if choice.which is not Which.FAILED and _hears(state, event):
                new.append((envelope, row.position))
        elif not known.open and known.status in REOPENS[choice.which]:
            again.append(known.delivery_id)
    return again, new


def _hears(state: Subscription, event: Seen) -> bool:
    try:
        return state.hears_of(event)
    except ExpressionError:  # as when it came: who has no answer does not get it
        return False
