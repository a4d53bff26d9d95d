"""The view of subscriptions (a fold, law 2), and what can be asked of subscriptions and deliveries."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope
from contracts.notifier import (
    Bundling,
    Channel,
    Digest,
    Format,
    Grouped,
    Order,
    SubscriptionChanged,
    SubscriptionConfirmed,
    SubscriptionCreated,
    SubscriptionDisabled,
    SubscriptionEnabled,
    SubscriptionPaused,
    SubscriptionRemoved,
    SubscriptionResumed,
)
from kit.events import Cause, EventLog, New
from notifier import quiet_views, standings, template_views
from notifier.domain import UNCONFIRMED, Subscription, evolve
from notifier.tables import (
    VIEWS,
    AttemptRow,
    ConfirmationRow,
    DeliveryRow,
    FilterErrorRow,
    SourceEventRow,
    SubscriptionRow,
    table_of,
)

Document = dict[str, Any]
PAUSED = "paused"
BUNDLING: TypeAdapter[Grouped | Digest] = TypeAdapter(Bundling)
_LISTS = ("types", "audience", "stages")
FOLDED = {
    SubscriptionCreated.TYPE,
    SubscriptionConfirmed.TYPE,
    SubscriptionChanged.TYPE,
    SubscriptionPaused.TYPE,
    SubscriptionResumed.TYPE,
    SubscriptionRemoved.TYPE,
    SubscriptionDisabled.TYPE,
    SubscriptionEnabled.TYPE,
}


_MATCHING = "hashtextextended('notifier:matching', 0)"
MATCHING = sa.text(f"select pg_advisory_xact_lock_shared({_MATCHING})")
CHANGING = sa.text(f"select pg_advisory_xact_lock({_MATCHING})")
t = table_of


def stream_of(subscription_id: str) -> str:
    return f"subscription:{subscription_id}"


async def settle_matching(tx: AsyncConnection, log: EventLog) -> int:
    """Until this transaction ends no subscription changes. Gives the position of the newest event by now: those of
    subscriptions up to it are what the subscriptions are, and later ones have later positions."""
    await tx.execute(MATCHING)
    return int(await tx.scalar(sa.select(sa.func.max(log.tables.event.c.position))) or 0)


async def change_matching(tx: AsyncConnection) -> None:
    """Waits until nobody matches events with subscriptions, and keeps everybody from it until this transaction ends.
    Call it before what changes a subscription is appended: after its stream, and before any lane is locked."""
    await tx.execute(CHANGING)


async def append(tx: AsyncConnection, log: EventLog, subscription_id: str, last: int, new: New, cause: Cause) -> None:
    """Appends an event of a subscription whose stream the caller holds, and folds it."""
    if new.message.TYPE in FOLDED:
        await change_matching(tx)
    for envelope in await log.append(tx, stream_of(subscription_id), last, [new], cause):
        await project(tx, envelope)


async def project(tx: AsyncConnection, envelope: Envelope) -> None:
    """Folds one event. Outcomes of deliveries have no view: their rows are timers, not folds."""
    if envelope.type not in FOLDED:
        await quiet_views.project(tx, envelope)
        await template_views.project(tx, envelope)
        await standings.project(tx, envelope)
        return
    subscription_id = envelope.key.removeprefix("subscription:")
    state = evolve(await subscription(tx, subscription_id), envelope)
    if state is None:
        return
    values = {name: getattr(state, name) for name in SubscriptionRow.model_fields}
    values |= {name: list(getattr(state, name)) for name in _LISTS}
    values |= {"retry_seconds": state.retry_seconds and list(state.retry_seconds)}
    values |= {"bundling": state.bundling and state.bundling.model_dump(mode="json")}
    statement = insert(t(SubscriptionRow)).values(values)
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=["subscription_id"],
            set_={name: statement.excluded[name] for name in values if name != "subscription_id"},
        )
    )


async def rebuild(tx: AsyncConnection, log: EventLog) -> int:
    """Drops every view and folds all events again, in one transaction. Returns the number of events.

    Writers wait at the views meanwhile: the service may not lock the events, which it may only add to.
    """
    await tx.execute(sa.text(f"lock table {', '.join(t(row).fullname for row in VIEWS)} in exclusive mode"))
    for row in VIEWS:
        await tx.execute(sa.delete(t(row)))
    count = 0
    async for envelope in log.read(tx):
        await project(tx, envelope)
        count += 1
    await standings.refold(tx)
    return count


def read(row: Any) -> Subscription:
    """A row as the domain sees it."""
    values = {name: getattr(row, name) for name in SubscriptionRow.model_fields}
    lists: Document = {name: tuple(getattr(row, name)) for name in _LISTS}
    lists |= {"order": Order(row.order), "retry_seconds": row.retry_seconds and tuple(row.retry_seconds)}
    lists |= {"bundling": row.bundling and BUNDLING.validate_python(row.bundling)}
    return Subscription(**{**values, "channel": Channel(row.channel), "format": Format(row.format), **lists})


async def subscription(tx: AsyncConnection, subscription_id: str) -> Subscription | None:
    table = t(SubscriptionRow)
    row = (await tx.execute(sa.select(table).where(table.c.subscription_id == subscription_id))).first()
    return read(row) if row else None


def envelope_of(row: Any) -> Envelope:
    """An event as it was read from Kafka."""
    return Envelope.from_kafka(row.stream.encode(), [(n, v.encode()) for n, v in row.headers], row.value)


async def past_events(
    tx: AsyncConnection, workspace: str, *, before: int | None, limit: int
) -> list[tuple[int, Envelope]]:
    """Events of a workspace, and of none, newest first, each with its position. What the notifier told of itself is for
    those who were told."""
    table = t(SourceEventRow)
    query = sa.select(table).where(sa.or_(table.c.workspace == workspace, table.c.workspace.is_(None)))
    query = query.where(~table.c.type.startswith("hallmark.delivery."))
    query = query.where(~table.c.type.startswith("hallmark.subscription."))
    query = query.where(table.c.position < before) if before is not None else query
    rows = await tx.execute(query.order_by(table.c.position.desc()).limit(limit))
    return [(row.position, envelope_of(row)) for row in rows]


async def note_errors(tx: AsyncConnection, event_id: str, failed: Sequence[tuple[str, str]]) -> None:
    """Counts that expressions had no answer for an event: whose, and why."""
    table = t(FilterErrorRow)
    for subscription_id, detail in sorted(failed):
        row = {"subscription_id": subscription_id, "count": 1, "detail": detail, "event_id": event_id}
        statement = insert(table).values({**row, "at": sa.func.now()})
        same = {name: statement.excluded[name] for name in ("detail", "event_id", "at")}
        await tx.execute(
            statement.on_conflict_do_update(
                index_elements=["subscription_id"], set_={**same, "count": table.c.count + 1}
            )
        )


async def errors_of(tx: AsyncConnection, subscription_ids: Sequence[str]) -> dict[str, Document]:
    """By subscription: how often its expression had no answer, and what it said last."""
    table = t(FilterErrorRow)
    rows = await tx.execute(sa.select(table).where(table.c.subscription_id.in_(subscription_ids)))
    return {
        row.subscription_id: {
            "count": row.count,
            "detail": row.detail,
            "event_id": row.event_id,
            "at": row.at.isoformat(),
        }
        for row in rows
    }


async def active_in(tx: AsyncConnection, workspaces: Collection[str] | None) -> list[Subscription]:
    """Those of the workspaces, or of all."""
    table = t(SubscriptionRow)
    query = sa.select(table).where(table.c.status == "active")
    query = query.where(table.c.workspace.in_(workspaces)) if workspaces is not None else query
    return [read(row) for row in await tx.execute(query)]


async def subscriptions(
    tx: AsyncConnection, workspace: str, *, owner: str | None, status: str | None, limit: int, after: str | None
) -> Document:
    """A page, newest first. `owner` None means everybody's."""
    table = t(SubscriptionRow)
    query = sa.select(table).where(table.c.workspace == workspace)
    if owner is not None:
        query = query.where(table.c.owner == owner)
    if status in (PAUSED, "active"):
        query = query.where(table.c.status == "active", table.c.paused == (status == PAUSED))
    elif status is not None:
        query = query.where(table.c.status == status)
    if after is not None:
        query = query.where(table.c.subscription_id < after)
    rows = (await tx.execute(query.order_by(table.c.subscription_id.desc()).limit(limit + 1))).all()
    errors = await errors_of(tx, [row.subscription_id for row in rows])
    items = [document(read(row), errors.get(row.subscription_id)) for row in rows[:limit]]
    return {"items": items, "next": items[-1]["subscription_id"] if len(rows) > limit else None}


