"""The notifier's parts on real PostgreSQL, with a real HTTP receiver and a real SMTP server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
import sqlalchemy as sa
from aiosmtpd.smtp import SMTP
from fastapi import FastAPI
from tests.support.databases import migrated_database, role_url
from tests.support.receiver import Receiver
from tests.support.waiting import until

from contracts.access import Role
from contracts.envelope import Envelope, now
from contracts.notifier import Channel
from contracts.registry import StageChanged
from contracts.topics import NOTIFIER_EVENTS
from kit.auth import Access, Grant
from kit.db import Database
from kit.events import EventLog
from kit.inbox import Inbox
from kit.keys import ensure_key, make_token
from kit.outbound import Guard
from notifier import app, queue, views
from notifier.app import build as notifier_build
from notifier.bundles import Bundler
from notifier.commands import Commands
from notifier.fanning import fan_out
from notifier.retrying import Schedule
from notifier.rights import Rights
from notifier.settings import NotifierSettings
from notifier.tables import mechanism
from notifier.vault import Vault
from notifier.worker import Worker

from .asking import ACCESS, As

DIGEST = "sha256:" + "a" * 64
MIGRATIONS = Path(app.__file__).parent / "migrations"


class Mailbox:
    """A local SMTP server. `answer` decides per recipient."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.asked: list[str] = []
        self.answer: Callable[[str], str] = lambda _: "250 OK"
        self.port = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Mailbox"]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(self, hostname="localhost", loop=loop), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        self.asked.append(address)
        said = self.answer(address)
        if said.startswith("250"):
            envelope.rcpt_tos.append(address)
        return said

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.stop()


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    async with Mailbox().open() as server:
        yield server


@pytest.fixture
def database(infra_postgres: str) -> Iterator[str]:
    """The superuser's URL of a new migrated database."""
    with migrated_database(infra_postgres, "notifier") as database:
        yield database


def service_url(database: str) -> str:
    """The same database by the service's own role."""
    return role_url(database, "notifier")


def stage_changed(model: str = "churn", version: int = 2, **changed: Any) -> StageChanged:
    values: dict[str, Any] = {
        "transition_id": f"t-{model}-{version}",
        "kind": "promotion",
        "workspace": "default",
        "model": model,
        "version": version,
        "digest": DIGEST,
        "artifact_digest": DIGEST,
        "from_stage": "Staging",
        "to_stage": "Production",
        "requested_by": "ana",
        "reason": "better recall",
        **changed,
    }
    return StageChanged.model_validate(values)


