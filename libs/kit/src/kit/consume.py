"""How the events of a stream are taken in their order, each effectively once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from prometheus_client import Gauge
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope, EnvelopeError
from contracts.topics import Topic
from kit.bus import Bus, Record
from kit.db import Database
from kit.errors import Permanent, is_transient
from kit.inbox import Admission, Inbox
from kit.parking import permanent_of

log = structlog.get_logger()
Apply = Callable[[AsyncConnection, Envelope], Awaitable[None]]
ApplyMany = Callable[[AsyncConnection, Sequence[Envelope]], Awaitable[None]]
DRAIN_PAUSE_SECONDS = 0.2
EARLY = Gauge("hallmark_consumer_early_records", "Records waiting for a predecessor", ["consumer"])


class Ordered:
    """Applies the events of each stream in sequence order, each once. `apply` ignores types it does not know."""

    def __init__(self, db: Database, inbox: Inbox, bus: Bus, topic: Topic, apply: Apply) -> None:
        self._db, self._inbox, self._bus, self._topic, self._apply = db, inbox, bus, topic, apply
        self._consumer = topic.name

    async def __call__(self, record: Record) -> None:
        await self._one(_event(record))

    async def many(self, records: Sequence[Record], apply: ApplyMany) -> None:
        """Those that are next in their streams in one transaction, all or none; then the others one by one."""
        envelopes = [_event(record) for record in records]
        async with self._db.transaction() as tx:
            taken = await self._inbox.admit_all(tx, self._consumer, envelopes)
            early = list[str]()
            if next_ := [envelope for envelope, is_next in zip(envelopes, taken, strict=True) if is_next]:
                await apply(tx, next_)
                early = await self._inbox.early_streams(tx, self._consumer, {envelope.key for envelope in next_})
        for stream in sorted(early):
            await self._drain(stream)
        for envelope, is_next in zip(envelopes, taken, strict=True):
            if not is_next:
                await self._one(envelope)

    async def _one(self, envelope: Envelope) -> None:
        async with self._db.transaction() as tx:
            admission = await self._inbox.admit(tx, self._consumer, envelope)
            late = admission is Admission.DUPLICATE and await self._inbox.replaces_parked(tx, self._consumer, envelope)
            if admission is Admission.NEXT or late:
                await self._apply(tx, envelope)
            elif admission is Admission.EARLY:
                EARLY.labels(self._consumer).set(await self._inbox.count_early(tx))
                log.error("gap in a stream", stream=envelope.key, sequence=envelope.sequence)
        await self._drain(envelope.key)

    async def _drain(self, stream: str) -> None:
        """Applies what came early and is due now, one transaction each."""
        attempts = 0
        while True:
            attempts += 1
            taken: Envelope | None = None
            try:
                async with self._db.transaction() as tx:
                    taken = await self._inbox.take_early(tx, self._consumer, stream)
                    if taken is None:
                        return
                    await self._apply(tx, taken)
                    EARLY.labels(self._consumer).set(await self._inbox.count_early(tx))
                attempts = 0
            except Exception as error:
                if taken is None or is_transient(error):
                    raise
                permanent = permanent_of(error, attempts)
                if permanent is None:
                    # Tried again here: the bus would count it against the good record that set the drain off.
                    await asyncio.sleep(DRAIN_PAUSE_SECONDS * attempts)
                    continue
                await self._bus.park(self._topic, _stored(self._topic, taken), permanent, attempts)
                async with self._db.transaction() as tx:
                    await self._inbox.take_early(tx, self._consumer, stream)
                    await self._inbox.note_parked(tx, self._consumer, taken)

    async def parked(self, record: Record, error: Permanent) -> None:
        """A parked event must not hold up its stream: progress moves over it."""
        try:
            envelope = record.envelope()
        except EnvelopeError:
            return
        if envelope.sequence is not None:
            async with self._db.transaction() as tx:
                if await self._inbox.admit(tx, self._consumer, envelope) is Admission.NEXT:
                    await self._inbox.note_parked(tx, self._consumer, envelope)
            await self._drain(envelope.key)


def _event(record: Record) -> Envelope:
    envelope = record.envelope()
    if envelope.sequence is None:
        raise Permanent("sequence-missing", "an event needs the attribute 'sequence'")
    return envelope


def _stored(topic: Topic, envelope: Envelope) -> Record:
    """A record that was kept in the table of early ones; its place in Kafka is no longer known."""
    return Record(topic.name, -1, -1, 0, envelope.key.encode(), tuple(envelope.headers()), envelope.value)
