"""What the broker has: the questions that the check of completeness asks it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition

from audit.domain import LOGGED
from kit.bus import Record
from kit.settings import Settings

Span = tuple[int, int]
CHUNK = 500
_TOPICS = {topic.name: topic for topic in LOGGED}


class Broker:
    """Every call ends at `deadline`, of the event loop's clock, with TimeoutError."""

    def __init__(self, consumer: AIOKafkaConsumer, prefix: str, deadline: float) -> None:
        self._consumer, self._prefix, self._deadline = consumer, prefix, deadline

    @classmethod
    @asynccontextmanager
    async def asked(cls, settings: Settings, seconds: float) -> AsyncIterator["Broker"]:
        """Raises KafkaError or OSError when it is away."""
        deadline = asyncio.get_running_loop().time() + seconds
        consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka_bootstrap,
            request_timeout_ms=5_000,
            auto_offset_reset="none",
            group_id=None,
        )
        try:
            async with asyncio.timeout_at(deadline):
                await consumer.start()
            yield cls(consumer, settings.topic_prefix, deadline)
        finally:
            await consumer.stop()

    async def spans(self) -> dict[tuple[str, int], Span]:
        """What it has of each partition: from the first offset up to but without the second."""
        async with asyncio.timeout_at(self._deadline):
            cluster = await self._consumer._client.fetch_all_metadata()
            places = {
                TopicPartition(self._prefix + topic.name, number): (topic.name, number)
                for topic in LOGGED
                for number in cluster.partitions_for_topic(self._prefix + topic.name) or ()
            }
            if not places:
                return {}
            earliest = await self._consumer.beginning_offsets(places)
            latest = await self._consumer.end_offsets(places)
        return {place: (earliest[tp], latest[tp]) for tp, place in places.items()}

    async def records(self, place: tuple[str, int], first: int, until: int) -> list[Record]:
        """The records from offset `first` on, through the first one at `until` or later; of many, some. Some record
        must be there."""
        topic, partition = place
        tp = TopicPartition(self._prefix + topic, partition)
        self._consumer.assign([tp])
        self._consumer.seek(tp, first)
        found: list[Record] = []
        while len(found) < CHUNK and (not found or found[-1].offset < until):
            # A record at the end of what is there has no successor to wait for.
            if found and found[-1].offset + 1 >= await self._end(tp):
                break
            found.append(await self._next(tp, topic))
        return found

    async def _end(self, tp: TopicPartition) -> int:
        known = self._consumer.highwater(tp)
        if known is not None:
            return int(known)
        async with asyncio.timeout_at(self._deadline):
            return int((await self._consumer.end_offsets([tp]))[tp])

    async def _next(self, tp: TopicPartition, topic: str) -> Record:
        try:
            async with asyncio.timeout_at(self._deadline):
                return Record.of(await self._consumer.getone(tp), _TOPICS[topic])
        except UnicodeDecodeError:
            # As the log has it: nobody can decode the names of its headers.
            at = await self._consumer.position(tp)
            self._consumer.seek(tp, at + 1)
            return Record(topic, tp.partition, at, 0, None, (), None)
