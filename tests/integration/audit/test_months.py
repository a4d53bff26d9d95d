"""Partitions are made before their month begins, and wait for whoever reads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime, timedelta

import asyncpg
import pytest
import sqlalchemy as sa
from tests.support.waiting import until

from audit.ledger import BEGIN
from audit.months import Months, next_month
from contracts.envelope import now
from kit.errors import is_transient

from .conftest import Harness


async def partitions(audit: Harness) -> set[str]:
    connection = await asyncpg.connect(audit.admin_url)
    try:
        rows = await connection.fetch("select relname from pg_class where relnamespace = 'audit_part'::regnamespace")
        return {row["relname"] for row in rows}
    finally:
        await connection.close()


async def test_the_next_month_is_there_before_it_begins(audit: Harness) -> None:
    for _ in range(2):
        await Months(audit.db).step()
    assert {f"entry_{at:%Y_%m}" for at in (now(), next_month(now()))} <= await partitions(audit)


async def test_a_long_reader_is_not_disturbed(audit: Harness) -> None:
    reader = await asyncpg.connect(audit.admin_url)
    try:
        async with reader.transaction():
            await reader.fetch("select * from audit.entry")
            with pytest.raises(Exception) as waited:  # noqa: PT011
                await Months(audit.db).step()
            assert is_transient(waited.value)
            await reader.fetch("select * from audit.entry")
    finally:
        await reader.close()
    await Months(audit.db).step()
    assert f"entry_{next_month(now()):%Y_%m}" in await partitions(audit)


async def test_a_writer_that_stopped_within_copy_is_ended(audit: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the way of new partitions, and no time limit of the database's ends it."""
    inside, wake = asyncio.Event(), asyncio.Event()
    session = 0

    async def rows() -> AsyncIterator[bytes]:
        yield b"PGCOPY\n\xff\r\n\0" + bytes(8)
        inside.set()
        await wake.wait()

    async def copy() -> None:
        nonlocal session
        async with audit.db.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            session = driver.get_server_pid()
            await driver.execute(BEGIN.format(limit="1s"))
            await driver.copy_to_table("entry", schema_name="audit", source=rows(), format="binary")

    stopped = asyncio.create_task(copy())
    await inside.wait()
    monkeypatch.setattr("audit.months.STALLED", timedelta(seconds=1))

    async def ended() -> bool:
        with suppress(Exception):
            await Months(audit.db).step()
        async with audit.db.transaction() as tx:
            query = sa.text("select count(*) from pg_stat_activity where pid = :pid")
            return bool(await tx.scalar(query, {"pid": session}) == 0)

    await until(ended)
    wake.set()
    with pytest.raises((asyncpg.PostgresError, ConnectionError)):
        await stopped


@pytest.mark.parametrize(
    ("day", "following"), [("2027-01-31", "2027-02"), ("2026-12-01", "2027-01"), ("2027-02-28", "2027-03")]
)
def test_no_month_is_passed_over(day: str, following: str) -> None:
    assert f"{next_month(datetime.fromisoformat(day)):%Y-%m}" == following
