"""Kafka in: what the registry, approval and audit say becomes the deliveries that subscriptions want."""

import asyncio
import json
from typing import Any

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.catalog import MESSAGES
from contracts.envelope import Envelope, now
from contracts.topics import APPROVAL_EVENTS, AUDIT_EVENTS, REGISTRY_EVENTS, Topic
from kit.bus import Bus, Record
from kit.consume import Ordered
from kit.db import Database
from kit.errors import Permanent
from kit.inbox import Inbox
from notifier import bundles, queue, quiet_views, views
from notifier.domain import matching
from notifier.matching import Seen
from notifier.quiet import quiet
from notifier.reminders import cancels

FILTER_ERRORS = Counter("hallmark_filter_errors_total", "Expressions of subscriptions that had no answer")
TOPICS: tuple[Topic, ...] = (REGISTRY_EVENTS, APPROVAL_EVENTS, AUDIT_EVENTS)


def subscribe(bus: Bus, db: Database, inbox: Inbox, wake: asyncio.Event) -> None:
    for topic in TOPICS:
        bus.subscribe(topic, Waking(Ordered(db, inbox, bus, topic, fan_out), wake))


class Waking:
    """Wakes the worker of this process once the rows are committed; other replicas poll."""

    def __init__(self, ordered: Ordered, wake: asyncio.Event) -> None:
        self._ordered, self._wake = ordered, wake

    async def __call__(self, record: Record) -> None:
        await self._ordered(record)
        self._wake.set()

    async def parked(self, record: Record, error: Permanent) -> None:
        await self._ordered.parked(record, error)
        self._wake.set()


async def fan_out(tx: AsyncConnection, envelope: Envelope) -> None:
    """Keeps the event, and adds a delivery per subscription that wants it; a repetition adds none.

    A subscription whose expression has no answer for it does not get it; that is counted for its owner. What a silence
    or an alarm keeps from a subscription has a delivery that is not sent. Reminders of what it decides are cancelled.

    Raises:
        EnvelopeError, Permanent: the body is not what its type says, and is parked.
    """
    check_body(envelope)
    event, at = Seen(envelope), now()
    found = matching(await views.active_in(tx, event.workspace), event)
    failed = [(one.subscription_id, why) for one, why in found.failed]
    rules = await quiet_views.inhibitions(tx, event.workspace)
    alarms, silent = await quiet_views.sound(tx, event, rules, at)
    failed += silent
    held = dict[str, queue.Held]()
    if found.wanted:
        silences = await quiet_views.silences_now(tx, {one.workspace for one in found.wanted}, at)
        hush = quiet(found.wanted, event, silences, alarms, at)
        failed += hush.failed
        held |= {name: queue.Held(one.status, one.by) for name, one in hush.hushed.items()}
    loud = [one for one in found.wanted if one.subscription_id not in held]
    if any(one.bundling for one in loud):
        await queue.lock_living(tx, found.wanted)
    held |= await bundles.assign(tx, event, loud, at)
    await queue.enqueue(tx, envelope, await queue.keep(tx, event), found.wanted, held)
    if over := cancels(envelope):
        await queue.cancel(tx, [over], envelope.id)
    if failed:
        FILTER_ERRORS.inc(len(failed))
        await views.note_errors(tx, envelope.id, failed)


def check_body(envelope: Envelope) -> None:
    kind = MESSAGES.get(envelope.type)
    if kind is not None:
        envelope.payload(kind)
        return
    # A type of a newer writer: its body is passed on as it is, so it must at least be an object.
    try:
        body: Any = json.loads(envelope.value, parse_constant=_refuse)
    except ValueError as error:
        raise Permanent("bad-event", f"{envelope.type}: the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Permanent("bad-event", f"{envelope.type}: the body is not a JSON object")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
