"""Many records in one call: a failure falls back to one by one, and nothing is acknowledged before all is settled."""

import asyncio
import itertools
from collections.abc import Sequence

import pytest
from prometheus_client import REGISTRY
from tests.integration.kit.conftest import Place
from tests.integration.kit.support import TOPIC, Given, Memory, MemoryOfMany, Noted, event, given
from tests.integration.kit.test_hostile import produce_with_binary_name
from tests.integration.kit.test_poison import BINARY_HEADER, NULL_HEADER, POISON, until_committed
from tests.support.waiting import until

from kit.bus import Bus, Record
from kit.errors import Permanent, Transient


def numbered(n: int, partition: int = 0, *extra: tuple[str, bytes | None]) -> Given:
    return given(event(None, text=f"{partition}-{n}"), partition=partition, extra=extra)


def both(count: int) -> list[Given]:
    """`count` records for each of the two partitions."""
    return [numbered(n, partition) for n in range(count) for partition in (0, 1)]


class Commands:
    """Applies commands to PostgreSQL, each once by its id, many in one transaction, and remembers the calls."""

    def __init__(self, place: Place) -> None:
        self._store = place.store
        self.batches: list[list[Record]] = []

    async def __call__(self, record: Record) -> None:
        await self.many([record])

    async def many(self, records: Sequence[Record]) -> None:
        self.batches.append(list(records))
        envelopes = [record.envelope() for record in records]
        async with self._store.db.transaction() as tx:
            for envelope in envelopes:
                if await self._store.inbox.once(tx, "kit", envelope.id):
                    envelope.payload(Noted)
                    await self._store.note(tx, envelope)

    async def parked(self, record: Record, error: Permanent) -> None:
        """Nobody is answered."""


async def applied(place: Place, records: Sequence[Given]) -> None:
    """Every good record had its effect once."""

    async def reached() -> bool:
        return await place.store.count("seen") >= len(records)

    await until(reached, what=f"{len(records)} effects")
    async with place.store.db.engine.connect() as connection:
        found = [row.id for row in await connection.execute(place.store.seen.select())]
    assert sorted(found) == sorted(r.header("ce_id") for r in records)


async def test_a_batch_is_one_call(place: Place) -> None:
    memory = MemoryOfMany()
    await place.eyes.produce(*both(25))
    await place.listen_many(memory, size=20)
    await until(lambda: len(memory.done) == 50)
    sizes = [len(batch) for batch in memory.batches]
    assert max(sizes) == 20, sizes
    assert not memory.calls, "nothing failed"
    assert memory.offsets(0) == memory.offsets(1) == list(range(25))
    for partition in (0, 1):
        await until_committed(place, 25, partition)


async def test_one_record_does_not_wait_for_company(place: Place) -> None:
    memory = MemoryOfMany()
    await place.listen_many(memory)
    for n in range(3):
        await place.eyes.produce(numbered(n))
        await until(lambda n=n: len(memory.done) == n + 1)  # type: ignore[misc]
    assert [len(batch) for batch in memory.batches] == [1, 1, 1]


async def test_a_batch_in_one_transaction(place: Place) -> None:
    handler, records = Commands(place), both(20)
    await place.eyes.produce(*records, records[0], records[7])  # two of them twice
    await place.listen_many(handler)
    await applied(place, records)
    assert max(len(batch) for batch in handler.batches) > 1
    await until_committed(place, 21, 0)


async def test_poison_in_the_middle_harms_no_neighbour(place: Place) -> None:
    handler, good = Commands(place), both(10)
    poison = [POISON["unknown-field"], POISON["null-id"], POISON["binary-body"]]
    await place.eyes.produce(*good[:10], *poison, *good[10:])
    await place.listen_many(handler)
    await applied(place, good)
    await until_committed(place, 13, 0)
    await until_committed(place, 10, 1)
    assert any(len(batch) > 1 and any(r.value == poison[0].value for r in batch) for batch in handler.batches)
    letters = await place.eyes.dead_letters()
    assert [letter.header("dlt_origin") for letter in letters] == [f"{TOPIC.name}/0/{n}" for n in (5, 6, 7)]
    assert {letter.header("dlt_code") for letter in letters} == {"bad-event"}


