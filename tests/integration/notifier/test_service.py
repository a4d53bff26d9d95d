"""The whole service as a process: Kafka in, three channels out, Kafka out; killed and started again."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from standardwebhooks import Webhook
from tests.support.receiver import Receiver
from tests.support.waiting import until

from contracts.envelope import Envelope
from contracts.topics import NOTIFIER_EVENTS, REGISTRY_EVENTS
from embedded import jars
from embedded.fixtures import Kafka
from kit.keys import ensure_key, make_token
from kit.topics import apply_topics

from .conftest import Mailbox, service_url, stage_changed

ACCESS = "roles:\n  - {group: ml-engineers, role: contributor}\n"


@dataclass
class Service:
    """`python -m notifier serve`, a client of Ana's, and Kafka."""

    environment: dict[str, str]
    prefix: str
    producer: AIOKafkaProducer
    client: httpx2.AsyncClient
    bootstrap: str
    sequences: dict[str, int]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "notifier", "serve", env={**os.environ, **self.environment}
        )

        async def ready() -> bool:
            assert process.returncode is None, "the service ended"
            try:
                return (await self.client.get("/readyz")).status_code == 200
            except httpx2.HTTPError:
                return False

        try:
            await until(ready, 60)
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
                await asyncio.wait_for(process.wait(), 30)

    async def subscribe(self, channel: str, address: str, **body: Any) -> dict[str, Any]:
        response = await self.client.post("/v1/subscriptions", json={"channel": channel, "address": address, **body})
        assert response.status_code == 201, response.text
        document: dict[str, Any] = response.json()
        return document

    def event(self, model: str, version: int = 2, **changed: Any) -> Envelope:
        stream = f"default/{model}"
        self.sequences[stream] = self.sequences.get(stream, 0) + 1
        return Envelope.of(
            stage_changed(model, version, **changed),
            source="hallmark/registry",
            subject=f"{stream}/{version}",
            key=stream,
            sequence=self.sequences[stream],
            actor="hallmark/registry",
        )

    async def publish(self, envelope: Envelope, value: bytes | None = None) -> None:
        await self.producer.send_and_wait(
            self.prefix + REGISTRY_EVENTS.name,
            value=value or envelope.value,
            key=envelope.key.encode(),
            headers=envelope.headers(),
        )

    async def deliveries(self, **params: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self.client.get("/v1/deliveries", params=params)).json()["items"]
        return items

    async def read(self, topic: str, count: int) -> list[Any]:
        """The first `count` records of a topic."""
        consumer = AIOKafkaConsumer(self.prefix + topic, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            async with asyncio.timeout(60):
                return [await consumer.getone() for _ in range(count)]
        finally:
            await consumer.stop()


@pytest.fixture
async def service(
    kafka: Kafka, topic_prefix: str, database: str, tmp_path: Path, mailbox: Mailbox
) -> AsyncIterator[Service]:
    await apply_topics(kafka.bootstrap, prefix=topic_prefix)
    key = ensure_key(tmp_path, "auth")
    (tmp_path / "access.yaml").write_text(ACCESS)
    (tmp_path / "seal.key").write_bytes(os.urandom(32).hex().encode())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "HALLMARK_DATABASE_URL": service_url(database),
        "HALLMARK_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "HALLMARK_KAFKA_IDEMPOTENCE": str(kafka.idempotence),
        "HALLMARK_TOPIC_PREFIX": topic_prefix,
        "HALLMARK_PORT": str(port),
        "HALLMARK_AUTH_JWKS": str(tmp_path / "auth.jwks.json"),
        "HALLMARK_ACCESS_FILE": str(tmp_path / "access.yaml"),
        "HALLMARK_SECRET_KEY": str(tmp_path / "seal.key"),
        "HALLMARK_SMTP_HOST": "127.0.0.1",
        "HALLMARK_SMTP_PORT": str(mailbox.port),
        "HALLMARK_WEBHOOK_ALLOW": "127.0.0.0/8",
        "HALLMARK_RETRY_SECONDS": "0.1,0.1,0.1",
        "HALLMARK_LEASE_SECONDS": "2",
        "HALLMARK_SEND_TIMEOUT_SECONDS": "1.5",
    }
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all", enable_idempotence=kafka.idempotence)
    await producer.start()
    headers = {"authorization": f"Bearer {make_token(key, 'ana', ['ml-engineers'], email='ana@example.org')}"}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=10) as client:
        yield Service(environment, topic_prefix, producer, client, kafka.bootstrap, {})
    await producer.stop()


