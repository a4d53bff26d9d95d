"""The log as Parquet in the S3 store, a directory a day, so that DuckDB, Trino and Athena query the same files.

    archive/day=2026-11-20/part-000000000000-000000001999.parquet
    archive/day=2026-11-20/_manifest.json        signed; engines pass over names that begin with `_`

A day (in UTC, by `recorded_at`, which never decreases) is complete once the log has an entry of a later one. What a
part is to hold is written down before the part is, and a part is put once: whoever dies in between, or works beside
another, writes the same.
"""

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
import structlog
from prometheus_client import Gauge
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import merkle
from audit.out.dsse import ARCHIVE, BytesSigner, ManifestError, seal, unseal
from audit.out.formats import Parquet
from audit.out.manifest import IndexSet
from audit.out.query import Entries, Query
from audit.out.rows import Row
from audit.projector import position
from audit.tables import entry, follower, logged
from audit.tlog.archive import Archive, Contradiction
from audit.tlog.publisher import Published, Publisher
from kit.db import Database
from kit.tasks import repeat

log = structlog.get_logger()
ARCHIVED = Gauge("hallmark_audit_archived_size", "Entries in the Parquet archive")
FOLLOWER, INTENT = "archive", "archive-end"
KIND = "hallmark-archive/1"
PART_ROWS = 20_000
PART_BYTES = 64 << 20


@dataclass(frozen=True)
class Part:
    """Entries from `first` up to but without `end`, all of one day."""

    day: date
    first: int
    end: int

    @property
    def key(self) -> str:
        return f"{prefix_of(self.day)}part-{self.first:012d}-{self.end - 1:012d}.parquet"


def prefix_of(day: date) -> str:
    return f"archive/day={day.isoformat()}/"


class DayArchive:
    """`running_day`: parts of the day that is not over are written too, one a step at most."""

    def __init__(
        self,
        db: Database,
        archive: Archive,
        publisher: Publisher,
        signer: BytesSigner,
        *,
        every_seconds: float = 300,
        running_day: bool = False,
        part_rows: int = PART_ROWS,
    ) -> None:
        self._db, self._archive, self._publisher, self._signer = db, archive, publisher, signer
        self._entries = Entries(db, archive.inline, archive.entry)
        self._every, self._running, self._rows = every_seconds, running_day, part_rows

    async def run(self) -> None:
        """Until cancelled."""

        async def step() -> int:
            try:
                return await self.step()
            except Contradiction as error:
                log.critical("the archive contradicts the log", error=error.detail)
                return 0

        await repeat(step, lambda: asyncio.sleep(self._every), "archive")

    async def step(self, *, at_once: bool | None = None) -> int:
        """Writes the next part, and the manifest of a day that is over. `at_once`: also of the running day.

        Returns how many entries the part has; 0 when nothing is due.

        Raises:
            Contradiction: something else lies in the store under the name of a part or a manifest.
        """
        published = await self._publisher.newest()
        if published is None:
            return 0
        part = await self._due(published, running=self._running if at_once is None else at_once)
        if part is None:
            return 0
        await self._write(part)
        async with self._db.transaction() as tx:
            mine = (follower.c.name == FOLLOWER) & (follower.c.next == part.first)
            await tx.execute(sa.update(follower).where(mine).values(next=part.end))
        ARCHIVED.set(part.end)
        return part.end - part.first

    async def _due(self, published: Published, *, running: bool) -> Part | None:
        """The part to write now, written down."""
        size = min(published.checkpoint.size, await self._entries.known())
        async with self._db.transaction() as tx:
            for name in (FOLLOWER, INTENT):
                await tx.execute(insert(follower).values(name=name, next=0).on_conflict_do_nothing())
            first = await position(tx, FOLLOWER)
            days = await _days(tx, first - 1, first)
        if first >= size or first not in days:
            return None
        if first - 1 in days and days[first - 1] != days[first]:
            await self._seal(days[first - 1], published)
        async with self._db.transaction() as tx:
            told = await position(tx, INTENT, lock=True)
            if await position(tx, FOLLOWER) != first:
                return None  # another one has written it
            if told <= first:
                end = await _end(tx, days[first], first, min(size, first + self._rows), complete=not running)
                if end is None:
                    return None
                await tx.execute(sa.update(follower).where(follower.c.name == INTENT).values(next=end))
                told = end
        return Part(days[first], first, told)

    async def _write(self, part: Part) -> None:
        data = io.BytesIO()
        writer = Parquet(data)
        expected = IndexSet()
        digest = sha256()
        async for rows in self._entries.batches(Query(part.first, part.end)):
            _unchanged(rows)
            bare = [replace(row, stored=replace(row.stored, body=None)) for row in rows]
            await asyncio.to_thread(writer.write, bare)
            _note(expected, digest, rows)
        await asyncio.to_thread(writer.close)
        if expected.count != part.end - part.first:
            raise Contradiction(f"entries between {part.first} and {part.end} are missing")
        try:
            await self._archive.keep(part.key, data.getvalue())
        except Contradiction:
            # What was found wrong with an entry may be told otherwise by now; the entries may not.
            there = await self._archive.read(part.key)
            if there is None or await asyncio.to_thread(_leaves, there) != (expected.document(), digest.hexdigest()):
                raise

    async def _seal(self, day: date, published: Published) -> None:
        """The manifest of a day that is over: its parts with their digests, without a hole."""
        key = f"{prefix_of(day)}_manifest.json"
        if (there := await self._archive.read(key)) is not None:
            try:
                unseal(there, ARCHIVE, self._signer.vkeys[0])
            except ManifestError as error:
                raise Contradiction(f"{key} is no manifest of this log's: {error}") from error
            return
        document = await self._document(day, published)
        try:
            await self._archive.keep(key, await seal(ARCHIVE, document, self._signer))
        except Contradiction:
            # Another replica was faster; its checkpoint may be another.
            there = await self._archive.read(key)
            if there is None or unseal(there, ARCHIVE, self._signer.vkeys[0])["parts"] != document["parts"]:
                raise

    async def _document(self, day: date, published: Published) -> dict[str, Any]:
        parts, following = [], None
        stored = [item async for item in self._archive.store.objects(f"{prefix_of(day)}part-")]
        for item in sorted(stored, key=lambda one: one.key):
            first, _, last = item.key.rpartition("/part-")[2].removesuffix(".parquet").partition("-")
            if following is not None and int(first) != following:
                raise Contradiction(f"the archive of {day} has no part from {following} on")
            found = await self._archive.store.digest(item.key)
            if found is None:
                raise ConnectionError(f"{item.key} was there and is not")
            following = int(last) + 1
            part = {"name": item.key, "first": int(first), "last": int(last), "count": following - int(first)}
            parts.append({**part, "bytes": found[1], "sha256": found[0].removeprefix("sha256:")})
        await self._whole(day, parts)
        head = published.checkpoint
        return {
            "manifest": KIND,
            "day": day.isoformat(),
            "count": sum(part["count"] for part in parts),
            "checkpoint": {"origin": head.origin, "size": head.size, "root": head.root.hex(), "note": published.note},
            "parts": parts,
        }

    async def _whole(self, day: date, parts: Sequence[dict[str, Any]]) -> None:
        """Raises Contradiction: the day has entries before the first part or behind the last."""
        if not parts:
            raise Contradiction(f"the archive of {day} has no part")
        before, behind = parts[0]["first"] - 1, parts[-1]["last"] + 1
        async with self._db.transaction() as tx:
            days = await _days(tx, before, behind)
        if days.get(before) == day or days.get(behind) == day:
            raise Contradiction(f"the archive of {day} lacks parts before {before + 1} or from {behind} on")


