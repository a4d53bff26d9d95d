"""Records that no handler can read: each is parked once, as it came, and its neighbours pass."""

from tests.integration.kit.conftest import Place
from tests.integration.kit.support import TOPIC, Given, Memory, Noted, event, given
from tests.support.waiting import until

from kit.bus import Record

NULL_HEADER = ("x-null", None)
BINARY_HEADER = ("x-binary", b"\xff\xfe\x00")


def numbered(n: int, *extra: tuple[str, bytes | None]) -> Given:
    return given(event(None, text=str(n)), extra=extra)


def bent(*, value: bytes | None = None, **headers: bytes | None) -> Given:
    """A good record with some headers or the body replaced."""
    base = given(event(None))
    kept = [(name, content) for name, content in base.headers if name not in headers]
    return Given(value if value is not None else base.value, base.key, [*kept, *headers.items()], 0)


POISON = {
    "no-headers": Given(b'{"text": "x"}', b"default/a", [], 0),
    "null-id": bent(ce_id=None),
    "binary-id": bent(ce_id=b"\xff\xfe"),
    "binary-actor": bent(ce_actor=b"\xff\xfe"),
    "binary-content-type": bent(**{"content-type": b"\xff\xfe"}),
    "no-json-type": bent(**{"content-type": b"text/plain"}),
    "sequence-zero": bent(ce_sequence=b"0"),
    "not-json": bent(value=b"not json"),
    "empty": bent(value=b""),
    "binary-body": bent(value=b"\xff\x00\xfe"),
    "unknown-field": bent(value=b'{"text": "x", "extra": 1}'),
    "nan": bent(value=b'{"text": NaN}'),
    "array": bent(value=b"[]"),
    "binary-key": Given(b'{"text": "x"}', b"\xff\xfe", event(None).headers(), 0),
    "no-key": Given(b'{"text": "x"}', None, [h for h in event(None).headers() if h[0] != "ce_partitionkey"], 0),
    "tombstone": Given(None, b"default/a", event(None).headers(), 0),
}


async def test_poison_is_parked_and_neighbours_pass(place: Place) -> None:
    applied: list[str] = []

    async def read(record: Record) -> None:
        applied.append(record.envelope().payload(Noted).text)

    memory = Memory(read)
    records = [r for n, poison in enumerate(POISON.values()) for r in (numbered(n), poison)]
    await place.eyes.produce(*records, numbered(99))
    await place.listen(memory)
    await until(lambda: "99" in applied)

    assert applied == [*(str(n) for n in range(len(POISON))), "99"]
    parked = await place.eyes.dead_letters()
    assert len(parked) == len(POISON), "each exactly once"
    for n, (name, poison) in enumerate(POISON.items()):
        letter = parked[n]
        assert (letter.key, letter.value) == (poison.key, poison.value), name
        came = [(header, value or b"") for header, value in poison.headers]
        assert [h for h in letter.headers if not h[0].startswith("dlt_")] == came, name
        assert letter.header("dlt_code") == "bad-event", name
        assert letter.header("dlt_error"), name
        assert letter.header("dlt_attempts") == "1", name
        assert letter.header("dlt_origin") == f"{TOPIC.name}/0/{2 * n + 1}", name
        assert letter.header("dlt_service") == "kit", name
    assert [error.code for _, error in memory.given_up] == ["bad-event"] * len(POISON)
    await until_committed(place, len(records) + 1)


async def until_committed(place: Place, offset: int, partition: int = 0) -> None:
    async def reached() -> bool:
        return await place.eyes.committed(partition) == offset

    await until(reached, what=f"offset {offset} of partition {partition} committed")


async def test_odd_headers_of_others_do_no_harm(place: Place) -> None:
    """FastStream decodes every header before any handler: without the tolerant parser these records vanish."""
    memory = Memory()
    await place.eyes.produce(numbered(0, NULL_HEADER), numbered(1, BINARY_HEADER), numbered(2, ("", b"")), numbered(3))
    await place.listen(memory)
    await until(lambda: len(memory.done) == 4)
    assert [record.offset for record in memory.done] == [0, 1, 2, 3]
    assert memory.done[0].headers[-1] == NULL_HEADER
    assert memory.done[1].headers[-1] == BINARY_HEADER, "handlers see the bytes as they came"
    assert memory.done[0].header("x-null") is None
    assert memory.done[1].header("x-binary") == "��\x00"


async def test_a_reply_to_header_causes_no_publication(place: Place) -> None:
    """A sender must not choose a topic for us to write to."""

    memory = Memory()
    target = (place.prefix + TOPIC.name).encode()
    await place.eyes.produce(numbered(0, ("reply_to", target), ("correlation_id", b"1")), numbered(1))
    await place.listen(memory)
    await until(lambda: len(memory.done) == 2)
    await until_committed(place, 2)  # a reply is published before its record is acknowledged
    assert len(await place.eyes.read()) == 2
    assert len(memory.calls) == 2


async def test_the_subscriber_answers_nobody(place: Place) -> None:
    bus = place.bus()
    bus.subscribe(TOPIC, Memory())
    (subscriber,) = bus.broker.subscribers
    assert subscriber._no_reply is True
