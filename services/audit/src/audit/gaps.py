"""Which offsets are not in the log? Every entry is looked at once; after that only what is new.

What was found below stays found: entries are never removed. Whoever doubts that calls `forget`, and all is looked at.
Nor is an explanation in the table more than somebody's word: `forget` also makes those be told again, to be asked for.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from audit.tables import kafka_offset, offset_gap, tree_head
from kit.db import Database

Hole = tuple[int, int]  # from, until
Key = tuple[str, int, int]
PAGE = 20_000
MOST = 10_000  # of one partition and epoch: the walk waits until some are explained
WALK = sa.text("""
with page as (
  select kafka_offset as o from audit.logged where topic = :topic and partition = :partition
  and "index" >= :since and "index" < :stop and kafka_offset >= :start order by kafka_offset limit :page
), placed as (select o, lag(o, 1, cast(:start as bigint) - 1) over (order by o) as before from page)
select before + 1 as first, o as until from placed where o > before + 1
union all select max(o), null from page
""")


@dataclass(frozen=True)
class Book:
    """A partition in one epoch. Its entries have indexes from `since` up to but without `stop`."""

    topic: str
    partition: int
    epoch: int
    lowest: int
    next: int
    entries: int
    since: int
    stop: int
    is_newest: bool

    @property
    def place(self) -> tuple[str, int]:
        return self.topic, self.partition

    @property
    def key(self) -> Key:
        return self.topic, self.partition, self.epoch


class Gaps:
    def __init__(self, db: Database) -> None:
        self._db = db
        self._busy = asyncio.Lock()
        self.forget()

    def forget(self) -> None:
        """Next time everything is looked at."""
        self._walked: dict[Key, int] = {}
        self._open: dict[Key, list[Hole]] = {}
        self._told: set[tuple[Key, Hole]] = set()  # explanations at the ends, which no walk passes

    async def books(self) -> list[Book]:
        async with self._db.snapshot() as tx:
            k = kafka_offset.c
            query = sa.select(kafka_offset).order_by(k.topic, k.partition, k.epoch)
            rows = (await tx.execute(query)).mappings().all()
            size = int(await tx.scalar(sa.select(tree_head.c.size)) or 0)
        books = []
        for row, following in zip(rows, [*rows[1:], None], strict=True):
            is_newest = following is None or (following["topic"], following["partition"]) != (
                row["topic"],
                row["partition"],
            )
            stop = size if is_newest or following is None else following["since"]
            books.append(Book(**row, stop=stop, is_newest=is_newest))
        return books

    async def of(self, book: Book, doubted: list[Hole] | None = None) -> list[Hole]:
        """Offsets that no entry of the epoch has, and of which nobody knows why. `doubted` gets the gaps that are
        explained, wholly or in part, each once."""
        async with self._busy:
            found = await self._walk(book, doubted)
        start = self._walked.get(book.key, book.lowest)
        # The ledger itself has compared what follows the last entry: it was in the log from an epoch before.
        is_settled = book.epoch > 0 and not book.is_newest
        tail = [] if is_settled or len(found) >= MOST else await self.rest(book, start, book.next, doubted)
        return [*found, *tail]

    async def _walk(self, book: Book, doubted: list[Hole] | None) -> list[Hole]:
        found = self._open.get(book.key, [])
        if found:  # also another process explains
            found = without(found, await self._explained(book, found[0][0], found[-1][1]))
        self._open[book.key] = found
        while len(found) + len(doubted or ()) < MOST:
            start = self._walked.get(book.key, book.lowest)
            page, last = await self._page(book, start)
            if last is None:
                break
            left = without(page, await self._explained(book, start, last))
            if doubted is not None:
                whole = set(left)
                doubted += [gap for gap in page if gap not in whole]
            found += left
            self._walked[book.key] = last + 1
        return found

    async def rest(self, book: Book, first: int, until: int, doubted: list[Hole] | None = None) -> list[Hole]:
        """What of this range, before the first entry or behind the last, is not explained. `doubted` gets the range
        when an explanation of it was not told yet."""
        if first >= until:
            return []
        explained = await self._explained(book, first, until)
        told = {(book.key, one) for one in explained}
        if doubted is not None and not told <= self._told:
            self._told |= told
            doubted.append((first, until))
        return without([(first, until)], explained)

    async def explain(self, book: Book, first: int, until: int) -> None:
        """Remembers that no record is missing there."""
        if first >= until:
            return
        values = {"topic": book.topic, "partition": book.partition, "epoch": book.epoch, "first": first, "until": until}
        async with self._db.transaction() as tx:
            await tx.execute(insert(offset_gap).values(values).on_conflict_do_nothing())
        self._told.add((book.key, (first, until)))
        self._open[book.key] = without(self._open.get(book.key, []), [(first, until)])

    async def _page(self, book: Book, start: int) -> tuple[list[Hole], int | None]:
        """The gaps of a page of entries, and the offset of its last one."""
        given = {"topic": book.topic, "partition": book.partition, "since": book.since, "stop": book.stop}
        async with self._db.transaction() as tx:
            rows = (await tx.execute(WALK, {**given, "start": start, "page": PAGE})).all()
        (last,) = (row.first for row in rows if row.until is None)
        return sorted((row.first, row.until) for row in rows if row.until is not None), last

    async def _explained(self, book: Book, first: int, until: int) -> list[Hole]:
        g = offset_gap.c
        mine = (g.topic == book.topic, g.partition == book.partition, g.epoch == book.epoch)
        query = sa.select(g.first, g.until).where(*mine, g.first >= first, g.first < until).order_by(g.first)
        async with self._db.transaction() as tx:
            return [(row.first, row.until) for row in await tx.execute(query)]


def merged(ranges: Iterable[Hole]) -> list[Hole]:
    """Without overlaps. They are in order of their beginning."""
    found: list[Hole] = []
    for low, high in ranges:
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


def without(holes: Iterable[Hole], explained: Iterable[Hole]) -> list[Hole]:
    """What the explained ranges, which may overlap, leave of the holes. All are in order of their beginning."""
    ranges = merged(explained)
    ends, left = [high for _, high in ranges], []
    for first, until in holes:
        at = first
        for low, high in islice(ranges, bisect_right(ends, first), None):
            if low >= until:
                break
            if at < low:
                left.append((at, low))
            at = high
        if at < until:
            left.append((at, until))
    return left
