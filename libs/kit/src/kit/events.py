"""Append: the event row and its outbox row, in the caller's transaction (laws 1 and 3)."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from opentelemetry.propagate import inject
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope, now, schema_name
from contracts.payload import Message
from kit.db import Mechanism, mark_appended
from kit.errors import Transient
from kit.problems import Problem
from kit.topics import MAX_EVENT_BYTES


class Conflict(Transient):
    """Another transaction appended to the stream first; load again and decide again."""


class TooLarge(Problem):
    """The broker would not take an event of so many bytes: it would stop the relay for ever."""

    def __init__(self, size: int) -> None:
        detail = f"an event would have {size} bytes; {MAX_EVENT_BYTES} is the most"
        super().__init__(413, "event-too-large", detail)


@dataclass(frozen=True)
class Cause:
    """Who caused the events, and in answer to what."""

    actor: str
    correlationid: str | None = None
    causationid: str | None = None


@dataclass(frozen=True)
class New:
    """An event about to be appended. `actor`: who did it, when that is not who the cause names."""

    message: Message
    subject: str
    actor: str | None = None


class EventLog:
    """The event table of one service, which writes one topic."""

    def __init__(self, tables: Mechanism, *, topic: str, source: str) -> None:
        self.tables = tables
        self.topic = topic
        self.source = source

    async def lock(self, tx: AsyncConnection, stream: str) -> int:
        """Takes the stream for this transaction and gives its last sequence (0: none yet).

        Writers of one stream wait for one another here instead of failing; the unique constraint on
        (stream, sequence) remains the guarantee.
        """
        await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(self._key(stream))))
        return await self._last(tx, stream)

    async def try_lock(self, tx: AsyncConnection, stream: str) -> int | None:
        """As `lock`, but gives None at once when another transaction has the stream."""
        mine = await tx.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(self._key(stream))))
        return await self._last(tx, stream) if mine else None

    async def try_lock_all(self, tx: AsyncConnection, streams: Collection[str]) -> dict[str, int]:
        """As `lock`, for those of `streams` that no other transaction has: what it got, with their last sequences."""
        asked = _listed(sorted(set(streams)))
        tries = sa.select(asked.c.stream, sa.func.pg_try_advisory_xact_lock(self._key_of(asked.c.stream)))
        mine = [row.stream for row in (await tx.execute(tries)).all() if row[1]]
        # A statement of its own: what was committed before the lock was ours must be seen.
        event, got = (
            self.tables.event,
            sa.func.unnest(sa.cast(mine, sa.ARRAY(sa.Text))).table_valued("stream").render_derived(),
        )
        last = sa.select(sa.func.max(event.c.sequence)).where(event.c.stream == got.c.stream).scalar_subquery()
        return {row.stream: int(row[1] or 0) for row in await tx.execute(sa.select(got.c.stream, last))}

    async def announce(self, tx: AsyncConnection, name: str) -> None:
        """Says until the end of this transaction that somebody is about to act on `name`.

        Announce before you wait for a stream: who holds it can see then that you are waiting.
        """
        await tx.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(self._key(f"announced:{name}"))))

    async def unannounced(self, tx: AsyncConnection, name: str) -> bool:
        """Whether no other transaction has announced itself; if so, none can until this one ends."""
        return bool(await tx.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(self._key(f"announced:{name}")))))

    def _key(self, stream: str) -> sa.ColumnElement[int]:
        return self._key_of(sa.literal(stream))

    def _key_of(self, stream: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
        return sa.func.hashtextextended(sa.literal(f"{self.tables.schema}:").concat(stream), 0)

    async def _last(self, tx: AsyncConnection, stream: str) -> int:
        event = self.tables.event
        last = await tx.scalar(sa.select(sa.func.max(event.c.sequence)).where(event.c.stream == stream))
        return int(last or 0)

    async def append(
        self,
        tx: AsyncConnection,
        stream: str,
        expected: int,
        news: Sequence[New],
        cause: Cause,
        at: datetime | None = None,
    ) -> list[Envelope]:
        """Appends after sequence `expected`, as of `at` (now, unless the service has a clock of its own).

        Raises:
            Conflict: the stream has moved on.
            TooLarge: an event is larger than the broker would take. None was appended.
        """
        envelopes = self.envelopes(stream, expected, news, cause, at)
        await self.append_all(tx, envelopes)
        return envelopes

    def envelopes(
        self, stream: str, expected: int, news: Sequence[New], cause: Cause, at: datetime | None = None
    ) -> list[Envelope]:
        """The records of `news`, after sequence `expected` of their stream."""
        at = at or now()
        carrier: dict[str, str] = {}
        inject(carrier)
        return [
            Envelope.of(
                new.message,
                source=self.source,
                subject=new.subject,
                key=stream,
                sequence=expected + n,
                correlationid=cause.correlationid,
                causationid=cause.causationid,
                actor=new.actor or cause.actor,
                traceparent=carrier.get("traceparent"),
                time=at,
            )
            for n, new in enumerate(news, start=1)
        ]

    async def append_all(self, tx: AsyncConnection, envelopes: Sequence[Envelope]) -> None:
        """Appends what `envelopes` made, of any number of streams.

        Raises:
            Conflict: a stream has moved on.
            TooLarge: an event is larger than the broker would take. None was appended.
        """
        if not envelopes:
            return
        largest = max(len(envelope.value) for envelope in envelopes)
        if largest > MAX_EVENT_BYTES:
            raise TooLarge(largest)
        try:
            await tx.execute(sa.insert(self.tables.event), [_event_row(e) for e in envelopes])
        except IntegrityError as error:
            streams = ", ".join(sorted({f"{e.key} at sequence {e.sequence}" for e in envelopes}))
            raise Conflict(f"another event is there: {streams}") from error
        await self.enqueue(tx, envelopes)

    async def enqueue(self, tx: AsyncConnection, envelopes: Sequence[Envelope]) -> None:
        """Puts records into the outbox; the relay is woken when the transaction commits."""
        await tx.execute(sa.insert(self.tables.outbox), [outbox_row(self.topic, e) for e in envelopes])
        await mark_appended(tx)

    async def read(
        self, tx: AsyncConnection, *, stream: str | None = None, type_: str | None = None, page: int = 500
    ) -> AsyncIterator[Envelope]:
        """All events (of one stream, of one type) in commit order per stream; call it in a snapshot."""
        event = self.tables.event
        after = 0
        while True:
            query = sa.select(event).where(event.c.position > after).order_by(event.c.position).limit(page)
            if stream is not None:
                query = query.where(event.c.stream == stream)
            if type_ is not None:
                query = query.where(event.c.type == type_)
            rows = (await tx.execute(query)).all()
            for row in rows:
                yield self.envelope(row)
            if len(rows) < page:
                return
            after = rows[-1].position

    def envelope(self, row: Any) -> Envelope:
        """The record of a stored event, byte for byte what was published first."""
        return Envelope(
            id=str(row.id),
            source=self.source,
            type=row.type,
            subject=row.subject,
            time=row.at,
            dataschema=schema_name(row.type),
            key=row.stream,
            sequence=row.sequence,
            correlationid=row.correlationid,
            causationid=row.causationid,
            actor=row.actor,
            traceparent=row.traceparent,
            value=row.data.encode(),
        )


def _listed(streams: Sequence[str]) -> sa.TableValuedAlias:
    return sa.func.unnest(sa.cast(streams, sa.ARRAY(sa.Text))).table_valued("stream").render_derived()


def _event_row(envelope: Envelope) -> dict[str, Any]:
    return {
        "id": UUID(envelope.id),
        "stream": envelope.key,
        "sequence": envelope.sequence,
        "type": envelope.type,
        "subject": envelope.subject,
        "data": envelope.value.decode(),
        "actor": envelope.actor,
        "at": envelope.time,
        "correlationid": envelope.correlationid,
        "causationid": envelope.causationid,
        "traceparent": envelope.traceparent,
    }


def outbox_row(topic: str, envelope: Envelope) -> dict[str, Any]:
    return {
        "topic": topic,
        "key": envelope.key.encode(),
        "headers": [[name, value.decode()] for name, value in envelope.headers()],
        "value": envelope.value,
    }
