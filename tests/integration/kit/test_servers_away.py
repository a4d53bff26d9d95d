"""PostgreSQL or the broker is killed with -9 and comes back; the broker with nothing in its memory."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.integration.kit.conftest import Place
from tests.integration.kit.support import TOPIC, Eyes, Noted, Store, Unreadable, cause, create_topics, event, given
from tests.support.waiting import until

from contracts.envelope import Envelope
from contracts.topics import REGISTRY_EVENTS
from embedded.fixtures import Kafka
from embedded.kafka import tansu
from embedded.ports import free_port
from embedded.postgres import admin_url, postgres
from embedded.process import Child, StartError
from kit import bus as bus_module
from kit.bus import Bus
from kit.consume import Ordered
from kit.errors import is_transient
from kit.events import New
from kit.outbox import Relay
from kit.tasks import cancel
from kit.topics import apply_topics


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[Child]:
    for _ in range(3):  # another run of tests may take the port that was free
        child = postgres(tmp_path / "postgres", free_port(), "test", tmp_path / "postgres.log", fsync=False)
        with suppress(StartError):
            child.start()
            break
    yield child
    child.stop()


async def test_postgresql_is_killed_and_comes_back(
    own_postgres: Child, kafka: Kafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "MAX_BACKOFF_SECONDS", 1.0)
    store = await Store.make(admin_url(own_postgres.port, "test"))
    await create_topics(kafka.bootstrap, topic_prefix)
    place = Place(store, kafka, topic_prefix)
    try:
        place.run(place.relay())
        bus = await place.project(store.note)
        await store.append("default/a", "1", "2")
        await seen(store, {"default/a": [1, 2]})

        own_postgres.kill()
        with pytest.raises(Exception) as caught:  # noqa: PT011  # which one depends on the moment
            await store.append("default/a", "lost")
        assert is_transient(caught.value)
        await place.eyes.produce(given(event(1, stream="default/b"), partition=1))  # somebody else's event
        (subscription,) = bus._subscriptions
        await until(lambda: not subscription._idle.is_set(), what="the consumer met the outage")
        before = retries()
        await until(lambda: retries() > before, what="it tried again")
        own_postgres.start()

        await until_works(lambda: store.append("default/a", "3"))
        await seen(store, {"default/a": [1, 2, 3], "default/b": [1]})
        assert await store.appended() == {"default/a": [1, 2, 3]}
        assert not await place.eyes.dead_letters(), "an outage parks nothing"
    finally:
        await place.close()
        await store.close()


def retries() -> float:
    labels = {"service": "kit", "topic": TOPIC.name}
    return REGISTRY.get_sample_value("hallmark_consumer_retries_total", labels) or 0.0


async def until_works(work: Any) -> None:
    async def works() -> bool:
        try:
            await work()
        except (OSError, asyncpg.PostgresError, Exception) as error:
            assert is_transient(error)
            return False
        return True

    await until(works)


async def seen(store: Store, expected: dict[str, list[int]]) -> None:
    async def reached() -> bool:
        return {stream: len(s) for stream, s in (await store.effects()).items()} == {
            stream: len(s) for stream, s in expected.items()
        }

    try:
        await until(reached)
    except AssertionError:  # say what is there instead
        assert await store.effects() == expected, f"{await store.count('outbox')} in the outbox"
        raise
    assert await store.effects() == expected


class House:
    """A relay and a consumer around a Tansu of their own, as `hallmark up` runs them: topics are remade."""

    def __init__(self, store: Store, broker: Child) -> None:
        self.store, self.broker = store, broker
        self.eyes = Eyes(f"127.0.0.1:{broker.port}", "")
        self.place = Place(store, Kafka(self.eyes.bootstrap, "tansu"), "")
        self.log = store.log(REGISTRY_EVENTS.name)
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()

    async def start(self) -> None:
        relay = Relay(
            self.store.db,
            self.log,
            bootstrap=self.eyes.bootstrap,
            idempotence=False,
            create_topics=True,
            poll_seconds=0.05,
            check_seconds=0.2,
        )
        self.place.run(relay)
        await until(self.knows_topics)
        self.bus = Bus(self.place.settings(), "audit")
        self.place.buses.append(self.bus)
        self.bus.subscribe(
            REGISTRY_EVENTS, Ordered(self.store.db, self.store.inbox, self.bus, REGISTRY_EVENTS, self.apply)
        )
        await self.bus.start()

    async def knows_topics(self) -> bool:
        try:
            await self.eyes.read(REGISTRY_EVENTS.name)
        except Exception:
            return False
        return True

    async def apply(self, tx: AsyncConnection, envelope: Envelope) -> None:
        self.entered.set()
        await self.gate.wait()
        await self.store.note(tx, envelope)

    async def append(self, *streams: str) -> None:
        for stream in streams:
            async with self.store.db.transaction() as tx:
                last = await self.log.lock(tx, stream)
                await self.log.append(tx, stream, last, [New(Noted(text=str(last)), stream)], cause())

    async def complete(self) -> None:
        """Every view shows exactly what was appended, in order.

        Tansu, killed and started under load, may come back dead inside: it acknowledges, says how far its log goes,
        and gives nothing of it to anybody (seen 2 times in 20 on a busy machine). Then it is killed once more, which
        is all that one can do; what a sound broker holds must arrive without help.
        """
        try:
            await seen(self.store, await self.store.appended())
        except AssertionError:
            try:
                topic: dict[str, list[str]] = {}
                for r in await self.eyes.read(REGISTRY_EVENTS.name):
                    stream = f"{r.partition}:{r.header('ce_partitionkey')}"
                    topic.setdefault(stream, []).append(f"{r.header('ce_sequence')}@{r.offset}")
            except Unreadable as error:
                sys.stderr.write(f"the broker is dead inside: {error}\n")
                await self.forget()
                await seen(self.store, await self.store.appended())
            else:
                sys.stderr.write(f"{await self.store.count('early')} early; on the topic: {topic}\n")
                raise
        assert await self.store.count("early") == 0

    async def forget(self) -> None:
        """kill -9, and back on the same port with an empty memory. As `hallmark up` sees to it, nobody asks for a topic
        before it is made: this loop stands still meanwhile."""

        def back() -> None:
            self.broker.start()
            asyncio.run(apply_topics(self.eyes.bootstrap))

        await asyncio.to_thread(self.broker.kill)
        with ThreadPoolExecutor(1) as thread:
            thread.submit(back).result()


@pytest.fixture
async def house(store: Store, tmp_path: Path) -> AsyncIterator[House]:
    broker = tansu(free_port(), tmp_path / "tansu.log")
    await asyncio.to_thread(broker.start)
    house = House(store, broker)
    await house.start()
    yield house
    house.gate.set()
    await house.place.close()
    await asyncio.to_thread(broker.stop)


async def test_a_broker_that_forgets_while_all_is_idle(house: House) -> None:
    await house.append("default/a", "default/b", "default/a", "default/c")
    await house.complete()
    await house.forget()

    async def republished() -> bool:
        return await house.knows_topics() and len(await house.eyes.read(REGISTRY_EVENTS.name)) >= 4

    await until(republished, what="nothing was appended, and still all is there again")
    await house.append("default/a", "default/d")
    await house.complete()
    assert {"default/a": [1, 2, 3], "default/d": [1]}.items() <= (await house.store.effects()).items()


async def test_a_topic_that_came_back_with_fewer_partitions(place: Place) -> None:
    """Tansu makes a topic with four partitions for whoever asks first; then marks of others would never be found."""
    async with place.store.db.transaction() as tx:
        await tx.execute(
            place.store.tables.mark.insert().values(
                topic=place.prefix + place.store.log().topic, partition=5, next_offset=3
            )
        )
    await place.store.append("default/a", "1", "2")
    place.run(place.relay(check_seconds=0.2))

    async def drained() -> bool:
        return await place.store.count("outbox") == 0 and len(await place.eyes.read()) >= 4

    await until(drained, 8)


async def test_a_broker_that_forgets_what_a_consumer_had_not_read(house: House) -> None:
    """It stands in the middle of a record, with more behind it, when the broker goes; then it acknowledges."""
    await house.append(*(f"default/{n % 3}" for n in range(12)))
    await house.complete()
    house.entered.clear()
    house.gate.clear()
    await house.append(*(f"default/{n % 3}" for n in range(12)))
    await asyncio.wait_for(house.entered.wait(), 30)

    async def published() -> bool:
        return await house.store.count("outbox") == 0

    await until(published)
    await house.forget()
    house.gate.set()
    await house.complete()
    await house.append("default/0", "default/9")
    await house.complete()


async def test_a_broker_that_forgets_in_the_middle_of_a_run(house: House) -> None:
    """Twice, while writers write."""

    written = 0

    async def write() -> None:
        nonlocal written
        for n in range(60):
            await house.append(f"default/{n % 4}")
            written = n + 1
            await asyncio.sleep(0.05)  # so that it still writes when the broker forgets

    writing = asyncio.create_task(write())
    for enough in (16, 32):
        await until(lambda enough=enough: written >= enough)  # type: ignore[misc]
        await house.forget()
    await writing
    await house.complete()
    assert sum(map(len, (await house.store.effects()).values())) == 60


async def test_a_broker_that_remembers_is_not_told_twice(place: Place) -> None:
    """A relay that starts again, or looks again, must not take a healthy broker for a forgetful one."""
    looks = 0

    class Looking(Relay):
        async def _forgot(self, marks: dict[tuple[str, int], int]) -> bool:
            nonlocal looks
            forgot = await super()._forgot(marks)
            looks += 1
            return forgot

    for _ in range(3):
        task = place.run(place.relay(Looking, check_seconds=0.0))
        await place.store.append("default/a", "x", "y")

        async def drained() -> bool:
            return await place.store.count("outbox") == 0

        await until(drained)
        before = looks
        await until(lambda before=before: looks >= before + 2, what="it looked at the end offsets")  # type: ignore[misc]
        await cancel([task])
    assert len(await place.eyes.read()) == 6


async def test_nothing_waits_while_the_relay_looks_whether_the_broker_forgot(place: Place) -> None:
    looking = asyncio.Event()

    class Slow(Relay):
        async def _forgot(self, marks: dict[tuple[str, int], int]) -> bool:
            if not marks:
                return await super()._forgot(marks)
            looking.set()
            return await asyncio.Event().wait()

    task = place.run(place.relay(Slow, check_seconds=0.0))
    await place.store.append("default/a", "x")
    await asyncio.wait_for(looking.wait(), 30)
    await place.store.append("default/a", "y")
    await until(lambda: _published(place, 2))
    await cancel([task])


async def _published(place: Place, count: int) -> bool:
    return len(await place.eyes.read()) >= count
