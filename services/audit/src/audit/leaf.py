"""The leaf: the exact bytes of a record that the log commits to. Pure.

    hallmark-leaf/1\\n
    {one line of JSON: topic, partition, offset, timestamp, recorded_at, key, headers, size}\\n
    the raw value bytes

A byte string is a JSON string where it is UTF-8, else {"base64": ...}; null is null. The value of an
`authorization` header is replaced by {"sha256": ...}: a bearer token must never enter a log that forgets nothing.
"""

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

VERSION_LINE = b"hallmark-leaf/1\n"
SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})
Header = tuple[str, bytes | None]


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
        head = {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "timestamp": self.timestamp,
            "recorded_at": self.recorded_at.astimezone(UTC).isoformat(timespec="microseconds"),
            **_content(self.key, self.headers, self.value),
        }
        return VERSION_LINE + _line(head) + b"\n" + (self.value or b"")

    @classmethod
    def decode(cls, data: bytes) -> "Leaf":
        """Raises ValueError when `data` is no leaf of ours, or not spelt exactly as `encode` does."""
        version, newline, rest = data.partition(b"\n")
        line, second, value = rest.partition(b"\n")
        if version + newline != VERSION_LINE or not second:
            raise ValueError("not a leaf of version 1")
        try:
            head = json.loads(line)
            if any(type(head[name]) is not int for name in ("partition", "offset", "timestamp")):
                raise TypeError("a place in Kafka is numbers")
            leaf = cls(
                topic=head["topic"],
                partition=head["partition"],
                offset=head["offset"],
                timestamp=head["timestamp"],
                recorded_at=datetime.fromisoformat(head["recorded_at"]),
                key=_unpack(head["key"]),
                headers=tuple((name, _unpack(packed)) for name, packed in head["headers"]),
                value=None if head["size"] is None else value,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"malformed leaf: {error!r}") from error
        if leaf.encode() != data:
            raise ValueError("malformed leaf: not in its one right spelling")
        return leaf

    def dedupe(self) -> bytes:
        """Equal for records with the same topic, key, headers and value, wherever they stand in Kafka."""
        content = {"topic": self.topic, **_content(self.key, self.headers, self.value)}
        return sha256(_line(content) + b"\n" + (self.value or b"")).digest()


class Digest(bytes):
    """The SHA-256 that stands for a header's secret value."""


def redact(headers: tuple[Header, ...]) -> tuple[Header, ...]:
    """The headers with secrets replaced by their digests."""
    return tuple(
        (name, Digest(sha256(value).digest()) if value is not None and name.lower() in SECRET_HEADERS else value)
        for name, value in headers
    )


def _content(key: bytes | None, headers: tuple[Header, ...], value: bytes | None) -> dict[str, Any]:
    return {
        "key": _pack(key),
        "headers": [[name, _pack(given)] for name, given in headers],
        "size": None if value is None else len(value),
    }


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode()


def _pack(value: bytes | None) -> str | dict[str, str] | None:
    if value is None:
        return None
    if isinstance(value, Digest):
        return {"sha256": value.hex()}
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def _unpack(packed: Any) -> bytes | None:
    if packed is None:
        return None
    if isinstance(packed, str):
        return packed.encode()
    if "sha256" in packed:
        return Digest(bytes.fromhex(packed["sha256"]))
    return b64decode(packed["base64"], validate=True)