async def test_the_order_of_a_partition_survives_a_failure(place: Place) -> None:
    async def refuse(record: Record) -> None:
        if (record.partition, record.offset) == (0, 4):
            raise Permanent("no", "no")

    async def refuse_many(records: Sequence[Record]) -> None:
        for record in records:
            await refuse(record)

    memory = MemoryOfMany(refuse_many, refuse)
    await place.eyes.produce(*both(10))
    await place.listen_many(memory)
    await until(lambda: len(memory.done) == 19)
    assert memory.offsets(0) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert memory.offsets(1) == list(range(10))
    assert [(record.offset, error.code) for record, error in memory.given_up] == [(4, "no")]
    await until_committed(place, 10, 0)
    # That it was in the middle of a batch, and that exactly this batch went one by one:
    (failed,) = [batch for batch in memory.batches if any((r.partition, r.offset) == (0, 4) for r in batch)]
    assert len(failed) > 1
    assert memory.calls == failed


async def test_a_transient_failure_goes_on_later_and_loses_nothing(place: Place) -> None:
    """The database is away: for the batch, and for a while for the records alone."""
    failures = 3

    async def away(record: Record) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise Transient("the database is away")

    async def away_for_many(records: Sequence[Record]) -> None:
        await away(records[0])

    memory = MemoryOfMany(away_for_many, away)
    await place.eyes.produce(*both(10))
    await place.listen_many(memory)
    await until(lambda: len(memory.done) == 20)
    assert memory.offsets(0) == memory.offsets(1) == list(range(10))
    assert len(memory.calls) == len(memory.batches[0]) + 2, "the first was tried three times"
    await place.eyes.produce(*both(5))
    await until(lambda: len(memory.done) == 30)
    assert memory.offsets(0) == memory.offsets(1) == list(range(15))
    assert len(memory.calls) == len(memory.batches[0]) + 2, "later batches are batches again"
    assert not await place.eyes.dead_letters()
    await until_committed(place, 15, 0)


async def test_an_unknown_failure_of_many_is_counted_against_nobody(place: Place) -> None:
    async def bug(records: Sequence[Record]) -> None:
        raise KeyError("a bug")

    memory = MemoryOfMany(bug)
    await place.eyes.produce(*both(3))
    await place.listen_many(memory)
    await until(lambda: len(memory.done) == 6)
    assert not await place.eyes.dead_letters()


def received(place: Place) -> float:
    labels = {"app_name": "kit", "broker": "kafka", "handler": place.prefix + TOPIC.name}
    return REGISTRY.get_sample_value("faststream_received_messages_total", labels) or 0.0


async def test_odd_headers_lose_no_record_of_the_batch(place: Place) -> None:
    """Traces and metrics look at the headers of all of them, too."""
    memory = MemoryOfMany()
    odd: list[tuple[str, bytes | None]] = [
        NULL_HEADER,
        BINARY_HEADER,
        ("", b""),
        ("traceparent", None),
        ("traceparent", b"\xff"),
        ("baggage", b"\xff\xfe"),
        ("correlation_id", None),
        ("reply_to", (place.prefix + TOPIC.name).encode()),
        ("content-type", b"\xff"),
    ]
    records = [numbered(n, 0, *extra) for n, extra in enumerate([(), *((header,) for header in odd), ()])]
    await place.eyes.produce(*records)
    await place.listen_many(memory, otlp_endpoint="http://127.0.0.1:9")
    await until(lambda: len(memory.done) == len(records))
    assert memory.offsets() == list(range(len(records)))
    assert max(len(batch) for batch in memory.batches) > 1
    for record, header in zip(memory.done[1:], odd, strict=False):
        assert record.headers[-1] == header, "handlers see the bytes as they came"
    assert not memory.calls
    assert received(place) == len(records)
    await until_committed(place, len(records))
    assert len(await place.eyes.read()) == len(records), "nothing was published to where a sender said"


