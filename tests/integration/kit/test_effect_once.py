"""The effect and the memory of it are one transaction: a crash between effect and commit repeats nothing."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncConnection
from tests.integration.kit.conftest import Place
from tests.integration.kit.support import TOPIC, event, given
from tests.support.waiting import until

from contracts.envelope import Envelope
from kit.bus import Record
from kit.consume import Ordered
from kit.errors import Transient


async def seen(place: Place, count: int) -> None:
    async def reached() -> bool:
        return sum(map(len, (await place.store.effects()).values())) >= count

    await until(reached, what=f"{count} effects")


class CutOff(Ordered):
    """Stands still after the first transaction's commit, before Kafka is told."""

    def __init__(self, place: Place, committed: asyncio.Event) -> None:
        bus = place.bus(graceful_seconds=0.2)
        super().__init__(place.store.db, place.store.inbox, bus, TOPIC, place.store.note)
        bus.subscribe(TOPIC, self)
        self.bus, self.committed = bus, committed

    async def __call__(self, record: Record) -> None:
        await super().__call__(record)
        self.committed.set()
        await asyncio.Event().wait()


async def test_an_event_whose_acknowledgement_was_lost(place: Place) -> None:
    committed = asyncio.Event()
    await place.eyes.produce(*(given(event(n)) for n in (1, 2, 3)))
    first = CutOff(place, committed)
    await first.bus.start()
    await asyncio.wait_for(committed.wait(), 30)
    await first.bus.stop()  # cancels the handler: the offset is not committed
    assert await place.store.effects() == {"default/a": [1]}
    assert await place.eyes.committed() == 0
    calls: list[int | None] = []

    async def apply(tx: AsyncConnection, envelope: Envelope) -> None:
        calls.append(envelope.sequence)
        await place.store.note(tx, envelope)

    await place.project(apply)
    await seen(place, 3)
    assert calls == [2, 3]
    assert await place.store.effects() == {"default/a": [1, 2, 3]}


async def test_a_failed_effect_is_forgotten_with_its_memory(place: Place) -> None:
    """Else the retry would take the record for done."""
    failures = 2

    async def apply(tx: AsyncConnection, envelope: Envelope) -> None:
        nonlocal failures
        await place.store.note(tx, envelope)
        if failures:
            failures -= 1
            raise Transient("lost a race")

    await place.eyes.produce(given(event(1)), given(event(None, stream="default/b")))
    await place.project(apply)
    await seen(place, 1)
    assert await place.store.effects() == {"default/a": [1]}


async def test_an_event_without_a_sequence_is_parked(place: Place) -> None:
    await place.eyes.produce(given(event(None)), given(event(1)))
    await place.project(place.store.note)
    await seen(place, 1)
    (letter,) = await place.eyes.dead_letters()
    assert letter.header("dlt_code") == "sequence-missing"
