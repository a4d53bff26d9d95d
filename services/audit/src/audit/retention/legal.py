"""Legal holds in the object store: S3's legal hold lies on every bundle, and large leaf, that a hold protects.

S3 lets nobody delete such an object, even when its lock has run out. Each hold follows the log with a cursor of its own
(`follower`, named `hold:<id>`); when it is released, objects that no other hold needs are set free.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.leaf import Detached, decode
from audit.projector import move, position
from audit.tables import checkpoint, follower, held_object, hold, hold_release, logged
from audit.tlog.archive import Archive, Contradiction, leaf_key
from audit.tlog.tiles import WIDTH, Tile
from kit.db import Database, Signal
from kit.tasks import repeat

log = structlog.get_logger()
Row = Mapping[Any, Any]
EVERY_SECONDS = 30.0
PREFIX = "hold:"


class LegalHolds:
    def __init__(self, db: Database, archive: Archive, changed: Signal) -> None:
        self._db, self._archive, self._changed = db, archive, changed

    async def run(self) -> None:
        """Until cancelled."""
        await repeat(self.step, lambda: self._changed.wait(EVERY_SECONDS), "legal holds")

    async def step(self) -> None:
        """Brings the store to what the holds say, as far as the log is published in full bundles."""
        if not await self._archive.locks():
            return
        is_over = sa.exists().where(hold_release.c.id == hold.c.id)
        async with self._db.transaction() as tx:
            active = (await tx.execute(sa.select(hold).where(~is_over))).mappings().all()
            followed = sa.select(follower.c.name).where(follower.c.name.startswith(PREFIX))
            names = {name.removeprefix(PREFIX) for name in await tx.scalars(followed)}
            # Another process may have gone on to hold objects after the release.
            names |= set(await tx.scalars(sa.select(held_object.c.hold).distinct()))
            over = sorted(names - {row["id"] for row in active})
            size = int(await tx.scalar(sa.select(sa.func.max(checkpoint.c.size))) or 0)
        for row in active:
            await self._follow(row, size // WIDTH * WIDTH)
        for name in over:
            await self._free(name)

    async def _follow(self, row: Row, until: int) -> None:
        name = f"{PREFIX}{row['id']}"
        async with self._db.transaction() as tx:
            await tx.execute(insert(follower).values(name=name, next=0).on_conflict_do_nothing())
            start = await position(tx, name)
        while page := await self._page(start, until):
            for key in sorted(await self._keys(row, page)):
                async with self._turn(key) as tx:
                    await tx.execute(insert(held_object).values(hold=row["id"], key=key).on_conflict_do_nothing())
                    await self._archive.hold(key, on=True)
            start = page[-1]["index"] + 1
            async with self._db.transaction() as tx:
                await move(tx, name, start)
            await asyncio.sleep(0)

    async def _page(self, start: int, until: int) -> Sequence[Row]:
        e = logged.c
        query = sa.select(e.index, e.recorded_at, e.leaf, e.leaf_hash).where(e.index >= start, e.index < until)
        async with self._db.transaction() as tx:
            return (await tx.execute(query.order_by(e.index).limit(WIDTH))).mappings().all()

    async def _keys(self, row: Row, page: Sequence[Row]) -> set[str]:
        """The objects that hold what is protected of these entries."""
        keys: set[str] = set()
        for entry in page:
            at = entry["recorded_at"]
            if (row["since"] and at < row["since"]) or (row["until"] and at >= row["until"]):
                continue
            try:
                keys |= await self._objects(row, entry)
            except (ValueError, Contradiction) as error:
                # Nobody can read whether it is meant: what is left of it stays, and the others have their turn.
                log.error("a damaged entry is held", hold=row["id"], index=entry["index"], error=repr(error))
                keys |= _bundle(entry["index"])
        return keys

    async def _objects(self, row: Row, entry: Row) -> set[str]:
        """Those of one entry, if it is meant. Of a pruned one the store has the bytes."""
        index, leaf = entry["index"], entry["leaf"]
        leaf = leaf if leaf is not None else await self._archive.entry(index, entry["leaf_hash"])
        found = decode(leaf)
        whole = await self._archive.inline(leaf) if isinstance(found, Detached) else leaf
        if row["marks"] and not any(mark in whole for mark in row["marks"]):
            return set()
        return _bundle(index) | ({leaf_key(found.sha256)} if isinstance(found, Detached) else set())

    @asynccontextmanager
    async def _turn(self, key: str) -> AsyncIterator[AsyncConnection]:
        """One process at a time changes the hold on an object, so that none frees what another has just held."""
        async with self._db.transaction() as tx:
            lock = sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"audit.hold:{key}", 0))
            await tx.execute(sa.select(lock))
            yield tx

    async def _free(self, name: str) -> None:
        h = held_object.c
        other = held_object.alias()
        shared = sa.exists().where(other.c.key == h.key, other.c.hold != name)
        async with self._db.transaction() as tx:
            mine = list(await tx.scalars(sa.select(h.key).where(h.hold == name)))
        for key in mine:
            async with self._turn(key) as tx:
                if not await tx.scalar(sa.select(shared).where(h.hold == name, h.key == key)):
                    await self._archive.hold(key, on=False)
                await tx.execute(sa.delete(held_object).where(h.hold == name, h.key == key))
        async with self._db.transaction() as tx:
            await tx.execute(sa.delete(follower).where(follower.c.name == f"{PREFIX}{name}"))


def _bundle(index: int) -> set[str]:
    number = index // WIDTH
    return {Tile(-1, number).path, Tile(0, number).path}
