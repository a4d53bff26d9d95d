"""A writer of the log in a process of its own: `python -m tests.support.appending`, settings in the environment.

It appends records 0 to COUNT-1 of partition PARTITION, a few at a time, and tries again until all are in. It says
`inside` on standard output each time that it has moved the head and not yet committed or (WHERE=copy) is in the middle
of copying the rows or (WHERE=load) holds the head and has sent one half of a statement; then it waits for a line.
"""

import asyncio
import os
import sys
from typing import Any

from audit import app, ledger, places
from audit.settings import AuditSettings
from contracts.envelope import Envelope
from contracts.notifier import SubscriptionRemoved
from contracts.topics import NOTIFIER_EVENTS
from kit.bus import Record
from kit.db import Database

STEP = 5


def made(count: int, partition: int) -> list[Record]:
    """The records of a partition, the same in every process."""
    found = []
    for n in range(count):
        message = SubscriptionRemoved(subscription_id=f"{partition}-{n}", removed_by="ana")
        key = f"default/m{partition}"
        sent = Envelope.of(message, source="hallmark/notifier", subject=key, key=key, sequence=n + 1)
        place = (NOTIFIER_EVENTS.name, partition, n, 1_763_640_000_000)
        found.append(Record(*place, key.encode(), (), sent.value))
    return found


async def pause() -> None:
    print("inside", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def move(*given: Any) -> Any:
    moved = await places.move(*given)
    if os.environ["WHERE"] == "idle":
        await pause()
    return moved


async def load(driver: Any) -> Any:
    if os.environ["WHERE"] == "load":
        await driver.prepare("select 'parsed, and never run'")
        await pause()
    return await places.load(driver)


class Watched(ledger.Ledger):
    async def _write(self, items: Any, written: Any, *, hold: bool = False) -> None:
        await super()._write(items, written, hold=hold or os.environ["WHERE"] == "load")

    async def _carry_out(self, driver: Any, batch: Any) -> None:
        await super()._carry_out(Slow(driver) if os.environ["WHERE"] == "copy" else driver, batch)


class Slow:
    """A connection that pauses while rows are on their way."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    async def copy_records_to_table(self, table: str, *, records: Any, **more: Any) -> Any:
        async def slowly() -> Any:
            for n, row in enumerate(records):
                if n == 1:
                    await pause()
                yield row

        return await self._driver.copy_records_to_table(table, records=slowly(), **more)


async def main() -> None:
    settings = AuditSettings()
    ledger.LIMIT = os.environ["LIMIT"]
    setattr(ledger, "move", move)  # noqa: B010 what a module imports is no part of its interface
    setattr(ledger, "load", load)  # noqa: B010
    db = Database(settings.database_url.get_secret_value(), name="appending")
    mine = Watched(db, app.archive_of(settings))
    records = made(int(os.environ["COUNT"]), int(os.environ["PARTITION"]))
    for start in range(0, len(records), STEP):
        while True:
            try:
                await mine.append(records[start : start + STEP])
                break
            except Exception as error:
                print(f"again {type(error).__name__}", flush=True)
    print("done", flush=True)
    await db.close()


if __name__ == "__main__":
    asyncio.run(main())
