"""The migrations make the tables that the code declares, and keep what is there."""

import asyncio

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.ext.asyncio import create_async_engine

from kit.db import sqlalchemy_url
from notifier import views

from .conftest import MIGRATIONS, Rig


@pytest.fixture
def config(database: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("HALLMARK_ADMIN_DATABASE_URL", database)
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS))
    return made


async def test_tables_and_migrations_agree(rig: Rig, config: Config) -> None:
    await asyncio.to_thread(command.check, config)


async def test_subscriptions_of_before_there_were_audiences_stand_for_nobody(
    rig: Rig, config: Config, database: str
) -> None:
    made = await rig.webhook("http://127.0.0.1:9/hook")
    engine = create_async_engine(sqlalchemy_url(database))
    set_to = "update notifier.alembic_version set version_num = :to"
    async with engine.begin() as tx:  # there is no way down: what the migration adds is taken away by hand
        head = await tx.scalar(sa.text("select version_num from notifier.alembic_version"))
        await tx.execute(sa.text("alter table notifier.subscription drop column audience"))
        await tx.execute(sa.text(set_to), {"to": "0001"})
    await asyncio.to_thread(command.upgrade, config, "0002")
    async with engine.begin() as tx:
        await tx.execute(sa.text(set_to), {"to": head})
    await engine.dispose()
    async with rig.db.transaction() as tx:
        again = await views.subscription(tx, made["subscription_id"])
    assert again is not None
    assert again.audience == ()
    assert views.document(again) == {name: value for name, value in made.items() if name != "secret"}
