"""Liveness looks at the consumer: the broker's ping stays green with a dead one."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.integration.kit.conftest import Place
from tests.integration.kit.support import TOPIC, Memory, MemoryOfMany, Store, create_topics, event, given
from tests.support.waiting import until

from embedded.fixtures import Kafka
from embedded.kafka import tansu
from embedded.ports import free_port
from kit import bus as bus_module
from kit import pulse
from kit.bus import Bus, Record
from kit.errors import Transient

STALE = 1.5


@pytest.fixture(autouse=True)
def _soon_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "STALE_AFTER_SECONDS", STALE)


def alive(bus: Bus) -> bool:
    return bool(bus.health()[TOPIC.name]["alive"])


async def stays_alive(bus: Bus, seconds: float) -> None:
    """Looks all that time: what must not come has no moment to wait for."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        assert alive(bus), bus.health()
        await asyncio.sleep(0.05)


async def test_an_idle_consumer_is_alive(place: Place) -> None:
    bus = await place.listen(Memory())
    await until(lambda: bus.health()[TOPIC.name]["partitions"] == 2)
    await stays_alive(bus, 2 * STALE)


async def test_who_gets_no_partition_stands_by_alive_and_takes_over(place: Place) -> None:
    """Two members of a group whose topic has two partitions, and a third."""
    buses = [await place.listen(Memory(), instance=f"member{n}") for n in range(3)]

    def shares() -> list[int]:
        return sorted(bus.health()[TOPIC.name]["partitions"] for bus in buses)

    await until(lambda: shares() == [0, 1, 1], 60)
    (spare,) = [bus for bus in buses if not bus.health()[TOPIC.name]["partitions"]]
    await until(lambda: spare.health()[TOPIC.name]["standby"], 60)
    await stays_alive(spare, 2 * STALE)
    buses.remove(spare)
    (subscription,) = spare._subscriptions
    for task in subscription.subscriber.tasks:
        task.cancel()
    await until(lambda: not alive(spare), 3 * STALE)


async def test_a_busy_consumer_is_alive(place: Place) -> None:
    async def act(record: Record) -> None:
        await asyncio.sleep(0.05)  # its work

    memory = Memory(act)
    bus = await place.listen(memory)
    await until(lambda: bus.health()[TOPIC.name]["partitions"] == 2)
    await place.eyes.produce(*(given(event(None), partition=n % 2) for n in range(50)))
    await until(lambda: memory.calls)
    await stays_alive(bus, 2 * STALE)


async def test_a_consumer_stopped_behind_its_back_is_dead(place: Place) -> None:
    bus = await place.listen(Memory())
    await until(lambda: bus.health()[TOPIC.name]["partitions"] == 2)
    (subscription,) = bus._subscriptions
    await subscription.subscriber.consumer.stop()
    await until(lambda: not alive(bus), 3 * STALE)
    assert await bus.broker.ping(2), "which is why the ping is not asked"


async def test_a_consumer_whose_loop_ended_is_dead(place: Place) -> None:
    """aiokafka goes on fetching in the background; nobody takes what it brings."""
    bus = await place.listen(Memory())
    await until(lambda: bus.health()[TOPIC.name]["partitions"] == 2)
    (subscription,) = bus._subscriptions
    for task in subscription.subscriber.tasks:
        task.cancel()
    await until(lambda: not alive(bus), 3 * STALE)


async def test_a_handler_that_hangs_is_dead(place: Place) -> None:
    async def act(record: Record) -> None:
        await asyncio.Event().wait()

    memory = Memory(act)
    bus = await place.listen(memory, graceful_seconds=0.2)
    await place.eyes.produce(given(event(None)))
    await until(lambda: memory.calls)
    await until(lambda: not alive(bus), 3 * STALE)


async def test_waiting_for_the_database_is_no_reason_to_die(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart would not bring PostgreSQL back; all services would restart in circles."""
    monkeypatch.setattr(bus_module, "MAX_BACKOFF_SECONDS", 0.5)

    async def act(record: Record) -> None:
        raise Transient("the database is away")

    memory = Memory(act)
    await place.eyes.produce(*(given(event(None), partition=n % 2) for n in range(4)))  # both partitions are full
    bus = await place.listen(memory)
    await until(lambda: memory.calls)
    await stays_alive(bus, 2.5 * STALE)


async def test_a_long_batch_that_goes_on_one_by_one_is_alive(place: Place) -> None:
    async def many(records: Sequence[Record]) -> None:
        raise Transient("the batch is too much for the database")

    async def act(record: Record) -> None:
        await asyncio.sleep(0.05)  # its work, which `total` counts on

    memory, total = MemoryOfMany(many, act), int(4 * STALE / 0.05)
    await place.eyes.produce(*(given(event(None), partition=n % 2) for n in range(total)))
    bus = await place.listen_many(memory)
    await until(lambda: memory.calls)
    await stays_alive(bus, 2.5 * STALE)
    assert max(len(batch) for batch in memory.batches) * 0.05 > STALE, "one batch took longer than that"


async def test_a_batch_that_hangs_is_dead(place: Place) -> None:
    async def many(records: Sequence[Record]) -> None:
        await asyncio.Event().wait()

    memory = MemoryOfMany(many)
    bus = await place.listen_many(memory, graceful_seconds=0.2)
    await place.eyes.produce(given(event(None)))
    await until(lambda: memory.batches)
    await until(lambda: not alive(bus), 3 * STALE)


async def test_a_broker_that_is_gone_for_long_and_comes_back(store: Store, tmp_path: Path) -> None:
    broker = tansu(free_port(), tmp_path / "tansu.log")
    await asyncio.to_thread(broker.start)
    place = Place(store, Kafka(f"127.0.0.1:{broker.port}", "tansu"), "")
    try:
        await create_topics(place.kafka.bootstrap, "")
        memory = Memory()
        bus = await place.listen(memory)
        await until(lambda: bus.health()[TOPIC.name]["partitions"] == 2)
        assert alive(bus)
        await asyncio.to_thread(broker.kill)
        await until(lambda: not alive(bus), 4 * STALE)
        await asyncio.to_thread(broker.start)
        await create_topics(place.kafka.bootstrap, "")
        await place.eyes.produce(given(event(None)))
        await until(lambda: memory.done)
        await until(lambda: alive(bus))
    finally:
        await place.close()
        await asyncio.to_thread(broker.stop)


async def test_a_consumer_that_is_no_member_says_so(place: Place) -> None:
    """It never joined: not ready, and after a while not alive, for it does nothing."""
    bus = place.bus()
    bus.subscribe(TOPIC, Memory())
    health: dict[str, Any] = bus.health()[TOPIC.name]
    assert (health["partitions"], health["standby"]) == (0, False)
    assert health["alive"]
    await until(lambda: not alive(bus), 3 * STALE)
