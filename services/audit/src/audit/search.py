"""Full text, behind the timeline and never in the way of it: an asynchronous projection with a cursor of its own."""

import asyncio

import sqlalchemy as sa
from prometheus_client import Gauge
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import paging
from audit.paging import Ask, Document
from audit.queries import Place
from audit.tables import follower
from audit.view_tables import search_entry, timeline
from kit.db import Database
from kit.tasks import repeat

NAME = "search"
PAGE = 1_000
IDLE_SECONDS = 0.5
TRIGRAM = 3  # letters: the index of parts of names knows no shorter ones
BEHIND = Gauge("hallmark_audit_search_lag", "Entries of the timeline that search cannot find yet")
# 'simple': names and ids are no English words.
_WORDS = sa.text(
    """
    insert into audit.search_entry (index, words, names)
    select t.index,
           setweight(to_tsvector('simple', t.names), 'A') || setweight(to_tsvector('simple', t.told), 'B'),
           t.names
    from (
        select index,
               concat_ws(' ', model, actor, subject, type, event_id, correlationid, workspace) as names,
               concat_ws(' ', left(summary, 20000), left(problem, 2000)) as told
        from audit.timeline
        where index >= :first and index < :next or revised >= :first and revised < :next
    ) t
    on conflict (index) do update set words = excluded.words, names = excluded.names
    """
)


class SearchProjection:
    """Follows the timeline page by page. One that runs beside another does no harm."""

    def __init__(self, db: Database, *, page: int = PAGE) -> None:
        self._db, self._page = db, page

    async def step(self) -> int:
        """Takes the next page. Gives how many entries it went over: 0 when there is nothing to do."""
        async with self._db.transaction() as tx:
            await tx.execute(insert(follower).values(name=NAME, next=0).on_conflict_do_nothing())
            mine = follower.c.name == NAME
            first = int(await tx.scalar(sa.select(follower.c.next).where(mine).with_for_update()) or 0)
            # The timeline grows in the order of the log, and its pages are committed whole.
            following = min(await _told(tx), first + self._page)
            if following <= first:
                return 0
            await tx.execute(_WORDS, {"first": first, "next": following})
            await tx.execute(sa.update(follower).where(mine).values(next=following))
            return following - first

    async def run(self) -> None:
        """Until cancelled."""

        async def step() -> int:
            went = await self.step()
            BEHIND.set(await self.lag())
            return went

        await repeat(step, lambda: asyncio.sleep(IDLE_SECONDS), "search")

    async def lag(self) -> int:
        """How many entries of the timeline cannot be found yet."""
        async with self._db.snapshot() as tx:
            return await behind(tx)


async def behind(tx: AsyncConnection) -> int:
    """How many entries of the timeline cannot be found yet."""
    return max(0, await _told(tx) - await found_until(tx))


async def retell(tx: AsyncConnection, first: int, until: int) -> None:
    """Takes anew what the timeline tells of these entries."""
    await tx.execute(_WORDS, {"first": first, "next": until})


async def reset(tx: AsyncConnection) -> None:
    """Forgets everything, to be taken again from the beginning."""
    await tx.execute(sa.delete(search_entry))
    await tx.execute(sa.update(follower).where(follower.c.name == NAME).values(next=0))


async def _told(tx: AsyncConnection) -> int:
    newest = await tx.scalar(sa.select(sa.func.max(timeline.c.index)))
    return 0 if newest is None else int(newest) + 1


async def found_until(tx: AsyncConnection) -> int:
    """The first index that search has not taken yet."""
    return int(await tx.scalar(sa.select(follower.c.next).where(follower.c.name == NAME)) or 0)


def saying(text: str) -> sa.ColumnElement[bool]:
    """The condition on `search_entry` of `find`."""
    s = search_entry.c
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    told: sa.ColumnElement[bool] = s.words.bool_op("@@")(sa.func.websearch_to_tsquery("simple", text))
    if len(text) >= TRIGRAM:
        told |= s.names.ilike(f"%{escaped}%", escape="\\")
    return told


async def find(tx: AsyncConnection, text: str, place: Place, ask: Ask) -> Document:
    """Entries that say all the words of `text` (quotes, `or` and `-` as web searches have them), or that have it, when
    it has three letters or more, as part of a name or id. The newest come first."""
    begun = await paging.begin(tx, ask, (int,))
    t, s = timeline.c, search_entry.c
    query = (
        sa.select(*(column for column in t if column.key != "content"))
        .join_from(search_entry, timeline, t.index == s.index)
        .where(saying(text), s.index < begun.size, *place.on(timeline))
    )
    if begun.place:
        query = query.where(t.index < begun.place[0])
    rows = [dict(row) for row in (await tx.execute(query.order_by(t.index.desc()).limit(ask.limit + 1))).mappings()]
    return {**paging.page(rows, ("index",), begun, ask.limit), "behind": await behind(tx)}
