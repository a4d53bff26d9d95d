"""Proofs and pages from the stored log. A proof reads as many rows as the tree is deep, a tile's worth each."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import merkle
from audit.merkle import Range
from audit.tables import logged, minimum_index, node, tree_head
from audit.tlog.archive import Archive, Damage
from audit.tlog.paths import Paths
from kit.db import Database
from kit.problems import Problem

Row = Mapping[Any, Any]
PAGE = 500
SUBTREES = 8192
Subtree = tuple[int, int]


class Proofs:
    """The log never changes below its size, so proofs and pages need no common snapshot.

    Hashes of pruned entries are still in the database; their bytes come from the archive.
    """

    def __init__(self, db: Database, archive: Archive) -> None:
        self._db, self._archive = db, archive

    async def size(self) -> int:
        async with self._db.transaction() as tx:
            return int(await tx.scalar(sa.select(tree_head.c.size)) or 0)

    async def minimum(self) -> int:
        """The log promises to give out entries from this index on (C2SP tlog-tiles, pruning)."""
        async with self._db.transaction() as tx:
            return int(await tx.scalar(sa.select(sa.func.max(minimum_index.c.index))) or 0)

    async def inclusion(self, index: int, size: int) -> list[bytes]:
        """The audit path of entry `index` in the tree of `size`, in SHA-256 hashes.

        Raises:
            Problem: 404, that tree has no such entry, or the log is not that large.
        """
        if not index < size:
            raise Problem(404, "no-such-entry", f"there is no entry {index} in the log of {size} entries")
        return await self._roots(merkle.inclusion_ranges(index, size), size)

    async def paths(self, size: int) -> Paths:
        """For many audit paths in the tree of `size`. Raises Problem 404 when the log is not that large."""
        known = await self.size()
        if size > known:
            raise Problem(404, "no-such-tree", f"the log has {known} entries, not {size}")
        return Paths(self._db, size)

    async def consistency(self, first: int, second: int) -> list[bytes]:
        """What shows that the tree of `second` begins with the tree of `first`.

        Raises:
            Problem: 422, the first is the larger one; 404, the log is not that large.
        """
        if first > second:
            raise Problem(422, "invalid-request", "'from' must not be larger than 'to'")
        return await self._roots(merkle.consistency_ranges(first, second), second)

    async def root(self, size: int) -> bytes:
        """The root over the first `size` entries. Raises Problem 404 when the log is not that large."""
        return (await self._roots([(0, size)], size))[0] if size else merkle.EMPTY_ROOT

    async def leaf_hash(self, index: int) -> bytes:
        async with self._db.transaction() as tx:
            found = await tx.scalar(sa.select(logged.c.leaf_hash).where(logged.c.index == index))
        if found is None:
            raise Problem(404, "no-such-entry", f"there is no entry {index}")
        return bytes(found)

    async def hashes(self, level: int, start: int, stop: int) -> list[bytes]:
        """Hashes of a level of tiles: of entries (0), or of full subtrees of `256**level` of them."""
        async with self._db.transaction() as tx:
            return await _hashes(tx, level, start, stop)

    async def subtrees(self, size: int) -> tuple[int, list[bytes]]:
        """The roots over so many entries each, the last over the rest: of single entries, or of as wide a level of
        tiles as makes them few enough. Raises Damage: hashes are missing."""
        level = 0
        while -(-size // 256**level) > SUBTREES:
            level += 1
        width = 256**level
        found = await self.hashes(level, 0, size // width)
        return width, found + (await self._roots([(size - size % width, size)], size) if size % width else [])

    async def pages(self, start: int, stop: int, page: int = PAGE) -> AsyncIterator[Sequence[Row]]:
        """Rows of `entry` from index `start` up to but without `stop`, a page at a time.

        Raises:
            Contradiction: the archive has lost a pruned entry.
        """
        while start < stop:
            query = sa.select(logged).where(logged.c.index >= start, logged.c.index < stop)
            async with self._db.transaction() as tx:
                rows = (await tx.execute(query.order_by(logged.c.index).limit(page))).mappings().all()
            if not rows:
                return
            yield [row if row["leaf"] is not None else await self._whole(row) for row in rows]
            start = rows[-1]["index"] + 1
            await asyncio.sleep(0)

    async def _whole(self, row: Row) -> Row:
        return {**row, "leaf": await self._archive.entry(row["index"], row["leaf_hash"])}

    async def _roots(self, ranges: Sequence[Range], size: int) -> list[bytes]:
        """The root over each range."""
        parts = [merkle.full_subtrees(low, high) for low, high in ranges]
        wanted = {subtree for subtrees in parts for subtree in subtrees}
        async with self._db.transaction() as tx:
            known = int(await tx.scalar(sa.select(tree_head.c.size)) or 0)
            if size > known:
                raise Problem(404, "no-such-tree", f"the log has {known} entries, not {size}")
            roots = {subtree: await _subtree(tx, *subtree) for subtree in sorted(wanted)}
        return [merkle.joined([roots[subtree] for subtree in subtrees]) for subtrees in parts]


async def _subtree(tx: AsyncConnection, height: int, index: int) -> bytes:
    level, above = divmod(height, 8)
    return merkle.root_of(await _hashes(tx, level, index << above, (index + 1) << above))


async def _hashes(tx: AsyncConnection, level: int, start: int, stop: int) -> list[bytes]:
    if level:
        query = sa.select(node.c.hash).where(node.c.level == level, node.c.index >= start, node.c.index < stop)
        found = list(await tx.scalars(query.order_by(node.c.index)))
    else:
        entries = sa.select(logged.c.leaf_hash).where(logged.c.index >= start, logged.c.index < stop)
        found = list(await tx.scalars(entries.order_by(logged.c.index)))
    if len(found) != stop - start:
        raise Damage(f"hashes of level {level} are missing between {start} and {stop}")
    return found
