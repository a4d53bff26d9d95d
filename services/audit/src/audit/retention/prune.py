"""Lets months of entries go from the database that no policy and no hold keeps.

The database judges (`audit_guard.check_pruned`); this checks first that the object store has every byte, and that
whoever follows the log has read it. What the entries said goes from the views with them. Nothing is ever deleted in
the store.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from audit import merkle, search
from audit.forgetting import forget
from audit.leaf import Detached, decode
from audit.out.siem.push import PREFIX
from audit.tables import entry, follower, minimum_index
from audit.tlog.archive import Archive, Contradiction, leaf_key
from audit.tlog.publisher import ACTOR, Published
from audit.tlog.tiles import WIDTH, Tile, entries_of
from contracts.audit import LogPruned
from contracts.envelope import now
from kit.db import Database
from kit.events import Cause, EventLog, New

JUDGE = sa.text("select partition, first, until, problem from audit.judge_partitions(:size) order by partition")
LOCK_SECONDS = 5


@dataclass(frozen=True)
class Month:
    """A partition with the entries from `first` up to but without `until`. `problem` says why it stays."""

    partition: str
    first: int
    until: int
    problem: str | None


class Pruner:
    """`sinks`: the followers of feeds that are still sent. One that no longer is keeps nothing: the feed reads pruned
    entries from the object store."""

    def __init__(self, db: Database, events: EventLog, archive: Archive, sinks: Sequence[str] = ()) -> None:
        self._db, self._events, self._archive, self._sinks = db, events, archive, sinks

    async def plan(self, published: Published, *, lock: bool = False) -> list[Month]:
        """The months with entries, oldest first, and what keeps them. Those before the first that stays may go.

        `lock`: the objects of those that may go are locked anew, where the store can: soon they are all that is left.
        """
        size = published.checkpoint.size
        async with self._db.transaction() as tx:
            rows = (await tx.execute(JUDGE, {"size": size})).all()
            counts = ~follower.c.name.startswith(PREFIX) | follower.c.name.in_(self._sinks)
            slowest = sa.select(follower).where(counts).order_by(follower.c.next)
            behind = (await tx.execute(slowest.limit(1))).first()
        found = [Month(row.partition, row.first, row.until, row.problem) for row in rows if row.first is not None]
        months: list[Month] = []
        for month in found:
            problem = month.problem
            if problem is None and behind is not None and behind.next < month.until:
                problem = f"{behind.name} has read only up to entry {behind.next}"
            may_go = lock and not any(earlier.problem for earlier in months)
            months.append(replace(month, problem=problem or await self._lost(month, lock=may_go)))
        return months

    async def prune(self, published: Published, actor: str = ACTOR) -> list[Month]:
        """Drops the months that may go, each with its event in one transaction. Gives those it dropped.

        Raises:
            sqlalchemy.exc.DBAPIError: the database found a reason to keep one after all; those before it are gone.
        """
        dropped = []
        for month in await self.plan(published, lock=True):
            if month.problem:
                break
            await self._drop(month, published, actor)
            dropped.append(month)
        return dropped

    async def _lost(self, month: Month, *, lock: bool) -> str | None:
        """What the store does not have of it, or does not lock."""
        try:
            for number in range(month.first // WIDTH, -(-month.until // WIDTH)):
                await self._compare(number, month, lock=lock)
        except Contradiction as error:
            return error.detail
        return None

    async def _compare(self, number: int, month: Month, *, lock: bool) -> None:
        """A full bundle and its tile in the store against the rows that are about to go."""
        bundle, tile = Tile(-1, number), Tile(0, number)
        if lock:
            await self._archive.lock_anew(bundle.path)
            await self._archive.lock_anew(tile.path)
        data, hashes = await self._archive.read(bundle.path), await self._archive.read(tile.path)
        if data is None or hashes is None:
            raise Contradiction(f"the object store does not have {bundle.path}, or its tile")
        try:
            leaves = entries_of(data)
        except ValueError as error:
            raise Contradiction(f"{bundle.path} in the object store: {error}") from error
        start, stop = max(month.first, bundle.start), min(month.until, bundle.start + WIDTH)
        e = entry.c
        query = sa.select(e.index, e.leaf_hash).where(e.index >= start, e.index < stop).order_by(e.index)
        async with self._db.transaction() as tx:
            rows = (await tx.execute(query)).all()
        found = b"".join(merkle.leaf_hash(leaf) for leaf in leaves)
        if len(leaves) != WIDTH or found != hashes or len(rows) != stop - start:
            raise Contradiction(f"{bundle.path} in the object store is not what its tile commits to")
        for index, wanted in rows:
            leaf = leaves[index - bundle.start]
            if merkle.leaf_hash(leaf) != wanted:
                raise Contradiction(f"entry {index} in the object store is not the one in the database")
            if isinstance(large := decode(leaf), Detached):
                if lock:
                    await self._archive.lock_anew(leaf_key(large.sha256))
                await self._archive.inline(leaf)

    async def _drop(self, month: Month, published: Published, actor: str) -> None:
        head, root = published.checkpoint, published.note.split("\n")[2]
        stream = f"pruned:{head.origin}"
        async with self._db.transaction() as tx:
            await tx.execute(sa.text(f"set local lock_timeout = '{LOCK_SECONDS}s'"))
            last = await self._events.lock(tx, stream)
            minimum = int(await tx.scalar(sa.select(sa.func.max(minimum_index.c.index))) or 0)
            if minimum < month.until:
                await tx.execute(sa.insert(minimum_index).values(index=month.until, at=now()))
                minimum = month.until
            message = LogPruned(
                origin=head.origin,
                partition=month.partition,
                first=month.first,
                until=month.until,
                minimum_index=minimum,
                size=head.size,
                root=root,
                pruned_by=actor,
            )
            await self._events.append(tx, stream, last, [New(message, subject=stream)], Cause(actor=actor))
            await tx.execute(sa.text("set local role hallmark_audit_retention"))
            await tx.execute(
                sa.text("select audit.drop_partition(:name, :size)"), {"name": month.partition, "size": head.size}
            )
            await tx.execute(sa.text("reset role"))
            await forget(tx, month.first, month.until)
            await search.retell(tx, month.first, month.until)
