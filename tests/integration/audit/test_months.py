"""Partitions are made before their month begins, and wait for whoever reads."""

from datetime import datetime

import asyncpg
import pytest

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


@pytest.mark.parametrize(
    ("day", "following"), [("2027-01-31", "2027-02"), ("2026-12-01", "2027-01"), ("2027-02-28", "2027-03")]
)
def test_no_month_is_passed_over(day: str, following: str) -> None:
    assert f"{next_month(datetime.fromisoformat(day)):%Y-%m}" == following
