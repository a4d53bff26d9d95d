"""The commands of every service, `serve` and `migrate`, and those of its own."""

import argparse
import asyncio
import gc
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from kit.loop import run_loop
from kit.migrations import migrate
from kit.observe import configure
from kit.settings import DatabaseSettings, ProcessSettings, Settings
from kit.web import stopping

S = TypeVar("S", bound=Settings)
P = TypeVar("P", bound=ProcessSettings)
T = TypeVar("T")


@dataclass(frozen=True)
class Command(Generic[P]):
    """`python -m SERVICE NAME`: `arguments` declares its options, `work` does it and gives the exit status.

    `settings`: what it reads instead of the service's own settings, for a process that must not know them all.
    """

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    work: Callable[[P, argparse.Namespace], Coroutine[Any, Any, int]]
    settings: type[P] | None = None


def run(
    service: str,
    settings_of: type[S],
    build: Callable[[S], FastAPI],
    *,
    append_only: tuple[str, ...] = (),
    commands: Sequence[Command[Any]] = (),
    keeps_people: bool = False,
) -> None:
    """`python -m SERVICE serve|migrate|...`. Bad settings end with status 2 and a line per mistake.

    `keeps_people`: the vault of identities is in its database.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {service}", description=f"Hallmark's {service} service")
    parsers = parser.add_subparsers(dest="command", required=True)
    parsers.add_parser("serve", help="HTTP, consumers and relay in one process")
    parsers.add_parser("migrate", help="bring the database schema to the newest revision")
    for command in commands:
        command.arguments(parsers.add_parser(command.name, help=command.help))
    given = parser.parse_args()
    if given.command == "migrate":
        _migrate(service, build, _read(parser, DatabaseSettings), append_only, keeps_people=keeps_people)
        return
    for command in commands:
        if command.name == given.command:
            own = _read(parser, command.settings or settings_of)
            configure(own, service)
            sys.exit(asyncio.run(command.work(own, given)))
    settings = _read(parser, settings_of)
    configure(settings, service)
    run_loop(_serve(settings, build))


def _read(parser: argparse.ArgumentParser, settings_of: Callable[[], T]) -> T:
    try:
        return settings_of()
    except ValidationError as error:
        lines = [f"HALLMARK_{str((e['loc'] or ('SETTINGS',))[0]).upper()}: {e['msg']}" for e in error.errors()]
        parser.exit(2, "\n".join(["settings are wrong:", *lines, ""]))


def duration(text: str) -> timedelta:
    """`90s`, `15m`, `24h` or `7d`, for options.

    Raises:
        argparse.ArgumentTypeError: it is none of these.
    """
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    if text[-1:] not in units or not text[:-1].isdecimal() or len(text) > 7:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90s, 15m, 24h or 7d")
    return timedelta(**{units[text[-1]]: int(text[:-1])})


def _migrate(
    service: str,
    build: Callable[[S], FastAPI],
    settings: DatabaseSettings,
    append_only: tuple[str, ...],
    *,
    keeps_people: bool,
) -> None:
    module = sys.modules[build.__module__].__file__
    assert module is not None
    admin = settings.admin_database_url
    people = settings.people_database_url if keeps_people else None
    migrate(
        service,
        Path(module).parent / "migrations",
        database_url=settings.database_url.get_secret_value(),
        admin_database_url=admin.get_secret_value() if admin else None,
        append_only=append_only,
        people_database_url=people.get_secret_value() if people else None,
    )
    sys.stdout.write(f"{service}: schema is up to date\n")


class Server(uvicorn.Server):
    """uvicorn tells the application of its end only after the open answers have ended; endless ones never would."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        stopping(self._app)
        await super().shutdown(sockets)


def spare_garbage_collection() -> None:
    """What is there now stays, and records come by the thousand: Python's thresholds would look at all of them again
    and again, and find nothing."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


async def _serve(settings: S, build: Callable[[S], FastAPI]) -> None:
    app = build(settings)
    spare_garbage_collection()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        timeout_graceful_shutdown=int(settings.graceful_seconds),
        server_header=False,
    )
    server = Server(app, config)
    await server.serve()
    if not server.started:
        sys.exit(1)
