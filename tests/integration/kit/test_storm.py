"""Sixteen writers, some slow to commit, while relays and consumers crash: every view sees every event once, in order.

The measurement this repeats in small: `reference/stack.md`, sections 2.1 and 2.2.
"""

import asyncio
import random
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.integration.kit.conftest import Place
from tests.integration.kit.support import TOPIC, Noted, cause
from tests.support.waiting import until

from contracts.envelope import Envelope
from kit.consume import Ordered
from kit.events import Conflict, New
from kit.outbox import Relay
from kit.tasks import cancel

WRITERS, EVENTS = 16, 12
STREAMS = WRITERS // 2  # two writers each


class Fragile(Relay):
    """Dies between send and delete, the first few times."""

    crashes = 0

    async def _acknowledged(self, *arguments: Any) -> None:
        if Fragile.crashes < 3:
            Fragile.crashes += 1
            raise ConnectionError("killed")
        await super()._acknowledged(*arguments)


class Killed(Exception):
    """The consumer's process ended between the effect and its acknowledgement to Kafka."""


async def write(place: Place, writer: int, dice: random.Random) -> int:
    """Appends its events, optimistically; returns how many conflicts it met."""
    stream, log, conflicts, done = f"default/{writer % STREAMS}", place.store.log(), 0, 0
    event = place.store.tables.event
    while done < EVENTS:
        try:
            async with place.store.db.transaction() as tx:
                last = await tx.scalar(sa.select(sa.func.max(event.c.sequence)).where(event.c.stream == stream)) or 0
                await log.append(tx, stream, last, [New(Noted(text=str(done)), stream)], cause())
                if dice.random() < 0.3:
                    await asyncio.sleep(dice.uniform(0, 0.02))  # slow to commit
            done += 1
        except Conflict:
            conflicts += 1
            await asyncio.sleep(dice.uniform(0, 0.02))  # else the two would collide again
    return conflicts


async def test_a_storm(place: Place) -> None:
    dice = random.Random(4)
    Fragile.crashes = 0
    store = place.store
    kills, applied = [5], 0

    async def apply(tx: AsyncConnection, envelope: Envelope) -> None:
        nonlocal applied
        applied += 1
        await store.note(tx, envelope)

    class Mortal(Ordered):
        """Commits the effect, then dies before Kafka hears of it; the record comes again."""

        async def __call__(self, record: Any) -> None:
            await super().__call__(record)
            if kills[0] and dice.random() < 0.1:
                kills[0] -= 1
                raise Killed

    bus = place.bus()
    bus.subscribe(TOPIC, Mortal(store.db, store.inbox, bus, TOPIC, apply))
    await bus.start()
    relays = [place.run(place.relay(Fragile, db=store.database())) for _ in range(2)]
    conflicts = sum(await asyncio.gather(*(write(place, writer, dice) for writer in range(WRITERS))))

    async def all_seen() -> bool:
        return sum(map(len, (await store.effects()).values())) >= WRITERS * EVENTS

    await until(all_seen, 60)
    expected = {f"default/{n}": list(range(1, 2 * EVENTS + 1)) for n in range(STREAMS)}
    assert await store.appended() == expected
    assert await store.effects() == expected
    assert applied == WRITERS * EVENTS
    assert await store.count("early") == 0
    assert not await place.eyes.dead_letters()
    for relay in relays:
        await cancel([relay])
    # That the storm was one:
    assert conflicts > 10
    assert Fragile.crashes == 3
    assert kills[0] < 5
    first: dict[str, list[int]] = {}
    for record in await place.eyes.read():
        seen = first.setdefault(record.header("ce_partitionkey"), [])
        sequence = int(record.header("ce_sequence"))
        if sequence not in seen:
            seen.append(sequence)
    assert first == expected, "per stream, first publications are in order"
