"""The relay: outbox rows to Kafka, at least once, in order per key.

One relay is active per service: it holds a session advisory lock, so the lock dies with its session. It reads what
is there, publishes, and deletes after the broker's acknowledgement; it keeps no cursor, because ids become visible
out of order. Measured alternatives: `reference/stack.md`, section 2.

A broker that forgot its log (an in-memory one after a restart) answers with offsets below those it gave before.
The event table is the truth, so the relay then publishes everything again; consumers drop what they have.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge

from kit.db import Database
from kit.events import EventLog, outbox_row
from kit.settings import Settings
from kit.tasks import cancel
from kit.topics import apply_topics, partitions_of

log = structlog.get_logger()
PAGE = 500
PUBLISHED = Counter("hallmark_outbox_published_total", "Records the relay published", ["service"])
REPUBLISHED = Counter("hallmark_outbox_republished_total", "Events put out again after the broker forgot", ["service"])
LEADING = Gauge("hallmark_relay_leading", "1 while this process holds the relay's lock", ["service"])


# InternalClientError: what asyncpg says of a session that is cut off while it is being used.
_SURVIVED = (KafkaError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Relay:
    """Runs until cancelled; every failure is logged, waited out and survived."""

    def __init__(
        self,
        db: Database,
        log_: EventLog,
        *,
        bootstrap: str,
        idempotence: bool = True,
        create_topics: bool = False,
        prefix: str = "",
        poll_seconds: float = 0.2,
        check_seconds: float = 2.0,
    ) -> None:
        self._db = db
        self._log = log_
        self._schema = log_.tables.schema
        self._topic = prefix + log_.topic
        self._prefix = prefix
        self._bootstrap = bootstrap
        self._idempotence = idempotence
        self._create_topics = create_topics
        self._poll = poll_seconds
        self._check_seconds = check_seconds
        self._last: dict[tuple[str, int], int] = {}
        self._republished = 0

    @classmethod
    def of(cls, db: Database, log_: EventLog, settings: Settings) -> "Relay":
        return cls(
            db,
            log_,
            bootstrap=settings.kafka_bootstrap,
            idempotence=settings.kafka_idempotence,
            create_topics=settings.kafka_create_topics,
            prefix=settings.topic_prefix,
        )

    async def run(self) -> None:
        pause = 0.1
        while True:
            try:
                async with self._lock() as session:
                    LEADING.labels(self._schema).set(1)
                    async with self._producer() as producer:
                        pause = 0.1
                        await self._lead(session, producer)
            except _SURVIVED as error:
                log.warning("relay interrupted; starting again", service=self._schema, error=repr(error))
            finally:
                LEADING.labels(self._schema).set(0)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    @asynccontextmanager
    async def _lock(self) -> AsyncIterator[asyncpg.Connection]:
        """A session of its own that holds the relay's lock. Pages are deleted through it: lock lost, no delete."""
        session = await asyncpg.connect(
            self._db.url, timeout=5, command_timeout=30, server_settings={"application_name": f"{self._schema}-relay"}
        )
        try:
            while not await session.fetchval(  # noqa: ASYNC110  # nobody can signal a lock's release
                "select pg_try_advisory_lock(hashtext('hallmark.relay'), hashtext($1))", self._schema
            ):
                await asyncio.sleep(self._poll)
            yield session
        finally:
            # `terminate`, not `close`: a session whose server is away must not delay the next try.
            session.terminate()

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[AIOKafkaProducer]:
        if self._create_topics:
            await apply_topics(self._bootstrap, prefix=self._prefix)
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            enable_idempotence=self._idempotence,
            linger_ms=0,
            request_timeout_ms=10_000,
            max_request_size=5_000_000,
        )
        try:
            await producer.start()
            yield producer
        finally:
            # A producer whose broker is away would wait for its pending batches; they are in the outbox anyway.
            try:
                async with asyncio.timeout(2):
                    await producer.stop()
            except (TimeoutError, KafkaError):
                log.warning("producer given up", service=self._schema)

    async def _lead(self, session: asyncpg.Connection, producer: AIOKafkaProducer) -> None:
        clock = asyncio.get_running_loop().time
        if await self._forgot(await self._marks(session)):  # before anything is published
            await self._republish(session)
            self._last.clear()
        due, checking, republished = clock() + self._check_seconds, None, self._republished
        try:
            while True:
                self._db.appended.clear()
                if checking is None and clock() >= due:
                    # Beside the publishing: it takes a tenth of a second.
                    checking = asyncio.create_task(self._forgot(await self._marks(session)))
                    republished = self._republished
                if checking is not None and checking.done():
                    if checking.result() and republished == self._republished:  # a page may have found it out first
                        await self._republish(session)
                        self._last.clear()
                    due, checking = clock() + self._check_seconds, None
                if await self._page(session, producer) == PAGE:
                    continue
                # Not `wait_for`: before Python 3.12 it swallows a cancellation that meets the wake-up.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll):
                        await self._db.appended.wait()
        finally:
            if checking is not None:
                await cancel([checking])

    async def _page(self, session: asyncpg.Connection, producer: AIOKafkaProducer) -> int:
        rows = await session.fetch(
            f'select id, topic, key, headers, value from "{self._schema}".outbox order by id limit {PAGE}'  # noqa: S608
        )
        if not rows:
            return 0
        sent = [
            await producer.send(
                self._prefix + row["topic"],
                value=row["value"],
                key=row["key"],
                headers=[(name, value.encode()) for name, value in json.loads(row["headers"])],
            )
            for row in rows
        ]
        acknowledged = await asyncio.gather(*sent)
        await self._acknowledged(session, [row["id"] for row in rows], acknowledged)
        PUBLISHED.labels(self._schema).inc(len(rows))
        return len(rows)

    async def _acknowledged(self, session: asyncpg.Connection, ids: list[int], records: list[Any]) -> None:
        """Deletes the page and notes how far the broker's log reaches; both or neither.

        The mark is the offset after the page's first record in a partition, not after its last: some brokers count
        the end of a log only up to the first record of its last batch.
        """
        first: dict[tuple[str, int], int] = {}
        back = False
        for r in records:
            if r.offset < 0:  # a repetition that the broker knew already: it does not say where
                continue
            place = (r.topic, r.partition)
            first.setdefault(place, r.offset)
            # Exact within this process: also a broker that forgot in the middle of a page, or that, just started,
            # gave two batches the same offsets (Tansu).
            back = back or r.offset <= self._last.get(place, -1)
            self._last[place] = r.offset
        async with session.transaction():
            await session.execute(f'delete from "{self._schema}".outbox where id = any($1)', ids)  # noqa: S608
            marks = await self._marks(session)
            if back or any(offset < marks.get(place, 0) for place, offset in first.items()):
                await self._republish(session)
            for (topic, partition), offset in first.items():
                await session.execute(
                    f'insert into "{self._schema}".outbox_mark values ($1, $2, $3) '  # noqa: S608
                    "on conflict (topic, partition) do update set next_offset = excluded.next_offset",
                    topic,
                    partition,
                    offset + 1,
                )

    async def _forgot(self, marks: dict[tuple[str, int], int]) -> bool:
        """Asks the broker for its end offsets: it may have forgotten while nothing was published."""
        if not marks:
            return False
        existing = await partitions_of(self._bootstrap, self._topic)
        # Asking for the end of a partition that is gone would wait until the timeout, every time.
        if any(partition not in existing for _, partition in marks):
            return True
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, request_timeout_ms=10_000)
        try:
            await consumer.start()
            ends = await consumer.end_offsets([TopicPartition(*place) for place in marks])
        finally:
            await consumer.stop()
        return any(end < marks[(tp.topic, tp.partition)] for tp, end in ends.items())

    async def _marks(self, session: asyncpg.Connection) -> dict[tuple[str, int], int]:
        rows = await session.fetch(
            f'select topic, partition, next_offset from "{self._schema}".outbox_mark where topic = $1',  # noqa: S608
            self._topic,
        )
        return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}

    async def _republish(self, session: asyncpg.Connection) -> None:
        async with session.transaction():
            await self._put_all_back(session)
        self._republished += 1

    async def _put_all_back(self, session: asyncpg.Connection) -> None:
        schema, count, after = self._schema, 0, 0
        await session.execute(f'delete from "{schema}".outbox_mark')  # noqa: S608
        while rows := await session.fetch(
            f'select * from "{schema}".event where position > $1 order by position limit {PAGE}',  # noqa: S608
            after,
        ):
            out = [outbox_row(self._log.topic, self._log.envelope(_Row(row))) for row in rows]
            await session.executemany(
                f'insert into "{schema}".outbox (topic, key, headers, value) values ($1, $2, $3, $4)',  # noqa: S608
                [(o["topic"], o["key"], json.dumps(o["headers"]), o["value"]) for o in out],
            )
            count, after = count + len(rows), rows[-1]["position"]
        REPUBLISHED.labels(schema).inc(count)
        log.warning("the broker forgot its log; publishing all events again", service=schema, events=count)


class _Row:
    """An asyncpg record read by attribute, as SQLAlchemy rows are."""

    def __init__(self, record: asyncpg.Record) -> None:
        self._record = record

    def __getattr__(self, name: str) -> Any:
        return self._record[name]
