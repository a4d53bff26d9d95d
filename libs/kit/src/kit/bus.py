"""Kafka in: the broker, its subscribers, retry, and a drain before partitions move.

FastStream's acknowledgement policies lose or loop (measured in `reference/stack.md`, section 1.2), so every record is
handled here until it is done or parked, and only then acknowledged:
transient errors are retried without limit, permanent ones are parked at once, unknown ones after a few tries.
A batch that fails as a whole is handled record by record, the same way, and acknowledged when all of it is settled.
"""

import asyncio
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.annotations import KafkaMessage
from faststream.kafka.prometheus import KafkaPrometheusMiddleware
from prometheus_client import REGISTRY, Counter

from contracts.topics import Topic
from kit.errors import Permanent
from kit.parking import Parking, permanent_of
from kit.pulse import Pulse
from kit.records import BatchHandler, Handler, Record, Resumes, no_body, tolerant_parser
from kit.settings import Settings

__all__ = ["BatchHandler", "Bus", "Handler", "Record"]

log = structlog.get_logger()
MAX_BACKOFF_SECONDS = 15.0
# How long a group waits for a member that finishes a record; aiokafka's default is the session's few seconds.
REBALANCE_TIMEOUT_MS = 60_000
BATCH_SIZE = 200
RETRIES = Counter("hallmark_consumer_retries_total", "Tries after the first", ["service", "topic"])


class Interrupted(Exception):
    """The consumer is stopping or losing the partition: leave the record for the next owner."""


