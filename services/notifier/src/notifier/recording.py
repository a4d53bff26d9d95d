"""How tries ended, written down: many outcomes in one transaction, of whatever subscriptions."""

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope
from contracts.notifier import GroupComposed, SubscriptionDisabled, SubscriptionFaltered
from contracts.payload import Message
from kit.events import Cause, EventLog, New
from notifier import bundles, endpoints, queue, views
from notifier.domain import Subscription, evolve
from notifier.endpoints import Fares, Heard
from notifier.health import SPAN, Health
from notifier.leasing import Lease
from notifier.queue import ACTOR
from notifier.retrying import Next, Outcome, Schedule, Try, Verdict, decide
from notifier.telling import tell
from notifier.views import stream_of

STAMP = sa.DateTime(timezone=True)
ATTEMPTS = sa.text(
    """
    update notifier.attempt a
    set outcome = u.outcome, status = u.status, latency_ms = u.latency_ms, detail = u.detail, response = u.response,
        headers = u.headers
    from unnest(:ids, :attempts, :outcomes, :statuses, :latencies, :details, :responses, :headers)
      u (delivery_id, attempt, outcome, status, latency_ms, detail, response, headers)
    where a.delivery_id = u.delivery_id and a.attempt = u.attempt
    """
).bindparams(
    sa.bindparam("ids", type_=ARRAY(sa.Uuid)),
    sa.bindparam("attempts", type_=ARRAY(sa.Integer)),
    sa.bindparam("outcomes", type_=ARRAY(sa.Text)),
    sa.bindparam("statuses", type_=ARRAY(sa.Integer)),
    sa.bindparam("latencies", type_=ARRAY(sa.Float)),
    sa.bindparam("details", type_=ARRAY(sa.Text)),
    sa.bindparam("responses", type_=ARRAY(sa.Text)),
    sa.bindparam("headers", type_=ARRAY(JSONB)),
)
# `at_`: of the transaction.
KNOWN = sa.text(
    """
    select s.*, g.endpoint, g.failing_since, g.failures, g.told, now() as at_
    from notifier.subscription s left join notifier.target g using (subscription_id)
    where s.subscription_id = any(:ids)
    """
).bindparams(sa.bindparam("ids", type_=ARRAY(sa.Text)))
HELD = sa.text(
    """
    select delivery_id, attempts, open from notifier.delivery where delivery_id = any(:ids)
    order by delivery_id for update
    """
).bindparams(sa.bindparam("ids", type_=ARRAY(sa.Uuid)))
CLOSE = sa.text(
    """
    update notifier.delivery d
    set status = u.status, open = u.due_at is not null, due_at = coalesce(u.due_at, d.due_at),
        closed_at = case when u.due_at is null then now() end
    from unnest(:ids, :statuses, :dues) u (delivery_id, status, due_at)
    where d.delivery_id = u.delivery_id
    """
).bindparams(
    sa.bindparam("ids", type_=ARRAY(sa.Uuid)),
    sa.bindparam("statuses", type_=ARRAY(sa.Text)),
    sa.bindparam("dues", type_=ARRAY(STAMP)),
)


@dataclass(frozen=True)
class Done:
    """A try that ended."""

    lease: Lease
    outcome: Outcome
    latency_ms: float

    @property
    def subscription_id(self) -> str:
        return self.lease.subscription.subscription_id


@dataclass(frozen=True)
class Recorded:
    """What follows from a try; None: the lease ran out and another worker has the delivery."""

    done: Done
    follows: Next | None


async def record(
    tx: AsyncConnection,
    log: EventLog,
    batch: Sequence[Done],
    schedule: Schedule,
    chance: Callable[[], float] = random.random,
) -> list[Recorded]:
    """Writes the tries, their events and what follows. Left out are those whose subscription is held by another
    transaction at this moment: they come again, and hold up nobody."""
    lasts = await log.try_lock_all(tx, {stream_of(done.subscription_id) for done in batch})
    mine = [done for done in batch if stream_of(done.subscription_id) in lasts]
    if not mine:
        return []
    at, states, fares = await _known(tx, {done.subscription_id for done in mine})
    await _note(tx, mine)
    await _lock_ending(tx, mine, fares, at)
    await queue.lock_lanes(tx, [(done.subscription_id, done.lease.lane) for done in mine])
    held, over = await _held(tx, mine)
    if not held:
        return [Recorded(done, None) for done in mine]
    heard = [_heard(done) for done in held]
    healths = await endpoints.note_health(tx, heard, fares, at)
    found, news = dict[tuple[UUID, int], Next](), list[tuple[Envelope, Envelope]]()
    for done in held:
        name, source = done.subscription_id, done.lease.envelope
        state = states.get(name)
        own = state and state.retry_seconds
        active = state is not None and state.active
        follows = decide(
            _try(done),
            done.outcome,
            Schedule(own) if own else schedule,
            at=at,
            chance=chance(),
            active=active,
            needed=done.lease.delivery_id not in over,
        )
        events = list(follows.events)
        if active and follows.status != "succeeded" and SubscriptionDisabled.TYPE not in {e.TYPE for e in events}:
            events += _of_health(done, healths.pop(name, None), at)
        found[done.lease.delivery_id, done.lease.attempt] = follows
        cause, stream = Cause(actor=ACTOR, correlationid=source.correlationid, causationid=source.id), stream_of(name)
        for envelope in log.envelopes(stream, lasts[stream], [New(event, source.subject) for event in events], cause):
            lasts[stream] += 1
            news.append((envelope, source))
            if (after := evolve(state, envelope)) is not None:
                states[name] = state = after
    await _close(tx, found)
    messages = {str(done.lease.delivery_id) for done in held if done.lease.envelope.type == GroupComposed.TYPE}
    closed = [(str(one), follows.status) for (one, _), follows in found.items() if follows.due_at is None]
    await bundles.settle(tx, [(one, status) for one, status in closed if one in messages])
    await queue.settle_lanes(tx, [(done.subscription_id, done.lease.lane) for done in held])
    await log.append_all(tx, [envelope for envelope, _ in news])
    for envelope, _ in news:
        await views.project(tx, envelope)
        if envelope.type == SubscriptionDisabled.TYPE:
            await queue.close_down(tx, envelope.key.removeprefix("subscription:"))
    await endpoints.note_breakers(tx, heard, fares, at)
    await tell(tx, news)
    return [Recorded(done, found.get((done.lease.delivery_id, done.lease.attempt))) for done in mine]


