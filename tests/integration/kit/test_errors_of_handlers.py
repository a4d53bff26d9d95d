"""What an error of a handler does to its record: wait and try again, or park it and go on."""

import asyncio
import time
from itertools import pairwise

import pytest
from tests.integration.kit.conftest import Place
from tests.integration.kit.support import Given, Memory, event, given
from tests.support.waiting import until

from kit.bus import Bus, Record
from kit.errors import Permanent, Transient
from kit.parking import UNKNOWN_ERROR_TRIES


def numbered(n: int, partition: int = 0) -> Given:
    return given(event(None, text=str(n)), partition=partition)


async def committed(place: Place, offset: int) -> None:
    async def reached() -> bool:
        return await place.eyes.committed() == offset

    await until(reached, what=f"offset {offset} committed")


async def test_a_transient_error_waits_longer_each_time_and_blocks_nobody_for_good(place: Place) -> None:
    """Without the backoff a record that fails is a hot loop: 3500 calls in 2 s were measured."""
    healed = asyncio.Event()
    times: list[float] = []

    async def act(record: Record) -> None:
        if record.offset == 0 and not healed.is_set():
            times.append(time.monotonic())
            raise Transient("the database is away")

    memory = Memory(act)
    await place.eyes.produce(numbered(0), numbered(1))
    await place.listen(memory)
    await until(lambda: len(times) >= 4)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[0] > 0.1
    assert all(later > 1.3 * earlier for earlier, later in pairwise(pauses))
    assert len(times) <= 5
    assert not memory.done, "the order of the partition is kept"
    assert not await place.eyes.dead_letters(), "the world's fault parks nothing"
    healed.set()
    await until(lambda: len(memory.done) == 2)
    assert [record.offset for record in memory.done] == [0, 1]
    await committed(place, 2)


async def test_while_one_member_waits_another_member_works(place: Place) -> None:
    if place.kafka.kind == "tansu":
        pytest.skip("nothing here that test_rebalance does not try on Tansu, where each join takes seconds")

    async def stuck(record: Record) -> None:
        if record.value == numbered(0).value:
            raise Transient("away")

    first, second = Memory(stuck), Memory(stuck)
    await place.listen(first, instance="a")
    await place.listen(second, instance="b")
    await until(lambda: all(h["partitions"] == 1 for bus in place.buses for h in bus.health().values()))
    await place.eyes.produce(numbered(0, 0), *(numbered(n, 1) for n in range(1, 6)))
    await until(lambda: len(first.done) + len(second.done) == 5)
    assert sorted(len(memory.done) for memory in (first, second)) == [0, 5]


async def test_a_permanent_error_parks_at_once_and_neighbours_pass(place: Place) -> None:
    async def act(record: Record) -> None:
        if record.offset == 1:
            raise Permanent("no-such-stage", "there is no stage 'Live' ☃" + "x" * 5000)

    memory = Memory(act)
    await place.eyes.produce(numbered(0), numbered(1), numbered(2))
    await place.listen(memory)
    await until(lambda: len(memory.done) == 2)
    assert [record.offset for record in memory.calls] == [0, 1, 2]
    (letter,) = await place.eyes.dead_letters()
    assert (letter.key, letter.value) == (numbered(1).key, numbered(1).value)
    assert letter.header("dlt_code") == "no-such-stage"
    assert letter.header("dlt_error").startswith("there is no stage 'Live' ☃x")
    assert len(letter.header("dlt_error")) == 4000
    assert letter.header("dlt_attempts") == "1"
    assert [(record.offset, error.code) for record, error in memory.given_up] == [(1, "no-such-stage")]
    await committed(place, 3)


async def test_an_unknown_error_gets_five_tries(place: Place) -> None:
    async def act(record: Record) -> None:
        if record.offset == 0:
            raise KeyError("a bug")

    memory = Memory(act)
    await place.eyes.produce(numbered(0), numbered(1))
    await place.listen(memory)
    await until(lambda: len(memory.done) == 1)
    assert [record.offset for record in memory.calls] == [0] * UNKNOWN_ERROR_TRIES + [1]
    (letter,) = await place.eyes.dead_letters()
    assert letter.header("dlt_code") == "unexpected-error"
    assert letter.header("dlt_attempts") == str(UNKNOWN_ERROR_TRIES)
    assert "a bug" in letter.header("dlt_error")


async def test_a_record_that_cannot_be_parked_is_not_lost(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(record: Record) -> None:
        if record.offset == 0:
            raise Permanent("bad", "bad")

    original, failures = Bus.park, [ConnectionError("away"), RuntimeError("unknown")]

    async def park(self: Bus, *arguments: object) -> None:
        if failures:
            raise failures.pop()
        await original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Bus, "park", park)
    memory = Memory(act)
    await place.eyes.produce(numbered(0), numbered(1))
    await place.listen(memory)
    await until(lambda: len(memory.done) == 1)
    assert len(await place.eyes.dead_letters()) == 1


async def test_a_refusal_that_cannot_be_noted_yet_parks_only_once(place: Place) -> None:
    """The database may be away for an hour when the answer is due: that is no reason for a thousand copies."""

    class Forgetful(Memory):
        failures = 3

        async def parked(self, record: Record, error: Permanent) -> None:
            if self.failures:
                self.failures -= 1
                raise ConnectionError("the database is away")
            await super().parked(record, error)

    async def act(record: Record) -> None:
        if record.offset == 0:
            raise Permanent("bad", "bad")

    memory = Forgetful(act)
    await place.eyes.produce(numbered(0), numbered(1))
    await place.listen(memory)
    await until(lambda: len(memory.done) == 1)
    assert len(memory.given_up) == 1
    assert len(await place.eyes.dead_letters()) == 1


async def test_a_record_too_large_to_park_does_not_block_the_partition(place: Place) -> None:
    """A compressed record may be within the broker's limit and above it once it is written again in the clear."""

    async def act(record: Record) -> None:
        if record.offset == 0:
            raise Permanent("bad", "bad")

    memory = Memory(act)
    huge = Given(b"0" * 9_000_000, b"default/a", event(None).headers(), 0)
    await place.eyes.produce(huge, compression="gzip")
    await place.eyes.produce(numbered(1))
    await place.listen(memory)
    await until(lambda: len(memory.done) == 1)
    (letter,) = await place.eyes.dead_letters()
    assert letter.header("dlt_code") == "bad"
    assert letter.header("dlt_origin").endswith("/0/0")
    assert letter.value == huge.value or letter.header("dlt_value_left_out") == "9000000"
