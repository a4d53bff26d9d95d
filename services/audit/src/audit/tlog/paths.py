"""Many audit paths of one tree at a low price: a tile is read and hashed once for all the paths that go through it."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import merkle
from audit.tables import logged, node
from audit.tlog.archive import Damage
from audit.tlog.tiles import WIDTH
from kit.db import Database

KEPT = 256  # tiles; one takes some 35 KB
Levels = Sequence[Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Proven:
    """The audit path of an entry, from its leaf hash up, in SHA-256 hashes."""

    index: int
    leaf_hash: bytes
    path: list[bytes]


class Paths:
    """Audit paths in the tree of `size` entries, which the log must have."""

    def __init__(self, db: Database, size: int, *, kept: int = KEPT) -> None:
        self._db, self.size, self._kept = db, size, kept
        self._tiles: OrderedDict[tuple[int, int], Levels] = OrderedDict()

    async def of(self, indexes: Iterable[int]) -> list[Proven]:
        """The paths of these entries, read in one transaction. Growing indexes cost least.

        Raises:
            ValueError: the tree has no such entry.
            Damage: hashes are missing.
        """
        async with self._db.transaction() as tx:
            return [await self._one(tx, index) for index in indexes]

    async def _one(self, tx: AsyncConnection, index: int) -> Proven:
        path = []
        for low, high in merkle.inclusion_ranges(index, self.size):
            roots = [await self._root(tx, *subtree) for subtree in merkle.full_subtrees(low, high)]
            path.append(merkle.joined(roots))
        return Proven(index, await self._root(tx, 0, index), path)

    async def _root(self, tx: AsyncConnection, height: int, index: int) -> bytes:
        """The root of a full subtree: a node within a tile."""
        level, above = divmod(height, 8)
        number, first = divmod(index << above, WIDTH)
        levels = await self._tile(tx, level, number)
        try:
            return levels[above][first >> above]
        except IndexError:
            raise Damage(f"hashes of tile {number} of level {level} are missing") from None

    async def _tile(self, tx: AsyncConnection, level: int, number: int) -> Levels:
        found = self._tiles.get((level, number))
        if found is None:
            found = self._tiles[level, number] = _levels(await _hashes(tx, level, number * WIDTH))
            if len(self._tiles) > self._kept:
                self._tiles.popitem(last=False)
        self._tiles.move_to_end((level, number))
        return found


def _levels(hashes: list[bytes]) -> Levels:
    """The nodes of a tile by their height, those of full subtrees only."""
    levels = [hashes]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([merkle.node_hash(below[n], below[n + 1]) for n in range(0, len(below) - 1, 2)])
    return levels


async def _hashes(tx: AsyncConnection, level: int, start: int) -> list[bytes]:
    """The hashes of a tile, up to the first that is missing."""
    if level:
        n = node.c
        query = sa.select(n.index, n.hash).where(n.level == level, n.index >= start, n.index < start + WIDTH)
        rows = (await tx.execute(query.order_by(n.index))).all()
    else:
        e = logged.c
        entries = sa.select(e.index, e.leaf_hash).where(e.index >= start, e.index < start + WIDTH)
        rows = (await tx.execute(entries.order_by(e.index))).all()
    return [bytes(row[1]) for n, row in enumerate(rows) if row[0] == start + n]