async def _known(
    tx: AsyncConnection, subscription_ids: Collection[str]
) -> tuple[datetime, dict[str, Subscription], dict[str, Fares]]:
    """The time, what the subscriptions are and how they fare. The caller holds their streams: none of it changes."""
    rows = (await tx.execute(KNOWN, {"ids": sorted(subscription_ids)})).all()
    states = {row.subscription_id: views.read(row) for row in rows}
    fares = {
        row.subscription_id: Fares(row.endpoint, Health(row.failing_since, row.failures, row.told))
        for row in rows
        if row.endpoint is not None
    }
    return rows[0].at_, states, fares


async def _lock_ending(tx: AsyncConnection, batch: Sequence[Done], fares: Mapping[str, Fares], at: datetime) -> None:
    """When some may be disabled: before their lanes, since who adds a delivery takes both in this order."""
    ending = {d.subscription_id for d in batch if d.outcome.disable or d.outcome.verdict is Verdict.GONE}
    ending |= endpoints.failing([_heard(done) for done in batch], fares, at)
    if ending:
        await views.change_matching(tx)


def _of_health(done: Done, health: Health | None, at: datetime) -> list[Message]:
    """What is said of a subscription that has known failures only, for long."""
    if health is None or health.failing_since is None:
        return []
    if health.lapsed(at):
        why = f"only failures since {health.failing_since:%Y-%m-%d %H:%M} UTC; the last: {done.outcome.detail}"
        return [SubscriptionDisabled(subscription_id=done.subscription_id, reason=why)]
    step = health.step(at)
    assert step is not None
    return [
        SubscriptionFaltered(
            subscription_id=done.subscription_id,
            percent=step,
            since=health.failing_since,
            disables_at=health.failing_since + SPAN,
            detail=done.outcome.detail,
        )
    ]


def _heard(done: Done) -> Heard:
    return Heard(done.subscription_id, done.outcome, done.lease.probe)


def _try(done: Done) -> Try:
    return Try(
        delivery_id=str(done.lease.delivery_id),
        subscription_id=done.subscription_id,
        event_id=done.lease.envelope.id,
        event_type=done.lease.envelope.type,
        attempt=done.lease.attempt,
        tries=done.lease.tries,
        latency_ms=done.latency_ms,
    )


async def _note(tx: AsyncConnection, batch: Sequence[Done]) -> None:
    """The outcome at its own try, whoever has the delivery by now."""
    columns: dict[str, list[Any]] = defaultdict(list)
    for done in batch:
        outcome = done.outcome
        columns["ids"].append(done.lease.delivery_id)
        columns["attempts"].append(done.lease.attempt)
        columns["outcomes"].append(str(outcome.verdict))
        columns["statuses"].append(outcome.status)
        columns["latencies"].append(done.latency_ms)
        columns["details"].append(outcome.detail)
        columns["responses"].append(outcome.response)
        columns["headers"].append({"sent": dict(outcome.sent), "received": dict(outcome.received)})
    await tx.execute(ATTEMPTS, columns)


async def _held(tx: AsyncConnection, batch: Sequence[Done]) -> tuple[list[Done], set[UUID]]:
    """Those whose lease has not gone to another worker, and which of them were cancelled during the try."""
    rows = await tx.execute(HELD, {"ids": [done.lease.delivery_id for done in batch]})
    there = {row.delivery_id: row for row in rows}
    held = [d for d in batch if (row := there.get(d.lease.delivery_id)) and row.attempts == d.lease.attempt]
    return held, {done.lease.delivery_id for done in held if not there[done.lease.delivery_id].open}


async def _close(tx: AsyncConnection, found: Mapping[tuple[UUID, int], Next]) -> None:
    values = {
        "ids": [delivery_id for delivery_id, _ in found],
        "statuses": [follows.status for follows in found.values()],
        "dues": [follows.due_at for follows in found.values()],
    }
    await tx.execute(CLOSE, values)
