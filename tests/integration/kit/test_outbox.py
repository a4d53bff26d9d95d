"""Append and relay: nothing committed is lost, whatever the order of commits and whoever crashes when."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from aiokafka import AIOKafkaProducer
from tests.integration.kit.conftest import Place
from tests.integration.kit.support import SCHEMA, Noted, Store, cause, sessions, terminate
from tests.support.waiting import until

from contracts.envelope import Envelope
from kit.events import Conflict, New
from kit.outbox import Relay
from kit.tasks import cancel


async def published(place: Place) -> list[str]:
    return [record.header("ce_id") for record in await place.eyes.read()]


async def drained(store: Store, seconds: float = 60.0) -> None:
    async def empty() -> bool:
        return await store.count("outbox") == 0

    await until(empty, seconds, "an empty outbox")


async def test_a_commit_wakes_the_relay(place: Place) -> None:
    """The poll is the guarantee; at 30 s it could not be what published this."""
    place.run(place.relay(poll_seconds=30.0))
    await until_leading(place)
    await place.store.append("default/a", "1")  # may fall into the start
    await drained(place.store)
    for n in range(3):
        await place.store.append("default/a", str(n))
        await drained(place.store, 20)


async def until_leading(place: Place) -> None:
    async def leading() -> bool:
        return bool(await sessions(place.store.url, f"{SCHEMA}-relay"))

    await until(leading, what="a relay's session")


async def test_a_rolled_back_transaction_leaves_nothing_and_wakes_nobody(store: Store) -> None:
    with pytest.raises(RuntimeError, match="changed my mind"):
        async with store.db.transaction() as tx:
            await store.log().append(tx, "default/a", 0, [New(Noted(), "default/a")], cause())
            raise RuntimeError("changed my mind")
    assert await store.count("event") == await store.count("outbox") == 0
    assert not store.db.appended.is_set()
    async with store.db.transaction() as tx:  # the same pooled connection, nothing appended this time
        await tx.execute(sa.text("select 1"))
    assert not store.db.appended.is_set()
    await store.append()
    assert store.db.appended.is_set()


async def test_two_writers_of_one_stream_cannot_both_win(store: Store) -> None:
    log = store.log()
    async with store.db.transaction() as tx:
        await log.append(tx, "default/a", 0, [New(Noted(), "default/a")], cause())
    with pytest.raises(Conflict):
        async with store.db.transaction() as tx:
            await log.append(tx, "default/a", 0, [New(Noted(), "default/a")], cause())
    assert await store.appended() == {"default/a": [1]}
    assert await store.count("outbox") == 1


async def test_the_lock_lines_writers_up(store: Store) -> None:
    await asyncio.gather(*(store.append("default/a", "x") for _ in range(10)))
    assert await store.appended() == {"default/a": list(range(1, 11))}


async def test_ids_that_become_visible_out_of_order_are_all_published(place: Place) -> None:
    """Identity values are taken at insert and seen at commit: a relay with a cursor would pass the late one."""
    store, log = place.store, place.store.log()
    place.run(place.relay())
    inserted, commit = asyncio.Event(), asyncio.Event()

    async def linger() -> list[Envelope]:
        async with store.db.transaction() as tx:
            made = await log.append(tx, "default/slow", 0, [New(Noted(), "default/slow")], cause())
            inserted.set()
            await commit.wait()
        return made

    slow = asyncio.create_task(linger())
    await inserted.wait()
    quick = await store.append("default/quick", "1", "2")

    async def passed() -> bool:
        return len(await published(place)) == 2

    await until(passed)
    commit.set()
    (late,) = await slow
    await drained(store)
    assert sorted(await published(place)) == sorted([late.id, *(e.id for e in quick)])


async def test_what_is_published_is_what_was_appended(place: Place) -> None:
    (envelope,) = await place.store.append("default/a", "Ünï ☃")
    place.run(place.relay())
    await drained(place.store)
    (record,) = await place.eyes.read()
    assert record.key == b"default/a"
    assert record.value == envelope.value
    assert list(record.headers) == envelope.headers()
    async with place.store.db.snapshot() as tx:
        (again,) = [e async for e in place.store.log().read(tx)]
    assert again == envelope
    assert again.headers() == envelope.headers(), "a republished record has the same bytes"


async def test_a_long_outbox_goes_out_page_by_page_in_order(place: Place) -> None:
    for _ in range(3):
        await place.store.append("default/a", *(str(n) for n in range(400)))
    place.run(place.relay())
    await drained(place.store)
    records = await place.eyes.read()
    assert [int(record.header("ce_sequence")) for record in records] == list(range(1, 1201))


class Crashing(Relay):
    """Fails between the broker's acknowledgement and the deletion, as a killed process would."""

    crashes = 3

    async def _acknowledged(self, *arguments: Any) -> None:
        if self.crashes:
            self.crashes -= 1
            raise ConnectionError("killed")
        await super()._acknowledged(*arguments)


async def test_a_crash_between_send_and_delete_repeats_and_loses_nothing(place: Place) -> None:
    await place.store.append("default/a", "1", "2", "3")
    await place.project(place.store.note)
    relay = place.relay(Crashing)
    place.run(relay)
    await drained(place.store)
    assert isinstance(relay, Crashing)
    assert relay.crashes == 0
    assert len(await place.eyes.read()) == 12, "each crash sent the page again"
    await place.store.append("default/a", "4")

    async def all_seen() -> bool:
        return (await place.store.effects()).get("default/a", [])[-1:] == [4]

    await until(all_seen)
    assert await place.store.effects() == {"default/a": [1, 2, 3, 4]}


