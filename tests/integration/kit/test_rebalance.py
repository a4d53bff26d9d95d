"""Partitions that move: the record in flight is finished first, and a quick restart moves nothing."""

import asyncio

import pytest
from tests.integration.kit.conftest import Place
from tests.integration.kit.support import Given, Memory, event, given
from tests.integration.kit.test_poison import until_committed
from tests.support.waiting import until

from kit.bus import Bus, Record, _Subscription
from kit.errors import Transient


def numbered(n: int, partition: int) -> Given:
    return given(event(None, text=f"{partition}-{n}"), partition=partition)


def partitions(bus: Bus) -> int:
    return sum(health["partitions"] for health in bus.health().values())


@pytest.mark.one_broker  # on Tansu each join takes seconds
async def test_a_second_member_joins_while_a_handler_works(place: Place) -> None:
    """Without the listener that waits, the record in flight is committed too late and runs again elsewhere."""
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(record: Record) -> None:
        entered.set()
        await release.wait()

    first, second = Memory(slow), Memory()
    records = [numbered(n, partition) for n in range(3) for partition in (0, 1)]
    await place.eyes.produce(*records)
    bus = await place.listen(first, instance="a")
    await asyncio.wait_for(entered.wait(), 30)
    joining = asyncio.create_task(place.listen(second, instance="b"))
    # The join asks the first member to let go; it holds on until its record is done.
    (subscription,) = bus._subscriptions
    await until(subscription.interrupt.is_set, what="the first member was told of the join")
    await asyncio.wait({joining}, timeout=7)  # longer than a session, and than any broker's join
    assert not joining.done()
    assert not second.calls
    assert len(first.calls) == 1
    release.set()
    other = await joining
    await until(lambda: partitions(bus) == partitions(other) == 1)
    await until(lambda: len(first.done) + len(second.done) >= len(records))
    for partition in (0, 1):
        await until_committed(place, 3, partition)
    ran = [record.value for record in (*first.calls, *second.calls)]
    assert sorted(ran, key=str) == sorted((r.value for r in records), key=str), "each once"


async def test_a_retry_in_progress_lets_go_when_partitions_move(place: Place) -> None:
    """A handler that waits for the database must not hold up the group: its record goes to the next owner."""
    healed = asyncio.Event()

    async def act(record: Record) -> None:
        if not healed.is_set():
            raise Transient("away")

    first, second = Memory(act), Memory(act)
    await place.eyes.produce(numbered(0, 0), numbered(0, 1))
    bus = await place.listen(first, instance="a")
    await until(lambda: len(first.calls) >= 2)
    other = await asyncio.wait_for(place.listen(second, instance="b"), 30)
    await until(lambda: partitions(bus) == partitions(other) == 1)
    healed.set()
    # A broker that drops a member for a moment has its record run again: at least once, by one of the two.
    await until(lambda: {r.partition for r in (*first.done, *second.done)} == {0, 1})
    assert second.done, "the second member was given a record that the first had let go"


async def test_a_member_that_restarts_quickly_moves_no_partition(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Static membership: a rolling restart does not stop the world."""
    if place.kafka.kind == "tansu":
        pytest.skip("Tansu holds each join of a static member for 6 s, longer than the session lasts")
    told: list[_Subscription] = []
    original = _Subscription.on_partitions_revoked

    async def watched(self: _Subscription, revoked: list[object]) -> None:
        if revoked:
            told.append(self)
        await original(self, revoked)

    steady, restarted = Memory(), Memory()
    other = await place.listen(steady, instance="b")
    bus = await place.listen(restarted, instance="a")
    await until(lambda: partitions(bus) == partitions(other) == 1)
    monkeypatch.setattr(_Subscription, "on_partitions_revoked", watched)
    await bus.stop()
    await place.eyes.produce(numbered(0, 0), numbered(0, 1))
    await until(lambda: len(steady.done) == 1)
    again = await place.listen(restarted, instance="a")
    await until(lambda: len(restarted.done) == 1)
    assert partitions(again) == partitions(other) == 1
    assert not told, "the other member never let go"
    assert len(steady.calls) == len(restarted.calls) == 1