async def test_a_header_name_that_is_not_utf8_loses_no_neighbour(place: Place) -> None:
    """aiokafka's own batches forget the records before it that came with the same fetch."""
    memory = MemoryOfMany()
    await place.eyes.produce(*(numbered(n) for n in range(5)))
    await produce_with_binary_name(place)
    await place.eyes.produce(*(numbered(n) for n in range(5, 10)), numbered(0, 1))
    await place.listen_many(memory)
    await until(lambda: len(memory.done) == 11)
    assert memory.offsets(0) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert memory.offsets(1) == [0]
    assert max(len(batch) for batch in memory.batches) > 1
    (letter,) = await place.eyes.dead_letters()
    assert letter.header("dlt_origin") == f"{TOPIC.name}/0/5"
    await until_committed(place, 11)


async def test_a_stop_lets_the_batch_in_flight_finish(place: Place) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def wait(records: Sequence[Record]) -> None:
        entered.set()
        await release.wait()

    first = MemoryOfMany(wait)
    await place.eyes.produce(*(numbered(n) for n in range(8)))
    bus = await place.listen_many(first, size=5)
    await asyncio.wait_for(entered.wait(), 30)
    stopping = asyncio.create_task(bus.stop())
    (subscription,) = bus._subscriptions
    await until(lambda: subscription.interrupt.is_set() and not subscription.subscriber.running, what="stopping")
    assert not stopping.done()
    assert await place.eyes.committed() == 0, "not before all is done"
    release.set()
    await stopping
    assert len(first.batches) == 1, "no new batch is begun"
    done = len(first.done)
    assert await place.eyes.committed() == done > 1

    second = MemoryOfMany()
    await place.listen_many(second)
    await until(lambda: len(second.done) == 8 - done)
    assert [*first.offsets(), *second.offsets()] == list(range(8)), "none repeated, none skipped"


async def test_a_batch_that_outlasts_the_grace_is_redelivered(place: Place) -> None:
    """Its transaction was committed, Kafka was not told: each effect is there once all the same."""
    committed = asyncio.Event()

    class CutOff(Commands):
        async def many(self, records: Sequence[Record]) -> None:
            await super().many(records)
            committed.set()
            await asyncio.Event().wait()

    records = [numbered(n) for n in range(8)]
    await place.eyes.produce(*records)
    first, second = CutOff(place), Commands(place)
    bus = await place.listen_many(first, size=5, graceful_seconds=0.2)
    await asyncio.wait_for(committed.wait(), 30)
    await bus.stop()
    assert await place.eyes.committed() == 0
    done = await place.store.count("seen")
    assert done == len(first.batches[0]) > 1

    await place.listen_many(second)
    await applied(place, records)
    await until_committed(place, 8)
    assert [record.offset for batch in second.batches for record in batch] == list(range(8)), "all came again"


async def test_a_stop_in_the_middle_of_one_by_one_loses_nothing(place: Place) -> None:
    """Whether the record in the middle waits for the database or was just done."""

    async def many_away(records: Sequence[Record]) -> None:
        raise Transient("away")

    async def stuck(record: Record) -> None:
        if record.offset == 2:
            raise Transient("away")

    first = MemoryOfMany(many_away, stuck)
    await place.eyes.produce(*(numbered(n) for n in range(6)))
    bus = await place.listen_many(first)
    await until(lambda: len(first.calls) >= 4)
    await bus.stop()
    assert first.offsets() == [0, 1]
    assert await place.eyes.committed() == 0

    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(record: Record) -> None:
        entered.set()
        await release.wait()

    second = MemoryOfMany(many_away, slow)
    bus = await place.listen_many(second)
    await asyncio.wait_for(entered.wait(), 30)
    (subscription,) = bus._subscriptions
    stopping = asyncio.create_task(bus.stop())
    await until(subscription.interrupt.is_set, what="the stop")
    release.set()
    await stopping
    assert second.offsets() == [0], "the record in flight is finished, the next one is not begun"
    assert await place.eyes.committed() == 0

    third = MemoryOfMany()
    await place.listen_many(third)
    await until(lambda: len(third.done) == 6)
    assert third.offsets() == list(range(6))
    assert not await place.eyes.dead_letters()


