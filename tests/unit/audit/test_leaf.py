"""The exact bytes that the log commits to."""

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import pytest

from audit.leaf import Leaf, decode, redact

AT = datetime(2026, 11, 20, 12, 0, 0, 5, tzinfo=UTC)
LEAF = Leaf(
    topic="hallmark.registry.events",
    partition=3,
    offset=41,
    timestamp=1_763_640_000_000,
    recorded_at=AT,
    key=b"default/fraud",
    headers=(("ce_id", b"1"), ("x", None), ("x", b"\xff"), ("naïve\n", b"")),
    value=b'{"a":1}',
)


def test_the_bytes_are_pinned() -> None:
    """Whoever changes these bytes must give the format a new version."""
    assert LEAF.encode() == (
        b"hallmark-leaf/1\n"
        b'{"topic":"hallmark.registry.events","partition":3,"offset":41,"timestamp":1763640000000,'
        b'"recorded_at":"2026-11-20T12:00:00.000005+00:00","key":"default/fraud",'
        b'"headers":[["ce_id","1"],["x",null],["x",{"base64":"/w=="}],["na\\u00efve\\n",""]],"size":7}\n'
        b'{"a":1}'
    )
    assert decode(LEAF.encode()) == LEAF


@pytest.mark.parametrize("value", [None, b"", b"\n", b"\x00\xff", b'{"size":null}\n'])
@pytest.mark.parametrize("key", [None, b"", b"\xff"])
def test_absent_and_empty_are_told_apart(key: bytes | None, value: bytes | None) -> None:
    leaf = replace(LEAF, key=key, value=value)
    assert decode(leaf.encode()) == leaf
    others = [replace(leaf, key=k, value=v) for k in (None, b"", b"\xff") for v in (None, b"", b"\n")]
    assert all(other == leaf or other.encode() != leaf.encode() for other in others)
    assert all(other == leaf or other.content_digest() != leaf.content_digest() for other in others)


def test_a_token_never_enters_the_bytes() -> None:
    token = b"Bearer eyJhbGciOiJFZERTQSJ9.secret"
    leaf = replace(LEAF, headers=redact((("Authorization", token), ("authorization", None), ("other", b"kept"))))
    data = leaf.encode()
    assert b"secret" not in data
    assert sha256(token).hexdigest().encode() in data
    assert decode(data).encode() == data
    assert decode(data).content_digest() == leaf.content_digest()


def test_the_content_digest_ignores_the_place_and_nothing_else() -> None:
    moved = replace(LEAF, partition=1, offset=9, timestamp=0, recorded_at=datetime.now(UTC))
    assert moved.content_digest() == LEAF.content_digest()
    for other in (
        replace(LEAF, topic="hallmark.approval.events"),
        replace(LEAF, key=b"default/other"),
        replace(LEAF, headers=LEAF.headers[:-1]),
        replace(LEAF, headers=LEAF.headers[::-1]),
        replace(LEAF, value=b'{"a":2}'),
    ):
        assert other.content_digest() != LEAF.content_digest()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hallmark-leaf/1\n",
        b"hallmark-leaf/1\n{}\n",
        LEAF.encode().replace(b"leaf/1", b"leaf/2"),
        LEAF.encode().replace(b'"size":7', b'"size":8'),
        LEAF.encode().replace(b'"partition":3', b'"partition": 3'),
        LEAF.encode().replace(b'"partition":3', b'"partition":"3"'),
        LEAF.encode().replace(b'"offset":41', b'"offset":41,"more":1'),
        LEAF.encode() + b"x",
        LEAF.encode()[:-1],
    ],
)
def test_bytes_in_any_other_spelling_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="leaf"):
        decode(data)
