"""A writer of the log in a process of its own: `python -m tests.support.appending`, settings in the environment.

It appends records 0 to COUNT-1 of partition PARTITION, a few at a time, and tries again until all are in. It says
`inside` on standard output each time that it has moved the head and not yet committed; then it waits for a line.
"""

import asyncio
import os
import sys
from typing import Any

from audit import app, ledger
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


class Watched(ledger.Ledger):
    async def _move(self, *given: Any) -> bool:
        moved = await super()._move(*given)
        print("inside", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        return moved


async def main() -> None:
    settings = AuditSettings()
    ledger.LIMIT = os.environ["LIMIT"]
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