def partitions(bus: Bus) -> int:
    return sum(health["partitions"] for health in bus.health().values())


@pytest.mark.one_broker  # on Tansu each join takes seconds
async def test_a_second_member_joins_while_a_batch_is_handled(place: Place) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    class Slow(Commands):
        async def many(self, records: Sequence[Record]) -> None:
            entered.set()
            await release.wait()
            await super().many(records)

    first, second, records = Slow(place), Commands(place), both(10)
    await place.eyes.produce(*records)
    bus = await place.listen_many(first, size=7, instance="a")
    await asyncio.wait_for(entered.wait(), 30)
    joining = asyncio.create_task(place.listen_many(second, instance="b"))
    (subscription,) = bus._subscriptions
    await until(subscription.interrupt.is_set, what="the first member was told of the join")
    await asyncio.wait({joining}, timeout=7)  # longer than a session, and than any broker's join
    assert not joining.done()
    assert not second.batches, "the first member holds on until its batch is done"
    release.set()
    other = await joining
    await applied(place, records)
    await until(lambda: partitions(bus) == partitions(other) == 1)
    for partition in (0, 1):
        await until_committed(place, 10, partition)
    assert second.batches, "the second member was given the rest of a partition"
    assert not await place.eyes.dead_letters()


async def test_one_by_one_lets_go_when_partitions_move(place: Place) -> None:
    """A batch that waits for the database must not hold up the group: its records go to the next owners."""
    healed = asyncio.Event()

    async def away(record: Record) -> None:
        if record.offset >= 2 and not healed.is_set():
            raise Transient("away")

    async def away_for_many(records: Sequence[Record]) -> None:
        if not healed.is_set():
            raise Transient("away")

    first, second = MemoryOfMany(away_for_many, away), MemoryOfMany(away_for_many, away)
    await place.eyes.produce(*both(5))
    bus = await place.listen_many(first, instance="a")
    await until(lambda: any(record.offset == 2 for record in first.calls))
    other = await asyncio.wait_for(place.listen_many(second, instance="b"), 30)
    await until(lambda: partitions(bus) == partitions(other) == 1)
    assert not await place.eyes.committed(0), "nothing of an unfinished batch is acknowledged"
    healed.set()
    for partition in (0, 1):
        await until_committed(place, 5, partition)
        for memory in (first, second):
            offsets = memory.offsets(partition)
            assert all(later in (earlier + 1, 0) for earlier, later in itertools.pairwise(offsets)), offsets
    assert {(r.partition, r.offset) for r in (*first.done, *second.done)} == {(p, n) for p in (0, 1) for n in range(5)}
    assert second.done
    assert not await place.eyes.dead_letters()


async def test_single_and_batch_subscriptions_live_on_one_bus(place: Place) -> None:
    other = TOPIC.dead_letter("kit")
    bus, many, one = place.bus(), MemoryOfMany(), Memory()
    bus.subscribe_batch(TOPIC, many)
    letters = type(TOPIC)(other, writer=None, readers=(), partitions=1)
    bus.subscribe(letters, one)
    await place.eyes.produce(*both(5), *(POISON[name] for name in ("not-json", "tombstone")))
    await place.eyes.produce(*(Given(b"{}", b"k", ()) for _ in range(3)), topic=other)
    await bus.start()
    await until(lambda: len(many.done) == 12 and len(one.done) == 3)
    assert {name: health["alive"] for name, health in bus.health().items()} == {TOPIC.name: True, other: True}
