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
from functools import lru_cache
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
        place = (self.topic, self.partition, self.offset, self.timestamp, self.recorded_at)
        return encode(*place, self.key, self.headers, self.value)

    def content_digest(self) -> bytes:
        """Equal for records with the same topic, key, headers and value, wherever they stand in Kafka."""
        said = f'{{"topic":{_quoted(self.topic)},{_content(self.key, self.headers, self.value)}}}\n'
        return sha256(said.encode() + (self.value or b"")).digest()


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
        place = _place(self.topic, self.partition, self.offset, self.timestamp, self.recorded_at)
        said = f'"sha256":"{self.sha256.hex()}","size":{self.size},"content":"{self.content.hex()}"'
        return _spelt(place, f'"detached":{{{said}}}', None)

    def content_digest(self) -> bytes:
        return self.content


def encode(
    topic: str,
    partition: int,
    offset: int,
    timestamp: int,
    recorded_at: datetime,
    key: bytes | None,
    headers: tuple[Header, ...],
    value: bytes | None,
) -> bytes:
    """The bytes of the leaf with these fields; of secrets in the headers, only the digests."""
    form, values = _form(topic, tuple([name for name, _ in headers])), [value for _, value in headers]
    try:
        # All at once where every text is one that JSON spells as it stands, as nearly all are.
        if form is not None and not b"".join((key, *values)).translate(None, _PLAIN):  # type: ignore[arg-type]
            return form % (partition, offset, timestamp, _time(recorded_at), key, *values, len(value), value)  # type: ignore[arg-type]
    except TypeError:  # a null
        pass
    return _spelt(_place(topic, partition, offset, timestamp, recorded_at), _content(key, headers, value), value)


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
    """The SHA-256 that stands for a header's secret value. It is no text, even where its bytes could be."""

    def decode(self, encoding: str = "", errors: str = "") -> str:
        raise UnicodeError("a digest is no text")


def redact(headers: tuple[Header, ...]) -> tuple[Header, ...]:
    """The headers with secrets replaced by their digests."""
    return tuple(
        [(name, _digest(value) if value is not None and _is_secret(name) else value) for name, value in headers]
    )


def _digest(value: bytes) -> Digest:
    return value if isinstance(value, Digest) else Digest(sha256(value).digest())


def _is_secret(name: str) -> bool:
    return name.lower() in SECRET_HEADERS


# By hand from here on: this is the hot path of ingest, and the `json` module takes four times as long.


def _spelt(place: str, rest: str, value: bytes | None) -> bytes:
    return b"%b{%b,%b}\n%b" % (VERSION_LINE, place.encode(), rest.encode(), value or b"")


def _place(topic: str, partition: int, offset: int, timestamp: int, at: datetime) -> str:
    return (
        f'"topic":{_quoted(topic)},"partition":{partition},"offset":{offset},'
        f'"timestamp":{timestamp},"recorded_at":"{_time(at).decode()}"'
    )


@lru_cache(8)  # a batch has one
def _time(at: datetime) -> bytes:
    return at.astimezone(UTC).isoformat(timespec="microseconds").encode()


def _content(key: bytes | None, headers: tuple[Header, ...], value: bytes | None) -> str:
    return f'"key":{_pack(key)},"headers":[{_headers(headers)}],"size":{"null" if value is None else len(value)}'


def _headers(headers: tuple[Header, ...]) -> str:
    return ",".join([f"[{_quoted(name)},{_pack(value)}]" for name, value in redact(headers)])


_PLAIN = bytes({*range(0x20, 0x7F)} - {*b'"\\'})


@lru_cache(1_000)
def _form(topic: str, names: tuple[str, ...]) -> bytes | None:
    """The leaf of a topic with these headers, to be filled in; None: there are secrets among them."""
    if any(_is_secret(name) for name in names):
        return None
    headers = ",".join([f'[{_escaped(name)},"%b"]' for name in names])
    return (
        VERSION_LINE
        + (
            f'{{"topic":{_escaped(topic)},"partition":%d,"offset":%d,"timestamp":%d,"recorded_at":"%b",'
            f'"key":"%b","headers":[{headers}],"size":%d}}\n%b'
        ).encode()
    )


def _escaped(text: str) -> str:
    return _quoted(text).replace("%", "%%")


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
