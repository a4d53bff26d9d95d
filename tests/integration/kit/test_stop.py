"""Stopping a service: what is in flight is finished or comes again; nothing is skipped."""

import asyncio
import time

from tests.integration.kit.conftest import Place
from tests.integration.kit.support import Given, Memory, event, given
from tests.support.waiting import until

from kit.bus import Record
from kit.errors import Transient


def numbered(*numbers: int) -> list[Given]:
    return [given(event(None, text=str(n))) for n in numbers]


async def test_a_stop_lets_the_record_in_flight_finish(place: Place) -> None:
    """Without a graceful timeout the handler would be cut off in its middle."""
    entered, release = asyncio.Event(), asyncio.Event()

    async def act(record: Record) -> None:
        if record.offset == 1:
            entered.set()
            await release.wait()

    first = Memory(act)
    await place.eyes.produce(*numbered(0, 1, 2, 3))
    bus = await place.listen(first)
    await asyncio.wait_for(entered.wait(), 30)
    stopping = asyncio.create_task(bus.stop())
    (subscription,) = bus._subscriptions
    await until(lambda: subscription.interrupt.is_set() and not subscription.subscriber.running, what="stopping")
    assert not stopping.done()
    release.set()
    await stopping
    assert [record.offset for record in first.done] == [0, 1], "no new record is begun"
    assert await place.eyes.committed() == 2

    second = Memory()
    await place.listen(second)
    await until(lambda: len(second.done) == 2)
    assert [record.offset for record in second.calls] == [2, 3], "none repeated, none skipped"


async def test_a_handler_that_outlasts_the_grace_is_redelivered(place: Place) -> None:
    entered = asyncio.Event()

    async def act(record: Record) -> None:
        if record.offset == 1:
            entered.set()
            await asyncio.Event().wait()

    first = Memory(act)
    await place.eyes.produce(*numbered(0, 1, 2))
    bus = await place.listen(first, graceful_seconds=0.5)
    await asyncio.wait_for(entered.wait(), 30)
    began = time.monotonic()
    await bus.stop()
    assert time.monotonic() - began < 3
    assert await place.eyes.committed() == 1

    second = Memory()
    await place.listen(second)
    await until(lambda: len(second.done) == 2)
    assert [record.offset for record in second.calls] == [1, 2]


async def test_a_stop_ends_an_endless_retry_at_once(place: Place) -> None:
    async def act(record: Record) -> None:
        if record.offset == 1:
            raise Transient("the database is away")

    first = Memory(act)
    await place.eyes.produce(*numbered(0, 1, 2))
    bus = await place.listen(first)
    await until(lambda: len(first.calls) >= 4)  # the next pause is longer than a second
    began = time.monotonic()
    await bus.stop()
    assert time.monotonic() - began < 1, "it must not sit the pause out"
    assert await place.eyes.committed() == 1
    assert not await place.eyes.dead_letters()

    second = Memory()
    await place.listen(second)
    await until(lambda: len(second.done) == 2)
    assert [record.offset for record in second.calls] == [1, 2]


async def test_many_stops_and_starts_skip_nothing(place: Place) -> None:
    """Each start handles a little and is stopped in the middle of something."""
    total = 30
    await place.eyes.produce(*numbered(*range(total)))
    done: list[int] = []
    for stop_at in (1, 4, 9):

        async def act(record: Record) -> None:
            await asyncio.sleep(0.01)  # so that a stop meets it under way

        memory = Memory(act)
        bus = await place.listen(memory)
        await until(lambda memory=memory, stop_at=stop_at: len(memory.calls) >= stop_at)  # type: ignore[misc]
        await bus.stop()
        done += [record.offset for record in memory.done]
    last = Memory()
    await place.listen(last)
    await until(lambda: len(done) + len(last.done) == total)
    assert [*done, *(record.offset for record in last.done)] == list(range(total))
