"""Whose turn it is in each stream, for one page of entries: read once, kept in memory, written once.

The tables and their meaning are those of `kit.inbox`: progress per stream, and what came early and waits.
"""

import json
from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.tables import mechanism
from contracts.envelope import Envelope
from kit.inbox import Admission

STAGES = "stages"
progress, early = mechanism.progress, mechanism.early


class Turns:
    """The order of the streams of a page. `flush` writes what has changed."""

    def __init__(self, tx: AsyncConnection) -> None:
        self._tx = tx
        self._last: dict[str, int] = {}
        self._moved: set[str] = set()
        self._waiting: dict[str, set[int]] = {}
        self._put: dict[tuple[str, int], Envelope] = {}

    async def load(self, streams: Iterable[str]) -> None:
        wanted = sorted(set(streams) - self._last.keys())
        if not wanted:
            return
        self._last |= dict.fromkeys(wanted, 0)
        self._waiting |= {stream: set() for stream in wanted}
        found = sa.union_all(
            *(
                sa.select(table.c.stream, table.c.sequence, sa.literal(waits).label("waits")).where(
                    table.c.consumer == STAGES, table.c.stream == sa.any_(sa.literal(wanted, sa.ARRAY(sa.Text)))
                )
                for table, waits in ((progress, False), (early, True))
            )
        )
        for stream, sequence, waits in await self._tx.execute(found):
            if waits:
                self._waiting[stream].add(sequence)
            else:
                self._last[stream] = sequence

    async def admit(self, envelope: Envelope) -> Admission:
        """Moves the stream's progress when `envelope` is the next one; keeps it when it is early."""
        stream, sequence = envelope.key, envelope.sequence or 0
        await self.load([stream])
        if sequence <= self._last[stream]:
            return Admission.DUPLICATE
        if sequence > self._last[stream] + 1:
            if sequence not in self._waiting[stream]:
                self._waiting[stream].add(sequence)
                self._put[stream, sequence] = envelope
            return Admission.EARLY
        self._move(stream, sequence)
        return Admission.NEXT

    async def take_early(self, stream: str) -> Envelope | None:
        """The next record of the stream if it came early; progress moves over it."""
        following = self._last[stream] + 1
        waiting = self._waiting[stream]
        if not waiting or min(waiting) > following:
            return None
        here = following in waiting
        envelope = self._put.get((stream, following)) or (await self._read(stream, following) if here else None)
        # Also those already taken: a record that came early may have come again in time.
        for sequence in [n for n in waiting if n <= following]:
            waiting.discard(sequence)
            self._put.pop((stream, sequence), None)
        t = early.c
        await self._tx.execute(
            sa.delete(early).where(t.consumer == STAGES, t.stream == stream, t.sequence <= following)
        )
        if envelope is not None:
            self._move(stream, following)
        return envelope

    async def restart(self, stream: str) -> None:
        """Forgets the order of a stream that is folded again from its beginning."""
        for table in (progress, early):
            await self._tx.execute(sa.delete(table).where(table.c.consumer == STAGES, table.c.stream == stream))
        self._last[stream], self._waiting[stream] = 0, set()
        self._moved.discard(stream)
        self._put = {place: envelope for place, envelope in self._put.items() if place[0] != stream}

    async def flush(self) -> None:
        moved = [{"consumer": STAGES, "stream": s, "sequence": self._last[s]} for s in sorted(self._moved)]
        if moved:
            row = insert(progress)
            upsert = row.on_conflict_do_update(
                index_elements=["consumer", "stream"], set_={"sequence": row.excluded.sequence}
            )
            await self._tx.execute(upsert, moved)
        put = [
            {
                "consumer": STAGES,
                "stream": stream,
                "sequence": sequence,
                "headers": [[name, value.decode()] for name, value in envelope.headers()],
                "value": envelope.value,
            }
            for (stream, sequence), envelope in self._put.items()
        ]
        if put:
            await self._tx.execute(sa.insert(early), put)
        self._moved.clear()
        self._put.clear()

    def _move(self, stream: str, sequence: int) -> None:
        self._last[stream] = sequence
        self._moved.add(stream)

    async def _read(self, stream: str, sequence: int) -> Envelope:
        t = early.c
        found = sa.select(t.headers, t.value).where(t.consumer == STAGES, t.stream == stream, t.sequence == sequence)
        row = (await self._tx.execute(found)).one()
        headers = row.headers if isinstance(row.headers, list) else json.loads(row.headers)
        return Envelope.from_kafka(stream.encode(), [(n, v.encode()) for n, v in headers], row.value)
