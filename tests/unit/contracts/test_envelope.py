"""Reading and writing Kafka records: what is refused, and with which words."""

from datetime import UTC, datetime

import pytest

from contracts.envelope import Envelope, EnvelopeError
from contracts.registry import ModelRegistered, RegisterModel

Headers = dict[str, bytes | None]
GOOD: Headers = {
    "ce_specversion": b"1.0",
    "ce_id": b"1",
    "ce_source": b"trainer",
    "ce_type": b"hallmark.model.register.v1",
    "ce_subject": b"default/churn",
    "ce_time": b"2026-11-21T10:30:00Z",
    "content-type": b"application/json",
}
BODY = b'{"model": "churn"}'


def read(
    changes: Headers | None = None, *, key: bytes | None = b"default/churn", value: bytes | None = BODY
) -> Envelope:
    return Envelope.from_kafka(key, list({**GOOD, **(changes or {})}.items()), value)


def test_the_smallest_record_gets_defaults() -> None:
    envelope = read({"ce_subject": None, "content-type": None})
    assert envelope.subject == envelope.key == "default/churn"
    assert envelope.correlationid == envelope.id == "1"
    assert envelope.dataschema == "hallmark.model.register.v1.json"
    assert envelope.sequence is None
    assert envelope.payload(RegisterModel).workspace == "default"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ce_specversion": None}, "ce_specversion"),
        ({"ce_specversion": b"0.3"}, "ce_specversion"),
        ({"ce_id": None}, "id: "),
        ({"ce_id": b""}, "id: "),
        ({"ce_id": b"with space"}, "id: "),
        ({"ce_id": b"x" * 101}, "id: "),
        ({"ce_source": None}, "source: "),
        ({"ce_type": None}, "type: "),
        ({"ce_type": b"line\nbreak"}, "type: "),
        ({"ce_subject": b"nul\x00"}, "subject: "),
        ({"ce_time": None}, "time: "),
        ({"ce_time": b"yesterday"}, "time: "),
        ({"ce_time": b"2026-11-21T10:30:00"}, "time: "),
        ({"ce_sequence": b"0"}, "sequence: "),
        ({"ce_sequence": b"-1"}, "sequence: "),
        ({"ce_sequence": b"one"}, "sequence: "),
        ({"ce_sequence": b"9223372036854775808"}, "sequence: "),
        ({"ce_actor": b"\xff\xfe"}, "'ce_actor' is not UTF-8"),
        ({"content-type": b"text/plain"}, "'text/plain' is not JSON"),
        ({"content-type": b"application/cloudevents+avro"}, "is not JSON"),
        ({"CE_ID": b"2"}, "'CE_ID' is given twice"),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else "",
)
def test_a_bad_header_is_named(changes: Headers, words: str) -> None:
    with pytest.raises(EnvelopeError) as caught:
        read(changes)
    assert words in str(caught.value)


def test_errors_do_not_repeat_the_input() -> None:
    """It may hold a secret, and the text goes to logs and dead letters."""
    with pytest.raises(EnvelopeError) as caught:
        read({"ce_time": b"hunter2-secret"})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(EnvelopeError) as caught:
        read(value=b'{"model": "churn", "password": "hunter2-secret"}').payload(RegisterModel)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("header", ["authorization", "reply_to", "x-other"])
def test_headers_of_others_are_not_our_business(header: str) -> None:
    assert read({header: b"\xff\xfe"}).id == "1"
    assert read({header: None}).id == "1"


def test_a_null_attribute_counts_as_absent() -> None:
    assert read({"ce_actor": None}).actor is None


@pytest.mark.parametrize(
    "content_type", [b"application/json; charset=utf-8", b"APPLICATION/JSON", b"application/x+json"]
)
def test_json_by_any_name(content_type: bytes) -> None:
    assert read({"content-type": content_type}).id == "1"


def test_header_names_in_any_case() -> None:
    assert Envelope.from_kafka(b"k", [(name.upper(), value) for name, value in GOOD.items()], BODY).id == "1"


def test_the_record_key_is_the_stream() -> None:
    assert read({"ce_partitionkey": b"other"}).key == "default/churn"
    assert read({"ce_partitionkey": b"default/churn"}, key=None).key == "default/churn"
    with pytest.raises(EnvelopeError, match="key"):
        read(key=None)
    with pytest.raises(EnvelopeError, match="key is not UTF-8"):
        read(key=b"\xff")


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"not json",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"model": "churn", "unknown": 1}',
        b'{"model": 5}',
        b"{}",
        b'{"model": "nul\\u0000"}',
        b'{"model": "a/b"}',
        b'{"model": "churn", "tags": {"": "x"}}',
        b'{"model": "churn"} trailing',
        b'{"model": "churn"',
    ],
)
def test_a_bad_body_is_refused(value: bytes | None) -> None:
    envelope = read(value=value)  # the headers alone are good
    with pytest.raises(EnvelopeError, match=r"hallmark\.model\.register\.v1"):
        envelope.payload(RegisterModel)


def test_header_bytes_are_always_the_same() -> None:
    """A republished record must not look like another one."""
    message = ModelRegistered(workspace="default", model="churn")
    first = Envelope.of(message, source="s", subject="default/churn", key="default/churn", sequence=1)
    again = Envelope.from_kafka(first.key.encode(), first.headers(), first.value)
    assert again == first
    assert again.headers() == first.headers()


def test_fresh_ids_are_ordered_by_time() -> None:
    message = ModelRegistered(workspace="default", model="churn")
    ids = [Envelope.of(message, source="s", subject="a/b", key="a/b").id for _ in range(200)]
    assert len(set(ids)) == 200
    assert ids == sorted(ids)


def test_time_travels_in_utc_with_microseconds() -> None:
    envelope = read({"ce_time": b"2026-11-21T12:30:00.000001+02:00"})
    assert envelope.time == datetime(2026, 11, 21, 10, 30, 0, 1, tzinfo=UTC)
    assert dict(envelope.headers())["ce_time"] == b"2026-11-21T10:30:00.000001Z"