async def _days(tx: AsyncConnection, *indexes: int) -> dict[int, date]:
    found = await tx.execute(sa.select(logged.c.index, logged.c.recorded_at).where(logged.c.index.in_(indexes)))
    return {index: at.astimezone(UTC).date() for index, at in found}


async def _end(tx: AsyncConnection, day: date, first: int, end: int, *, complete: bool) -> int | None:
    """Where a part that begins with `first` ends: with its day, its rows or its bytes. None: the day is not over."""
    midnight = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
    later = sa.select(sa.func.min(entry.c.index)).where(entry.c.recorded_at >= midnight, entry.c.index >= first)
    over = await tx.scalar(later)
    if complete and over is None:
        return None
    end = end if over is None else min(end, over)
    sizes = sa.select(entry.c.index, sa.func.octet_length(entry.c.leaf)).where(
        entry.c.index >= first, entry.c.index < end
    )
    held = 0
    for index, size in await tx.execute(sizes.order_by(entry.c.index)):
        held += size
        if held > PART_BYTES and index > first:
            return int(index)
    return end


def _unchanged(rows: Sequence[Row]) -> None:
    """Raises Contradiction: an entry is not what its hash commits to. What is put is put for ever."""
    for row in rows:
        if merkle.leaf_hash(row.stored.leaf) != row.stored.leaf_hash:
            raise Contradiction(f"entry {row.stored.index} does not fit its hash")


def _note(indexes: IndexSet, digest: Any, rows: Sequence[Row]) -> None:
    for row in rows:
        indexes.add(row.stored.index)
        digest.update(row.stored.leaf_hash)


def _leaves(data: bytes) -> tuple[dict[str, Any], str] | None:
    """The indexes and the digest over the leaf hashes of a part; None when it is none."""
    indexes, digest = IndexSet(), sha256()
    try:
        for batch in pq.ParquetFile(io.BytesIO(data)).iter_batches(columns=["index", "leaf", "leaf_hash"]):
            for row in batch.to_pylist():
                if sha256(b"\x00" + row["leaf"]).digest() != row["leaf_hash"]:
                    return None
                indexes.add(row["index"])
                digest.update(row["leaf_hash"])
    except (pa.ArrowException, ManifestError, KeyError, TypeError):
        return None
    return indexes.document(), digest.hexdigest()