async def test_a_relay_cancelled_between_send_and_delete(place: Place) -> None:
    """The same, with the task cut off and another one started."""
    sent = asyncio.Event()

    class Held(Relay):
        async def _acknowledged(self, *arguments: Any) -> None:
            sent.set()
            await asyncio.Event().wait()

    await place.store.append("default/a", "1", "2", "3")
    await place.project(place.store.note)
    first = place.run(place.relay(Held))
    await asyncio.wait_for(sent.wait(), 30)
    await cancel([first])
    assert await place.store.count("outbox") == 3
    place.run(place.relay())
    await drained(place.store)
    await place.store.append("default/a", "4")

    async def all_seen() -> bool:
        return (await place.store.effects()).get("default/a", [])[-1:] == [4]

    await until(all_seen)
    assert await place.store.effects() == {"default/a": [1, 2, 3, 4]}
    assert len(await place.eyes.read()) == 7


async def test_of_two_relays_one_leads_and_the_other_takes_over(place: Place) -> None:
    """Two that publish at once repeat and reorder (385 inversions were measured with SKIP LOCKED)."""
    led: list[str] = []

    def named(name: str) -> type[Relay]:
        class Named(Relay):
            async def _page(self, session: asyncpg.Connection, producer: AIOKafkaProducer) -> int:
                published = await super()._page(session, producer)
                led.extend([name] * bool(published))
                return published

        return Named

    tasks = {name: place.run(place.relay(named(name), db=place.store.database())) for name in ("a", "b")}

    async def two_sessions() -> bool:
        return len(await sessions(place.store.url, f"{SCHEMA}-relay")) == 2

    await until(two_sessions)
    for n in range(20):
        await place.store.append(f"default/{n % 3}", str(n))
    await drained(place.store)
    assert len(set(led)) == 1
    assert len(await place.eyes.read()) == 20, "nothing twice"
    leader = led[0]
    await cancel([tasks[leader]])
    await place.store.append("default/0", "x")
    await drained(place.store)
    assert led[-1] != leader
    assert len(await place.eyes.read()) == 21


class Gate:
    """A producer that stands still before it sends, as a paused process does."""

    def __init__(self, producer: AIOKafkaProducer, entered: asyncio.Event, go_on: asyncio.Event) -> None:
        self._producer, self._entered, self._go_on = producer, entered, go_on

    async def send(self, *arguments: Any, **named: Any) -> Any:
        self._entered.set()
        await self._go_on.wait()
        return await self._producer.send(*arguments, **named)


async def test_a_zombie_relay_changes_no_view(place: Place) -> None:
    """Its lock's session is lost while it stands still with a page in hand; another relay publishes that page and
    more; then it wakes and sends its stale page. Views see each event once, in order, and nothing is deleted
    that was not published."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    class Zombie(Relay):
        @asynccontextmanager
        async def _producer(self) -> AsyncIterator[Any]:
            async with super()._producer() as producer:
                yield Gate(producer, entered, go_on)

    store = place.store
    await store.append("default/a", "1", "2")
    await store.append("default/b", "1")
    place.run(place.relay(Zombie, db=store.database()))
    await asyncio.wait_for(entered.wait(), 30)
    (session,) = await sessions(store.url, f"{SCHEMA}-relay")
    await terminate(store.url, session)
    await place.project(store.note)
    healthy = place.run(place.relay())
    await drained(store)
    await store.append("default/a", "3")
    await drained(store)
    await cancel([healthy])
    await store.append("default/a", "4")
    go_on.set()  # the zombie sends 1, 2, 1 behind 3, fails to delete, starts again and publishes 4
    await drained(store)

    async def all_seen() -> bool:
        return (await store.effects()).get("default/a", [])[-1:] == [4]

    await until(all_seen)
    assert await store.effects() == {"default/a": [1, 2, 3, 4], "default/b": [1]}
    sequences = [int(r.header("ce_sequence")) for r in await place.eyes.read() if r.key == b"default/a"]
    assert sequences == [1, 2, 3, 1, 2, 4], "the zombie did send"


async def test_the_zombie_deletes_nothing_after_its_lock_is_lost(place: Place) -> None:
    """Pages are deleted through the session that holds the lock."""
    sent, go_on = asyncio.Event(), asyncio.Event()
    outcomes: list[BaseException | None] = []

    class Zombie(Relay):
        async def _acknowledged(self, *arguments: Any) -> None:
            if outcomes:
                return await super()._acknowledged(*arguments)
            sent.set()
            await go_on.wait()
            try:
                await super()._acknowledged(*arguments)
                outcomes.append(None)
            except BaseException as error:
                outcomes.append(error)
                raise

    store = place.store
    await store.append("default/a", "1")
    place.run(place.relay(Zombie))
    await asyncio.wait_for(sent.wait(), 30)
    (session,) = await sessions(store.url, f"{SCHEMA}-relay")
    await terminate(store.url, session)
    go_on.set()
    await drained(store)
    assert outcomes[0] is not None
    assert len(await place.eyes.read()) == 2
