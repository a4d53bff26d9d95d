"""Events that overtake their predecessors are kept and applied in their turn; a bad one among them parks alone."""

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.integration.kit.conftest import Place
from tests.integration.kit.support import event, given
from tests.support.waiting import until

from contracts.envelope import Envelope
from kit import consume
from kit.errors import Permanent, Transient


async def applied(place: Place, *sequences: int, stream: str = "default/a") -> None:
    async def reached() -> bool:
        return (await place.store.effects()).get(stream) == list(sequences)

    await until(reached, what=f"{sequences} applied")


async def test_early_records_wait_for_their_predecessors(place: Place) -> None:
    other = [given(event(n, stream="default/b")) for n in (1, 2)]
    await place.eyes.produce(*(given(event(n)) for n in (1, 4, 3, 4)), *other, given(event(6)))
    await place.project(place.store.note)
    await applied(place, 1, 2, stream="default/b")
    assert (await place.store.effects())["default/a"] == [1], "a gap holds up its own stream only"

    async def kept() -> bool:
        return await place.store.count("early") == 3

    await until(kept)
    await place.eyes.produce(given(event(2)))
    await applied(place, 1, 2, 3, 4)
    assert await place.store.count("early") == 1
    await place.eyes.produce(given(event(5)))
    await applied(place, 1, 2, 3, 4, 5, 6)
    assert await place.store.count("early") == 0
    assert not await place.eyes.dead_letters()


async def test_a_permanent_error_in_the_drain_parks_that_record_alone(place: Place) -> None:
    async def apply(tx: AsyncConnection, envelope: Envelope) -> None:
        if envelope.sequence == 3:
            raise Permanent("bad", "cannot be applied")
        await place.store.note(tx, envelope)

    three = event(3, text="three")
    await place.eyes.produce(given(event(4)), given(three), given(event(1)), given(event(2)), given(event(5)))
    await place.project(apply)
    await applied(place, 1, 2, 4, 5)
    (letter,) = await place.eyes.dead_letters()
    assert (letter.key, letter.value) == (b"default/a", three.value)
    assert [h for h in letter.headers if not h[0].startswith("dlt_")] == three.headers()
    assert letter.header("dlt_code") == "bad"
    assert await place.store.count("early") == 0


async def test_a_permanent_error_on_the_way_lets_the_stream_go_on(place: Place) -> None:
    async def apply(tx: AsyncConnection, envelope: Envelope) -> None:
        if envelope.sequence == 2:
            raise Permanent("bad", "cannot be applied")
        await place.store.note(tx, envelope)

    await place.eyes.produce(given(event(1)), given(event(3)), given(event(2)), given(event(4)))
    await place.project(apply)
    await applied(place, 1, 3, 4)
    assert len(await place.eyes.dead_letters()) == 1
    assert await place.store.count("early") == 0


@pytest.mark.parametrize("kind", [Transient, ConnectionError])
async def test_a_transient_error_in_the_drain_is_tried_again(place: Place, kind: type[Exception]) -> None:
    failures = 2

    async def apply(tx: AsyncConnection, envelope: Envelope) -> None:
        nonlocal failures
        if envelope.sequence == 2 and failures:
            failures -= 1
            raise kind("away")
        await place.store.note(tx, envelope)

    await place.eyes.produce(given(event(2)), given(event(1)))
    await place.project(apply)
    await applied(place, 1, 2)
    assert not await place.eyes.dead_letters()


async def test_a_bug_in_the_drain_parks_the_record_that_meets_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the good record that set the drain off, and not for ever."""
    monkeypatch.setattr(consume, "DRAIN_PAUSE_SECONDS", 0.01)

    async def apply(tx: AsyncConnection, envelope: Envelope) -> None:
        if envelope.sequence == 2:
            raise KeyError("a bug")
        await place.store.note(tx, envelope)

    two = event(2, text="two")
    await place.eyes.produce(given(two), given(event(1)), given(event(3)))
    await place.project(apply)
    await applied(place, 1, 3)
    (letter,) = await place.eyes.dead_letters()
    assert letter.value == two.value
    assert letter.header("dlt_code") == "unexpected-error"
