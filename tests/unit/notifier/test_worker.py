"""The worker's loop without a database: it stops when it is told to, and finishes what it has begun."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kit.auth import Access
from notifier import endpoints, leasing, queue
from notifier.retrying import Schedule
from notifier.rights import Rights
from notifier.vault import Vault
from notifier.worker import Worker


class NoDatabase:
    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield None


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    async def nothing_due(*_: Any, **__: Any) -> list[Any]:
        return []

    async def nothing_open(*_: Any) -> tuple[int, float]:
        return 0, 0.0

    async def nothing_held(*_: Any) -> int:
        return 0

    monkeypatch.setattr(leasing, "lease", nothing_due)
    monkeypatch.setattr(queue, "backlog", nothing_open)
    monkeypatch.setattr(endpoints, "held", nothing_held)
    database: Any = NoDatabase()
    log: Any = None
    return Worker(
        database, log, {}, Vault(None), Rights(database, Access([])), Schedule((1.0,)), asyncio.Event(), poll_seconds=60
    )


async def test_a_wake_up_in_the_same_instant_does_not_swallow_the_stop(worker: Worker) -> None:
    for _ in range(20):
        task = asyncio.create_task(worker.run())
        await asyncio.sleep(0.001)  # it waits by then
        worker._wake.set()
        await asyncio.sleep(0)  # one turn of the loop: the wake-up is under way
        task.cancel()
        _, pending = await asyncio.wait([task], timeout=10)
        assert not pending, "the worker runs on"


async def test_what_is_under_way_is_finished_before_the_end(worker: Worker) -> None:
    finished = asyncio.Event()

    async def slow() -> None:
        await asyncio.sleep(0.05)  # still under way when the stop comes
        finished.set()

    task = asyncio.create_task(worker.run())
    await asyncio.sleep(0)  # it runs now
    worker._running[asyncio.create_task(slow())] = "s1"
    task.cancel()
    await asyncio.wait([task], timeout=10)
    assert finished.is_set()
