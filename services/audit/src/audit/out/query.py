"""What is asked for, and its entries from the database: pages by index, never an open cursor, never everything."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Protocol

import sqlalchemy as sa

from audit.forgetting import pruned_until, refuse_forgotten
from audit.out.rows import Row, Stored, plain, row_of
from audit.projector import position
from audit.queries import Filter, Place
from audit.tables import logged
from audit.tlog.archive import Damage
from audit.view_tables import timeline
from audit.views import FOLLOWER as VIEWS
from kit.db import Database

PAGE = 500
# How many indexes one statement looks at: where hardly any fit, it must end all the same.
WINDOW = 100_000
BATCH_BYTES = 8 << 20
LOST = "leaf-lost"
NARROWING = (
    "workspace", "model", "version", "type", "actor", "subject", "outcome", "correlationid", "since", "until",
)  # fmt: skip
Inline = Callable[[bytes], Awaitable[bytes]]
Pruned = Callable[[int, bytes], Awaitable[bytes]]
Held = tuple[Stored, str | None, int | None]  # with its problem, and what it is a copy of


@dataclass(frozen=True)
class Query:
    """Entries from index `start` up to but without `end`, narrowed by what the timeline knows; None is anything.

    The rest is what the timeline's filter has: types and subjects may be patterns with * and ?. `since` and `until` are
    of the instant when it happened: from, and up to but without. Copies are in it. `of_model`: with those of a
    `version` come those of its model that are about no version.
    """

    start: int
    end: int
    workspace: str | None = None
    model: str | None = None
    version: int | None = None
    type: str | None = None
    actor: str | None = None
    subject: str | None = None
    outcome: str | None = None
    correlationid: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    of_model: bool = False

    @property
    def narrowed(self) -> bool:
        """Whether the timeline is asked: the range must be under what the views have read by then."""
        return any(getattr(self, name) is not None for name in NARROWING)

    def document(self) -> dict[str, Any]:
        return {name: plain(value) for name, value in asdict(self).items() if value is not None and value is not False}


class Source(Protocol):
    async def known(self) -> int:
        """How many entries have been read, and are known to be good or bad."""

    async def pruned_until(self) -> int:
        """Below this index entries may be pruned: their bytes come from the object store."""

    def batches(self, query: Query) -> AsyncIterator[Sequence[Row]]:
        """The rows in order of their index, some at a time.

        Raises:
            Problem: 422, pruned entries that fit the query would be missing, also when they went in the meantime.
        """


class Entries:
    """The log in the database. `inline` gives the whole leaf of one that only names its digest, `pruned` the leaf of
    an entry that the database has no more, as its hash commits to it. What the store has lost or changed has no bytes
    here, and its problem says so."""

    def __init__(self, db: Database, inline: Inline, pruned: Pruned) -> None:
        self._db, self._inline, self._pruned = db, inline, pruned

    async def batches(self, query: Query, *, page: int = PAGE, window: int = WINDOW) -> AsyncIterator[Sequence[Row]]:
        start = query.start
        while start < query.end:
            stop = min(start + window, query.end)
            async with self._db.transaction() as tx:
                found = (await tx.execute(_page(query, start, stop).limit(page))).all()
                refuse_forgotten(query, await pruned_until(tx))
            held: list[Held] = []
            size = 0
            for index, leaf, leaf_hash, problem, copy_of in found:
                stored, lost = await self._stored(index, leaf, leaf_hash)
                held.append((stored, lost or problem, copy_of))
                size += len(stored.leaf) + len(stored.body or b"")
                if size > BATCH_BYTES:
                    yield await asyncio.to_thread(_rows, held)
                    held, size = [], 0
            if held:
                yield await asyncio.to_thread(_rows, held)
            start = found[-1][0] + 1 if len(found) == page else stop

    async def _stored(self, index: int, leaf: bytes | None, leaf_hash: bytes) -> tuple[Stored, str | None]:
        """The entry, and what became of it where its bytes are lost."""
        try:
            data = leaf if leaf is not None else await self._pruned(index, leaf_hash)
        except Damage as damage:
            return Stored(index, b"", leaf_hash), f"{LOST}: {damage.detail}"
        return await self._whole(Stored(index, data, leaf_hash)), None

    async def _whole(self, stored: Stored) -> Stored:
        """With its body where that lies elsewhere. What is no leaf has none: an export shows it as it is."""
        try:
            body = await self._inline(stored.leaf)
        except (ValueError, Damage):
            return stored
        return stored if body == stored.leaf else replace(stored, body=body)

    async def known(self) -> int:
        """How many entries the timeline has read: entries below that are in it."""
        async with self._db.transaction() as tx:
            return await position(tx, VIEWS)

    async def pruned_until(self) -> int:
        async with self._db.transaction() as tx:
            return await pruned_until(tx)


def _rows(held: Sequence[Held]) -> list[Row]:
    return [row_of(*one) for one in held]


def _page(query: Query, start: int, stop: int) -> sa.Select[Any]:
    t, e = timeline.c, logged.c
    columns = (e.index, e.leaf, e.leaf_hash, t.problem, t.copy_of)
    if not query.narrowed:
        joined = logged.outerjoin(timeline, t.index == e.index)
        return sa.select(*columns).select_from(joined).where(e.index >= start, e.index < stop).order_by(e.index)
    place = Place(query.workspace, query.model, None if query.of_model else query.version, query.since, query.until)
    types = (query.type,) if query.type is not None else ()
    narrowed = Filter(place, types, query.actor, query.subject, query.outcome, query.correlationid, copies=True)
    conditions = narrowed.conditions()
    if query.of_model and query.version is not None:
        conditions.append((t.version == query.version) | t.version.is_(None))
    wanted = sa.select(*columns).join_from(timeline, logged, t.index == e.index)
    return wanted.where(t.index >= start, t.index < stop, *conditions).order_by(t.index)
