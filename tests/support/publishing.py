"""A publisher that is killed at its n-th await: `python -m tests.support.publishing`, settings in the environment.

Each line on standard input is a number n: a child publishes the head and gets SIGKILL where any of its coroutines waits
for the n-th time. The answer, a line, is `killed`, or `done` when it never waited that often.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any

from audit import app
from audit.settings import AuditSettings
from audit.tables import mechanism
from audit.tlog.attesting import attestation_of
from audit.tlog.publisher import Publisher
from audit.tlog.signing import signer_of
from contracts.topics import AUDIT_EVENTS
from kit.db import Database
from kit.events import EventLog


class Countdown:
    """Counts the waits of all coroutines together."""

    def __init__(self, left: int) -> None:
        self._left = left

    @coroutine
    def watch(self, work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        sent, error = None, None
        while True:
            try:
                waiting = work.send(sent) if error is None else work.throw(error)
            except StopIteration as end:
                return end.value
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            sent, error = None, None
            try:
                sent = yield waiting
            except BaseException as thrown:
                error = thrown

    def factory(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> "asyncio.Task[Any]":
        return asyncio.Task(self.watch(work), loop=loop, **options)


async def publish(settings: AuditSettings, kill_at: int) -> None:
    asyncio.get_running_loop().set_task_factory(Countdown(kill_at).factory)
    await asyncio.create_task(_publish(settings))


async def _publish(settings: AuditSettings) -> None:
    db = Database(settings.database_url.get_secret_value(), name="publisher")
    events = EventLog(mechanism, topic=AUDIT_EVENTS.name, source="hallmark/audit")
    archive, signer = app.archive_of(settings), signer_of(settings)
    given = attestation_of(settings, archive)
    publisher = Publisher(db, events, archive, signer, every_seconds=1, publish_seconds=0, attestation=given)
    await archive.ready()
    await publisher.announce(await publisher.current())


def main() -> None:
    settings = AuditSettings()
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(publish(settings, int(line)))
                os._exit(0)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            print("killed", flush=True)
        else:
            print("done" if os.WEXITSTATUS(status) == 0 else "failed", flush=True)


if __name__ == "__main__":
    main()
