"""The whole service on a real broker: every record once, whatever is sent and whatever dies in between."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from tests.support.waiting import until

from audit import app as audit_app
from audit import tables, view_tables
from audit.completeness import Completeness
from audit.ledger import Ledger
from audit.note import open_note
from audit.settings import AuditSettings
from contracts.approval import VoteRefused
from contracts.audit import CheckpointPublished
from contracts.envelope import Envelope
from contracts.lifecycle import Stage
from contracts.notifier import SubscriptionRemoved
from contracts.registry import RequestTransition
from contracts.topics import APPROVAL_EVENTS, AUDIT_EVENTS, NOTIFIER_EVENTS, REGISTRY_COMMANDS, REGISTRY_EVENTS, Topic
from embedded.fixtures import Kafka
from kit.bus import Record
from kit.db import Database
from kit.topics import apply_topics

from .conftest import Harness, event, registered, story

Headers = Sequence[tuple[str, bytes | None]]


@dataclass
class Wire:
    """The deployment's topics."""

    settings: AuditSettings
    producer: AIOKafkaProducer

    async def send(
        self, topic: Topic, envelope: Envelope, *, headers: Headers | None = None, value: bytes | None = b"?"
    ) -> None:
        await self.producer.send_and_wait(
            self.settings.topic_prefix + topic.name,
            value=envelope.value if value == b"?" else value,
            key=envelope.key.encode(),
            headers=envelope.headers() if headers is None else headers,
        )

    async def read(self, topic: str, count: int) -> list[Any]:
        """The first `count` records of a topic."""
        consumer = AIOKafkaConsumer(
            self.settings.topic_prefix + topic,
            bootstrap_servers=self.settings.kafka_bootstrap,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            async with asyncio.timeout(60):
                return [await consumer.getone() for _ in range(count)]
        finally:
            await consumer.stop()


@pytest.fixture
async def wire(settings: AuditSettings, kafka: Kafka, topic_prefix: str) -> AsyncIterator[Wire]:
    await apply_topics(kafka.bootstrap, prefix=topic_prefix)
    update = {
        "kafka_bootstrap": kafka.bootstrap,
        "kafka_idempotence": kafka.idempotence,
        "topic_prefix": topic_prefix,
        "checkpoint_publish_seconds": 0.0,
    }
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all")
    await producer.start()
    try:
        yield Wire(settings.model_copy(update=update), producer)
    finally:
        await producer.stop()


@asynccontextmanager
async def serving(wire: Wire) -> AsyncIterator[None]:
    app = audit_app.build(wire.settings)
    async with app.router.lifespan_context(app):
        yield


async def logged(audit: Harness, wanted: int) -> None:
    """Waits for so many entries, not counting those of the audit service itself."""

    async def reached() -> bool:
        return bool(sum(e["topic"] != AUDIT_EVENTS.name for e in await audit.rows(tables.entry)) >= wanted)

    await until(reached, 60)


async def projected(audit: Harness) -> None:
    """Waits for the views."""

    async def reached() -> bool:
        (head,) = await audit.rows(tables.tree_head)
        follower = {row["name"]: row["next"] for row in await audit.rows(tables.follower)}
        return bool(follower["views"] == head["size"])

    await until(reached, 60)


def audit_of(wire: Wire) -> Completeness:
    settings = wire.settings
    return Completeness(Database(settings.database_url.get_secret_value(), name="check"), settings)


async def test_every_record_of_every_topic_enters_once(audit: Harness, wire: Wire) -> None:
    first, second, *_ = story()
    asks = event(RequestTransition(model="fraud", version=1, to_stage=Stage.STAGING, reason="try"), None)
    refused = VoteRefused(request_id="t", voter="ana", choice="approve", code="own", detail="asked herself")
    gone = SubscriptionRemoved(subscription_id="s", removed_by="ana")
    async with serving(wire):
        await wire.send(REGISTRY_COMMANDS, asks, headers=[*asks.headers(), ("authorization", b"Bearer secret")])
        await wire.send(REGISTRY_EVENTS, first)
        await wire.send(REGISTRY_EVENTS, first)  # a relay that died before it could delete
        # Poison: a null header, bytes that are no text, no JSON, no value, an event nobody knows.
        await wire.send(REGISTRY_EVENTS, event(registered(5), 7), headers=[("ce_id", None), ("x", b"\xff")])
        await wire.send(REGISTRY_EVENTS, event(registered(6), 7), value=b"\x00\xff")
        await wire.send(REGISTRY_EVENTS, event(registered(7), 7), value=None)
        await wire.send(REGISTRY_EVENTS, event(registered(8, "other"), 1).model_copy(update={"type": "other.v1"}))
        await wire.send(REGISTRY_EVENTS, second)
        await wire.send(APPROVAL_EVENTS, event(refused, 1))
        await wire.send(NOTIFIER_EVENTS, event(gone, 1))

        await logged(audit, 10)
        parked = await wire.read(REGISTRY_EVENTS.dead_letter("audit"), 4)
        published = await wire.read(AUDIT_EVENTS.name, 1)

        async def own_in() -> bool:
            return any(row["type"] == CheckpointPublished.TYPE for row in await audit.rows(view_tables.timeline))

        await until(own_in, 60)
        await projected(audit)
        found = await audit_of(wire).check()
        assert (found["broker"], [item for item in found["items"] if item["missing"]]) == (None, [])
        # The bad ones claim a sequence that nobody reached.
        assert [(hole["stream"], hole["highest"]) for hole in found["streams"]] == [("default/fraud", 7)]
    codes = sorted(dict(r.headers)["dlt_code"].decode() for r in parked)
    assert codes == ["bad-event", "bad-event", "bad-event", "unknown-type"]
    entries = await audit.entries()
    others = [e for e in entries if e["topic"] != AUDIT_EVENTS.name]
    assert [e["index"] for e in entries] == list(range(len(entries)))
    assert len({(e["topic"], e["partition"], e["kafka_offset"]) for e in entries}) == len(entries)
    assert (len(others), sum(e["problem"] is not None for e in others)) == (10, 4)
    assert sum(row["copy_of"] is not None for row in await audit.rows(view_tables.timeline)) == 1
    assert not any(b"secret" in e["leaf"] for e in entries)
    assert (await audit.get("/v1/log/verify"))["ok"] is True
    assert (await audit.get("/v1/models/fraud/production?stage=Staging"))["version"] == 1
    checkpoint = Envelope.from_kafka(published[0].key, published[0].headers, published[0].value)
    message = checkpoint.payload(CheckpointPublished)
    assert open_note(message.note, (await audit.get("/keys")).splitlines()[0]).size == message.size


@pytest.mark.one_broker
async def test_a_crash_between_the_log_and_the_acknowledgement(
    audit: Harness, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction is through, Kafka does not know, the record comes again."""
    append = Ledger.append
    crashes = again = 0

    async def crashing(self: Ledger, records: Sequence[Record]) -> list[int | None]:
        nonlocal crashes, again
        indexes = await append(self, records)
        again += sum(index is None for index in indexes)
        if any(index is not None for index in indexes):
            crashes += 1
            raise ConnectionError("the answer was lost")
        return indexes

    monkeypatch.setattr(Ledger, "append", crashing)
    envelopes = story()
    async with serving(wire):
        for envelope in envelopes:
            await wire.send(REGISTRY_EVENTS, envelope)
        await logged(audit, len(envelopes))

        async def all_again() -> bool:
            return again >= len(envelopes)

        await until(all_again, 60)
        await projected(audit)
    assert crashes
    entries = [e for e in await audit.entries() if e["topic"] != AUDIT_EVENTS.name]
    assert len(entries) == len(envelopes)
    assert (await audit_of(wire).check())["complete"] is True
    assert (await audit.get("/v1/models/fraud/production"))["version"] == 1


@pytest.mark.one_broker
async def test_a_restart_goes_on_where_it_was(audit: Harness, wire: Wire) -> None:
    envelopes = story()

    async with serving(wire):
        for envelope in envelopes[:4]:
            await wire.send(REGISTRY_EVENTS, envelope)
        await logged(audit, 4)
    for envelope in envelopes[4:]:
        await wire.send(REGISTRY_EVENTS, envelope)
    async with serving(wire):
        await logged(audit, len(envelopes))
    entries = [e for e in await audit.entries() if e["topic"] != AUDIT_EVENTS.name]
    assert len(entries) == len(envelopes)
    assert (await audit.get("/v1/log/verify"))["ok"] is True


@pytest.mark.one_broker
async def test_a_record_that_cannot_be_appended_waits(
    audit: Harness, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even an unknown error parks nothing unlogged: it is tried again until it is in."""
    append = Ledger.append
    tries = 0

    async def failing(self: Ledger, records: Sequence[Record]) -> list[int | None]:
        nonlocal tries
        tries += 1
        if tries < 7:
            raise ZeroDivisionError("a bug")
        return await append(self, records)

    monkeypatch.setattr(Ledger, "append", failing)
    monkeypatch.setattr("kit.bus.MAX_BACKOFF_SECONDS", 0.05)
    async with serving(wire):
        await wire.send(REGISTRY_EVENTS, story()[0])

        await logged(audit, 1)
    assert tries >= 7