async def told(tx: AsyncConnection, state: Subscription) -> Document:
    """A subscription as the API shows it, with what its expression failed at, and how the question to its mailbox
    fares."""
    errors = await errors_of(tx, [state.subscription_id])
    return document(state, errors.get(state.subscription_id)) | {"confirmation": await _confirmation(tx, state)}


async def _confirmation(tx: AsyncConnection, state: Subscription) -> Document | None:
    """When the mailbox was asked, while it has not answered."""
    table = t(ConfirmationRow)
    query = sa.select(table).where(table.c.subscription_id == state.subscription_id)
    row = (await tx.execute(query)).first() if state.status == UNCONFIRMED else None
    if row is None:
        return None
    sent = row.sent_at.isoformat() if row.sent_at else None
    times = {"asked_at": row.asked_at.isoformat(), "expires_at": row.expires_at.isoformat(), "sent_at": sent}
    return {**times, "error": row.error}


def document(state: Subscription, filter_errors: Document | None = None) -> Document:
    """A subscription as the API shows it."""
    return {
        "subscription_id": state.subscription_id,
        "owner": state.owner,
        "channel": str(state.channel),
        "address": state.address,
        "types": list(state.types),
        "workspace": state.workspace,
        "model": state.model,
        "audience": list(state.audience),
        "retry_seconds": list(state.retry_seconds) if state.retry_seconds else None,
        "stages": list(state.stages),
        "cel": state.cel,
        "bundling": state.bundling and state.bundling.model_dump(mode="json"),
        "format": str(state.format),
        "order": str(state.order),
        "status": PAUSED if state.active and state.paused else state.status,
        "reason": state.reason,
        "created_at": state.created_at.isoformat(),
        "ended_at": state.ended_at.isoformat() if state.ended_at else None,
        "filter_errors": filter_errors,
        "confirmation": None,
    }


