"""The two commands of every service: `serve` and `migrate`."""

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from kit.migrations import migrate
from kit.observe import configure
from kit.settings import DatabaseSettings, Settings

S = TypeVar("S", bound=Settings)


def run(
    service: str, settings_of: type[S], build: Callable[[S], FastAPI], *, append_only: tuple[str, ...] = ()
) -> None:
    """`python -m SERVICE serve|migrate`. Bad settings end with status 2 and a line per mistake."""
    parser = argparse.ArgumentParser(prog=f"python -m {service}", description=f"Hallmark's {service} service")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="HTTP, consumers and relay in one process")
    commands.add_parser("migrate", help="bring the database schema to the newest revision")
    given = parser.parse_args()
    try:
        if given.command == "migrate":
            _migrate(service, build, DatabaseSettings(), append_only)
            return
        settings = settings_of()
    except ValidationError as error:
        lines = [f"HALLMARK_{str((e['loc'] or ('SETTINGS',))[0]).upper()}: {e['msg']}" for e in error.errors()]
        parser.exit(2, "\n".join(["settings are wrong:", *lines, ""]))
    configure(settings, service)
    asyncio.run(_serve(settings, build))


def _migrate(
    service: str, build: Callable[[S], FastAPI], settings: DatabaseSettings, append_only: tuple[str, ...]
) -> None:
    module = sys.modules[build.__module__].__file__
    assert module is not None
    admin = settings.admin_database_url
    migrate(
        service,
        Path(module).parent / "migrations",
        database_url=settings.database_url.get_secret_value(),
        admin_database_url=admin.get_secret_value() if admin else None,
        append_only=append_only,
    )
    sys.stdout.write(f"{service}: schema is up to date\n")


async def _serve(settings: S, build: Callable[[S], FastAPI]) -> None:
    config = uvicorn.Config(
        build(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        timeout_graceful_shutdown=int(settings.graceful_seconds),
        server_header=False,
    )
    server = uvicorn.Server(config)
    await server.serve()
    if not server.started:
        sys.exit(1)
