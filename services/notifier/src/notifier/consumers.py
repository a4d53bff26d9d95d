"""Kafka in: what the registry, approval and audit say becomes the deliveries that subscriptions want."""

import asyncio
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope
from contracts.topics import APPROVAL_EVENTS, AUDIT_EVENTS, REGISTRY_EVENTS, Topic
from kit.bus import Bus, Record
from kit.consume import ApplyMany, Ordered
from kit.db import Database
from kit.errors import Permanent
from kit.events import EventLog
from kit.inbox import Inbox
from notifier.fanning import fan_out

TOPICS: tuple[Topic, ...] = (REGISTRY_EVENTS, APPROVAL_EVENTS, AUDIT_EVENTS)
# Events of one transaction: who changes a subscription waits for it.
BATCH = 100


def subscribe(bus: Bus, db: Database, log: EventLog, inbox: Inbox, wake: asyncio.Event) -> None:
    async def many(tx: AsyncConnection, envelopes: Sequence[Envelope]) -> None:
        await fan_out(tx, log, envelopes)

    async def one(tx: AsyncConnection, envelope: Envelope) -> None:
        await fan_out(tx, log, [envelope])

    for topic in TOPICS:
        bus.subscribe_batch(topic, Waking(Ordered(db, inbox, bus, topic, one), many, wake), BATCH)


class Waking:
    """Wakes the worker of this process once the rows are committed; other replicas poll."""

    def __init__(self, ordered: Ordered, apply: ApplyMany, wake: asyncio.Event) -> None:
        self._ordered, self._apply, self._wake = ordered, apply, wake

    async def __call__(self, record: Record) -> None:
        await self._ordered(record)
        self._wake.set()

    async def many(self, records: Sequence[Record]) -> None:
        await self._ordered.many(records, self._apply)
        self._wake.set()

    async def parked(self, record: Record, error: Permanent) -> None:
        await self._ordered.parked(record, error)
        self._wake.set()
