"""However a stream's events arrive (twice, early, late), they are applied once each and in order."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.integration.kit.support import TOPIC, Store, event

from contracts.envelope import Envelope
from kit.bus import Bus, Record
from kit.consume import Ordered

Delivery = tuple[str, int]
STREAMS = ("default/a", "default/b")


class Oracle:
    """The same, in memory: what was applied so far and what waits, per stream."""

    def __init__(self) -> None:
        self.applied: dict[str, list[int]] = {}
        self.waiting: dict[str, set[int]] = {}

    def take(self, stream: str, sequence: int) -> None:
        applied, waiting = self.applied.setdefault(stream, []), self.waiting.setdefault(stream, set())
        if sequence > len(applied):
            waiting.add(sequence)
        while len(applied) + 1 in waiting:
            waiting.remove(len(applied) + 1)
            applied.append(len(applied) + 1)


@st.composite
def deliveries(draw: Any) -> list[Delivery]:
    """Each stream's events at least once but for some that never come, some twice, in any order."""
    found: list[Delivery] = []
    for stream in STREAMS:
        numbers: list[int] = list(range(1, draw(st.integers(0, 6)) + 1))
        numbers += draw(st.lists(st.sampled_from(numbers), max_size=5)) if numbers else []
        if numbers and draw(st.booleans()):
            numbers.remove(draw(st.sampled_from(numbers)))
        found += [(stream, number) for number in numbers]
    shuffled: list[Delivery] = draw(st.permutations(found))
    return shuffled


@pytest.fixture
def work(database: str) -> Iterator[Callable[[Any], Any]]:
    """Runs a coroutine function on one store and one loop, both kept for all examples of the test."""
    with asyncio.Runner() as runner:
        store = runner.run(Store.make(database))
        yield lambda function: runner.run(function(store))
        runner.run(store.close())


class Room:
    """A fresh consumer of fresh streams: examples share the tables but no row."""

    count = 0

    def __init__(self, store: Store) -> None:
        Room.count += 1
        self.store, self.suffix = store, f"-{Room.count}"
        self.consumer = Ordered(store.db, store.inbox, _no_bus(), TOPIC, self.apply)

    async def apply(self, tx: AsyncConnection, envelope: Envelope) -> None:
        await self.store.note(tx, envelope, view=self.suffix)

    async def apply_all(self, tx: AsyncConnection, envelopes: Sequence[Envelope]) -> None:
        for envelope in envelopes:
            await self.apply(tx, envelope)

    async def deliver(self, stream: str, sequence: int) -> None:
        await self.consumer(self._record(stream, sequence))

    async def deliver_many(self, given_: Sequence[Delivery]) -> None:
        await self.consumer.many([self._record(*one) for one in given_], self.apply_all)

    def _record(self, stream: str, sequence: int) -> Record:
        envelope = event(sequence, stream=stream + self.suffix)
        return Record(TOPIC.name, 0, 0, 0, envelope.key.encode(), tuple(envelope.headers()), envelope.value)

    async def applied(self) -> dict[str, list[int]]:
        found = await self.store.effects(self.suffix)
        return {stream.removesuffix(self.suffix): sequences for stream, sequences in found.items()}

    async def waiting(self) -> dict[str, set[int]]:
        early = self.store.tables.early
        async with self.store.db.engine.connect() as connection:
            rows = await connection.execute(sa.select(early).where(early.c.stream.endswith(self.suffix)))
            found: dict[str, set[int]] = {}
            for row in rows:
                found.setdefault(row.stream.removesuffix(self.suffix), set()).add(row.sequence)
            return found


def _no_bus() -> Bus:
    """Nothing is parked here."""
    return None  # type: ignore[return-value]


@pytest.mark.timeout(300)
def test_any_order_of_deliveries(work: Callable[[Any], Any]) -> None:
    @settings(max_examples=15)
    @given(deliveries())
    def check(given_: list[Delivery]) -> None:
        async def example(store: Store) -> None:
            room, oracle = Room(store), Oracle()
            for stream, sequence in given_:
                await room.deliver(stream, sequence)
                oracle.take(stream, sequence)
            assert await room.applied() == {stream: s for stream, s in oracle.applied.items() if s}
            assert await room.waiting() == {stream: s for stream, s in oracle.waiting.items() if s}

        work(example)

    check()


@pytest.mark.timeout(300)
def test_any_order_of_deliveries_in_batches(work: Callable[[Any], Any]) -> None:
    @settings(max_examples=15)
    @given(deliveries(), st.lists(st.integers(1, 6), min_size=1))
    def check(given_: list[Delivery], sizes: list[int]) -> None:
        async def example(store: Store) -> None:
            room, oracle, rest, n = Room(store), Oracle(), given_, 0
            while rest:
                size, n = sizes[n % len(sizes)], n + 1
                await room.deliver_many(rest[:size])
                rest = rest[size:]
            for stream, sequence in given_:
                oracle.take(stream, sequence)
            assert await room.applied() == {stream: s for stream, s in oracle.applied.items() if s}
            assert await room.waiting() == {stream: s for stream, s in oracle.waiting.items() if s}

        work(example)

    check()


@pytest.mark.timeout(300)
def test_two_members_at_once(work: Callable[[Any], Any]) -> None:
    """A zombie member and its successor both work through the partition for a while."""

    @settings(max_examples=10)
    @given(deliveries(), deliveries())
    def check(one: list[Delivery], other: list[Delivery]) -> None:
        async def example(store: Store) -> None:
            room, oracle = Room(store), Oracle()

            async def member(given_: list[Delivery]) -> None:
                for stream, sequence in given_:
                    await room.deliver(stream, sequence)

            await asyncio.gather(member(one), member(other))
            for stream, sequence in (*one, *other):
                oracle.take(stream, sequence)
            assert await room.applied() == {stream: s for stream, s in oracle.applied.items() if s}
            assert await room.waiting() == {stream: s for stream, s in oracle.waiting.items() if s}

        work(example)

    check()
