"""The partitions of the months to come, made in time.

To attach one, PostgreSQL needs every reader of the log out of the way for a moment. A dump or a rebuild that is open
when a month begins would stop the first write of it, and the readers behind that; weeks ahead nobody is in a hurry.
A writer that was stopped in the middle of a statement (of COPY, or between its parse and its run) would be in the way
for ever, perhaps with the head of the log in its hands, and no time limit of PostgreSQL's ends it.
"""

import asyncio
from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog

from contracts.envelope import now
from kit.db import Database
from kit.tasks import repeat

log = structlog.get_logger()
EVERY_SECONDS = 60.0
STALLED = timedelta(seconds=15)
END_STALLED = """
select pg_terminate_backend(a.pid) from pg_stat_activity a
where a.pid in (
    select l.pid from pg_locks l
    where l.granted and l.relation in ('audit.entry'::regclass, 'audit.tree_head'::regclass)
      and l.mode in ('RowShareLock', 'RowExclusiveLock')
  )
  and a.datname = current_database() and a.pid <> pg_backend_pid() and a.wait_event in ('ClientRead', 'ClientWrite')
  and a.xact_start < clock_timestamp() - cast(:limit as interval)
"""


def next_month(at: datetime) -> datetime:
    return at.replace(day=1) + timedelta(days=32)


async def end_stalled(db: Database) -> None:
    """Ends the sessions of writers that were stopped with the head or rows of the log in their hands."""
    async with db.transaction() as tx:
        if ended := len((await tx.execute(sa.text(END_STALLED), {"limit": STALLED})).all()):
            log.warning("ended writers that were stopped in the middle", sessions=ended)


class Months:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def run(self) -> None:
        """Until cancelled."""
        await repeat(self.step, lambda: asyncio.sleep(EVERY_SECONDS), "months")

    async def step(self) -> None:
        """Makes the partitions of this month and the next, unless somebody is in the way for longer than a second."""
        await end_stalled(self._db)
        async with self._db.transaction() as tx:
            await tx.execute(sa.text("set local lock_timeout = '1s'"))
            for at in (now(), next_month(now())):
                await tx.execute(sa.text("select audit.ensure_partition(:at)"), {"at": at})
