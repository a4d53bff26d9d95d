"""Databases with a service's schema. The run migrates one per service; every other is a copy of it, which is ready in a
tenth of the time."""

import asyncio
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from embedded.fixtures import new_database, run
from kit.migrations import migrate

_LOCK = 0x7465_7374  # of the cluster's database `postgres`: the workers of a run share the server


def role_url(database: str, role: str) -> str:
    """The same database by that service's own role, `hallmark_registry` for the registry."""
    parts = urlsplit(database)
    return parts._replace(netloc=f"hallmark_{role}:test@{parts.hostname}:{parts.port}").geturl()


def migrate_service(service: str, database: str) -> None:
    """Brings the database, given by the superuser's URL, to the service's newest schema."""
    directory = importlib.import_module(service).__file__
    assert directory is not None
    url = role_url(database, service)
    migrate(service, Path(directory).parent / "migrations", database_url=url, admin_database_url=database)


@contextmanager
def migrated_database(postgres: str, service: str, by: Callable[[str], None] | None = None) -> Iterator[str]:
    """The superuser's URL of a new database with the service's schema, dropped at the end. `by` migrates the first."""
    with new_database(postgres, _template(postgres, service, by or partial(migrate_service, service))) as database:
        yield database


@cache
def _template(postgres: str, service: str, by: Callable[[str], None]) -> str:
    name = f"template_{service}"
    run(_make(postgres, name, by))
    return name


async def _make(postgres: str, name: str, by: Callable[[str], None]) -> None:
    """Under another name until it is whole: a worker that is killed meanwhile leaves nothing that is taken for it."""
    admin = await asyncpg.connect(postgres)
    try:
        await admin.execute(f"select pg_advisory_lock({_LOCK})")
        if not await admin.fetchval("select 1 from pg_database where datname = $1", name):
            await admin.execute(f"drop database if exists {name}_raw with (force)")
            await admin.execute(f"create database {name}_raw")
            await asyncio.to_thread(by, urlsplit(postgres)._replace(path=f"/{name}_raw").geturl())
            await admin.execute(f"alter database {name}_raw rename to {name}")
    finally:
        await admin.close()
