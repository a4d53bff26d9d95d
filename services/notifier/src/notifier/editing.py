"""What people change of their subscriptions: filters, and pauses. One transaction each."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.notifier import SubscriptionChanged, SubscriptionEnabled, SubscriptionPaused, SubscriptionResumed
from contracts.payload import Message
from kit.db import Database
from kit.events import Cause, EventLog, New
from kit.problems import Problem
from notifier import endpoints, views
from notifier.destinations import types_in
from notifier.domain import UNCONFIRMED, Subscription
from notifier.filters import check_bundling, checked_filters
from notifier.tables import FilterErrorRow
from notifier.views import Document, stream_of, t

FILTERS = ("types", "model", "audience", "stages", "cel")
EDITED = (*FILTERS, "bundling")


def not_active(state: Subscription | None) -> Problem:
    """What is said of a subscription that nothing is sent to."""
    match state.status if state else None:
        case "disabled":
            return Problem(409, "subscription-ended", "the subscription is disabled; enable it first")
        case "unconfirmed":
            says = "nobody has confirmed its mailbox yet; `hallmark notify confirm` sends the link again"
            return Problem(409, "subscription-unconfirmed", says)
    return Problem(409, "subscription-ended", "the subscription has ended; make a new one")


class Editing:
    """Raises Problem 409 when the subscription has ended."""

    def __init__(self, db: Database, log: EventLog) -> None:
        self._db, self._log = db, log

    async def edit(self, subscription_id: str, by: str, changes: Mapping[str, Any]) -> Document:
        """Events that come from now on are judged by the new filters; what waits is sent. Without a difference nothing
        happens.

        Raises:
            Problem: 422 for what is wrong with the filters.
        """
        async with self._db.transaction() as tx:
            last = await self._log.lock(tx, stream_of(subscription_id))
            state = await self._living(tx, subscription_id)
            before = {name: getattr(state, name) for name in EDITED}
            after = {**before, **changes}
            checked = checked_filters(
                types_in(state.format, after["types"]), after["audience"], after["stages"], after["cel"]
            )
            after |= {name: getattr(checked, name) for name in FILTERS if name != "model"}
            check_bundling(after["bundling"], state.channel, state.format)
            if after != before:
                changed = SubscriptionChanged(subscription_id=subscription_id, changed_by=by, **after)
                await self._append(tx, state, changed, by, last)
                table = t(FilterErrorRow)
                await tx.execute(sa.delete(table).where(table.c.subscription_id == subscription_id))
            return await self._told(tx, subscription_id)

    async def pause(self, subscription_id: str, by: str) -> Document:
        """Events are kept for it, and nothing is sent. Twice is once."""
        paused = SubscriptionPaused(subscription_id=subscription_id, paused_by=by)
        return await self._switch(subscription_id, paused, by, paused=True)

    async def resume(self, subscription_id: str, by: str) -> Document:
        """What was kept is sent. Twice is once."""
        resumed = SubscriptionResumed(subscription_id=subscription_id, resumed_by=by)
        return await self._switch(subscription_id, resumed, by, paused=False)

    async def enable(self, subscription_id: str, by: str) -> Document:
        """One that was disabled is sent to again, as if it had never failed: events that come from now on. What was
        cancelled then, and what came meanwhile, can be replayed.

        Raises:
            Problem: 409 when it was removed.
        """
        async with self._db.transaction() as tx:
            last = await self._log.lock(tx, stream_of(subscription_id))
            state = await views.subscription(tx, subscription_id)
            if state is None or state.status == "removed":
                raise Problem(409, "subscription-ended", "the subscription was removed; make a new one")
            if state.status == UNCONFIRMED:
                raise not_active(state)
            if not state.active:
                enabled = SubscriptionEnabled(subscription_id=subscription_id, enabled_by=by)
                await self._append(tx, state, enabled, by, last)
                await endpoints.refresh(tx, subscription_id)
            return await self._told(tx, subscription_id)

    async def _switch(self, subscription_id: str, event: Message, by: str, *, paused: bool) -> Document:
        async with self._db.transaction() as tx:
            last = await self._log.lock(tx, stream_of(subscription_id))
            state = await self._living(tx, subscription_id)
            if state.paused != paused:
                await self._append(tx, state, event, by, last)
            return await self._told(tx, subscription_id)

    async def _living(self, tx: AsyncConnection, subscription_id: str) -> Subscription:
        state = await views.subscription(tx, subscription_id)
        if state is None or not state.active:
            raise not_active(state)
        return state

    async def _append(self, tx: AsyncConnection, state: Subscription, event: Message, by: str, last: int) -> None:
        new = New(event, f"{state.workspace}/{state.model}")
        await views.append(tx, self._log, state.subscription_id, last, new, Cause(actor=by))

    async def _told(self, tx: AsyncConnection, subscription_id: str) -> Document:
        state = await views.subscription(tx, subscription_id)
        assert state is not None
        return await views.told(tx, state)
