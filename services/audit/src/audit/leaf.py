"""The leaf: the exact bytes of a record that the log commits to. Pure.

    hallmark-leaf/1\\n
    {one line of JSON: topic, partition, offset, timestamp, recorded_at, key, headers, size}\\n
    the raw value bytes

A byte string is a JSON string where it is UTF-8, else {"base64": ...}; null is null. The value of an
`authorization` header is replaced by {"sha256": ...}: a bearer token must never enter a log that forgets nothing.

A leaf of more than 65,535 bytes, which C2SP tlog-tiles cannot hold, is detached: it lies in the object store under its
SHA-256, and the log commits to a short leaf that names it. Its line has the place in Kafka and, for the rest,
{"detached": {sha256, size, content}}; `content` is the digest that `Leaf.content_digest` gives.
"""

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

VERSION_LINE = b"hallmark-leaf/1\n"
SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})
MAX_LEAF = 65_535
Header = tuple[str, bytes | None]
Place = tuple[str, int, int, int, datetime]


@dataclass(frozen=True)
class Leaf:
    """A Kafka record and when it was logged. `timestamp` is Kafka's, in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    recorded_at: datetime
    key: bytes | None
    headers: tuple[Header, ...]
    value: bytes | None

    def encode(self) -> bytes:
        value = self.value or b""
        return b"%b{%b,%b}\n%b" % (VERSION_LINE, _place(self).encode(), self._content().encode(), value)

    def content_digest(self) -> bytes:
        """Equal for records with the same topic, key, headers and value, wherever they stand in Kafka."""
        said = f'{{"topic":{_quoted(self.topic)},{self._content()}}}\n'
        return sha256(said.encode() + (self.value or b"")).digest()

    def _content(self) -> str:
        """Written by hand: the `json` module takes four times as long, and this is the hot path."""
        headers = ",".join([f"[{_quoted(name)},{_pack(given)}]" for name, given in self.headers])
        size = "null" if self.value is None else len(self.value)
        return f'"key":{_pack(self.key)},"headers":[{headers}],"size":{size}'


@dataclass(frozen=True)
class Detached:
    """A leaf that stands for a large one. `sha256` and `size` are of the large leaf's bytes."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    recorded_at: datetime
    sha256: bytes
    size: int
    content: bytes

    @classmethod
    def of(cls, leaf: Leaf, data: bytes) -> "Detached":
        """`data`: the bytes of the leaf."""
        place = (leaf.topic, leaf.partition, leaf.offset, leaf.timestamp, leaf.recorded_at)
        return cls(*place, sha256(data).digest(), len(data), leaf.content_digest())

    def encode(self) -> bytes:
        said = f'"sha256":"{self.sha256.hex()}","size":{self.size},"content":"{self.content.hex()}"'
        return b'%b{%b,"detached":{%b}}\n' % (VERSION_LINE, _place(self).encode(), said.encode())

    def content_digest(self) -> bytes:
        return self.content


def decode(data: bytes) -> Leaf | Detached:
    """Raises ValueError when `data` is no leaf of ours, or not spelt exactly as `encode` does."""
    version, newline, rest = data.partition(b"\n")
    line, second, value = rest.partition(b"\n")
    if version + newline != VERSION_LINE or not second:
        raise ValueError("not a leaf of version 1")
    try:
        head = json.loads(line)
        if any(type(head[name]) is not int for name in ("partition", "offset", "timestamp")):
            raise TypeError("a place in Kafka is numbers")
        at = datetime.fromisoformat(head["recorded_at"])
        place = (head["topic"], head["partition"], head["offset"], head["timestamp"], at)
        found = _rest(head, place, value)
        spelt = found.encode()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"malformed leaf: {error!r}") from error
    if spelt != data:
        raise ValueError("malformed leaf: not in its one right spelling")
    return found


def _rest(head: dict[str, Any], place: Place, value: bytes) -> Leaf | Detached:
    if "detached" in head:
        large = head["detached"]
        return Detached(*place, bytes.fromhex(large["sha256"]), large["size"], bytes.fromhex(large["content"]))
    headers = tuple((name, _unpack(packed)) for name, packed in head["headers"])
    return Leaf(*place, _unpack(head["key"]), headers, None if head["size"] is None else value)


class Digest(bytes):
    """The SHA-256 that stands for a header's secret value."""


def redact(headers: tuple[Header, ...]) -> tuple[Header, ...]:
    """The headers with secrets replaced by their digests."""
    return tuple(
        (name, Digest(sha256(value).digest()) if value is not None and name.lower() in SECRET_HEADERS else value)
        for name, value in headers
    )


def _place(leaf: Leaf | Detached) -> str:
    at = leaf.recorded_at.astimezone(UTC).isoformat(timespec="microseconds")
    return (
        f'"topic":{_quoted(leaf.topic)},"partition":{leaf.partition},"offset":{leaf.offset},'
        f'"timestamp":{leaf.timestamp},"recorded_at":"{at}"'
    )


def _pack(value: bytes | None) -> str:
    """As JSON."""
    if value is None:
        return "null"
    if isinstance(value, Digest):
        return f'{{"sha256":"{value.hex()}"}}'
    try:
        return _quoted(value.decode())
    except UnicodeDecodeError:
        return f'{{"base64":"{b64encode(value).decode()}"}}'


def _unpack(packed: Any) -> bytes | None:
    if packed is None:
        return None
    if isinstance(packed, str):
        return packed.encode()
    if "sha256" in packed:
        return Digest(bytes.fromhex(packed["sha256"]))
    return b64decode(packed["base64"], validate=True)
