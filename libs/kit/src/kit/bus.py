"""Kafka in: the broker, its subscribers, retry, dead letters, and a drain before partitions move.

FastStream's acknowledgement policies lose or loop (measured in `reference/stack.md`, section 1.2), so every record is
handled here until it is done or parked, and only then acknowledged:
transient errors are retried without limit, permanent ones are parked at once, unknown ones after a few tries.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.annotations import KafkaMessage
from faststream.kafka.prometheus import KafkaPrometheusMiddleware
from prometheus_client import REGISTRY, Counter, Gauge

from contracts.envelope import Envelope, EnvelopeError, now
from contracts.topics import Topic
from kit.errors import Permanent, is_transient
from kit.settings import Settings

log = structlog.get_logger()
UNKNOWN_ERROR_TRIES = 5
MAX_BACKOFF_SECONDS = 15.0
# How long a group waits for a member that finishes a record; aiokafka's default is the session's few seconds.
REBALANCE_TIMEOUT_MS = 60_000
STALE_AFTER_SECONDS = 60.0
PARKED = Counter("hallmark_dead_letters_total", "Records parked on a dead-letter topic", ["service", "topic", "code"])
RETRIES = Counter("hallmark_consumer_retries_total", "Tries after the first", ["service", "topic"])
LAG = Gauge("hallmark_consumer_lag", "Records behind the end of the partition", ["service", "topic", "partition"])


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


class Interrupted(Exception):
    """The consumer is stopping or losing the partition: leave the record for the next owner."""


async def tolerant_parser(record: Any, original: Callable[[Any], Awaitable[Any]]) -> Any:
    """FastStream decodes headers outside every middleware: a null or non-UTF-8 one would make the record vanish."""
    headers = [(name, (value or b"").decode(errors="backslashreplace").encode()) for name, value in record.headers]
    message = await original(replace(record, headers=headers))
    message.raw_message = record
    return message


class Bus:
    """The Kafka side of one service. Subscribe first, then `start`."""

    def __init__(self, settings: Settings, service: str) -> None:
        self.service = service
        self._settings = settings
        self._subscriptions: list[_Subscription] = []
        self._parking: AIOKafkaProducer | None = None
        self._parking_lock = asyncio.Lock()
        self.broker = KafkaBroker(
            settings.kafka_bootstrap,
            parser=tolerant_parser,
            decoder=_raw_body,
            graceful_timeout=settings.graceful_seconds,
            allow_auto_create_topics=False,
            acks="all",
            enable_idempotence=settings.kafka_idempotence,
            middlewares=_middlewares(settings, service),
            logger=None,
        )

    def subscribe(self, topic: Topic, handler: Handler) -> None:
        """One record at a time per partition owner, in order; parallel by partitions and replicas only."""
        subscription = _Subscription(self, topic, handler)
        prefix, settings = self._settings.topic_prefix, self._settings
        group = f"{prefix}{self.service}.{topic.name}"
        subscription.subscriber = self.broker.subscriber(
            prefix + topic.name,
            group_id=group,
            group_instance_id=f"{group}-{settings.instance}-{settings.port}" if settings.instance else None,
            session_timeout_ms=int(settings.kafka_session_seconds * 1000),
            heartbeat_interval_ms=int(settings.kafka_session_seconds * 300),
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.NACK_ON_ERROR,
            no_reply=True,
            listener=subscription,
            title=f"{self.service}:{topic.name}",
        )
        subscription.subscriber(subscription.receive)
        self._subscriptions.append(subscription)

    async def start(self) -> None:
        """Raises KafkaError when the cluster is away; a half-started broker is stopped first."""
        try:
            # `broker.start()` would join one group after the other; each join may cost seconds.
            await self.broker.connect()
            await asyncio.gather(*(subscription.start() for subscription in self._subscriptions))
            self.broker.running = True
        except BaseException:
            await self.broker.stop()
            raise

    async def stop(self) -> None:
        """Lets in-flight records finish, tells waiting retries to give up, then leaves the groups."""
        for subscription in self._subscriptions:
            subscription.interrupt.set()
        await self.broker.stop()
        if self._parking is not None:
            await self._parking.stop()

    async def park(self, topic: Topic, record: Record, error: Permanent, attempts: int) -> None:
        """Writes the record, as it came, to the dead-letter topic with the reason in its headers."""
        notes = {
            "dlt_code": error.code,
            "dlt_error": error.detail[:4000],
            "dlt_attempts": str(attempts),
            "dlt_origin": record.place,
            "dlt_service": self.service,
            "dlt_at": now().isoformat(),
        }
        # Without the sender's token: dead letters are kept for ever. Who sends one again signs in again.
        headers = [
            (name, value or b"")
            for name, value in record.headers
            if not name.startswith("dlt_") and name.lower() != "authorization"
        ]
        headers += [(name, text.encode()) for name, text in notes.items()]
        producer = await self._parking_producer()
        target = self._settings.topic_prefix + topic.dead_letter(self.service)
        key = record.place.encode() if record.key is None and record.value is None else record.key
        try:
            await producer.send_and_wait(target, value=record.value, key=key, headers=headers)
        except MessageSizeTooLargeError:
            # The origin names where the rest of it is; the partition must not wait for ever.
            rest = [(name, text.encode()) for name, text in notes.items()]
            rest.append(("dlt_value_left_out", str(len(record.value or b"")).encode()))
            await producer.send_and_wait(target, value=None, key=record.place.encode(), headers=rest)
        except KafkaError:
            # An idempotent producer may be stuck until it is made anew (aiokafka #1017).
            await self._drop_parking_producer(producer)
            raise
        PARKED.labels(self.service, topic.name, error.code).inc()
        log.warning("record parked", place=record.place, code=error.code, detail=error.detail, target=target)

    async def _drop_parking_producer(self, producer: AIOKafkaProducer) -> None:
        async with self._parking_lock:
            if self._parking is not None and self._parking is producer:
                self._parking = None
                await producer.stop()

    async def _parking_producer(self) -> AIOKafkaProducer:
        async with self._parking_lock:
            if self._parking is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._settings.kafka_bootstrap,
                    acks="all",
                    enable_idempotence=self._settings.kafka_idempotence,
                    max_request_size=5_000_000,
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._parking = producer
        return self._parking

    def health(self) -> dict[str, dict[str, Any]]:
        """Per topic: assigned partitions, seconds since the last fetch, and whether that is alive.

        The broker's ping stays green with a dead consumer, so liveness looks at the consumer itself.
        """
        return {s.topic.name: s.health(self.service) for s in self._subscriptions}


class _Subscription(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """One topic's consumer: handles records and, before partitions move, waits for the one in flight."""

    def __init__(self, bus: Bus, topic: Topic, handler: Handler) -> None:
        self.topic = topic
        self.subscriber: Any = None
        self.interrupt = asyncio.Event()
        self._bus = bus
        self._handler = handler
        self._idle = asyncio.Event()
        self._idle.set()
        self._unassigned_since = _clock()
        self._tried_at = _clock()

    async def start(self) -> None:
        await self.subscriber.start()
        # Before the consuming task runs for the first time: nothing is awaited in between.
        self.subscriber.consumer.getone = self._next

    async def _next(self) -> Any:
        """The next record. aiokafka decodes header names strictly, before anybody sees the record: skip such a one.

        The rest of its batch, from the same producer, cannot be decoded either and is skipped one by one.
        """
        consumer = self.subscriber.consumer
        while True:
            try:
                return await AIOKafkaConsumer.getone(consumer)
            except UnicodeDecodeError as error:
                # The fetcher takes partitions in this order, and drops those that gave all they had.
                place = next(iter(consumer._fetcher._records))
                offset = await consumer.position(place)
                record = Record(self.topic.name, place.partition, offset, 0, None, (), None)
                try:
                    await self._give_up(record, Permanent("bad-event", f"a header's name is not UTF-8: {error}"), 1)
                except Interrupted:
                    await asyncio.sleep(1)  # stopping, or the partition moves: the next owner meets it again
                    continue
                consumer.seek(place, offset + 1)

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        # aiokafka awaits this before it rejoins: without it the record in flight runs on two members.
        self.interrupt.set()
        await self._idle.wait()

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        self.interrupt.clear()
        self._unassigned_since = _clock()

    async def receive(self, body: bytes, message: KafkaMessage) -> None:
        raw = message.raw_message
        assert not isinstance(raw, tuple)
        record = _record(raw, self.topic)
        self._idle.clear()
        self._tried_at = _clock()
        try:
            with structlog.contextvars.bound_contextvars(place=record.place):
                await self._handle(record)
                if not self._is_member():
                    raise Interrupted(self.topic.name)
        finally:
            self._idle.set()
            self._tried_at = _clock()

    def _is_member(self) -> bool:
        """Whether the group still knows us. A commit without a membership would be taken by an empty group, and a
        broker that forgot its log has only empty groups: the old offset would then skip what it publishes again."""
        consumer = self.subscriber.consumer
        return consumer is None or consumer._coordinator.generation >= 0

    async def _handle(self, record: Record) -> None:
        attempts = 0
        while True:
            attempts += 1
            try:
                await self._handler(record)
            except Exception as error:
                permanent = permanent_of(error, attempts)
                if permanent is None:
                    log.warning("record failed; trying again", attempts=attempts, error=repr(error))
                    await self._back_off(attempts)
                    continue
                await self._give_up(record, permanent, attempts)
            return

    async def _give_up(self, record: Record, error: Permanent, attempts: int) -> None:
        tries, written = 0, False
        while True:
            tries += 1
            try:
                if not written:
                    await self._bus.park(self.topic, record, error, attempts)
                    written = True
                await self._handler.parked(record, error)
            except Exception as trouble:
                log.warning("cannot park; trying again", error=repr(trouble), tries=tries)
                await self._back_off(tries)
                continue
            return

    async def _back_off(self, attempts: int) -> None:
        """Waits a growing, jittered while.

        Raises:
            Interrupted: the consumer stops or loses the partition meanwhile.
        """
        RETRIES.labels(self._bus.service, self.topic.name).inc()
        pause = min(0.1 * 2 ** min(attempts, 10), MAX_BACKOFF_SECONDS) * random.uniform(0.8, 1.2)  # noqa: S311
        try:
            async with asyncio.timeout(pause):
                await self.interrupt.wait()
        except TimeoutError:
            self._tried_at = _clock()
            return
        raise Interrupted(self.topic.name)

    def health(self, service: str) -> dict[str, Any]:
        consumer = self.subscriber.consumer
        assigned = sorted(consumer.assignment()) if consumer is not None else []
        if not assigned:
            idle = _clock() - self._unassigned_since
            return {"partitions": 0, "alive": idle < STALE_AFTER_SECONDS, "idle_seconds": round(idle, 1)}
        fetched = []
        for tp in assigned:
            last = consumer.last_poll_timestamp(tp)
            fetched.append(last / 1000 if last else 0.0)
            end = consumer.highwater(tp)
            if end is not None:
                position = consumer._subscription.subscription.assignment.state_value(tp)
                behind = end - position.position if position is not None and position.has_valid_position else 0
                LAG.labels(service, self.topic.name, tp.partition).set(max(behind, 0))
        # A handler that waits for PostgreSQL is alive while it tries: a restart would not help. One that hangs is not.
        age = _clock() - self._tried_at
        if self._idle.is_set():
            fetched_ago = now().timestamp() - max(fetched) if max(fetched) else _clock() - self._unassigned_since
            age = min(age, fetched_ago)
        looping = any(not task.done() for task in self.subscriber.tasks)
        alive = looping and age < STALE_AFTER_SECONDS
        return {"partitions": len(assigned), "alive": alive, "idle_seconds": round(age, 1)}


