"""Which message of Slack began the thread of a request, per subscription."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from kit.db import Database
from notifier.tables import SlackThreadRow
from notifier.views import t


@dataclass(frozen=True)
class Thread:
    subscription_id: str
    request_id: str
    channel: str
    ts: str
    ended: bool


class Threads:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def find(self, subscription_id: str, request_id: str) -> Thread | None:
        table = t(SlackThreadRow)
        query = sa.select(table).where(table.c.subscription_id == subscription_id, table.c.request_id == request_id)
        async with self._db.transaction() as tx:
            row = (await tx.execute(query)).first()
        return Thread(row.subscription_id, row.request_id, row.channel, row.ts, row.ended) if row else None

    async def begin(self, subscription_id: str, request_id: str, channel: str, ts: str) -> None:
        row = {
            "subscription_id": subscription_id,
            "request_id": request_id,
            "channel": channel,
            "ts": ts,
            "ended": False,
        }
        async with self._db.transaction() as tx:
            await tx.execute(insert(t(SlackThreadRow)).values(row).on_conflict_do_nothing())

    async def end(self, thread: Thread) -> None:
        table = t(SlackThreadRow)
        mine = sa.and_(table.c.subscription_id == thread.subscription_id, table.c.request_id == thread.request_id)
        async with self._db.transaction() as tx:
            await tx.execute(sa.update(table).where(mine).values(ended=True))