async def test_a_stage_change_reaches_all_three_channels_once_and_poison_stops_nobody(
    service: Service, receiver: Receiver, mailbox: Mailbox
) -> None:
    async with service.running():
        webhook = await service.subscribe("webhook", f"{receiver.url}/hook")
        await service.subscribe("slack", f"{receiver.url}/slack")
        await service.subscribe("email", "ana@example.org")
        approved = [{"name": "ben", "at": "2026-11-21T10:00:00Z", "meaning": "reviewed"}]
        gate = {"gate": "accuracy", "expression": "a >= 0.9", "result": "passed", "message": "accuracy 0.971 >= 0.9"}
        event = service.event("churn", replaces=1, approved_by=approved, criteria=[gate])
        poison, after = service.event("churn", 3), service.event("churn", 4)
        neighbour = service.event("other", 1)
        await service.publish(event)
        await service.publish(event)  # the broker's repetition
        await service.publish(poison, value=b'{"model": "churn", "version": NaN}')
        await service.publish(neighbour)
        await service.publish(after)

        async def all_sent() -> bool:
            return len(await service.deliveries(status="succeeded")) >= 9

        await until(all_sent, 60)
        assert len(await service.deliveries()) == 9
        signer = Webhook(webhook["secret"])
        said = [signer.verify(hit.body, hit.headers) for hit in receiver.to("/hook")]
        churn = [e["id"] for e in said if e["partitionkey"] == "default/churn"]
        assert churn == [event.id, after.id]
        assert [e["id"] for e in said if e["partitionkey"] == "default/other"] == [neighbour.id]
        (first,) = [e for e in said if e["id"] == event.id]
        assert first["data"] == json.loads(event.value)
        assert (first["type"], first["subject"], first["sequence"]) == (event.type, "default/churn/2", 1)

        texts = [json.loads(hit.body)["text"] for hit in receiver.to("/slack")]
        assert len(texts) == 3
        assert (
            "churn: v2 is now in Production (was Staging); v1 archived. Asked by ana, approved by ben: 'better recall'."
            " accuracy 0.971 &gt;= 0.9 passed."
        ) in texts
        assert sorted(mail["Subject"] for mail in mailbox.mails) == [
            "churn: v2 is now in Production (was Staging); v1 archived",
            "churn: v4 is now in Production (was Staging)",
            "other: v1 is now in Production (was Staging)",
        ]
        (parked,) = await service.read(REGISTRY_EVENTS.dead_letter("notifier"), 1)
        assert dict(parked.headers)["dlt_code"] == b"bad-event"
        assert dict(parked.headers)["ce_id"] == poison.id.encode()

        records = await service.read(NOTIFIER_EVENTS.name, 13)
        kinds = [dict(r.headers)["ce_type"].decode().split(".", 1)[1] for r in records]
        assert sorted(set(kinds)) == ["delivery.succeeded.v1", "owner.seen.v1", "subscription.created.v1"]
        assert (await service.client.get("/healthz")).status_code == 200


async def test_killed_between_the_receivers_answer_and_the_commit_it_sends_again_under_the_same_id(
    service: Service, receiver: Receiver, kafka: Kafka, request: pytest.FixtureRequest
) -> None:
    """A lock held by the test keeps the outcome from being written; then the process dies by SIGKILL."""
    if kafka.kind == "tansu" and request.config.getoption("--kafka") == "both" and jars.missing() is None:
        pytest.skip("the broker takes no part in it, and a start on Apache Kafka is quicker")
    async with service.running() as process:
        made = await service.subscribe("webhook", f"{receiver.url}/hook")
        blocker = await asyncpg.connect(service.environment["HALLMARK_DATABASE_URL"])
        stream = f"notifier:subscription:{made['subscription_id']}"
        await blocker.execute("select pg_advisory_lock(hashtextextended($1, 0))", stream)
        event = service.event("churn")
        await service.publish(event)
        await until(lambda: len(receiver.hits) == 1, 60)
        took = 'hallmark_deliveries_total{channel="webhook",verdict="succeeded"} 1.0'

        async def answered() -> bool:
            return took in (await service.client.get("/metrics")).text

        await until(answered, 60, "the answer has come back, the outcome waits for our lock")
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await blocker.close()
    async with service.running():
        await until(lambda: len(receiver.hits) == 2, 60)
        done = await until(lambda: service.deliveries(status="succeeded"), 60)
        tries = (await service.client.get(f"/v1/deliveries/{done[0]['delivery_id']}")).json()["tries"]
    assert [t["outcome"] for t in tries] == ["unknown", "succeeded"]
    assert len({hit.headers["webhook-id"] for hit in receiver.hits}) == 1
    assert len(receiver.hits) == 2
    for hit in receiver.hits:
        Webhook(made["secret"]).verify(hit.body, hit.headers)
