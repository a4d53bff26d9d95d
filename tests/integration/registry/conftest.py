"""The registry in this process on real PostgreSQL, Kafka and S3: one for all tests of a module and broker.

Each test has a workspace of its own.
"""

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from fastapi import FastAPI
from joserfc.jwk import OKPKey
from tests.support.databases import migrated_database, role_url
from tests.support.waiting import until

from contracts.envelope import Envelope
from contracts.payload import Message
from contracts.topics import REGISTRY_COMMANDS, REGISTRY_EVENTS
from embedded.fixtures import S3, Kafka, new_bucket
from kit.keys import ensure_key, make_token
from kit.topics import apply_topics
from registry import app as registry_app
from registry.artifacts import store_of
from registry.places import upload_key
from registry.settings import RegistrySettings

ACCESS = """
roles:
  - {group: ml-engineers, role: contributor}
  - {group: reviewers, role: approver}
  - {group: operators, role: operator}
  - {group: admins, role: admin}
  - {group: people, role: viewer}
  - {group: churn-only, role: contributor, model: churn}
  - {group: x-operators, role: operator, model: "x-*"}
"""


@dataclass
class Harness:
    """The running service, clients of several people, and what it said on Kafka."""

    settings: RegistrySettings
    app: FastAPI
    keys: dict[str, OKPKey]
    producer: AIOKafkaProducer
    workspace: str = "default"
    all_heard: list[Envelope] = field(default_factory=list)

    def stream(self, model: str) -> str:
        return f"{self.workspace}/{model}"

    @property
    def heard(self) -> list[Envelope]:
        """What the service said of this test's workspace, and its answers to refused records."""
        return [e for e in self.all_heard if e.key.startswith((f"{self.workspace}/", "command:"))]

    def client(self, subject: str, *groups: str, ttl: int = 600) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app),
            base_url="http://registry",
            params={"workspace": self.workspace},
            headers={"authorization": f"Bearer {self.token(subject, *groups, ttl=ttl)}"},
            timeout=30,
        )

    def token(self, subject: str, *groups: str, ttl: int = 600) -> str:
        return make_token(self.keys["auth"], subject, list(groups), ttl_seconds=ttl)

    @property
    def ana(self) -> httpx2.AsyncClient:
        return self.client("ana", "ml-engineers")

    @property
    def olga(self) -> httpx2.AsyncClient:
        return self.client("olga", "operators")

    async def upload(self, data: bytes, by: str = "ana") -> dict[str, Any]:
        """Puts the bytes into the store and gives the artifact that this person may register."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        body = {"files": [{"digest": digest, "size": len(data)}]}
        caller = self.client(by, "ml-engineers")
        [offer] = (await caller.post("/v1/artifacts", json=body)).json()["files"]
        if offer["state"] == "single":
            async with httpx2.AsyncClient() as outside:
                (await outside.put(offer["url"], content=data, headers=offer["headers"])).raise_for_status()
        return {"digest": digest, "size": len(data), "filename": "model.onnx"}

    async def spoil(self, digest: str, data: bytes) -> None:
        """Other bytes where ana's upload of that digest lies, as whoever holds the store's keys could put them."""
        store = store_of(self.settings)
        await store._call(lambda c: c.put_object(store.bucket, upload_key(digest, "ana"), io.BytesIO(data), len(data)))

    async def register(self, model: str, data: bytes = b"model", **content: Any) -> dict[str, Any]:
        body = {"artifact": await self.upload(data), **content}
        response = await self.ana.post(f"/v1/models/{model}/versions", json=body)
        assert response.status_code == 201, response.text
        return await self.verified(model, response.json()["version"])

    async def verified(self, model: str, version: int) -> dict[str, Any]:
        """The version when it is pending no more. Those that earlier tests left come before it."""

        async def settled() -> dict[str, Any] | None:
            response = await self.ana.get(f"/v1/models/{model}/versions/{version}", params={"wait": 20})
            document: dict[str, Any] = response.json()
            return None if document["status"] == "pending" else document

        return await until(settled, 90, f"{model}/{version} verified")

    async def request(self, model: str, version: int, to: str) -> dict[str, Any]:
        path = f"/v1/models/{model}/versions/{version}/transitions"
        response = await self.ana.post(path, json={"to_stage": to, "reason": "test"})
        assert response.status_code == 202, response.text
        document: dict[str, Any] = response.json()
        return document

    async def closed(self, transition_id: str) -> dict[str, Any]:
        response = await self.ana.get(f"/v1/transitions/{transition_id}", params={"wait": 20})
        document: dict[str, Any] = response.json()
        assert document["status"] != "open", document
        return document

    async def send(self, topic: str, envelope: Envelope, *headers: tuple[str, bytes]) -> None:
        await self.producer.send_and_wait(
            self.settings.topic_prefix + topic,
            value=envelope.value,
            key=envelope.key.encode(),
            headers=[*envelope.headers(), *headers],
        )

    async def command(self, message: Message, token: str, **attributes: Any) -> Envelope:
        """Publishes a command as a producing service would."""
        stream = self.stream(json.loads(message.model_dump_json())["model"])
        envelope = Envelope.of(message, source="test/trainer", subject=stream, key=stream, **attributes)
        await self.send(REGISTRY_COMMANDS.name, envelope, ("authorization", f"Bearer {token}".encode()))
        return envelope

    async def event(self, matches: Callable[[Envelope], bool]) -> Envelope:
        """The first event, past or coming, that matches."""
        return await until(
            lambda: next(filter(matches, self.heard), None),
            60,
            lambda: f"an event that matches; heard were {[e.type for e in self.heard]}",
        )

    async def parked(self, topic: str, count: int = 1) -> list[dict[str, str]]:
        """The headers of the first `count` of this test's records on the registry's dead-letter topic of `topic`."""
        consumer = AIOKafkaConsumer(
            f"{self.settings.topic_prefix}{topic}.registry.dlt",
            bootstrap_servers=self.settings.kafka_bootstrap,
            auto_offset_reset="earliest",
        )
        found: list[dict[str, str]] = []
        await consumer.start()
        try:
            async with asyncio.timeout(60):
                while len(found) < count:
                    record = await consumer.getone()
                    if (record.key or b"").startswith(f"{self.workspace}/".encode()):
                        found.append({name: value.decode(errors="replace") for name, value in record.headers})
        finally:
            await consumer.stop()
        return found


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def settings(infra_postgres: str, infra_s3: S3, kafka: Kafka, scratch: Path) -> Iterator[RegistrySettings]:
    with new_settings(infra_postgres, infra_s3, kafka, scratch) as settings:
        yield settings


@contextmanager
def new_settings(infra_postgres: str, infra_s3: S3, kafka: Kafka, scratch: Path) -> Iterator[RegistrySettings]:
    """Settings of a registry with a database, a bucket and topics of its own; `scratch` gets its keys."""
    for name in ("auth", "decision", "serving"):
        ensure_key(scratch, name)
    (scratch / "access.yaml").write_text(ACCESS)
    with migrated_database(infra_postgres, "registry") as database, new_bucket(infra_s3) as bucket:
        yield RegistrySettings(
            database_url=role_url(database, "registry"),
            kafka_bootstrap=kafka.bootstrap,
            kafka_idempotence=kafka.idempotence,
            topic_prefix=f"t{uuid4().hex[:8]}.",
            auth_jwks=str(scratch / "auth.jwks.json"),
            access_file=scratch / "access.yaml",
            decision_jwks=str(scratch / "decision.jwks.json"),
            serving_key=scratch / "serving.jwk",
            s3_endpoint=infra_s3.endpoint,
            s3_access_key=infra_s3.access_key,
            s3_secret_key=infra_s3.secret_key,
            s3_bucket=bucket,
            graceful_seconds=3,
        )


@asynccontextmanager
async def running(settings: RegistrySettings, directory: Path) -> AsyncIterator[Harness]:
    """The service from start to stop, with an ear on its topic."""
    app = registry_app.build(settings)
    prefix, bootstrap = settings.topic_prefix, settings.kafka_bootstrap
    ear = AIOKafkaConsumer(prefix + REGISTRY_EVENTS.name, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    keys = {name: ensure_key(directory, name) for name in ("auth", "decision")}
    harness = Harness(settings, app, keys, producer)

    async def listen() -> None:
        async for record in ear:
            harness.all_heard.append(Envelope.from_kafka(record.key, record.headers, record.value))

    await ear.start()
    await producer.start()
    listening = asyncio.create_task(listen())
    try:
        async with app.router.lifespan_context(app):
            yield harness
    finally:
        listening.cancel()
        await ear.stop()
        await producer.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(settings: RegistrySettings, scratch: Path) -> AsyncIterator[Harness]:
    await apply_topics(settings.kafka_bootstrap, prefix=settings.topic_prefix)
    async with running(settings, scratch) as harness:
        yield harness


@pytest.fixture
def registry(service: Harness) -> Harness:
    return replace(service, workspace=f"w{uuid4().hex[:8]}")
