"""Evidence from the stored log: entries, proofs, the export, and the server's own check of everything."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from audit import merkle
from audit.leaf import Leaf
from audit.note import Checkpoint
from audit.tables import checkpoint, entry, timeline
from kit.db import Database
from kit.problems import Problem

Document = dict[str, Any]
Row = Mapping[Any, Any]
PAGE = 500


class Proofs:
    """The log never changes below a checkpoint, so pages need no common snapshot."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def entries(self, start: int, limit: int) -> Document:
        """Entries from index `start`, with their exact bytes."""
        query = (
            sa.select(entry, timeline.c.event_id, timeline.c.type)
            .join_from(entry, timeline, timeline.c.index == entry.c.index, isouter=True)
            .where(entry.c.index >= start)
            .order_by(entry.c.index)
            .limit(limit + 1)
        )
        async with self._db.transaction() as tx:
            rows = (await tx.execute(query)).mappings().all()
        items = [
            {
                "index": row["index"],
                "recorded_at": row["recorded_at"],
                "topic": row["topic"],
                "partition": row["partition"],
                "offset": row["kafka_offset"],
                "event_id": row["event_id"],
                "type": row["type"],
                "problem": row["problem"],
                "leaf": _text(row["leaf"]),
                "leaf_hash": row["leaf_hash"].hex(),
            }
            for row in rows[:limit]
        ]
        return {"items": items, "next": str(rows[limit]["index"]) if len(rows) > limit else None}

    async def inclusion(self, index: int, size: int) -> Document:
        """Raises Problem 404 when the tree of `size` has no such entry."""
        hashes = await self._hashes(size)
        if not index < size:
            raise Problem(404, "no-such-entry", f"there is no entry {index} in the log of {size} entries")
        proof, root = await asyncio.to_thread(
            lambda: (merkle.inclusion_proof(hashes, index), merkle.root_of(hashes)),
        )
        return {
            "index": index,
            "size": size,
            "root": _text(root),
            "leaf_hash": hashes[index].hex(),
            "proof": [_text(node) for node in proof],
        }

    async def consistency(self, first: int, second: int) -> Document:
        """Raises Problem 422 when the trees are in the wrong order."""
        if first > second:
            raise Problem(422, "invalid-request", "'from' must not be larger than 'to'")
        hashes = await self._hashes(second)
        proof, old, new = await asyncio.to_thread(
            lambda: (
                merkle.consistency_proof(hashes, first),
                merkle.root_of(hashes[:first]),
                merkle.root_of(hashes),
            ),
        )
        return {
            "from": first,
            "to": second,
            "from_root": _text(old),
            "to_root": _text(new),
            "proof": [_text(node) for node in proof],
        }

    async def export(self, head: Checkpoint, note: str) -> AsyncIterator[bytes]:
        """The lines that `verify.py` reads: a header, then every entry under the checkpoint."""
        yield _line({"origin": head.origin, "size": head.size, "root": _text(head.root), "checkpoint": note})
        async for rows in self._pages(head.size):
            yield b"".join(
                _line({"index": row["index"], "leaf": _text(row["leaf"]), "leaf_hash": row["leaf_hash"].hex()})
                for row in rows
            )

    async def verify(self, head: Checkpoint, note: str) -> Document:
        """Hashes every entry again and compares with the head and with every checkpoint that was signed."""
        signed = {**await self._signed(), head.size: head.root}
        tree = merkle.Frontier()
        good = 0
        async for rows in self._pages(head.size):
            for row in rows:
                flaw = f"entry {tree.size} is missing" if row["index"] != tree.size else _flaw(row)
                if flaw:
                    return _verdict(head, note, tree.size, tree.size, flaw)
                tree.append(row["leaf_hash"])
                if tree.size in signed:
                    if signed[tree.size] != tree.root():
                        flaw = f"entries {good} to {tree.size - 1} do not hash to the root signed for {tree.size}"
                        return _verdict(head, note, tree.size, good, flaw)
                    good = tree.size
            await asyncio.sleep(0)
        if tree.size != head.size:
            return _verdict(head, note, tree.size, tree.size, f"the log ends early: {head.size} entries were signed")
        return _verdict(head, note, tree.size)

    async def _signed(self) -> dict[int, bytes]:
        async with self._db.transaction() as tx:
            rows = await tx.execute(sa.select(checkpoint.c.size, checkpoint.c.root))
            return dict(rows.all())

    async def _hashes(self, size: int) -> list[bytes]:
        async with self._db.transaction() as tx:
            found = await tx.scalars(sa.select(entry.c.leaf_hash).where(entry.c.index < size).order_by(entry.c.index))
            hashes = list(found)
        if len(hashes) != size:
            raise Problem(404, "no-such-tree", f"the log has {len(hashes)} entries, not {size}")
        return hashes

    async def _pages(self, size: int) -> AsyncIterator[Sequence[Row]]:
        start = 0
        page = sa.select(entry).where(entry.c.index < size).order_by(entry.c.index).limit(PAGE)
        while start < size:
            async with self._db.transaction() as tx:
                rows = (await tx.execute(page.where(entry.c.index >= start))).mappings().all()
            if not rows:
                return
            yield rows
            start = rows[-1]["index"] + 1


def _flaw(row: Row) -> str | None:
    """What is wrong with a stored entry: its bytes against its hash, then the bytes against its columns."""
    if merkle.leaf_hash(row["leaf"]) != row["leaf_hash"]:
        return "the stored bytes do not fit the stored hash"
    try:
        leaf = Leaf.decode(row["leaf"])
    except ValueError as error:
        return str(error)
    said = (leaf.topic, leaf.partition, leaf.offset, leaf.recorded_at, leaf.dedupe())
    if said != tuple(row[name] for name in ("topic", "partition", "kafka_offset", "recorded_at", "dedupe")):
        return "the columns say something else than the stored bytes"
    return None


def _verdict(
    head: Checkpoint, note: str, checked: int, index: int | None = None, problem: str | None = None
) -> Document:
    return {
        "ok": problem is None,
        "size": head.size,
        "root": _text(head.root),
        "checked": checked,
        "first_bad": None if problem is None else {"index": index, "problem": problem},
        "checkpoint": note,
    }


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def _line(document: Document) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n"