@dataclass
class Rig:
    """Commands, queue and any number of workers over one database; the consumers' effect without Kafka."""

    db: Database
    settings: NotifierSettings
    log: EventLog
    commands: Commands
    vault: Vault
    rights: Rights
    sequences: dict[str, int] = field(default_factory=dict)

    @asynccontextmanager
    async def worker(self, **options: Any) -> AsyncIterator[Worker]:
        guard = Guard(self.settings.webhook_allow)
        given: dict[str, Any] = {"poll_seconds": 0.05, "graceful_seconds": 5, **options}
        schedule = Schedule(given.pop("pauses", self.settings.retry_seconds))
        senders = given.pop("senders", None) or app.senders(self.settings, guard, self.db)
        worker = Worker(self.db, self.log, senders, self.vault, self.rights, schedule, asyncio.Event(), **given)
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def bundled(self, *, later: timedelta = timedelta(0)) -> int:
        """Sends the messages about many events that are due `later` from now; gives how many were looked at."""
        return await Bundler(self.db, self.log, asyncio.Event(), self.rights, clock=lambda: now() + later).once()

    def event(self, model: str = "churn", version: int = 2, **changed: Any) -> Envelope:
        stream = f"default/{model}"
        self.sequences[stream] = self.sequences.get(stream, 0) + 1
        message = stage_changed(model, version, **changed)
        return Envelope.of(
            message,
            source="hallmark/registry",
            subject=f"{stream}/{version}",
            key=stream,
            sequence=self.sequences[stream],
            actor="ana",
        )

    async def happens(self, *envelopes: Envelope) -> None:
        async with self.db.transaction() as tx:
            await fan_out(tx, self.log, envelopes)

    async def webhook(self, url: str, **options: Any) -> dict[str, Any]:
        return await self.commands.subscribe("ana", Channel.WEBHOOK, url, **options)

    async def deliveries(self, subscription: dict[str, Any], **filters: Any) -> list[dict[str, Any]]:
        """Oldest first."""
        given = {"owner": None, "status": None, "event_id": None, "limit": 500, "after": None, **filters}
        async with self.db.snapshot() as tx:
            page = await views.deliveries(tx, "default", subscription_id=subscription["subscription_id"], **given)
        items: list[dict[str, Any]] = page["items"]
        return items[::-1]

    async def all_done(self, subscription: dict[str, Any], count: int, seconds: float = 60) -> list[dict[str, Any]]:
        """Waits until there are `count` deliveries and none is open."""

        async def done() -> list[dict[str, Any]] | None:
            found = await self.deliveries(subscription)
            return found if len(found) == count and all(d["status"] != "pending" for d in found) else None

        return await until(done, seconds, f"{count} deliveries, none of them open")

    async def pass_time(self, seconds: float) -> None:
        """As if so much time had passed: every timer is that much nearer."""
        columns = {
            "lane": ("due_at", "leased_until"),
            "delivery": ("due_at",),
            "target": ("failing_since",),
            "confirmation": ("asked_at", "expires_at", "due_at"),
            "endpoint": ("probe_at", "paused_until", "refilled_at"),
        }
        async with self.db.transaction() as tx:
            for table, names in columns.items():
                moved = ", ".join(f"{name} = {name} - make_interval(secs => :seconds)" for name in names)
                await tx.execute(sa.text(f"update notifier.{table} set {moved}"), {"seconds": seconds})

    async def replayed(self, delivery: dict[str, Any]) -> None:
        """As a person asks for it."""
        async with self.db.snapshot() as tx:
            found = await views.delivery_detail(tx, UUID(delivery["delivery_id"]))
        assert found is not None
        await self.commands.replay(UUID(delivery["delivery_id"]), found[1])

    async def tries(self, delivery: dict[str, Any]) -> list[dict[str, Any]]:
        async with self.db.snapshot() as tx:
            found = await views.delivery_detail(tx, UUID(delivery["delivery_id"]))
        assert found is not None
        tries: list[dict[str, Any]] = found[0]["tries"]
        return tries

    async def events(self, subscription: dict[str, Any]) -> list[Envelope]:
        async with self.db.snapshot() as tx:
            stream = views.stream_of(subscription["subscription_id"])
            return [envelope async for envelope in self.log.read(tx, stream=stream)]

    async def said(self, subscription: dict[str, Any], count: int) -> list[Envelope]:
        """Its events once there are `count`."""

        async def enough() -> list[Envelope] | None:
            found = await self.events(subscription)
            return found if len(found) >= count else None

        return await until(enough, 60, f"{count} events of the subscription")


@pytest.fixture
async def rig(database: str, mailbox: Mailbox, tmp_path: Path) -> AsyncIterator[Rig]:
    url = service_url(database)
    ensure_key(tmp_path, "webhook")
    (tmp_path / "seal.key").write_bytes(b"k" * 32)
    settings = NotifierSettings.model_validate(
        {
            "database_url": url,
            "kafka_bootstrap": "127.0.0.1:1",
            "auth_jwks": "unused",
            "access_file": tmp_path / "unused",
            "smtp_host": "127.0.0.1",
            "smtp_port": mailbox.port,
            "webhook_allow": "127.0.0.0/8",
            "retry_seconds": "0.05,0.05,0.05",
            "send_timeout_seconds": 5,
            "webhook_key": tmp_path / "webhook.jwk",
            "secret_key": tmp_path / "seal.key",
        }
    )
    db = Database(url, name="notifier-test")
    log = EventLog(mechanism, topic=NOTIFIER_EVENTS.name, source=queue.ACTOR)
    vault = Vault.load(settings.secret_key)
    commands = Commands(db, log, Inbox(mechanism), Guard(settings.webhook_allow), vault, mail=True)
    everybody = Access([Grant(group="everyone", role=Role.ADMIN)])
    yield Rig(db, settings, log, commands, vault, Rights(db, everybody))
    await db.close()


@pytest.fixture
async def person(rig: Rig, tmp_path: Path) -> AsyncIterator[As]:
    """`person("ana", "ml-engineers")` is a client with a token. The application is built, not started."""
    key = ensure_key(tmp_path, "auth")
    (tmp_path / "access.yaml").write_text(ACCESS)
    told = {"auth_jwks": str(tmp_path / "auth.jwks.json"), "access_file": tmp_path / "access.yaml"}
    service: FastAPI = notifier_build(rig.settings.model_copy(update=told))
    clients: list[httpx2.AsyncClient] = []

    def made(subject: str, *groups: str) -> httpx2.AsyncClient:
        token = make_token(key, subject, list(groups), email=f"{subject}@example.org")
        headers = {"authorization": f"Bearer {token}"} if subject else {}
        clients.append(
            httpx2.AsyncClient(transport=httpx2.ASGITransport(service), base_url="http://n", headers=headers)
        )
        return clients[-1]

    yield made
    for client in clients:
        await client.aclose()


@pytest.fixture
def ana(person: As) -> httpx2.AsyncClient:
    return person("ana", "ml-engineers")
