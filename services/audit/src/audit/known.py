"""What the log has from a place in Kafka: is a record that comes (again) the one that was logged?"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import asyncpg

from audit import merkle
from audit.leaf import MAX_LEAF, Detached, Leaf, decode, redact
from kit.bus import Record

ENTRIES = (
    "select kafka_offset, leaf from audit.entry "
    'where topic = $1 and partition = $2 and kafka_offset = any($3::bigint[]) and "index" >= $4 and "index" < $5'
)
PRUNED = (
    "select kafka_offset, recorded_at, leaf_hash from audit.pruned_entry "
    'where topic = $1 and partition = $2 and kafka_offset = any($3::bigint[]) and "index" >= $4 and "index" < $5'
)
PAGE = 500
MAX_INDEX = 2**63 - 1
ANY_TIME = datetime(1970, 1, 1, tzinfo=UTC)
Place = tuple[str, int, int]


class Known:
    """What the log has at the places it was made for, and what was added since."""

    def __init__(self) -> None:
        self._contents: set[tuple[Place, bytes]] = set()
        self._pruned: dict[Place, list[tuple[datetime, bytes]]] = {}
        self._added: dict[Place, list[Record]] = {}

    @classmethod
    async def at(
        cls, driver: asyncpg.Connection, places: Iterable[Place], since: int = 0, stop: int | None = None
    ) -> "Known":
        """Of entries from index `since` up to but without `stop`."""
        span = (since, MAX_INDEX if stop is None else stop)
        known, wanted = cls(), dict[tuple[str, int], set[int]]()
        for topic, partition, offset in places:
            wanted.setdefault((topic, partition), set()).add(offset)
        for (topic, partition), offsets in sorted(wanted.items()):
            ordered = sorted(offsets)
            for start in range(0, len(ordered), PAGE):
                await known._load(driver, topic, partition, ordered[start : start + PAGE], span)
        return known

    async def _load(
        self, driver: asyncpg.Connection, topic: str, partition: int, offsets: Sequence[int], span: tuple[int, int]
    ) -> None:
        for row in await driver.fetch(ENTRIES, topic, partition, offsets, *span):
            place = (topic, partition, row["kafka_offset"])
            self._contents.add((place, decode(row["leaf"]).content_digest()))
        for row in await driver.fetch(PRUNED, topic, partition, offsets, *span):
            place = (topic, partition, row["kafka_offset"])
            self._pruned.setdefault(place, []).append((row["recorded_at"], row["leaf_hash"]))

    def add(self, record: Record) -> None:
        """It is about to be logged."""
        self._added.setdefault(place_of(record), []).append(record)

    def has(self, record: Record) -> bool:
        """Whether the same record from the same place is in the log, or about to be."""
        place = place_of(record)
        mine = _content(record)
        if (place, mine) in self._contents:
            return True
        if any(_content(other) == mine for other in self._added.get(place, ())):
            return True
        return any(_hash(record, at) == wanted for at, wanted in self._pruned.get(place, ()))


def place_of(record: Record) -> Place:
    return record.topic, record.partition, record.offset


def leaf_of(record: Record, at: datetime) -> Leaf:
    return Leaf(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp_ms,
        recorded_at=at,
        key=record.key,
        headers=redact(record.headers),
        value=record.value,
    )


def _content(record: Record) -> bytes:
    return leaf_of(record, ANY_TIME).content_digest()


def _hash(record: Record, at: datetime) -> bytes:
    """Of pruned ones the hash is left: logged at the same instant, this would be the same leaf."""
    leaf = leaf_of(record, at)
    data = leaf.encode()
    return merkle.leaf_hash(Detached.of(leaf, data).encode() if len(data) > MAX_LEAF else data)
