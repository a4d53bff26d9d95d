"""Schema, role, tables and grants of one service: `python -m SERVICE migrate`. Idempotent, safe to run in parallel."""

import asyncio
import logging
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg
import sqlalchemy as sa
from alembic import command, context
from alembic.config import Config
from sqlalchemy import pool
from sqlalchemy.ext.asyncio import create_async_engine

from kit.db import asyncpg_url, sqlalchemy_url

# One lock for every service of a database: grants on shared catalogues cannot run in parallel.
_LOCK = 0x68616C6C

GUARD = """
create or replace function "{schema}".refuse_change() returns trigger language plpgsql as $$
begin
  raise exception 'events are immutable' using errcode = 'restrict_violation';
end $$;
create or replace trigger event_guard_rows before update or delete on "{schema}".event
  for each row execute function "{schema}".refuse_change();
create or replace trigger event_guard_table before truncate on "{schema}".event
  for each statement execute function "{schema}".refuse_change();
alter table "{schema}".event enable always trigger event_guard_rows;
alter table "{schema}".event enable always trigger event_guard_table;
"""


def guard_events(schema: str) -> list[str]:
    """Statements that make a service's event table append-only, also for its owner and for replicas."""
    head, _, tail = GUARD.format(schema=schema).partition("end $$;")
    return [f"{head}end $$;", *[part for part in tail.split(";") if part.strip()]]


def migrate(
    service: str,
    scripts: Path,
    *,
    database_url: str,
    admin_database_url: str | None,
    append_only: tuple[str, ...] = (),
    people_database_url: str | None = None,
) -> None:
    """Brings the service's schema to the newest revision and grants its role what it needs, no more.

    `append_only` names tables beside `event` that the role may only insert into and read. A schema's function
    `grant_service(role text)` has the last word on the grants, where there is one. `people_database_url`: of the
    service that keeps the vault of identities, where that is on.

    Raises:
        ValueError: the vault's URL names another database.
    """
    if people_database_url and urlsplit(people_database_url).path != urlsplit(database_url).path:
        raise ValueError(f"the vault of identities is in the database of {service}, and its URL must name that one")
    admin = asyncpg_url(admin_database_url or database_url)
    asyncio.run(_prepare(service, admin, database_url))
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.attributes["url"] = admin
    command.upgrade(config, "head")
    asyncio.run(_grant(service, admin, database_url, ("event", *append_only)))
    if people_database_url:
        asyncio.run(_open_vault(admin, database_url, people_database_url))


def run_migrations(metadata: sa.MetaData) -> None:
    """The whole of a service's Alembic `env.py`."""
    schema = str(metadata.schema)
    # The environment serves Alembic's own command: `alembic revision --autogenerate`, `alembic check`.
    url = context.config.attributes.get("url") or os.environ["HALLMARK_ADMIN_DATABASE_URL"]
    logging.getLogger("alembic").setLevel(logging.WARNING)

    def work(connection: sa.Connection) -> None:
        context.configure(
            connection=connection,
            target_metadata=metadata,
            version_table_schema=schema,
            include_schemas=True,
            include_name=lambda name, kind, _: kind != "schema" or name == schema,
            compare_server_default=False,
        )
        with context.begin_transaction():
            connection.execute(sa.text(f"select pg_advisory_xact_lock({_LOCK})"))
            context.run_migrations()

    async def main() -> None:
        engine = create_async_engine(sqlalchemy_url(url), poolclass=pool.NullPool)
        async with engine.connect() as connection:
            await connection.run_sync(work)
            await connection.commit()
        await engine.dispose()

    asyncio.run(main())


def _credentials(database_url: str) -> tuple[str, str]:
    parts = urlsplit(database_url)
    return unquote(parts.username or ""), unquote(parts.password or "")


async def _prepare(service: str, admin: str, database_url: str) -> None:
    connection = await asyncpg.connect(admin)
    try:
        async with connection.transaction():
            await connection.execute(f"select pg_advisory_xact_lock({_LOCK})")
            await _ensure_role(connection, *_credentials(database_url))
            await connection.execute(f'create schema if not exists "{service}"')
    finally:
        await connection.close()


async def _ensure_role(connection: asyncpg.Connection, role: str, password: str) -> None:
    if await connection.fetchval("select 1 from pg_roles where rolname = $1", role):
        return
    # Roles belong to the whole cluster, the lock to one database: another may make it meanwhile.
    with suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        async with connection.transaction():
            await connection.execute(
                await connection.fetchval(
                    "select format('create role %I login password %L', $1::text, $2::text)", role, password
                )
            )


async def _open_vault(admin: str, database_url: str, people_database_url: str) -> None:
    """The role that asks the vault, and what it and the vault's keeper may do there."""
    role, password = _credentials(people_database_url)
    connection = await asyncpg.connect(admin)
    try:
        async with connection.transaction():
            await connection.execute(f"select pg_advisory_xact_lock({_LOCK})")
            await _ensure_role(connection, role, password)
            await connection.execute("select people.grant_vault($1, $2)", _credentials(database_url)[0], role)
    finally:
        await connection.close()


async def _grant(service: str, admin: str, database_url: str, append_only: tuple[str, ...]) -> None:
    role, _ = _credentials(database_url)
    connection = await asyncpg.connect(admin)
    try:
        async with connection.transaction():
            await connection.execute(f"select pg_advisory_xact_lock({_LOCK})")
            name = await connection.fetchval("select quote_ident($1)", role)
            await connection.execute(f'grant usage on schema "{service}" to {name}')
            await connection.execute(
                f'grant select, insert, update, delete on all tables in schema "{service}" to {name}'
            )
            await connection.execute(f'grant usage on all sequences in schema "{service}" to {name}')
            if not await connection.fetchval("select rolsuper from pg_roles where rolname = $1", role):
                for table in append_only:
                    await connection.execute(f'revoke update, delete on "{service}"."{table}" from {name}')
            if await connection.fetchval("select to_regprocedure($1)", f'"{service}".grant_service(text)'):
                await connection.execute(f'select "{service}".grant_service($1)', role)
    finally:
        await connection.close()
