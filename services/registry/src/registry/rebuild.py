"""`python -m registry rebuild`: folds every view anew from the events while the service runs, and compares (law 2).

The new views are folded in temporary tables, beside the running service. Only at the end do writers wait, while the
last events are folded and both are compared; tables that differ are replaced in that same transaction, so that
readers see the old views or the new ones, never a mixture.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.db import Database, digests
from kit.events import EventLog
from kit.main import Command
from registry import views
from registry.settings import RegistrySettings
from registry.tables import VIEWS, event_log, t

TEMPORARY = "pg_temp"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Rebuilt:
    """`differing` are the tables that were not what their events say; they are now. `digests` are those of the end."""

    events: int
    differing: tuple[str, ...]
    digests: dict[str, str]
    seconds: float


def to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")


async def rebuild(db: Database, log: EventLog, progress: Progress = to_stderr) -> Rebuilt:
    started = time.monotonic()
    heads: dict[str, int] = {}
    async with db.engine.connect() as plain:
        beside = await plain.execution_options(schema_translate_map={"registry": TEMPORARY})
        try:
            async with beside.begin():
                await _create(beside)
                async with db.snapshot() as reader:
                    count = await _fold(log, reader, beside, heads, progress)
            async with beside.begin():
                # Writers wait at their outbox row; those that were before us are waited for.
                await beside.execute(sa.text("lock table registry.outbox in share mode"))
                async with db.snapshot() as reader:
                    count += await _fold(log, reader, beside, heads, progress)
                names = [t(row).name for row in VIEWS]
                old, new = await digests(beside, "registry", names), await digests(beside, TEMPORARY, names)
                differing = tuple(name for name in old if old[name] != new[name])
                for name in differing:
                    await _replace(beside, name)
        finally:
            await plain.invalidate()  # with it the temporary tables go
    return Rebuilt(count, differing, new, round(time.monotonic() - started, 3))


async def _create(beside: AsyncConnection) -> None:
    for row in VIEWS:
        name = t(row).name
        await beside.execute(sa.text(f'create temporary table "{name}" (like registry."{name}" including indexes)'))


async def _fold(
    log: EventLog, reader: AsyncConnection, beside: AsyncConnection, heads: dict[str, int], progress: Progress
) -> int:
    """Folds what is not folded yet. Positions become visible out of order, sequences do not: they say what is new.

    Streams do not depend on each other, so that their order does not matter.
    """
    event, count = log.tables.event, 0
    ends = await reader.execute(sa.select(event.c.stream, sa.func.max(event.c.sequence)).group_by(event.c.stream))
    moved = [stream for stream, end in ends if heads.get(stream, 0) < end]
    for stream in moved if heads else [None]:
        async for envelope in log.read(reader, stream=stream):
            assert envelope.sequence is not None
            if envelope.sequence <= heads.get(envelope.key, 0):
                continue
            await views.project(beside, envelope)
            heads[envelope.key] = envelope.sequence
            count += 1
            if count % 5_000 == 0:
                progress(f"{count} events folded")
    return count


async def _replace(beside: AsyncConnection, name: str) -> None:
    await beside.execute(sa.text(f'delete from registry."{name}"'))  # noqa: S608
    await beside.execute(sa.text(f'insert into registry."{name}" select * from {TEMPORARY}."{name}"'))  # noqa: S608


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the result as JSON on standard output")


async def _command(settings: RegistrySettings, given: argparse.Namespace) -> int:
    url = settings.database_url.get_secret_value()
    # A digest of a large table takes longer than a statement of the service may.
    db = Database(url, name="registry-rebuild", pool=2, statement_timeout_ms=3_600_000)
    try:
        found = await rebuild(db, event_log())
    finally:
        await db.close()
    if given.json:
        sys.stdout.write(json.dumps(asdict(found)) + "\n")
        return 0
    wrong = ", ".join(found.differing)
    verdict = f"differed and were replaced: {wrong}" if wrong else "every view is what its events say"
    sys.stdout.write(f"{found.events} events folded in {found.seconds} s; {verdict}\n")
    return 0


COMMAND = Command("rebuild", "fold every view anew from the events, and compare", _arguments, _command)
