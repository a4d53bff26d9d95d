"""Dead letters: when a record is given up, and the topic on which it is kept with the reason."""

import asyncio

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from prometheus_client import Counter

from contracts.envelope import EnvelopeError, now
from contracts.topics import Topic
from kit.errors import Permanent, is_transient
from kit.records import Record
from kit.settings import Settings

log = structlog.get_logger()
UNKNOWN_ERROR_TRIES = 5
PARKED = Counter("hallmark_dead_letters_total", "Records parked on a dead-letter topic", ["service", "topic", "code"])


def permanent_of(error: Exception, attempts: int) -> Permanent | None:
    """The reason to park after this failure, or None to try again."""
    if isinstance(error, Permanent):
        return error
    if isinstance(error, EnvelopeError):
        return Permanent("bad-event", str(error))
    if is_transient(error) or attempts < UNKNOWN_ERROR_TRIES:
        return None
    return Permanent("unexpected-error", repr(error))


class Parking:
    """Writes dead letters. Its producer is made for the first one."""

    def __init__(self, settings: Settings, service: str) -> None:
        self._settings = settings
        self._service = service
        self._producer: AIOKafkaProducer | None = None
        self._lock = asyncio.Lock()

    async def park(self, topic: Topic, record: Record, error: Permanent, attempts: int) -> None:
        """Writes the record, as it came, to the dead-letter topic with the reason in its headers."""
        notes = {
            "dlt_code": error.code,
            "dlt_error": error.detail[:4000],
            "dlt_attempts": str(attempts),
            "dlt_origin": record.place,
            "dlt_service": self._service,
            "dlt_at": now().isoformat(),
        }
        # Without the sender's token: dead letters are kept for ever. Who sends one again signs in again.
        headers = [
            (name, value or b"")
            for name, value in record.headers
            if not name.startswith("dlt_") and name.lower() != "authorization"
        ]
        headers += [(name, text.encode()) for name, text in notes.items()]
        producer = await self._started()
        target = self._settings.topic_prefix + topic.dead_letter(self._service)
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
            await self._drop(producer)
            raise
        PARKED.labels(self._service, topic.name, error.code).inc()
        log.warning("record parked", place=record.place, code=error.code, detail=error.detail, target=target)

    async def stop(self) -> None:
        if self._producer is not None:
            await self._producer.stop()

    async def _drop(self, producer: AIOKafkaProducer) -> None:
        async with self._lock:
            if self._producer is not None and self._producer is producer:
                self._producer = None
                await producer.stop()

    async def _started(self) -> AIOKafkaProducer:
        async with self._lock:
            if self._producer is None:
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
                self._producer = producer
        return self._producer
