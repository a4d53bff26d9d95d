"""The approval service in this process on real PostgreSQL and Kafka; the registry's side is played by the test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from fastapi import FastAPI
from joserfc.jwk import OKPKey
from pydantic import SecretStr
from tests.support.databases import migrated_database, role_url
from tests.support.receiver import Receiver
from tests.support.waiting import until

from approval import app as approval_app
from approval import views
from approval.app import Parts, assemble
from approval.clock import Clock
from approval.consumers import RegistryEvents
from approval.domain import Request
from approval.keyring import Keyring
from approval.settings import ApprovalSettings
from contracts.approval import Choice, RequestOpened
from contracts.envelope import Envelope, new_id, now
from contracts.lifecycle import Stage, TransitionKind, stream_of
from contracts.model import Artifact, Lineage, VersionContent
from contracts.payload import Message
from contracts.registry import StageChanged, StageRefused, StageRequested, Transition, VersionRegistered
from contracts.topics import APPROVAL_EVENTS, REGISTRY_EVENTS
from embedded.fixtures import Kafka
from kit.auth import Access
from kit.db import Database
from kit.keys import ensure_key, make_token
from kit.topics import apply_topics
from policy.case import Ballot, Person

PASS = b'{"result": "pass", "message": "gap 0.01"}'
ACCESS = """
roles:
  - {group: ml-engineers, role: contributor}
  - {group: reviewers, role: approver}
  - {group: risk, role: approver}
  - {group: leads, role: approver}
  - {group: security, role: approver}
  - {group: oncall, role: operator}
  - {group: admins, role: admin}
  - {group: guests, role: viewer, workspace: elsewhere}
