"""The service's own check of everything it holds: hashes every entry again, and compares all that was derived of it.

Whoever does not trust the service checks the served log with other software; this finds damage early and names it.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from audit import merkle
from audit.leaf import Detached, Leaf, decode
from audit.note import Checkpoint
from audit.tables import checkpoint, node
from audit.tlog import tiles
from audit.tlog.archive import Archive, Contradiction
from audit.tlog.proofs import Proofs
from audit.tlog.publisher import Published
from audit.tlog.tiles import WIDTH, Tile
from kit.db import Database

Row = Mapping[Any, Any]
Document = dict[str, Any]


class Bad(Exception):
    """`index` is the first bad entry, or the first after the last good checkpoint."""

    def __init__(self, index: int | None, problem: str) -> None:
        super().__init__(problem)
        self.index, self.problem = index, problem


class Check:
    def __init__(self, db: Database, archive: Archive) -> None:
        self._db, self._archive, self._proofs = db, archive, Proofs(db, archive)

    async def everything(self, published: Published) -> Document:
        """The verdict over all entries under the checkpoint, in one pass and flat memory."""
        head = published.checkpoint
        said = {"size": head.size, "root": b64encode(head.root).decode(), "checkpoint": published.note}
        walk = _Walk()
        try:
            async for rows in self._proofs.pages(0, head.size, WIDTH):
                walk.signed = await self._signed(rows[0]["index"], rows[-1]["index"] + 1, head)
                leaves = [walk.take(row) for row in rows]
                await self._compare_store(rows, head.size)
                for leaf in leaves:
                    if isinstance(leaf, Detached):
                        await self._archive.inline(leaf.encode())
            if walk.tree.size != head.size:
                raise Bad(walk.tree.size, f"the log ends early: {head.size} entries were signed")
            await self._compare_nodes(walk.nodes, head.size)
        except Bad as bad:
            return {
                "ok": False,
                "checked": walk.tree.size,
                "first_bad": {"index": bad.index, "problem": str(bad)},
                **said,
            }
        except Contradiction as found:
            bad_one = {"index": walk.tree.size, "problem": found.detail}
            return {"ok": False, "checked": walk.tree.size, "first_bad": bad_one, **said}
        return {"ok": True, "checked": head.size, "first_bad": None, **said}

    async def _signed(self, start: int, stop: int, head: Checkpoint) -> dict[int, bytes]:
        """The roots that were signed for more than `start` and at most `stop` entries."""
        c = checkpoint.c
        query = sa.select(c.size, c.root).where(c.size > start, c.size <= min(stop, head.size))
        async with self._db.transaction() as tx:
            found: dict[int, bytes] = dict((await tx.execute(query)).all())
        return {**found, head.size: head.root}

    async def _compare_store(self, rows: Sequence[Row], size: int) -> None:
        """The bundle and the tile of these entries, as the store gives them out."""
        start = rows[0]["index"]
        number, width = start // WIDTH, min(size - start // WIDTH * WIDTH, WIDTH)
        for tile, parts in (
            (Tile(-1, number, width), [tiles.bundle([row["leaf"]]) for row in rows]),
            (Tile(0, number, width), [row["leaf_hash"] for row in rows]),
        ):
            await self._compare(tile, parts, start)

    async def _compare(self, tile: Tile, parts: Sequence[bytes], start: int, step: int = 1) -> None:
        """What should be in a tile from its beginning on; a part each `step` entries from entry `start` on."""
        found, own = await self._archive.read(tile.path), True
        if found is None and not tile.is_full:  # it has become full meanwhile, and the partial one was deleted
            found, own = await self._archive.read(Tile(tile.level, tile.number).path), False
        if found is None:
            raise Bad(start, f"the object {tile.path} is missing in the store")
        at = 0
        for n, part in enumerate(parts):
            if found[at : at + len(part)] != part:
                raise Bad(start + n * step, f"the object {tile.path} in the store was changed")
            at += len(part)
        if own and len(parts) == tile.width and at != len(found):
            raise Bad(start, f"the object {tile.path} in the store is longer than it should be")

    async def _compare_nodes(self, nodes: list[merkle.Node], size: int) -> None:
        async with self._db.transaction() as tx:
            stored = {
                (row["level"], row["index"]): row["hash"] for row in (await tx.execute(sa.select(node))).mappings()
            }
        by_level: dict[int, list[bytes]] = {}
        for found in nodes:
            if stored.get((found.level, found.number)) != found.hash:
                first = found.number << (8 * found.level)
                raise Bad(first, f"the stored node {found.level}/{found.number} is not the root of its entries")
            by_level.setdefault(found.level, []).append(found.hash)
        for level, hashes in by_level.items():
            for start in range(0, len(hashes), WIDTH):
                part = hashes[start : start + WIDTH]
                tile = Tile(level, start // WIDTH, len(part))
                await self._compare(tile, part, start << (8 * level), 1 << (8 * level))


class _Walk:
    """Follows the entries in order; finds where they stop adding up. `signed`: the roots to come upon next, by size."""

    def __init__(self) -> None:
        self.tree = merkle.Frontier()
        self.nodes: list[merkle.Node] = []
        self.signed: dict[int, bytes] = {}
        self._good = 0

    def take(self, row: Row) -> Leaf | Detached:
        size = self.tree.size
        if row["index"] != size:
            raise Bad(size, f"entry {size} is missing")
        leaf = _decoded(row)
        self.nodes += self.tree.extend((row["leaf_hash"],))
        if (wanted := self.signed.get(size + 1)) is not None:
            if wanted != self.tree.root():
                raise Bad(self._good, f"entries {self._good} to {size} do not hash to the root signed for {size + 1}")
            self._good = size + 1
        return leaf


def _decoded(row: Row) -> Leaf | Detached:
    """A stored entry: its bytes against its hash, then the bytes against its columns."""
    index = row["index"]
    if merkle.leaf_hash(row["leaf"]) != row["leaf_hash"]:
        raise Bad(index, "the stored bytes do not fit the stored hash")
    try:
        leaf = decode(row["leaf"])
    except ValueError as error:
        raise Bad(index, str(error)) from error
    said = (leaf.topic, leaf.partition, leaf.offset, leaf.recorded_at)
    if said != tuple(row[name] for name in ("topic", "partition", "kafka_offset", "recorded_at")):
        raise Bad(index, "the columns say something else than the stored bytes")
    return leaf
