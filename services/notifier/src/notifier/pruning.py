"""Tries are kept for a while: those of deliveries that have ended, no longer than so many days."""

import asyncio

import sqlalchemy as sa
import structlog

from kit.db import Database
from kit.errors import is_transient

log = structlog.get_logger()
EVERY_SECONDS = 3600.0
PAGE = 1000
OLD = sa.text(
    """
    delete from notifier.attempt a using (
      select o.delivery_id, o.attempt from notifier.attempt o
      join notifier.delivery d using (delivery_id)
      where o.started_at < now() - make_interval(secs => :seconds) and not d.open
      limit :page
    ) old
    where a.delivery_id = old.delivery_id and a.attempt = old.attempt
    """
).bindparams(sa.bindparam("seconds", type_=sa.Float))


class Pruning:
    def __init__(self, db: Database, days: float) -> None:
        self._db, self._seconds = db, days * 86_400

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.prune()
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("cannot prune tries; trying again", error=repr(error))
            await asyncio.sleep(EVERY_SECONDS)

    async def prune(self) -> int:
        """Gives how many tries were forgotten."""
        count, gone = 0, PAGE
        while gone == PAGE:
            async with self._db.transaction() as tx:
                gone = (await tx.execute(OLD, {"seconds": self._seconds, "page": PAGE})).rowcount
            count += gone
        return count
