"""Effectively once: which records a consumer has already taken, kept in the transaction of their effect.

Events of a stream are guarded by their sequence: lower is a duplicate, higher came early. An early record is kept
in a table until its predecessors are in; retrying it in place would wait for a record that stands behind it in the
same partition. Commands have no sequence and are guarded by their id.
"""

import json
from collections.abc import Collection, Sequence
from enum import Enum

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope
from kit.db import Mechanism
from kit.problems import Problem


class Admission(Enum):
    NEXT = "next"
    DUPLICATE = "duplicate"
    EARLY = "early"


class Inbox:
    def __init__(self, tables: Mechanism) -> None:
        self._t = tables

    async def once(self, tx: AsyncConnection, consumer: str, event_id: str) -> bool:
        """True the first time. A rollback of `tx` forgets it."""
        statement = insert(self._t.inbox).values(consumer=consumer, event_id=event_id).on_conflict_do_nothing()
        return (await tx.execute(statement)).rowcount == 1

    async def recall(self, tx: AsyncConnection, consumer: str, key: str, digest: str) -> str | None:
        """The stored result of an idempotent call, or None when this is the first: then `remember` one in `tx`.

        Waits for a call under the same key that is still running.

        Raises:
            Problem: 409, the key was used for another body.
        """
        statement = (
            insert(self._t.inbox).values(consumer=consumer, event_id=key, digest=digest).on_conflict_do_nothing()
        )
        if (await tx.execute(statement)).rowcount == 1:
            return None
        row = (
            await tx.execute(
                sa.select(self._t.inbox.c.digest, self._t.inbox.c.result).where(
                    self._t.inbox.c.consumer == consumer, self._t.inbox.c.event_id == key
                )
            )
        ).one()
        if row.digest != digest:
            raise Problem(
                409, "idempotency-key-reused", "this Idempotency-Key was used with another body; send a new one"
            )
        return str(row.result)

    async def remember(self, tx: AsyncConnection, consumer: str, key: str, result: str) -> None:
        await tx.execute(
            sa.update(self._t.inbox)
            .where(self._t.inbox.c.consumer == consumer, self._t.inbox.c.event_id == key)
            .values(result=result)
        )

    async def admit(self, tx: AsyncConnection, consumer: str, envelope: Envelope) -> Admission:
        """Moves the stream's progress when `envelope` is the next one; keeps it when it is early."""
        sequence = envelope.sequence or 0
        progress = self._t.progress
        last = await self._last(tx, consumer, envelope.key)
        if sequence <= last:
            return Admission.DUPLICATE
        if sequence > last + 1:
            row = {
                "consumer": consumer,
                "stream": envelope.key,
                "sequence": sequence,
                "headers": [[name, value.decode()] for name, value in envelope.headers()],
                "value": envelope.value,
            }
            await tx.execute(insert(self._t.early).values(row).on_conflict_do_nothing())
            return Admission.EARLY
        await tx.execute(
            sa.update(progress)
            .where(progress.c.consumer == consumer, progress.c.stream == envelope.key)
            .values(sequence=sequence)
        )
        return Admission.NEXT

    async def admit_all(self, tx: AsyncConnection, consumer: str, envelopes: Sequence[Envelope]) -> list[bool]:
        """Of each, whether it is the next of its stream, one after the other; moves the progress of these. The others
        are left alone: `admit` says of each what it is."""
        progress, streams = self._t.progress, sorted({envelope.key for envelope in envelopes})
        mine = sa.and_(progress.c.consumer == consumer, progress.c.stream.in_(streams))
        locked = sa.select(progress.c.stream, progress.c.sequence).where(mine).order_by(progress.c.stream)
        locked = locked.with_for_update()
        last = {row.stream: int(row.sequence) for row in await tx.execute(locked)}
        if new := [stream for stream in streams if stream not in last]:
            rows = [{"consumer": consumer, "stream": stream, "sequence": 0} for stream in new]
            await tx.execute(insert(progress).on_conflict_do_nothing(), rows)
            last = {row.stream: int(row.sequence) for row in await tx.execute(locked)}
        found, moved = list[bool](), dict[str, int]()
        for envelope in envelopes:
            stream = envelope.key
            is_next = envelope.sequence == moved.get(stream, last[stream]) + 1
            if is_next:
                moved[stream] = envelope.sequence or 0
            found.append(is_next)
        if moved:
            one = sa.and_(progress.c.consumer == consumer, progress.c.stream == sa.bindparam("of"))
            update = sa.update(progress).where(one).values(sequence=sa.bindparam("to"))
            await tx.execute(update, [{"of": stream, "to": sequence} for stream, sequence in sorted(moved.items())])
        return found

    async def early_streams(self, tx: AsyncConnection, consumer: str, streams: Collection[str]) -> list[str]:
        """Those of which records wait that came early."""
        early = self._t.early
        query = sa.select(early.c.stream).where(early.c.consumer == consumer, early.c.stream.in_(streams))
        return list((await tx.scalars(query.distinct())).all())

    async def take_early(self, tx: AsyncConnection, consumer: str, stream: str) -> Envelope | None:
        """The next record of the stream if it came early; progress moves over it."""
        early = self._t.early
        last = await self._last(tx, consumer, stream)
        # Also those already taken: a record that came early may have come again in time, from another member.
        statement = (
            sa.delete(early)
            .where(early.c.consumer == consumer, early.c.stream == stream, early.c.sequence <= last + 1)
            .returning(early.c.sequence, early.c.headers, early.c.value)
        )
        row = next((row for row in await tx.execute(statement) if row.sequence == last + 1), None)
        if row is None:
            return None
        headers = row.headers if isinstance(row.headers, list) else json.loads(row.headers)
        envelope = Envelope.from_kafka(stream.encode(), [(n, v.encode()) for n, v in headers], row.value)
        await self.admit(tx, consumer, envelope)
        return envelope

    async def note_parked(self, tx: AsyncConnection, consumer: str, envelope: Envelope) -> None:
        """Progress moved over a record that was parked: should it have been forged, the true one may still come."""
        slot = f"parked:{envelope.key}:{envelope.sequence}"
        statement = insert(self._t.inbox).values(consumer=consumer, event_id=slot, digest=envelope.id)
        await tx.execute(statement.on_conflict_do_nothing())

    async def replaces_parked(self, tx: AsyncConnection, consumer: str, envelope: Envelope) -> bool:
        """Whether a parked record took this one's place in its stream; true once."""
        inbox = self._t.inbox
        statement = sa.delete(inbox).where(
            inbox.c.consumer == consumer,
            inbox.c.event_id == f"parked:{envelope.key}:{envelope.sequence}",
            inbox.c.digest != envelope.id,
        )
        return (await tx.execute(statement)).rowcount == 1

    async def count_early(self, tx: AsyncConnection) -> int:
        return int(await tx.scalar(sa.select(sa.func.count()).select_from(self._t.early)) or 0)

    async def _last(self, tx: AsyncConnection, consumer: str, stream: str) -> int:
        """The last sequence taken; the row is made and locked, so that two members of a group take turns."""
        progress = self._t.progress
        await tx.execute(insert(progress).values(consumer=consumer, stream=stream, sequence=0).on_conflict_do_nothing())
        return int(
            await tx.scalar(
                sa.select(progress.c.sequence)
                .where(progress.c.consumer == consumer, progress.c.stream == stream)
                .with_for_update()
            )
            or 0
        )
