"""Is anything missing? The log's offsets against the broker's, and the sequences of every stream.

An offset of which the broker has a record and the log has none is a hole, and so is one that the broker deleted before
it was read. Transaction markers and compacted records take offsets too: what the broker has no record for is no hole,
and is remembered, since the broker itself forgets one day.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Gauge
from sqlalchemy.dialects.postgresql import insert

from audit.domain import LOGGED
from audit.tables import kafka_offset, logged, offset_gap
from kit.db import Database
from kit.settings import Settings

log = structlog.get_logger()
Document = dict[str, Any]
Hole = tuple[int, int]  # from, until
HOLES = Gauge("hallmark_audit_holes", "Missing offsets, and streams with missing sequences, at the last check")
UNREAD = Gauge("hallmark_audit_unread_records", "Records of the broker that are not in the log yet, at the last check")
EVERY_SECONDS = 60.0
BROKER_SECONDS = 10.0
MOST = 100
GAPS = sa.text("""
select placed.o + 1 as first, placed.following as until from (
  select kafka_offset as o, lead(kafka_offset, 1, :next) over (order by kafka_offset) as following
  from audit.logged where topic = :topic and partition = :partition and "index" >= :since
) placed where placed.following > placed.o + 1 and not exists (
  select from audit.offset_gap g where g.topic = :topic and g.partition = :partition and g.epoch = :epoch
  and g.first = placed.o + 1 and g.until = placed.following
) order by 1 limit :most
""")
STREAMS = sa.text("""
select topic, stream, min(sequence) as lowest, max(sequence) as highest, count(distinct sequence) as found
from audit.timeline where stream is not null and sequence is not null group by topic, stream
having count(distinct sequence) <> max(sequence) or min(sequence) <> 1 order by 1, 2 limit :most
""")


class Completeness:
    def __init__(self, db: Database, settings: Settings) -> None:
        self._db, self._bootstrap, self._prefix = db, settings.kafka_bootstrap, settings.topic_prefix

    async def run(self) -> None:
        """Looks now and then and raises the alarm, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            found = await self.check()
            holes = sum(item["missing"] for item in found["items"]) + len(found["streams"])
            HOLES.set(holes)
            UNREAD.set(sum(item["unread"] or 0 for item in found["items"]))
            if holes:
                log.critical("records are missing in the log", holes=holes, more="GET /v1/log/completeness")

    async def check(self) -> Document:
        """`complete` is None where nothing is known to be missing, but the broker could not be asked."""
        async with self._db.snapshot() as tx:
            k = kafka_offset.c
            rows = (await tx.execute(sa.select(kafka_offset).order_by(k.epoch))).mappings()
            books = {(row["topic"], row["partition"]): dict(row) for row in rows}  # of the newest epoch
            streams = [dict(row) for row in (await tx.execute(STREAMS, {"most": MOST})).mappings()]
        problem, items = None, []
        try:
            async with asyncio.timeout(BROKER_SECONDS), self._consumer() as consumer:
                spans = await self._spans(consumer)
                places = sorted(books.keys() | spans.keys())
                items = [await self._partition(p, books.get(p), spans.get(p), consumer) for p in places]
        except (KafkaError, OSError) as error:  # TimeoutError is one
            problem = f"the broker could not be asked: {error!r}"
            items = [await self._partition(place, book, None, None) for place, book in sorted(books.items())]
        missing = bool(streams) or any(item["missing"] for item in items)
        complete = False if missing else None if problem else True
        return {"items": items, "streams": streams, "broker": problem, "complete": complete}

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, request_timeout_ms=5_000, auto_offset_reset="none", group_id=None
        )
        try:
            await consumer.start()
            yield consumer
        finally:
            await consumer.stop()

    async def _spans(self, consumer: AIOKafkaConsumer) -> dict[tuple[str, int], Hole]:
        """What the broker has: from the first offset up to but without the second."""
        cluster = await consumer._client.fetch_all_metadata()
        places = {
            TopicPartition(self._prefix + topic.name, number): (topic.name, number)
            for topic in LOGGED
            for number in cluster.partitions_for_topic(self._prefix + topic.name) or ()
        }
        if not places:
            return {}
        earliest, latest = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        return {place: (earliest[tp], latest[tp]) for tp, place in places.items()}

    async def _partition(
        self, place: tuple[str, int], book: Document | None, span: Hole | None, consumer: AIOKafkaConsumer | None
    ) -> Document:
        said = {"topic": place[0], "partition": place[1], "earliest": span and span[0], "latest": span and span[1]}
        if book is None:
            assert span is not None
            nothing = {"epoch": None, "lowest": None, "next": None, "entries": 0, "unread": span[1] - span[0]}
            return {**said, **nothing, "holes": [], "missing": 0}
        holes = await self._unexplained(book)
        if span is not None and consumer is not None:
            holes = await self._confirmed(book, holes, span, consumer)
            holes += await self._before(book, span[0])
            if span[0] > book["next"]:
                holes.append((book["next"], span[0]))
        told = {name: book[name] for name in ("epoch", "lowest", "next", "entries")}
        unread = None if span is None else max(span[1] - max(book["next"], span[0]), 0)
        missing = sum(until - first for first, until in holes)
        return {**said, **told, "unread": unread, "holes": sorted(holes)[:MOST], "missing": missing}

    async def _unexplained(self, book: Document) -> list[Hole]:
        """Offsets between those of the log, but for the ones known to hold no record."""
        async with self._db.transaction() as tx:
            return [(row.first, row.until) for row in await tx.execute(GAPS, {**_of(book), "most": MOST})]

    async def _confirmed(self, book: Document, holes: list[Hole], span: Hole, consumer: AIOKafkaConsumer) -> list[Hole]:
        """Those of which the broker has a record, or has none any more; the others are remembered."""
        found = []
        for first, until in holes:
            if first < span[0] or await self._has_record(book, first, until, span[1], consumer):
                found.append((first, until))
                continue
            values = {**{name: book[name] for name in ("topic", "partition", "epoch")}, "first": first, "until": until}
            async with self._db.transaction() as tx:
                await tx.execute(insert(offset_gap).values(values).on_conflict_do_nothing())
        return found

    async def _has_record(
        self, book: Document, first: int, until: int, latest: int, consumer: AIOKafkaConsumer
    ) -> bool:
        if first >= latest:
            return False
        place = TopicPartition(self._prefix + book["topic"], book["partition"])
        consumer.assign([place])
        consumer.seek(place, first)
        try:
            return bool((await consumer.getone(place)).offset < until)
        except UnicodeDecodeError:
            return True

    async def _before(self, book: Document, earliest: int) -> list[Hole]:
        """What the broker has from before the epoch's first record; entries of an epoch before may be the same."""
        if earliest >= book["lowest"]:
            return []
        e = logged.c
        async with self._db.transaction() as tx:
            known = set(
                await tx.scalars(
                    sa.select(e.kafka_offset).where(
                        e.topic == book["topic"],
                        e.partition == book["partition"],
                        e.kafka_offset >= earliest,
                        e.kafka_offset < book["lowest"],
                    )
                )
            )
        return [(offset, offset + 1) for offset in range(earliest, book["lowest"]) if offset not in known]


def _of(book: Document) -> Document:
    return {name: book[name] for name in ("topic", "partition", "epoch", "since", "next")}
