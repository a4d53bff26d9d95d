"""A Kafka record as it came, who handles one or many, and how FastStream is kept from judging them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from aiokafka import ConsumerRecord

from contracts.envelope import Envelope
from contracts.topics import Topic
from kit.errors import Permanent


@dataclass(frozen=True)
class Record:
    """A Kafka record as it came. `topic` is the contract's name, without a deployment's prefix."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None

    @classmethod
    def of(cls, raw: "ConsumerRecord[bytes | None, bytes | None]", topic: Topic) -> "Record":
        return cls(
            topic=topic.name,
            partition=raw.partition,
            offset=raw.offset,
            timestamp_ms=raw.timestamp,
            key=raw.key,
            headers=tuple(raw.headers),
            value=raw.value,
        )

    @property
    def place(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    def envelope(self) -> Envelope:
        """Raises EnvelopeError."""
        return Envelope.from_kafka(self.key, self.headers, self.value)

    def header(self, name: str) -> str | None:
        """The first header of that name as text, or None."""
        for given, value in self.headers:
            if given.lower() == name and value is not None:
                return value.decode(errors="replace")
        return None


class Handler(Protocol):
    """Takes one record. Raising decides its fate: see `kit.errors`."""

    async def __call__(self, record: Record) -> None: ...

    async def parked(self, record: Record, error: Permanent) -> None:
        """Runs after the record was parked; must stand a repetition."""
        ...


@runtime_checkable
class Resumes(Protocol):
    """A handler that knows itself how far it has come, whatever the group's offsets say."""

    async def taken(self, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        """By partition, the first offset that it has not taken."""
        ...


class BatchHandler(Handler, Protocol):
    """Takes many records at once where it can, and each alone where it cannot."""

    async def many(self, records: Sequence[Record]) -> None:
        """All of them or none: whatever it raises, each record is then given to `__call__`, in the same order.

        They are in order per partition, of one or several partitions. Some may have been handled before.
        """
        ...


async def tolerant_parser(record: Any, original: Callable[[Any], Awaitable[Any]]) -> Any:
    """FastStream decodes headers outside every middleware: a null or non-UTF-8 one would make the record vanish,
    and in a batch all of its neighbours with it."""
    message = await original(tuple(map(_readable, record)) if isinstance(record, tuple) else _readable(record))
    message.raw_message = record
    return message


def _readable(record: Any) -> Any:
    headers = [(name, (value or b"").decode(errors="backslashreplace").encode()) for name, value in record.headers]
    return replace(record, headers=headers)


async def no_body(message: Any) -> bytes:
    """Handlers read the raw record. FastStream's own decoder would judge the body, or every body of a batch."""
    return b""