"""
Document = dict[str, Any]


@dataclass
class Registry:
    """What the registry would publish, with sequences per stream. `send` takes it to the service."""

    send: Callable[[Envelope], Awaitable[None]]
    sequences: dict[str, int] = field(default_factory=dict)
    versions: dict[tuple[str, int], VersionRegistered] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)

    def envelope(self, message: Message, stream: str, version: int | None = None, **attributes: Any) -> Envelope:
        sequence = self.sequences[stream] = self.sequences.get(stream, 0) + 1
        subject = f"{stream}/{version}" if version else stream
        return Envelope.of(
            message, source="hallmark/registry", subject=subject, key=stream, sequence=sequence, **attributes
        )

    async def publish(self, message: Message, model: str, version: int | None = None) -> Envelope:
        envelope = self.envelope(message, stream_of("default", model), version)
        await self.send(envelope)
        return envelope

    async def register(
        self, model: str, version: int = 1, *, by: str = "trainer", committers: tuple[str, ...] = (), **metrics: float
    ) -> None:
        artifact = Artifact(digest=f"sha256:{version:064x}", size=3, filename="model.onnx")
        content = VersionContent(artifact=artifact, metrics=metrics, lineage=Lineage(committers=committers))
        event = VersionRegistered(
            workspace="default",
            model=model,
            version=version,
            digest=content.digest(),
            content=content,
            registered_by=by,
        )
        self.versions[model, version] = event
        await self.publish(event, model, version)

    def transition(self, model: str, version: int, from_: Stage, to: Stage, kind: TransitionKind) -> Transition:
        known = self.versions[model, version]
        return Transition(
            transition_id=str(new_id()),
            kind=kind,
            workspace="default",
            model=model,
            version=version,
            digest=known.digest,
            artifact_digest=known.content.artifact.digest,
            from_stage=from_,
            to_stage=to,
        )

    async def request(
        self,
        model: str,
        version: int = 1,
        *,
        by: str = "ana",
        from_: Stage = Stage.STAGING,
        to: Stage = Stage.PRODUCTION,
        kind: TransitionKind = TransitionKind.PROMOTION,
        expires_in: float = 3600,
        **given: Any,
    ) -> Envelope:
        """Publishes `stage.requested`; its payload holds the transition id."""
        asked = StageRequested(
            **self.transition(model, version, from_, to, kind).model_dump(),
            requested_by=by,
            reason="test",
            expires_at=now() + self.clock.ahead + timedelta(seconds=expires_in),
            **given,
        )
        return await self.publish(asked, model, version)

    async def changed(self, envelope: Envelope) -> None:
        """The registry carries the request out."""
        asked = envelope.payload(StageRequested)
        fields = asked.model_dump(exclude={"expires_at", "expected", "fields"})
        await self.publish(StageChanged(**fields), asked.model, asked.version)

    async def refused(self, envelope: Envelope, code: str) -> None:
        asked = envelope.payload(StageRequested)
        fields = asked.model_dump(exclude={"expires_at", "expected", "fields"})
        await self.publish(StageRefused(**fields, code=code, detail="test"), asked.model, asked.version)


@dataclass
class Harness:
    """The running service, clients of several people, and what it said on Kafka."""

    settings: ApprovalSettings
    app: FastAPI
    keys: dict[str, OKPKey]
    producer: AIOKafkaProducer
    registry: Registry
    heard: list[Envelope] = field(default_factory=list)

    def client(self, subject: str, *groups: str, kind: str = "person") -> httpx2.AsyncClient:
        token = make_token(self.keys["auth"], subject, list(groups), ttl_seconds=600, kind=kind)
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app),
            base_url="http://approval",
            headers={"authorization": f"Bearer {token}"},
            timeout=60,
        )

    @property
    def ana(self) -> httpx2.AsyncClient:
        return self.client("ana", "ml-engineers")

    @property
    def ben(self) -> httpx2.AsyncClient:
        return self.client("ben", "reviewers")

    @property
    def admin(self) -> httpx2.AsyncClient:
        return self.client("root", "admins")

    async def opened(self, envelope: Envelope) -> Document:
        """The request once it is there."""
        request_id = transition_id(envelope)

        async def found() -> Document | None:
            response = await self.ana.get(f"/v1/requests/{request_id}")
            return dict(response.json()) if response.status_code == 200 else None

        return await until(found, 60, f"request {request_id}")

    async def decided(self, envelope: Envelope) -> Document:
        response = await self.ana.get(f"/v1/requests/{transition_id(envelope)}", params={"wait": 30})
        assert response.status_code == 200, response.text
        assert response.json()["status"] != "open", response.text
        return dict(response.json())

    async def vote(self, who: httpx2.AsyncClient, request_id: str, choice: str, **body: Any) -> httpx2.Response:
        return await who.post(f"/v1/requests/{request_id}/votes", json={"choice": choice, **body})

    async def publish_policy(self, text: str) -> None:
        """By one admin, with another's approval."""
        response = await self.admin.post("/v1/policies", json={"document": text})
        assert response.status_code in (200, 202), response.text
        if response.status_code == 202:
            agreed = await self.vote(self.client("vera", "admins"), response.json()["request_id"], "approve")
            assert agreed.json()["status"] == "approved", agreed.text

    async def send_raw(self, key: bytes | None, headers: list[tuple[str, bytes | None]], value: bytes | None) -> None:
        """A record on the registry's topic, as anybody with access to it could write."""
        topic = self.settings.topic_prefix + REGISTRY_EVENTS.name
        await self.producer.send_and_wait(topic, value=value, key=key, headers=headers)

    async def event(self, matches: Callable[[Envelope], bool]) -> Envelope:
        """The first event of the service, past or coming, that matches."""
        return await until(
            lambda: next(filter(matches, self.heard), None),
            60,
            lambda: f"an event that matches; heard were {[e.type for e in self.heard]}",
        )

    def said(self, stream: str) -> list[str]:
        """The short types of what was heard of a stream, in order, duplicates (a republish) dropped."""
        seen = {e.sequence: e.type for e in self.heard if e.key == stream}
        return [seen[n].removeprefix("hallmark.").removesuffix(".v1") for n in sorted(k for k in seen if k)]

    async def parked(self, stream: str, count: int) -> list[str]:
        """The codes of the first `count` records of a stream on the service's dead-letter topic."""
        consumer = AIOKafkaConsumer(
            self.settings.topic_prefix + REGISTRY_EVENTS.dead_letter("approval"),
            bootstrap_servers=self.settings.kafka_bootstrap,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        codes: list[str] = []
        try:
            async with asyncio.timeout(60):
                while len(codes) < count:
                    record = await consumer.getone()
                    if record.key == stream.encode():
                        codes.append(dict(record.headers)["dlt_code"].decode())
            return codes
        finally:
            await consumer.stop()


SLACK_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"


def transition_id(envelope: Envelope) -> str:
    return envelope.payload(StageRequested).transition_id


@pytest.fixture
def database(infra_postgres: str) -> Iterator[str]:
    """The superuser's URL of a new migrated database."""
    with migrated_database(infra_postgres, "approval") as database:
        yield database


def service_url(database: str) -> str:
    """The same database by the service's own role."""
    return role_url(database, "approval")


def make_settings(url: str, directory: Path, **options: Any) -> ApprovalSettings:
    for name in ("auth", "decision"):
        ensure_key(directory, name)
    (directory / "access.yaml").write_text(ACCESS)
    given: dict[str, Any] = {
        "kafka_bootstrap": "localhost:1",
        "graceful_seconds": 3,
        "sweep_seconds": 0.2,
        **options,
    }
    return ApprovalSettings(
        database_url=SecretStr(url),
        auth_jwks=str(directory / "auth.jwks.json"),
        access_file=directory / "access.yaml",
        decision_key=directory / "decision.jwk",
        **given,
    )


@asynccontextmanager
async def running(settings: ApprovalSettings) -> AsyncIterator[Harness]:
    """The service from start to stop, with an ear on its topic."""
    app = approval_app.build(settings)
    prefix, bootstrap = settings.topic_prefix, settings.kafka_bootstrap
    ear = AIOKafkaConsumer(prefix + APPROVAL_EVENTS.name, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    keys = {name: ensure_key(settings.access_file.parent, name) for name in ("auth", "decision")}

    async def send(envelope: Envelope) -> None:
        headers: list[tuple[str, bytes | None]] = [*envelope.headers()]
        await harness.send_raw(envelope.key.encode(), headers, envelope.value)

    async def listen() -> None:
        async for record in ear:
            harness.heard.append(Envelope.from_kafka(record.key, record.headers, record.value))

    harness = Harness(settings, app, keys, producer, Registry(send))
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
async def approval(
    infra_postgres: str, kafka: Kafka, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Harness]:
    """One service for all tests of a module, since joining a group takes seconds; a test keeps to models of its own."""
    prefix = f"t{uuid4().hex[:8]}."
    with migrated_database(infra_postgres, "approval") as database:
        settings = make_settings(
            service_url(database),
            tmp_path_factory.mktemp("approval"),
            kafka_bootstrap=kafka.bootstrap,
            kafka_idempotence=kafka.idempotence,
            topic_prefix=prefix,
            slack_signing_secret=SecretStr(SLACK_SECRET),
            slack_allow=("127.0.0.0/8",),
            console_url="https://console.example",
        )
        await apply_topics(kafka.bootstrap, prefix=prefix)
        async with running(settings) as harness:
            yield harness


@dataclass
class Direct:
    """The use cases on a real database, without HTTP and Kafka: for races, crashes and moving clocks."""

    settings: ApprovalSettings
    db: Database
    clock: Clock
    parts: Parts
    registry: Registry

    async def request(self, request_id: str) -> Request:
        async with self.db.snapshot() as tx:
            found = await views.request(tx, request_id)
        assert found is not None
        return found

    async def not_carried_out(self, request_id: str) -> None:
        """The registry refuses it: the next request for the same stage need not wait for it."""
        asked = (await self.request(request_id)).opened
        assert isinstance(asked, RequestOpened)
        given = asked.model_dump(include={*Transition.model_fields, "requested_by", "reason"})
        refusal = StageRefused(**given, code="stage-moved", detail="test")
        await self.registry.publish(refusal, asked.model, asked.version)

    def again(self, **options: Any) -> Parts:
        """The same service started anew with other settings."""
        return _parts(self.settings.model_copy(update=options), self.db, self.clock)

    async def later(self, **delta: float) -> None:
        """Moves the clock, and lets time do what it does."""
        self.clock.ahead += timedelta(**delta)
        await self.sweep()

    async def sweep(self) -> None:
        while await self.parts.sweeper.once():
            pass

    async def publish(self, text: str) -> None:
        """A policy by one admin, with another's approval, beside those that ship with the service."""
        await self.parts.revisions.bootstrap()
        proposed = await self.parts.revisions.propose(text, "root")
        if proposed.request is not None and proposed.request.status == "open":
            vera = await self.person("vera", "admins")
            done = await self.parts.people.vote(proposed.request.request_id, vera, Ballot(Choice.APPROVE))
            assert done.published is not None, done

    async def person(self, subject: str, *groups: str, **given: Any) -> Person:
        """Somebody who has signed in just now."""
        async with self.db.snapshot() as tx:
            now = await self.clock(tx)
        return person(subject, *groups, **{"authenticated_at": now, **given})

    async def types(self, stream: str) -> list[str]:
        async with self.db.snapshot() as tx:
            found = [e.type async for e in self.parts.desk.log.read(tx, stream=stream)]
        return [t.removeprefix("hallmark.").removesuffix(".v1") for t in found]


@pytest.fixture
def check() -> Iterator[Receiver]:
    """Plays external checks: all is well, unless a test says otherwise."""
    server = Receiver(lambda _: (200, {}, PASS))
    yield server
    server.stop()


@pytest.fixture
def direct(database: str, tmp_path: Path) -> Direct:
    settings = make_settings(service_url(database), tmp_path, settle_seconds=0.1)
    return make_direct(settings)


def make_direct(settings: ApprovalSettings) -> Direct:
    db, clock = Database(settings.database_url.get_secret_value(), name="approval"), Clock()
    parts = _parts(settings, db, clock)
    apply = RegistryEvents(parts.commands)

    async def send(envelope: Envelope) -> None:
        async with db.transaction() as tx:
            await apply(tx, envelope)

    return Direct(settings, db, clock, parts, Registry(send, clock=clock))


def _parts(settings: ApprovalSettings, db: Database, clock: Clock) -> Parts:
    return assemble(settings, db, Access.load(settings.access_file), Keyring(settings.decision_key), clock)


def person(subject: str, *groups: str, **given: Any) -> Person:
    known = {"person": True, "may_vote": True, "method": "token", "authenticated_at": now()}
    return Person(subject, frozenset(groups), **{**known, **given})