class Bus:
    """The Kafka side of one service. Subscribe first, then `start`."""

    def __init__(self, settings: Settings, service: str) -> None:
        self.service = service
        self._settings = settings
        self._subscriptions: list[_Subscription] = []
        self._parking = Parking(settings, service)
        self.broker = KafkaBroker(
            settings.kafka_bootstrap,
            parser=tolerant_parser,
            decoder=no_body,
            graceful_timeout=settings.graceful_seconds,
            allow_auto_create_topics=False,
            acks="all",
            enable_idempotence=settings.kafka_idempotence,
            middlewares=_middlewares(settings, service),
            logger=None,
        )

    def subscribe(self, topic: Topic, handler: Handler) -> None:
        """One record at a time per partition owner, in order; parallel by partitions and replicas only."""
        self._add(_Subscription(self, topic, handler))

    def subscribe_batch(self, topic: Topic, handler: BatchHandler, size: int = BATCH_SIZE) -> None:
        """As `subscribe`, with up to `size` records in one call: those that are here, without waiting for more.

        `many` counts as one piece of work: a stop, a moving partition and liveness wait for it as for one record.
        """
        self._add(_BatchSubscription(self, topic, handler, size), batch=True)

    def _add(self, subscription: "_Subscription", **options: Any) -> None:
        prefix, settings, topic = self._settings.topic_prefix, self._settings, subscription.topic
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
            **options,
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
            await self._stop_broker()
            raise

    async def stop(self) -> None:
        """Lets in-flight records finish, tells waiting retries to give up, then leaves the groups."""
        for subscription in self._subscriptions:
            subscription.interrupt.set()
        await self._stop_broker()
        await self._parking.stop()

    async def _stop_broker(self) -> None:
        await self.broker.stop()
        for subscription in self._subscriptions:
            await subscription.stop_resuming()

    async def park(self, topic: Topic, record: Record, error: Permanent, attempts: int) -> None:
        """Writes the record, as it came, to the dead-letter topic with the reason in its headers."""
        await self._parking.park(topic, record, error, attempts)

    def health(self) -> dict[str, dict[str, Any]]:
        """Per topic what `Pulse.health` says."""
        return {s.topic.name: s.health() for s in self._subscriptions}


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
        self._resuming: asyncio.Task[None] | None = None
        self._pulse = Pulse(bus.service, topic)

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
        await self.stop_resuming()
        await self._idle.wait()

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        self.interrupt.clear()
        self._pulse.assigned()
        if isinstance(self._handler, Resumes) and assigned:
            # Nothing is fetched until it is known from where. That may take long: the group must not wait for it.
            self.subscriber.consumer.pause(*assigned)
            self._resuming = asyncio.create_task(self._resume(self._handler, assigned))

    async def stop_resuming(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
            await asyncio.wait([self._resuming])
            self._resuming = None

    async def _resume(self, handler: Resumes, assigned: list[TopicPartition]) -> None:
        """Goes back where the group is further than the handler has come, as soon as that can be found out."""
        consumer, tries = self.subscriber.consumer, 0
        while True:
            tries += 1
            try:
                await self._go_back(handler, consumer, assigned)
            except Exception as error:
                log.warning("cannot find out from where to read; trying again", error=repr(error), tries=tries)
                try:
                    await self._back_off(tries)
                except Interrupted:
                    return
                continue
            consumer.resume(*assigned)
            return

    async def _go_back(self, handler: Resumes, consumer: Any, assigned: list[TopicPartition]) -> None:
        taken = await handler.taken(self.topic.name, [place.partition for place in assigned])
        for place in assigned:
            committed, following = await consumer.committed(place), taken.get(place.partition, 0)
            if committed is not None and committed > following:
                log.error("the group is ahead of what was taken; reading it again", place=str(place), offset=following)
                consumer.seek(place, following)

    async def receive(self, body: bytes, message: KafkaMessage) -> None:
        """FastStream's way in. Returning acknowledges; raising rewinds."""
        raw = message.raw_message
        records = [Record.of(one, self.topic) for one in (raw if isinstance(raw, tuple) else (raw,))]
        self._idle.clear()
        self._pulse.tried()
        try:
            await self._settle(records)
            if not self._is_member():
                raise Interrupted(self.topic.name)
        finally:
            self._idle.set()
            self._pulse.tried()

    async def _settle(self, records: Sequence[Record]) -> None:
        """Each is done or parked when this returns."""
        for n, record in enumerate(records):
            if n and self.interrupt.is_set():
                raise Interrupted(self.topic.name)
            self._pulse.tried()
            with structlog.contextvars.bound_contextvars(place=record.place):
                await self._handle(record)

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
            self._pulse.tried()
            return
        raise Interrupted(self.topic.name)

    def health(self) -> dict[str, Any]:
        return self._pulse.health(self.subscriber, idle=self._idle.is_set())


class _BatchSubscription(_Subscription):
    """Gives its handler many records at once; if that fails, one by one, so that a bad one harms no neighbour."""

    _handler: BatchHandler

    def __init__(self, bus: Bus, topic: Topic, handler: BatchHandler, size: int) -> None:
        super().__init__(bus, topic, handler)
        self._size = size

    async def start(self) -> None:
        await self.subscriber.start()
        self.subscriber.consumer.getmany = self._next_many

    async def _next_many(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        """Waits for one record and takes with it what has been fetched already.

        Not aiokafka's own: when a header name cannot be decoded it forgets the records before it in the same fetch,
        and moves the position over them. It also looks five times a second where this waits.
        """
        consumer, found = self.subscriber.consumer, [await self._next()]
        try:
            async with asyncio.timeout(0):  # ends the first wait, not the taking of what is there
                while len(found) < self._size:
                    found.append(await AIOKafkaConsumer.getone(consumer))
        except TimeoutError:
            pass
        except Exception as error:
            # What was taken must not be lost with it. It comes again when the next batch is asked for.
            log.debug("a batch ends early", error=repr(error))
        taken: dict[TopicPartition, list[Any]] = {}
        for raw in found:
            taken.setdefault(TopicPartition(raw.topic, raw.partition), []).append(raw)
        return taken

    async def _settle(self, records: Sequence[Record]) -> None:
        if self.interrupt.is_set():  # the partitions began to move while the batch was on its way to us
            raise Interrupted(self.topic.name)
        try:
            with structlog.contextvars.bound_contextvars(place=f"{records[0].place}, {len(records)} records"):
                await self._handler.many(records)
        except Exception as error:
            log.warning("batch failed; one by one", first=records[0].place, records=len(records), error=repr(error))
            RETRIES.labels(self._bus.service, self.topic.name).inc()
            if self.interrupt.is_set():
                raise Interrupted(self.topic.name) from error
            await super()._settle(records)


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
