"""The proof that nothing was lost: for each event that was taken in and each subscription that wanted it then, there is
a delivery that has ended or is going to be tried. Whatever has none is unaccounted for."""

import asyncio
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog
from prometheus_client import Gauge
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.notifier import DeliveriesReconciled
from kit.db import Database
from kit.errors import is_transient
from kit.events import Cause, EventLog, New
from notifier import views
from notifier.domain import CLOCKS_DIFFER, Subscription, evolve
from notifier.matching import Seen
from notifier.mending import mend
from notifier.queue import ACTOR
from notifier.tables import SourceEventRow
from notifier.views import Document, t
from policy.expressions import ExpressionError

log = structlog.get_logger()
UNACCOUNTED = Gauge(
    "hallmark_deliveries_unaccounted", "Deliveries that nobody accounts for, at the last reconciliation"
)
RECONCILED = Gauge("hallmark_deliveries_reconciled_timestamp_seconds", "When the last reconciliation ended")
STREAM, SUBJECT = "reconciliation", "notifier:reconciliation"
PAGE = 500
LISTED = 100
# A lane whose lease ran out so long ago should have been leased again.
STUCK = timedelta(minutes=10)
HELD = sa.text(
    "select subscription_id, event_id from notifier.delivery where event_id = any(:events)"
    " and subscription_id = any(:subscriptions)"
).bindparams(sa.bindparam("events", type_=sa.ARRAY(sa.Text)), sa.bindparam("subscriptions", type_=sa.ARRAY(sa.Text)))
# An open delivery that no timer will ever send, or whose timer nobody looks at.
LOST = sa.text(
    """
    select d.subscription_id, d.event_id,
      case when l.lane is null then 'it waits in no lane' else 'its lease ran out and nobody took it up' end as why
    from notifier.delivery d
    join notifier.subscription s using (subscription_id)
    left join notifier.lane l on l.subscription_id = d.subscription_id and l.lane = d.lane
    left join notifier.target g on g.subscription_id = d.subscription_id
    left join notifier.endpoint e using (endpoint)
    where d.open and (
      l.lane is null
      or (l.leased_until < now() - make_interval(secs => :stuck) and s.status = 'active' and not s.paused
          and e.probe_at is null and coalesce(e.paused_until, now()) <= now()))
    order by d.position limit :most
    """
).bindparams(sa.bindparam("stuck", type_=sa.Float))

# One that waits for others and that no timer will send, or that was in a message which has ended without a word of it.
STRAYED = sa.text(
    """
    select d.subscription_id, d.event_id, 'it waits for a message that nobody will make' as why
    from notifier.delivery d
    left join notifier.bundle b on b.subscription_id = d.subscription_id and b.labels = d.held_by
    where d.status = 'waiting' and (b.due_at is null or b.due_at > now() + interval '9 days')
    union all
    select d.subscription_id, d.event_id, 'the message it is in has ended'
    from notifier.delivery d
    left join notifier.delivery m on m.delivery_id = case when d.status = 'grouped' then d.held_by::uuid end
    where d.status = 'grouped' and not coalesce(m.open, false)
    limit :most
    """
)


@dataclass
class History:
    """What a subscription was, from the event at each of these positions on."""

    positions: list[int] = field(default_factory=list)
    states: list[Subscription] = field(default_factory=list)

    def at(self, position: int) -> Subscription | None:
        """None when it was not there yet."""
        n = bisect_right(self.positions, position)
        return self.states[n - 1] if n else None


@dataclass
class Result:
    """`checked` are pairs of an event and a subscription that wanted it; `examples` some of those that are missing."""

    events: int = 0
    checked: int = 0
    unaccounted: int = 0
    examples: list[Document] = field(default_factory=list)

    def miss(self, subscription_id: str, event_id: str, why: str) -> None:
        self.unaccounted += 1
        if len(self.examples) < LISTED:
            self.examples.append({"subscription_id": subscription_id, "event_id": event_id, "why": why})


