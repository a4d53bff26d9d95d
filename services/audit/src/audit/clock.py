"""One clock for the log: the database's. Every writer has a clock of its own; each knows how far that one is off."""

import time
from datetime import datetime, timedelta

from contracts.envelope import now
from kit.db import Database

AGAIN_SECONDS = 30.0


class Clock:
    def __init__(self, db: Database) -> None:
        self._db = db
        self._behind = timedelta(0)
        self.forget()

    def forget(self) -> None:
        """The clock of this machine was set: the database is asked again."""
        self._due = 0.0

    async def behind(self) -> timedelta:
        """By how much the clock of this machine is behind the database's, as it was within half a minute."""
        if time.monotonic() >= self._due:
            async with self._db.engine.connect() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                assert driver is not None
                before = now()
                there: datetime = await driver.fetchval("select clock_timestamp()")
                # It was asked in between: of the times that it may have been, the one that is never ahead.
                self._behind = there - max(before, now())
            self._due = time.monotonic() + AGAIN_SECONDS
        return self._behind
