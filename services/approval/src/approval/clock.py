"""The time. The database is the clock, so that replicas agree."""

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection


class Clock:
    """`ahead` is zero but in tests, which move it."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    async def __call__(self, tx: AsyncConnection) -> datetime:
        """The time now; `now()` would be when the transaction began, before it waited for a lock."""
        at = await tx.scalar(sa.select(sa.func.clock_timestamp()))
        assert isinstance(at, datetime)
        return at + self.ahead