class Reconciling:
    def __init__(self, db: Database, log_: EventLog, *, every_seconds: float, days: float) -> None:
        """`every_seconds` it runs by itself, over the events taken in within so many days."""
        self._db, self._log, self._every, self._back = db, log_, every_seconds, timedelta(days=days)

    async def run(self) -> None:
        """Until cancelled; one of the replicas does it each time."""
        started = datetime.now(UTC)
        while True:
            try:
                if await self._due(started):
                    await self.reconcile(since=datetime.now(UTC) - self._back)
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("cannot reconcile deliveries; trying again", error=repr(error))
            await asyncio.sleep(min(self._every, 60.0))

    async def _due(self, started: datetime) -> bool:
        event = self._log.tables.event
        async with self._db.snapshot() as tx:
            last = await tx.scalar(sa.select(sa.func.max(event.c.at)).where(event.c.stream == STREAM))
        return datetime.now(UTC) - (last or started) >= timedelta(seconds=self._every)

    async def reconcile(self, *, since: datetime | None = None, by: str = ACTOR) -> Result:
        """Looks at every event taken in since then, a page at a time, records what it found, and puts right what it
        can: that is accounted for the next time."""
        found = Result()
        async with self._db.snapshot() as tx:
            histories = await self._histories(tx)
            ends = await tx.scalar(sa.select(sa.func.max(t(SourceEventRow).c.position))) or 0
        after: int | None = 0
        while after is not None:
            async with self._db.snapshot() as tx:
                after = await _page(tx, found, histories, since, after, ends)
            await asyncio.sleep(0)
        async with self._db.snapshot() as tx:
            for query, values in ((LOST, {"stuck": STUCK.total_seconds()}), (STRAYED, {})):
                for row in await tx.execute(query, {**values, "most": 10_000}):
                    found.miss(row.subscription_id, row.event_id, row.why)
        async with self._db.transaction() as tx:
            last = await self._log.lock(tx, STREAM)
            said = DeliveriesReconciled(
                since=since, events=found.events, checked=found.checked, unaccounted=found.unaccounted
            )
            await self._log.append(tx, STREAM, last, [New(said, SUBJECT)], Cause(actor=by))
        UNACCOUNTED.set(found.unaccounted)
        RECONCILED.set_to_current_time()
        if found.unaccounted:
            log.error("deliveries are unaccounted for", count=found.unaccounted, examples=found.examples[:5])
            await mend(self._db)
        return found

    async def _histories(self, tx: AsyncConnection) -> dict[str, History]:
        """Of every subscription, from its events: the view knows only what is."""
        event, found = self._log.tables.event, dict[str, History]()
        query = sa.select(event).where(event.c.type.in_(views.FOLDED)).order_by(event.c.position)
        async for row in await tx.stream(query):
            envelope = self._log.envelope(row)
            history = found.setdefault(envelope.key.removeprefix("subscription:"), History())
            state = evolve(history.states[-1] if history.states else None, envelope)
            if state is not None:
                history.positions.append(row.position)
                history.states.append(state)
        return found


async def _page(
    tx: AsyncConnection,
    found: Result,
    histories: dict[str, History],
    since: datetime | None,
    after: int,
    ends: int,
) -> int | None:
    """Checks the next events; gives where to go on."""
    source = t(SourceEventRow)
    query = sa.select(source).where(source.c.position > after, source.c.position <= ends)
    query = query.where(source.c.taken_at >= since) if since else query
    rows = (await tx.execute(query.order_by(source.c.position).limit(PAGE))).all()
    wanted: list[tuple[str, str]] = []
    for row in rows:
        event = Seen(views.envelope_of(row))
        if row.known is not None:
            found.events += 1
            wanted += [(name, row.event_id) for name, h in histories.items() if _wanted(h, event, row.known)]
    asked: dict[str, Any] = {
        "events": list({event_id for _, event_id in wanted}),
        "subscriptions": list({name for name, _ in wanted}),
    }
    there = {(row.subscription_id, row.event_id) for row in await tx.execute(HELD, asked)} if wanted else set()
    found.checked += len(wanted)
    for pair in wanted:
        if pair not in there:
            found.miss(*pair, "there is no delivery")
    return rows[-1].position if len(rows) == PAGE else None


def _wanted(history: History, event: Seen, known: int) -> bool:
    state = history.at(known)
    with suppress(ExpressionError):  # who has no answer does not get it
        return (
            state is not None
            and state.active
            and event.envelope.time >= state.created_at - CLOCKS_DIFFER
            and state.hears_of(event)
        )
    return False
