"""The log against the broker: which of the broker's records has the log not?"""

import asyncpg

from audit.broker import Broker, Span
from audit.gaps import Book, Hole
from audit.known import Known, place_of
from kit.bus import Record
from kit.db import Database


class Comparison:
    """Every call ends at the broker's deadline with TimeoutError."""

    def __init__(self, db: Database, broker: Broker) -> None:
        self._db, self._broker = db, broker

    async def missing(self, place: tuple[str, int], within: Hole, latest: int) -> tuple[int, list[Hole]]:
        """Up to where a gap was looked at, and what the log lacks of that."""
        first, until = within
        records = await self._broker.records(place, first, min(until, latest))
        there = [record for record in records if record.offset < until]
        ended = len(there) < len(records) or records[-1].offset + 1 >= latest
        reached = until if ended else records[-1].offset + 1
        found = _missing(there, await self._known(there), reached)
        if found and found == [(there[0].offset, reached)]:  # nobody needs to read a long one to its end
            return until, [(there[0].offset, until)]
        return reached, found

    async def is_same_log(self, book: Book, until: int, latest: int) -> bool:
        """Whether the broker still has the log that the epoch was read from: what it has after the gap, we have."""
        if until >= latest:
            return book.is_newest and until == latest
        (after,) = await self._broker.records(book.place, until, until)
        if after.offset >= book.next:
            return book.is_newest
        return (await self._known([after], book)).has(after)

    async def replaced(self, book: Book, gaps: list[Hole], span: Span) -> list[Hole]:
        """Where the broker has other records than those that were read, if the first or the last that both have is
        another. Gaps are looked at elsewhere."""
        first, until = max(span[0], book.lowest), min(span[1], book.next)

        async def is_ours(offset: int) -> bool:
            record = (await self._broker.records(book.place, offset, offset))[0]
            is_gap = any(low <= record.offset < high for low, high in gaps)
            return is_gap or record.offset >= until or (await self._known([record])).has(record)

        if first >= until:
            return []
        if span[1] < book.next:
            return [] if await is_ours(first) else [(first, until)]
        begins, ends = await is_ours(first), await is_ours(until - 1)
        if begins and ends:
            return []
        low, high = first, until - 1  # of these one is ours at the most
        while begins != ends and high - low > 1:
            middle = (low + high) // 2
            if await is_ours(middle) == begins:
                low = middle
            else:
                high = middle
        return [(first if not begins else high, until if not ends else high)]

    async def _known(self, records: list[Record], book: Book | None = None) -> Known:
        """What the log has at their places; of one epoch, or of all."""
        async with self._db.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver, asyncpg.Connection)
            span = (0, None) if book is None else (book.since, book.stop)
            return await Known.at(driver, [place_of(record) for record in records], *span)


def _missing(records: list[Record], known: Known, until: int) -> list[Hole]:
    """Where the log has none of these records: from the first such up to the next that it has."""
    holes: list[Hole] = []
    start = None
    for record in records:
        if known.has(record):
            if start is not None:
                holes.append((start, record.offset))
            start = None
        elif start is None:
            start = record.offset
    return holes if start is None else [*holes, (start, until)]
