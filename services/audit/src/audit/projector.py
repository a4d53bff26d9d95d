"""The views follow the log by index, a page in a transaction. Ingest never waits for them (law 2).

What is wrong with a record is found here, when it is read for the first time, and kept in `finding`: a rebuild years
later must not judge anew what was judged with the keys of its day.
"""

from collections.abc import Awaitable, Callable, Sequence

import sqlalchemy as sa
from prometheus_client import Gauge
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.domain import LEAF_LOST, Flaw, Reading, clean, read
from audit.tables import entry, finding, follower
from audit.tlog.archive import Contradiction
from audit.views import FOLLOWER as VIEWS
from audit.views import Item, Views
from kit.db import Database, Signal
from kit.errors import is_transient
from kit.tasks import repeat

PROJECTED = Gauge("hallmark_audit_projected_size", "Entries in the views")
PAGE = 500
POLL_SECONDS = 0.5
Fold = Callable[[AsyncConnection, Sequence[Item]], Awaitable[list[Reading]]]
START = sa.select(follower.c.next).where(follower.c.name == VIEWS).scalar_subquery()
NEXT = (
    sa.select(START.label("start"), entry.c.index, entry.c.leaf)
    .where(entry.c.index >= START)
    .order_by(entry.c.index)
    .limit(PAGE)
)


class Projector:
    """Several may run: each page is taken by one. `projected` fires after each."""

    def __init__(self, db: Database, views: Views, appended: Signal) -> None:
        self._db, self._views, self._appended = db, views, appended
        self.projected = Signal()

    async def run(self) -> None:
        """Until cancelled."""
        more = self._appended.next()

        async def step() -> int:
            nonlocal more
            more = self._appended.next()
            return await self.step()

        await repeat(step, lambda: self._appended.wait(POLL_SECONDS, more), "views")

    async def catch_up(self) -> None:
        while await self.step():
            pass

    async def step(self) -> int:
        """Folds the next page. Gives how many entries it had."""
        async with self._db.engine.connect() as connection:
            reader = await connection.execution_options(isolation_level="AUTOCOMMIT")  # one statement: one way there
            rows = (await reader.execute(NEXT)).mappings().all()
        if not rows:
            return 0
        start, following = rows[0]["start"], rows[-1]["index"] + 1
        # Before the transaction: keys and large leaves may come from far away.
        items = [await self._item(row["index"], row["leaf"]) for row in rows]
        try:
            taken = await self._take(start, following, items, self._views.fold)
        except Exception as error:
            if is_transient(error):
                raise
            # Rare, and two statements dearer: whatever fails is told apart from the rest.
            taken = await self._take(start, following, items, self._views.project_page)
        if taken:
            PROJECTED.set(following)
            self.projected.set()
        return len(rows)

    async def _take(self, start: int, following: int, items: Sequence[Item], fold: Fold) -> bool:
        """One transaction. False: another replica took the page."""
        async with self._db.transaction() as tx:
            mine = sa.update(follower).where(follower.c.name == VIEWS, follower.c.next == start)
            if (await tx.execute(mine.values(next=following))).rowcount == 0:
                return False
            told = await fold(tx, items)
            found = [
                {"index": item.index, "code": reading.flaw.code, "detail": reading.flaw.detail}
                for item, reading in zip(items, told, strict=True)
                if reading.flaw is not None
            ]
            if found:
                await tx.execute(sa.insert(finding), found)
        return True

    async def _item(self, index: int, data: bytes) -> Item:
        try:
            leaf = await self._views.leaf(data)
        except (ValueError, Contradiction) as error:
            return Item(index, None, Reading(flaw=Flaw(LEAF_LOST, clean(repr(error)))))
        return Item(index, leaf, await self._views.check(read(leaf.topic, leaf.key, leaf.headers, leaf.value)))


async def position(tx: AsyncConnection, name: str, *, lock: bool = False) -> int:
    """The first index that a follower has not taken. `lock`: nobody else moves it until this transaction ends."""
    query = sa.select(follower.c.next).where(follower.c.name == name)
    return int(await tx.scalar(query.with_for_update() if lock else query) or 0)


async def move(tx: AsyncConnection, name: str, following: int) -> None:
    await tx.execute(sa.update(follower).where(follower.c.name == name).values(next=following))
