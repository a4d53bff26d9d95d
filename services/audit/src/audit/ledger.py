"""Append to the log: leaves, hashes, tree head, offsets and views in one transaction (law 6).

The index of an entry is not a sequence of the database, which would leave gaps: it is the size of the tree that the
compare-and-set on `tree_head` replaces. A writer that lost its place (a zombie) loses that and changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import merkle
from audit.domain import Flaw, Reading, clean, read
from audit.leaf import Leaf, redact
from audit.tables import entry, kafka_offset, tree_head
from audit.views import Views
from contracts.envelope import now
from contracts.registry import WorkspaceConfigured
from kit.bus import Record
from kit.db import Database
from kit.errors import Transient, is_transient

log = structlog.get_logger()
SIZE = Gauge("hallmark_audit_log_size", "Entries in the log")
APPENDED = Counter("hallmark_audit_records_total", "Records taken, by what became of them", ["topic", "outcome"])
# A writer that stops inside its transaction must not hold the head for ever.
IDLE_LIMIT = "15s"


class LostRace(Transient):
    """Another writer appended first."""


@dataclass(frozen=True)
class Outcome:
    """`index` is None for a duplicate; `flaw` says what is wrong with the record, also at a repetition."""

    index: int | None
    flaw: Flaw | None


@dataclass(frozen=True)
class Head:
    size: int
    root: bytes
    frontier: bytes
    at: datetime


class Ledger:
    """The one writer of the log."""

    def __init__(self, db: Database, views: Views) -> None:
        self._db = db
        self._views = views

    async def append(self, records: Sequence[Record]) -> list[Outcome]:
        """Appends what is new, in order. All of it or nothing is done when this raises.

        Raises:
            LostRace: another writer was faster; append again.
        """
        readings = [await self._read(record) for record in records]
        async with self._db.transaction() as tx:
            head = await self._lock_head(tx)
            outcomes = await self._append(tx, head, records, readings)
        for record, outcome in zip(records, outcomes, strict=True):
            what = "duplicate" if outcome.index is None else "flawed" if outcome.flaw else "entry"
            APPENDED.labels(record.topic, what).inc()
        return outcomes

    async def _read(self, record: Record) -> Reading:
        """Before the transaction: keys may come from far away, and the head must not wait for them."""
        return await self._views.check(read(record.topic, record.key, redact(record.headers), record.value))

    async def _append(
        self, tx: AsyncConnection, head: Head, records: Sequence[Record], readings: Sequence[Reading]
    ) -> list[Outcome]:
        at = max(now(), head.at)
        leaves = [leaf_of(record, at) for record in records]
        indexes, rows, tree = await self._grow(tx, head, leaves)
        if rows:
            await self._move_head(tx, head, tree, at)
        outcomes = []
        waiting: list[dict[str, Any]] = []
        for index, leaf, reading in zip(indexes, leaves, readings, strict=True):
            if index is None:
                judged = await self._views.judge(tx, reading)
            else:
                if isinstance(reading.message, WorkspaceConfigured):
                    await _insert(tx, waiting)  # rules may fold the entries before them again
                judged, failed = await self._project(tx, index, leaf, reading)
                waiting.append({**rows[index - head.size], "problem": _problem(judged.flaw or failed)})
            outcomes.append(Outcome(index, judged.flaw))
        await _insert(tx, waiting)
        await _count(tx, leaves, outcomes)
        return outcomes

    async def _grow(
        self, tx: AsyncConnection, head: Head, leaves: Sequence[Leaf]
    ) -> tuple[list[int | None], list[dict[str, Any]], merkle.Frontier]:
        """The index of each leaf (None: known already), the rows of the new ones, and the tree with them in it."""
        tree = merkle.Frontier.load(head.size, head.frontier)
        keys = [leaf.dedupe() for leaf in leaves]
        known = set(await tx.scalars(sa.select(entry.c.dedupe).where(entry.c.dedupe.in_(keys))))
        indexes: list[int | None] = []
        rows = []
        for leaf, key in zip(leaves, keys, strict=True):
            if key in known:
                indexes.append(None)
                continue
            known.add(key)
            indexes.append(tree.size)
            rows.append(_row(tree.size, key, leaf))
            tree.append(rows[-1]["leaf_hash"])
        return indexes, rows, tree

    async def _lock_head(self, tx: AsyncConnection) -> Head:
        """Writers take turns here; the compare-and-set in `_move_head` remains the guarantee."""
        limit = sa.func.set_config("idle_in_transaction_session_timeout", IDLE_LIMIT, True)
        row = (await tx.execute(sa.select(tree_head, limit).with_for_update())).one()
        return Head(row.size, row.root, row.frontier, row.at)

    async def _move_head(self, tx: AsyncConnection, head: Head, tree: merkle.Frontier, at: datetime) -> None:
        moved = await tx.execute(
            sa.update(tree_head)
            .where(tree_head.c.size == head.size)
            .values(size=tree.size, root=tree.root(), frontier=tree.dump(), at=at)
        )
        if moved.rowcount != 1:
            raise LostRace(f"the log has grown beyond {head.size}")
        SIZE.set(tree.size)

    async def _project(
        self, tx: AsyncConnection, index: int, leaf: Leaf, reading: Reading
    ) -> tuple[Reading, Flaw | None]:
        """A view that fails must not keep a record out of the log; the views can be rebuilt."""
        try:
            async with tx.begin_nested():
                return await self._views.project(tx, index, leaf, reading), None
        except Exception as error:
            if is_transient(error):
                raise
            log.exception("a view failed", index=index)
            return reading, Flaw("view-failed", clean(repr(error)))


def leaf_of(record: Record, at: datetime) -> Leaf:
    return Leaf(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp_ms,
        recorded_at=at,
        key=record.key,
        headers=redact(record.headers),
        value=record.value,
    )


def _row(index: int, key: bytes, leaf: Leaf) -> dict[str, Any]:
    data = leaf.encode()
    return {
        "index": index,
        "dedupe": key,
        "leaf": data,
        "leaf_hash": merkle.leaf_hash(data),
        "topic": leaf.topic,
        "partition": leaf.partition,
        "kafka_offset": leaf.offset,
        "recorded_at": leaf.recorded_at,
        "problem": None,
    }


async def _insert(tx: AsyncConnection, rows: list[dict[str, Any]]) -> None:
    """Inserts the rows and empties the list."""
    if rows:
        await tx.execute(sa.insert(entry), rows)
        rows.clear()


def _problem(flaw: Flaw | None) -> str | None:
    return f"{flaw.code}: {flaw.detail}" if flaw else None


async def _count(tx: AsyncConnection, leaves: Sequence[Leaf], outcomes: Sequence[Outcome]) -> None:
    """Keeps the books of each partition: every offset seen is an entry or a duplicate."""
    for leaf, outcome in zip(leaves, outcomes, strict=True):
        new = outcome.index is not None
        t = kafka_offset.c
        fresh = leaf.offset > t.highest
        first = {"entries": int(new), "duplicates": int(not new), "redelivered": 0, "rewound": 0}
        await tx.execute(
            insert(kafka_offset)
            .values(topic=leaf.topic, partition=leaf.partition, lowest=leaf.offset, highest=leaf.offset, **first)
            .on_conflict_do_update(
                index_elements=["topic", "partition"],
                set_={
                    "highest": sa.func.greatest(t.highest, leaf.offset),
                    "entries": t.entries + sa.case((sa.and_(fresh, sa.literal(new)), 1), else_=0),
                    "duplicates": t.duplicates + sa.case((sa.and_(fresh, sa.literal(not new)), 1), else_=0),
                    "redelivered": t.redelivered + sa.case((sa.and_(~fresh, sa.literal(not new)), 1), else_=0),
                    "rewound": t.rewound + sa.case((sa.and_(~fresh, sa.literal(new)), 1), else_=0),
                },
            )
        )