def permanent_of(error: Exception, attempts: int) -> Permanent | None:
    """The reason to park after this failure, or None to try again."""
    if isinstance(error, Permanent):
        return error
    if isinstance(error, EnvelopeError):
        return Permanent("bad-event", str(error))
    if is_transient(error) or attempts < UNKNOWN_ERROR_TRIES:
        return None
    return Permanent("unexpected-error", repr(error))


def _record(raw: "ConsumerRecord[bytes | None, bytes | None]", topic: Topic) -> Record:
    return Record(
        topic=topic.name,
        partition=raw.partition,
        offset=raw.offset,
        timestamp_ms=raw.timestamp,
        key=raw.key,
        headers=tuple(raw.headers),
        value=raw.value,
    )


async def _raw_body(message: Any) -> bytes:
    return bytes(message.body)


def _middlewares(settings: Settings, service: str) -> list[Any]:
    middlewares: list[Any] = [_prometheus(service)]
    if settings.otlp_endpoint:
        from faststream.kafka.opentelemetry import KafkaTelemetryMiddleware

        middlewares.insert(0, KafkaTelemetryMiddleware())
    return middlewares


@cache
def _prometheus(service: str) -> KafkaPrometheusMiddleware:
    """One per service and process: a metric can be registered once."""
    return KafkaPrometheusMiddleware(registry=REGISTRY, app_name=service)


def _clock() -> float:
    return time.monotonic()
