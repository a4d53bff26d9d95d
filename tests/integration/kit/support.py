"""A small service to try the kit on: one schema, one topic, a handler that remembers, and eyes on the broker."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import asyncpg
import sqlalchemy as sa
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.support.waiting import until

from contracts.envelope import Envelope
from contracts.payload import Message
from contracts.topics import Topic
from kit.bus import Record
from kit.db import Database, Mechanism
from kit.errors import Permanent
from kit.events import Cause, EventLog, New
from kit.inbox import Inbox
from kit.migrations import guard_events
from kit.settings import Settings

SCHEMA = "kit_test"
SERVICE = "kit"
TOPIC = Topic("hallmark.kit.events", writer=None, readers=(SERVICE,), partitions=2)
GROUP = f"{SERVICE}.{TOPIC.name}"


class Noted(Message):
    TYPE: ClassVar[str] = "hallmark.thing.noted.v1"
    text: str = ""


@dataclass(frozen=True)
class Given:
    """A record to produce, or one read back."""

    value: bytes | None
    key: bytes | None = b"default/a"
    headers: Sequence[tuple[str, bytes | None]] = ()
    partition: int | None = None
    offset: int | None = None

    def header(self, name: str) -> str:
        return next((value or b"").decode() for given, value in self.headers if given == name)


def event(sequence: int | None, stream: str = "default/a", text: str = "", **attributes: Any) -> Envelope:
    return Envelope.of(
        Noted(text=text), source="test", subject=stream, key=stream, sequence=sequence, actor="ana", **attributes
    )


def given(envelope: Envelope, *, partition: int | None = 0, extra: Sequence[tuple[str, bytes | None]] = ()) -> Given:
    headers: list[tuple[str, bytes | None]] = [*envelope.headers(), *extra]
    return Given(envelope.value, envelope.key.encode(), headers, partition)


def cause() -> Cause:
    return Cause(actor="ana")


async def create_topics(bootstrap: str, prefix: str, topics: Sequence[Topic] = (TOPIC,)) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics(
            [
                new
                for topic in topics
                for new in (
                    NewTopic(prefix + topic.name, topic.partitions, 1),
                    *(NewTopic(prefix + topic.dead_letter(reader), 1, 1) for reader in topic.readers),
                )
            ]
        )
    finally:
        await admin.close()


class Unreadable(Exception):
    """The broker gives no record for offsets that it says it has."""


@dataclass
class Eyes:
    """Writes to the broker and reads it back, outside the kit."""

    bootstrap: str
    prefix: str

    async def produce(self, *records: Given, topic: str = TOPIC.name, compression: str | None = None) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap, acks="all", compression_type=compression, max_request_size=20_000_000
        )
        await producer.start()
        try:
            for r in records:
                await producer.send_and_wait(
                    self.prefix + topic, r.value, key=r.key, headers=list(r.headers), partition=r.partition
                )
        finally:
            await producer.stop()

    async def read(self, topic: str = TOPIC.name) -> list[Given]:
        """All that is on the topic now, partition by partition."""
        name = self.prefix + topic
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            known = consumer.partitions_for_topic(name) or await _partitions(consumer, name)
            partitions = [TopicPartition(name, p) for p in sorted(known)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            found: list[Any] = []
            for place in partitions:
                await consumer.seek_to_beginning(place)
            end = time.monotonic() + 15
            while any([await consumer.position(place) < ends[place] for place in partitions]):
                if time.monotonic() > end:
                    raise Unreadable(f"{name}: {len(found)} records read, the ends are {ends}")
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    found += batch
        finally:
            await consumer.stop()
        found.sort(key=lambda r: (r.partition, r.offset))
        return [Given(r.value, r.key, r.headers, r.partition, r.offset) for r in found]

    async def dead_letters(self, topic: Topic = TOPIC) -> list[Given]:
        return await self.read(topic.dead_letter(SERVICE))

    async def committed(self, partition: int = 0, group: str = GROUP, topic: str = TOPIC.name) -> int:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, group_id=self.prefix + group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            return int(await consumer.committed(TopicPartition(self.prefix + topic, partition)) or 0)
        finally:
            await consumer.stop()


async def _partitions(consumer: AIOKafkaConsumer, name: str) -> set[int]:
    """A topic that nobody asked this broker connection for before is unknown to the client at first."""

    async def found() -> set[int] | None:
        await consumer._client.force_metadata_update()
        partitions: set[int] | None = consumer.partitions_for_topic(name)
        return partitions

    return await until(found, what=f"partitions of {name}")


Act = Callable[[Record], Awaitable[None]]


class Memory:
    """A handler that remembers what it was called with; `act` decides what happens then."""

    def __init__(self, act: Act | None = None) -> None:
        self.act = act
        self.calls: list[Record] = []
        self.done: list[Record] = []
        self.given_up: list[tuple[Record, Permanent]] = []

    async def __call__(self, record: Record) -> None:
        self.calls.append(record)
        if self.act is not None:
            await self.act(record)
        self.done.append(record)

    async def parked(self, record: Record, error: Permanent) -> None:
        self.given_up.append((record, error))

    def values(self) -> list[bytes | None]:
        return [record.value for record in self.done]


ActOnMany = Callable[[Sequence[Record]], Awaitable[None]]


class MemoryOfMany(Memory):
    """The same for batches: `batches` are the calls with many, `calls` those with one."""

    def __init__(self, act_on_many: ActOnMany | None = None, act: Act | None = None) -> None:
        super().__init__(act)
        self.act_on_many = act_on_many
        self.batches: list[list[Record]] = []

    async def many(self, records: Sequence[Record]) -> None:
        self.batches.append(list(records))
        if self.act_on_many is not None:
            await self.act_on_many(records)
        self.done += records

    def offsets(self, partition: int = 0) -> list[int]:
        """What was done of a partition, in the order in which it was done."""
        return [record.offset for record in self.done if record.partition == partition]


@dataclass
class Store:
    """A database with the mechanism's tables, and a view that notes every effect in order."""

    url: str
    tables: Mechanism
    seen: sa.Table
    opened: list[Database] = field(default_factory=list)

    @classmethod
    async def make(cls, url: str) -> "Store":
        metadata = sa.MetaData(schema=SCHEMA)
        tables = Mechanism(metadata)
        seen = sa.Table(
            "seen",
            metadata,
            sa.Column("n", sa.BigInteger, sa.Identity(), primary_key=True),
            sa.Column("view", sa.Text, nullable=False),
            sa.Column("stream", sa.Text, nullable=False),
            sa.Column("sequence", sa.BigInteger),
            sa.Column("id", sa.Text, nullable=False),
        )
        store = cls(url, tables, seen)
        async with store.database().engine.begin() as tx:
            await tx.execute(sa.schema.CreateSchema(SCHEMA))
            await tx.run_sync(metadata.create_all)
            for statement in guard_events(SCHEMA):
                await tx.execute(sa.text(statement))
        return store

    def database(self, **options: Any) -> Database:
        db = Database(self.url, name="kit-test", **options)
        self.opened.append(db)
        return db

    @property
    def db(self) -> Database:
        return self.opened[0]

    @property
    def inbox(self) -> Inbox:
        return Inbox(self.tables)

    def log(self, topic: str = TOPIC.name) -> EventLog:
        return EventLog(self.tables, topic=topic, source="hallmark/kit")

    async def append(self, stream: str = "default/a", *texts: str, db: Database | None = None) -> list[Envelope]:
        log = self.log()
        async with (db or self.db).transaction() as tx:
            last = await log.lock(tx, stream)
            return await log.append(tx, stream, last, [New(Noted(text=t), stream) for t in texts or ("",)], cause())

    async def note(self, tx: AsyncConnection, envelope: Envelope, view: str = "view") -> None:
        """The effect of a consumer: one row per application."""
        await tx.execute(
            sa.insert(self.seen).values(view=view, stream=envelope.key, sequence=envelope.sequence, id=envelope.id)
        )

    async def count(self, table: str) -> int:
        async with self.db.engine.connect() as connection:
            return int(await connection.scalar(sa.text(f'select count(*) from "{SCHEMA}".{table}')) or 0)

    async def effects(self, view: str = "view") -> dict[str, list[int]]:
        """Stream -> the sequences applied, in the order of their application."""
        async with self.db.engine.connect() as connection:
            query = sa.select(self.seen).where(self.seen.c.view == view).order_by(self.seen.c.n)
            found: dict[str, list[int]] = {}
            for row in await connection.execute(query):
                found.setdefault(row.stream, []).append(row.sequence)
            return found

    async def appended(self) -> dict[str, list[int]]:
        """Stream -> its sequences in the event table: what every view must show."""
        async with self.db.engine.connect() as connection:
            query = sa.select(self.tables.event).order_by(self.tables.event.c.position)
            found: dict[str, list[int]] = {}
            for row in await connection.execute(query):
                found.setdefault(row.stream, []).append(row.sequence)
            return {stream: sorted(sequences) for stream, sequences in found.items()}

    async def close(self) -> None:
        for db in self.opened:
            await db.close()


def settings_for(bootstrap: str, *, url: str, prefix: str, idempotence: bool, **changes: Any) -> Settings:
    return Settings.model_validate(
        {
            "database_url": url,
            "kafka_bootstrap": bootstrap,
            "kafka_idempotence": idempotence,
            "topic_prefix": prefix,
            "port": 0,
            "auth_jwks": "none",
            "access_file": Path("none"),
            "graceful_seconds": 5,
            **changes,
        }
    )


async def sessions(url: str, name: str) -> list[int]:
    """Process ids of the sessions of that name in this database."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "select pid from pg_stat_activity where application_name = $1 and datname = current_database()", name
        )
        return [row["pid"] for row in rows]
    finally:
        await connection.close()


async def terminate(url: str, pid: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("select pg_terminate_backend($1)", pid)
    finally:
        await connection.close()
