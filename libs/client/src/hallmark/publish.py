"""Registering through Kafka, as a training service does: send a command, wait for the registry's answer.

Needs the extra `hallmark-registry[kafka]`.
"""

import asyncio
import os
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError, UnknownError, UnsupportedVersionError

from contracts.envelope import Envelope, EnvelopeError
from contracts.lifecycle import stream_of
from contracts.model import VersionContent
from contracts.payload import Message
from contracts.registry import (
    COMMANDS,
    AliasChanged,
    CommandRejected,
    EvaluateVersion,
    ModelRegistered,
    RegisterModel,
    RegisterVersion,
    RequestTransition,
    RollBack,
    SetAlias,
    StageChanged,
    StageRefused,
    StageRequested,
    TagVersion,
    VersionEvaluated,
    VersionRegistered,
    VersionRejected,
    VersionTagged,
    VersionVerified,
)
from contracts.topics import REGISTRY_COMMANDS, REGISTRY_EVENTS
from hallmark.errors import HallmarkError

# The event that answers each command; a rejection answers any.
ANSWERS: dict[type[Message], tuple[type[Message], ...]] = {
    RegisterModel: (ModelRegistered,),
    RegisterVersion: (VersionRegistered,),
    EvaluateVersion: (VersionEvaluated,),
    TagVersion: (VersionTagged,),
    SetAlias: (AliasChanged, StageRequested),
    RequestTransition: (StageRequested, StageChanged, StageRefused),
    RollBack: (StageRequested, StageRefused),
}
VERIFIED: tuple[type[Message], ...] = (VersionVerified, VersionRejected)
# How brokers without idempotent producers (Tansu) answer a producer that asks to be one.
NOT_IDEMPOTENT = (UnknownError, UnsupportedVersionError)


