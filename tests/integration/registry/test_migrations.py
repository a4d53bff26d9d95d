"""The migrations make the tables that the code declares, and keep what is there."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from tests.support.databases import migrated_database

import registry
from kit.db import sqlalchemy_url

HERE = Path(registry.__file__).parents[2]
BEFORE = "0003"  # requests had no fields then, and nothing could be revoked
NOT_DELETED = ("alter table registry.version drop column deleted_at, drop column description",)  # 0006
TRANSITION = (
    "insert into registry.transition (transition_id, kind, workspace, model, version, digest, artifact_digest,"
    " from_stage, to_stage, status, requested_by, reason, criteria, approved_by, requested_at) values"
    " ('t', 'promotion', 'w', 'm', 1, 'd', 'a', 'Development', 'Staging', 'open', 'ana', 'x', '[]', '[]', now())"
)


@pytest.fixture
def database(infra_postgres: str) -> Iterator[str]:
    with migrated_database(infra_postgres, "registry") as url:
        yield url


async def alembic(database: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alembic", *arguments),
        cwd=HERE,
        env={**os.environ, "HALLMARK_ADMIN_DATABASE_URL": database},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def test_migrations_match_the_tables(database: str) -> None:
    await alembic(database, "check")


async def test_a_transition_of_before_has_no_fields(database: str) -> None:
    engine = create_async_engine(sqlalchemy_url(database))
    try:
        async with engine.begin() as tx:
            # As it was before the migration: there is no way down, so what it adds is taken away by hand.
            for statement in (
                "alter table registry.transition drop column fields",
                "alter table registry.version drop column revocation",
                "drop index registry.ix_version_revoked",
                *NOT_DELETED,
                f"update registry.alembic_version set version_num = '{BEFORE}'",
                TRANSITION,
            ):
                await tx.execute(sa.text(statement))
        await alembic(database, "upgrade", "head")
        async with engine.begin() as tx:
            assert (await tx.scalar(sa.text("select fields::text from registry.transition"))) == "{}"
        await alembic(database, "check")
    finally:
        await engine.dispose()


async def test_models_whose_versions_moved_were_updated_then(database: str) -> None:
    """As `rebuild` would say it: since then, a stage change updates the model."""
    engine = create_async_engine(sqlalchemy_url(database))
    model = (
        "insert into registry.model (workspace, model, name, description, tags, versions, registered_by, registered_at,"
        " updated_at) values ('w', :model, :model, '', '{}', 1, 'ana', '2026-01-01Z', '2026-01-02Z')"
    )
    tenure = (
        "insert into registry.tenure (workspace, model, entered_sequence, stage, version, entered_at) values"
        " ('w', 'moved', :sequence, 'Staging', 1, cast(:at as timestamptz))"
    )
    try:
        async with engine.begin() as tx:
            for name in ("moved", "still"):
                await tx.execute(sa.text(model), {"model": name})
            for sequence, day in ((1, "2026-01-01Z"), (2, "2026-02-03Z")):
                await tx.execute(sa.text(tenure.replace(":at", f"'{day}'")), {"sequence": sequence})
            for statement in (*NOT_DELETED, "update registry.alembic_version set version_num = '0004'"):
                await tx.execute(sa.text(statement))
        await alembic(database, "upgrade", "head")
        async with engine.begin() as tx:
            found = await tx.execute(
                sa.text("select model, to_char(updated_at at time zone 'UTC', 'MM-DD') from registry.model")
            )
            assert dict(iter(found)) == {"moved": "02-03", "still": "01-02"}
    finally:
        await engine.dispose()
