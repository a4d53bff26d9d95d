"""Keyset pages, each bound to the size of the tree that the first of them saw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.cursor import Cursor, decode
from audit.forgetting import pruned_until
from audit.tables import checkpoint, follower
from audit.view_tables import timeline
from kit.problems import Problem

Document = dict[str, Any]


@dataclass(frozen=True)
class Ask:
    """How many at most, and the `next` of the page before. `signed`: the first page sees the tree of the newest signed
    checkpoint that the views have read, not all that they have read."""

    limit: int
    after: str | None = None
    signed: bool = False


@dataclass(frozen=True)
class Known:
    """As known at an instant, or with a tree of so many entries; as known now when both are None."""

    at: datetime | None = None
    size: int | None = None

    async def within(self, tx: AsyncConnection, size: int) -> int:
        """How many of the first `size` entries were known."""
        if self.at is not None:
            t = timeline.c
            last = sa.select(t.index).where(t.recorded_at <= self.at).order_by(t.recorded_at.desc(), t.index.desc())
            found = await tx.scalar(last.limit(1))
            return min(size, 0 if found is None else int(found) + 1)
        return size if self.size is None else min(size, self.size)


async def told(tx: AsyncConnection) -> int:
    """How many entries the views tell of."""
    return int(await tx.scalar(sa.select(follower.c.next).where(follower.c.name == "views")) or 0)


@dataclass(frozen=True)
class Begun(Cursor):
    """`pruned_until`: below this index the views no longer know what entries said."""

    pruned_until: int


async def begin(tx: AsyncConnection, ask: Ask, kinds: Sequence[type]) -> Begun:
    """Where a page begins. Its place is empty for the first one, which sees all that the views tell of.

    Raises:
        Problem: 422, `after` is not the `next` of such a page.
    """
    until = await pruned_until(tx)
    if ask.after is None:
        size = await told(tx)
        if ask.signed:
            newest = sa.select(sa.func.max(checkpoint.c.size)).where(checkpoint.c.size <= size)
            size = int(await tx.scalar(newest) or 0)
        return Begun(size, (), until)
    try:
        found = decode(ask.after, kinds)
    except ValueError as error:
        raise Problem(422, "invalid-request", f"'after': {error}") from error
    return Begun(found.size, found.place, until)


async def read(
    tx: AsyncConnection,
    query: sa.Select[Any],
    place: Sequence[sa.ColumnElement[Any]],
    names: Sequence[str],
    begun: Begun,
    limit: int,
    shape: Callable[[Document], Document] = dict,
) -> Document:
    """A page of rows in order of `place`, which the rows have under these names: {items, next, size, pruned_until}."""
    if begun.place:
        literals = [sa.literal(value, column.type) for value, column in zip(begun.place, place, strict=True)]
        query = query.where(sa.tuple_(*place) > sa.tuple_(*literals))
    rows = [dict(row) for row in (await tx.execute(query.order_by(*place).limit(limit + 1))).mappings()]
    return page(rows, names, begun, limit, shape)


def page(
    rows: list[Document],
    names: Sequence[str],
    begun: Begun,
    limit: int,
    shape: Callable[[Document], Document] = dict,
) -> Document:
    """The page that up to `limit + 1` rows make."""
    following = None
    if len(rows) > limit:
        rows = rows[:limit]
        following = Cursor(begun.size, tuple(rows[-1][name] for name in names)).encode()
    items = [shape(row) for row in rows]
    return {"items": items, "next": following, "size": begun.size, "pruned_until": begun.pruned_until}


def known_with(table: sa.FromClause, size: int | sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Whether a tree of so many entries knew a row."""
    t = table.c
    return sa.and_(t.known_from < size, sa.or_(t.known_until.is_(None), t.known_until >= size))