class Publisher:
    """Sends commands as one principal. Use it in an `async with`.

    `bootstrap` (HALLMARK_KAFKA_BOOTSTRAP) are the brokers, `token` (HALLMARK_TOKEN) says who asks, `source` names the
    sending system in the event, `prefix` (HALLMARK_TOPIC_PREFIX) is the deployment's topic prefix. `options` go to
    aiokafka's producer and consumer (TLS, SASL). `idempotent` (HALLMARK_KAFKA_IDEMPOTENCE) insists on an idempotent
    producer or does without; by default one is used where the broker has them. The registry obeys a command once
    in any case: it knows them by their ids.
    """

    def __init__(
        self,
        bootstrap: str | None = None,
        token: str | None = None,
        *,
        source: str = "hallmark/python",
        prefix: str | None = None,
        idempotent: bool | None = None,
        **options: Any,
    ) -> None:
        env = os.environ
        self._bootstrap = bootstrap or env.get("HALLMARK_KAFKA_BOOTSTRAP") or "127.0.0.1:9092"
        self._token = token if token is not None else env.get("HALLMARK_TOKEN", "")
        self._prefix = env.get("HALLMARK_TOPIC_PREFIX", "") if prefix is None else prefix
        if idempotent is None:
            word = env.get("HALLMARK_KAFKA_IDEMPOTENCE", "").lower()
            idempotent = word not in ("0", "false", "no") if word else None
        self._source = source
        self._idempotent = idempotent
        self._options = options
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Self:
        try:
            try:
                self._producer = await self._started(self._idempotent is not False)
            except NOT_IDEMPOTENT:
                if self._idempotent:
                    raise
                self._producer = await self._started(False)
        except KafkaError as error:
            raise HallmarkError("connection", f"no Kafka broker at {self._bootstrap}: {error!r}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._producer is not None:
            await self._producer.stop()

    async def _started(self, idempotent: bool) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, acks="all", enable_idempotence=idempotent, **self._options
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer

    async def send(self, command: Message, *, event_id: str | None = None) -> Envelope:
        """Sends a command and returns as soon as the brokers have it. The same `event_id` is obeyed only once.

        Raises:
            HallmarkError: code `no-such-command` or `connection`.
        """
        envelope = self._wrap(command, event_id)
        await self._deliver(envelope)
        return envelope

    async def request(self, command: Message, *, event_id: str | None = None, wait: float = 30.0) -> Message:
        """Sends a command and waits for the registry's answer: the event that it led to.

        Raises:
            HallmarkError: the registry's own code and detail when it rejected the command; `no-answer` after `wait`
                seconds (the command is still queued: the registry will obey it once).
        """
        kinds = ANSWERS[type(command)]
        *_, answer = await self._converse(command, kinds, kinds, event_id, wait)
        return answer

    async def _converse(
        self,
        command: Message,
        kinds: tuple[type[Message], ...],
        last: tuple[type[Message], ...],
        event_id: str | None,
        wait: float,
    ) -> list[Message]:
        """Sends, and gives every answer of `kinds` up to one of `last`. Raises as `request`."""
        envelope = self._wrap(command, event_id)
        known: dict[str, type[Message]] = {CommandRejected.TYPE: CommandRejected} | {kind.TYPE: kind for kind in kinds}
        answers: list[Message] = []
        consumer = AIOKafkaConsumer(
            self._prefix + REGISTRY_EVENTS.name, bootstrap_servers=self._bootstrap, group_id=None, **self._options
        )
        try:
            async with asyncio.timeout(wait):
                await consumer.start()
                # Before the command leaves: the answer must not slip by.
                for place, offset in (await consumer.end_offsets(consumer.assignment())).items():
                    consumer.seek(place, offset)
                await self._deliver(envelope)
                while not answers or not isinstance(answers[-1], (*last, CommandRejected)):
                    answers.append(await _next(consumer, envelope.correlationid, known))
        except TimeoutError as error:
            raise HallmarkError(
                "no-answer", f"the registry did not answer {envelope.type} {envelope.id} within {wait:g} s"
            ) from error
        except KafkaError as error:
            raise HallmarkError("connection", f"Kafka at {self._bootstrap}: {error!r}") from error
        finally:
            await consumer.stop()
        if isinstance(answers[-1], CommandRejected):
            raise HallmarkError(answers[-1].code, answers[-1].detail, status=422)
        return answers

    async def register(
        self, model: str, content: VersionContent, *, workspace: str | None = None, wait: float = 30.0
    ) -> VersionRegistered:
        """Registers a version whose artifact is stored already (`Client.content` does both steps before this one),
        and waits until it is verified.

        Raises:
            HallmarkError: as `request`; or the code of the rejection, when the store holds other bytes.
        """
        where = workspace or os.environ.get("HALLMARK_WORKSPACE") or "default"
        command = RegisterVersion(workspace=where, model=model, content=content)
        answers = await self._converse(command, (VersionRegistered, *VERIFIED), VERIFIED, None, wait)
        if isinstance(answers[-1], VersionRejected):
            raise HallmarkError(answers[-1].code, answers[-1].detail, status=422)
        return next(answer for answer in answers if isinstance(answer, VersionRegistered))

    def _wrap(self, command: Message, event_id: str | None) -> Envelope:
        if not isinstance(command, COMMANDS):
            known = ", ".join(kind.__name__ for kind in COMMANDS)
            raise HallmarkError("no-such-command", f"{type(command).__name__} is no command; send one of {known}")
        stream = stream_of(command.workspace, command.model)
        return Envelope.of(command, source=self._source, subject=stream, key=stream, event_id=event_id)

    async def _deliver(self, envelope: Envelope) -> None:
        if self._producer is None:
            raise HallmarkError("not-started", "use the publisher in an 'async with' block")
        headers = envelope.headers()
        if self._token:
            headers.append(("authorization", f"Bearer {self._token}".encode()))
        try:
            await self._producer.send_and_wait(
                self._prefix + REGISTRY_COMMANDS.name, envelope.value, key=envelope.key.encode(), headers=headers
            )
        except KafkaError as error:
            raise HallmarkError("connection", f"Kafka did not take {envelope.type}: {error!r}") from error


async def _next(consumer: AIOKafkaConsumer, correlationid: str, answers: dict[str, type[Message]]) -> Message:
    async for record in consumer:
        try:
            event = Envelope.from_kafka(record.key, record.headers, record.value)
        except EnvelopeError:
            continue
        if event.correlationid == correlationid and event.type in answers:
            return event.payload(answers[event.type])
    raise HallmarkError("no-answer", "the consumer was stopped")
