"""Sessions that end while they lie in the pool: nobody is given one."""

import asyncio

import asyncpg
import sqlalchemy as sa
from tests.support.waiting import until

from kit.db import Database

MINE = "select pid from pg_stat_activity where application_name = 'pooled'"


async def test_a_session_that_ended_in_the_pool_is_given_to_nobody(database: str) -> None:
    db, admin = Database(database, name="pooled"), await asyncpg.connect(database)
    try:
        async with db.transaction() as one, db.transaction() as two:
            drivers = [(await tx.get_raw_connection()).driver_connection for tx in (one, two)]
            assert await one.scalar(sa.text("select 1")) == await two.scalar(sa.text("select 1")) == 1
        before = {row["pid"] for row in await admin.fetch(MINE)}
        assert len(before) == 2
        for pid in before:
            await admin.execute("select pg_terminate_backend($1)", pid)
        await until(lambda: all(driver is not None and driver.is_closed() for driver in drivers))

        async def ask() -> int:
            async with db.transaction() as tx:
                return int(await tx.scalar(sa.text("select pg_backend_pid()")) or 0)

        assert before.isdisjoint(await asyncio.gather(*(ask() for _ in range(4))))
    finally:
        await admin.close()
        await db.close()
