"""What a hostile producer can write: none of it stops a partition or takes another event's place."""

from contextlib import suppress

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.integration.kit.conftest import Place
from tests.integration.kit.support import TOPIC, Given, Memory, Noted, Store, cause, event, given
from tests.support.waiting import until

from contracts.envelope import Envelope
from kit.errors import Permanent
from kit.events import New
from kit.problems import Problem
from kit.topics import MAX_EVENT_BYTES


class BinaryName(str):
    """A header name that is no UTF-8 on the wire."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"\xff\xfe"


async def produce_with_binary_name(place: Place) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=place.eyes.bootstrap, acks="all")
    await producer.start()
    try:
        batch = producer.create_batch()
        # The C builder insists on UTF-8; the Python one asks the name to encode itself.
        batch._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, 0, 16_384)
        batch.append(timestamp=None, key=b"default/a", value=b"{}", headers=[(BinaryName("x"), b"")])
        sent = await producer.send_batch(batch, place.eyes.prefix + TOPIC.name, partition=0)
        await sent
    finally:
        await producer.stop()


async def test_a_header_name_that_is_not_utf8_is_parked_and_passed(place: Place) -> None:
    memory = Memory()
    await place.eyes.produce(given(event(None, text="before")))
    await produce_with_binary_name(place)
    await place.eyes.produce(given(event(None, text="after")), given(event(None, text="other"), partition=1))
    await place.listen(memory)
    await until(lambda: len(memory.done) == 3)
    (letter,) = await place.eyes.dead_letters()
    assert letter.header("dlt_code") == "bad-event"
    assert letter.header("dlt_origin") == f"{TOPIC.name}/0/1"
    assert "UTF-8" in letter.header("dlt_error")


async def test_a_record_too_large_to_park_is_parked_by_its_origin(place: Place) -> None:
    memory = Memory(_refuse_large)
    await produce_largest(place)
    await place.eyes.produce(given(event(None, text="after")))
    await place.listen(memory)
    await until(lambda: len(memory.done) == 1)
    (letter,) = await place.eyes.dead_letters()
    assert letter.value is None
    assert letter.header("dlt_origin") == f"{TOPIC.name}/0/0"
    assert letter.header("dlt_value_left_out") == "1"


async def produce_largest(place: Place) -> None:
    """Beyond what the kit itself sends where the broker takes that, else just what the broker takes."""
    for size in (5_100_000, 1_048_400):
        with suppress(MessageSizeTooLargeError):
            await place.eyes.produce(Given(b"x", b"default/a", [("junk", b"j" * size)], 0))
            return
    pytest.fail("the broker took neither")


async def _refuse_large(record: object) -> None:
    if getattr(record, "value", None) == b"x":
        raise Permanent("too-large", "junk")


async def test_a_forged_record_does_not_take_the_place_of_the_true_one(place: Place) -> None:
    async def apply(tx: AsyncConnection, envelope: Envelope) -> None:
        envelope.payload(Noted)
        await place.store.note(tx, envelope)

    forged = Given(b"not json", b"default/a", event(2).headers(), 0)
    await place.eyes.produce(given(event(1)), forged, given(event(2)), given(event(2)), given(event(3)))
    await place.project(apply)

    async def reached() -> bool:
        return (await place.store.effects()).get("default/a") == [1, 2, 3]

    await until(reached, what="1, 2 and 3 applied, each once")
    assert len(await place.eyes.dead_letters()) == 1


async def test_an_event_that_no_broker_would_take_is_not_appended(store: Store) -> None:
    big = Noted(text="x" * MAX_EVENT_BYTES)
    with pytest.raises(Problem, match="is the most"):
        async with store.db.transaction() as tx:
            await store.log().append(tx, "default/a", 0, [New(big, "default/a")], cause())
    assert await store.count("event") == await store.count("outbox") == 0