async def deliveries(
    tx: AsyncConnection,
    workspace: str,
    *,
    owner: str | None,
    subscription_id: str | None,
    status: str | None,
    event_id: str | None,
    held_by: str | None = None,
    limit: int,
    after: int | None,
) -> Document:
    """A page, newest first, of the workspace's deliveries. `owner` None means everybody's."""
    delivery, of = t(DeliveryRow), t(SubscriptionRow)
    query = sa.select(delivery, of.c.channel, of.c.address).join(of, of.c.subscription_id == delivery.c.subscription_id)
    query = query.where(of.c.workspace == workspace)
    wanted: Sequence[tuple[Any, Any]] = (
        (of.c.owner, owner),
        (delivery.c.subscription_id, subscription_id),
        (delivery.c.status, status),
        (delivery.c.event_id, event_id),
        (delivery.c.held_by, held_by),
    )
    for column, value in wanted:
        query = query.where(column == value) if value is not None else query
    if after is not None:
        query = query.where(delivery.c.position < after)
    rows = (await tx.execute(query.order_by(delivery.c.position.desc()).limit(limit + 1))).all()
    items = [_delivery(row) for row in rows[:limit]]
    return {"items": items, "next": str(rows[limit - 1].position) if len(rows) > limit else None}


async def delivery_detail(tx: AsyncConnection, delivery_id: UUID) -> tuple[Document, Subscription] | None:
    """One delivery with its tries, and whose it is."""
    delivery, attempt, of = t(DeliveryRow), t(AttemptRow), t(SubscriptionRow)
    query = sa.select(delivery, of.c.channel, of.c.address).join(of, of.c.subscription_id == delivery.c.subscription_id)
    row = (await tx.execute(query.where(delivery.c.delivery_id == delivery_id))).first()
    if row is None:
        return None
    owner = await subscription(tx, row.subscription_id)
    assert owner is not None
    tries = await tx.execute(sa.select(attempt).where(attempt.c.delivery_id == delivery_id).order_by(attempt.c.attempt))
    return _delivery(row) | {"tries": [_attempt(a) for a in tries]}, owner


async def source_event(tx: AsyncConnection, event_id: str) -> Envelope:
    source = t(SourceEventRow)
    return envelope_of((await tx.execute(sa.select(source).where(source.c.event_id == event_id))).one())


def _delivery(row: Any) -> Document:
    return {
        "delivery_id": str(row.delivery_id),
        "subscription_id": row.subscription_id,
        "channel": row.channel,
        "address": row.address,
        "event_id": row.event_id,
        "event_type": row.event_type,
        "subject": row.subject,
        "status": row.status,
        "attempts": row.attempts,
        "due_at": row.due_at.isoformat() if row.open else None,
        "created_at": row.created_at.isoformat(),
        "closed_at": row.closed_at.isoformat() if row.closed_at else None,
        "held_by": row.held_by,
        "template": row.template,
        "template_error": row.template_error,
    }


def _attempt(row: Any) -> Document:
    """A try without an outcome was cut off (or is under way): the receiver may have got it."""
    return {
        "attempt": row.attempt,
        "started_at": row.started_at.isoformat(),
        "outcome": row.outcome or "unknown",
        "status": row.status,
        "latency_ms": row.latency_ms,
        "detail": row.detail or "",
        "response": row.response or "",
        "headers": row.headers or {"sent": {}, "received": {}},
    }
