"""The envelope and the canonical JSON hold for any text and any value."""

import json
import math
from datetime import UTC
from typing import Any

from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from hypothesis import given
from hypothesis import strategies as st

from contracts.canonical import canonical_json
from contracts.envelope import Envelope, EnvelopeError
from contracts.registry import CommandRejected, RegisterModel

# What PostgreSQL, UTF-8 and a header can hold: no surrogates, no control characters, not empty.
LINE = st.text(
    st.characters(codec="utf-8", exclude_characters="\x7f", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60
)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=200)
WORD = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
TIME = st.datetimes(timezones=st.just(UTC))
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    message = CommandRejected(command_id=draw(LINE), command_type=draw(LINE), code=draw(LINE), detail=draw(TEXT))
    return Envelope.of(
        message,
        source=draw(LINE),
        subject=draw(LINE),
        key=draw(LINE),
        event_id=draw(WORD),
        sequence=draw(st.none() | st.integers(1, 2**63 - 1)),
        correlationid=draw(LINE),
        causationid=draw(st.none() | LINE),
        actor=draw(st.none() | LINE),
        traceparent=draw(st.none() | LINE),
        time=draw(TIME),
    )


@given(envelopes())
def test_an_envelope_survives_kafka(envelope: Envelope) -> None:
    again = Envelope.from_kafka(envelope.key.encode(), envelope.headers(), envelope.value)
    assert again == envelope
    assert again.headers() == envelope.headers()
    assert again.payload(CommandRejected) == envelope.payload(CommandRejected)


@given(envelopes())
def test_the_sdk_agrees_on_every_attribute(envelope: Envelope) -> None:
    event = from_binary_event(
        KafkaMessage(headers=dict(envelope.headers()), key=envelope.key.encode(), value=envelope.value)
    )
    assert event.get_id() == envelope.id
    assert event.get_subject() == envelope.subject
    assert event.get_time() == envelope.time
    assert event.get_extension("actor") == envelope.actor
    assert event.get_extension("partitionkey") == envelope.key
    assert event.get_data() == json.loads(envelope.value)


HEADER_NAME = st.sampled_from(
    ["ce_id", "ce_source", "ce_type", "ce_time", "ce_sequence", "ce_specversion", "CE_ID", "content-type", "ce_", "x"]
)
HEADERS = st.lists(st.tuples(HEADER_NAME, st.none() | st.binary(max_size=20)), max_size=8)
GOOD = st.just(
    [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", b"s"),
        ("ce_type", b"hallmark.model.register.v1"),
        ("ce_time", b"2026-11-21T00:00:00Z"),
    ]
)


@given(
    st.none() | st.binary(max_size=30),
    st.one_of(HEADERS, st.builds(lambda a, b: a + b, GOOD, HEADERS)),
    st.none() | st.binary(max_size=60),
)
def test_any_record_is_read_or_refused(
    key: bytes | None, headers: list[tuple[str, bytes | None]], value: bytes | None
) -> None:
    """No other exception: it would count as a bug of ours and be tried five times."""
    try:
        Envelope.from_kafka(key, headers, value).payload(RegisterModel)
    except EnvelopeError as error:
        assert str(error)


@given(JSON)
def test_canonical_json_is_json_and_stable(value: Any) -> None:
    encoded = canonical_json(value)
    decoded = json.loads(encoded)
    assert decoded == value
    assert canonical_json(decoded) == encoded


@given(st.dictionaries(TEXT, st.integers(), max_size=8), st.randoms(use_true_random=False))
def test_canonical_json_does_not_see_insertion_order(value: dict[str, int], dice: Any) -> None:
    items = list(value.items())
    dice.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)


@given(JSON, JSON)
def test_different_values_have_different_bytes(one: Any, other: Any) -> None:
    if canonical_json(one) == canonical_json(other):
        assert json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 3))
def test_canonical_json_refuses_what_is_no_number(number: float, depth: int) -> None:
    value: Any = number
    for _ in range(depth):
        value = {"a": [value]}
    try:
        canonical_json(value)
    except ValueError:
        return
    raise AssertionError("accepted")
