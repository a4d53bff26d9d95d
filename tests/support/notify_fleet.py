"""The notifier as it runs in production, with PostgreSQL, Kafka and a receiver: for measurements and chaos."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from aiokafka import AIOKafkaProducer
from tests.support.notify_sink import Taken
from tests.support.waiting import until

from contracts.envelope import Envelope
from contracts.lifecycle import TransitionKind
from contracts.registry import StageChanged
from contracts.topics import REGISTRY_EVENTS
from embedded.ports import free_port
from kit.keys import ensure_key, make_token
from kit.migrations import migrate
from kit.topics import apply_topics
from notifier import app

ACCESS = "roles:\n  - {group: admins, role: admin}\n"
DIGEST = "sha256:" + "a" * 64


class Fleet:
    """Replicas over one database. `sink` is the URL of the receiver."""

    def __init__(self, environment: dict[str, str], directory: Path, token: str, sink: str) -> None:
        self._environment, self._directory, self._token, self.sink = environment, directory, token, sink
        self.replicas: dict[int, Process] = {}
        self._sequences = defaultdict[str, int](int)
        self.http = httpx2.AsyncClient(timeout=120, headers={"authorization": f"Bearer {token}"})

    async def start(self, port: int) -> None:
        environment = {**os.environ, **self._environment, "HALLMARK_PORT": str(port)}
        with (self._directory / f"notifier-{port}.log").open("ab") as out:
            self.replicas[port] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "notifier", "serve", env=environment, stdout=out, stderr=out
            )

    async def ready(self) -> None:
        """Waits until every replica takes events."""

        async def all_ready() -> bool:
            try:
                answers = [await self.http.get(f"http://127.0.0.1:{port}/readyz") for port in self.replicas]
            except httpx2.HTTPError:
                return False
            return all(answer.status_code == 200 for answer in answers)

        await until(all_ready, 120, self._logs)

    def _logs(self) -> str:
        ends = [path.read_text(errors="replace")[-2000:] for path in sorted(self._directory.glob("notifier-*.log"))]
        return "\n".join(["the replicas are not ready", *ends])

    async def kill(self, port: int) -> None:
        """By SIGKILL, and starts it again."""
        self.replicas[port].send_signal(signal.SIGKILL)
        await self.replicas[port].wait()
        await self.start(port)

    async def call(self, method: str, path: str, **body: Any) -> Any:
        """Of any replica that lives."""

        async def answered() -> Any:
            for port in self.replicas:
                try:
                    answer = await self.http.request(method, f"http://127.0.0.1:{port}{path}", json=body)
                except httpx2.HTTPError:
                    continue
                if answer.status_code < 500:
                    answer.raise_for_status()
                    return answer.json()
            return None

        return await until(answered, 120, f"an answer to {path}")

    async def subscribe(self, path: str, model: str) -> str:
        made = await self.call(
            "POST", "/v1/subscriptions", channel="webhook", address=f"{self.sink}/{path}", model=model
        )
        return str(made["subscription_id"])

    def event(self, model: str) -> Envelope:
        key = f"default/{model}"
        self._sequences[key] += 1
        message = StageChanged(
            transition_id=f"t-{model}-{self._sequences[key]}",
            kind=TransitionKind.PROMOTION,
            workspace="default",
            model=model,
            version=self._sequences[key],
            digest=DIGEST,
            artifact_digest=DIGEST,
            from_stage="Staging",
            to_stage="Production",
            requested_by="ana",
            reason="measured",
        )
        subject = f"{key}/{self._sequences[key]}"
        return Envelope.of(message, source="hallmark/registry", subject=subject, key=key, sequence=self._sequences[key])

    async def taken(self) -> list[Taken]:
        return [tuple(one) for one in (await self.http.get(f"{self.sink}/taken")).json()]

    async def stop(self) -> None:
        for process in self.replicas.values():
            if process.returncode is None:
                process.kill()
            await process.wait()
        await self.http.aclose()


@asynccontextmanager
async def fleet(
    directory: Path, admin_url: str, bootstrap: str, prefix: str, *, replicas: int, settings: dict[str, str]
) -> AsyncIterator[tuple[Fleet, AIOKafkaProducer]]:
    """An empty database of `admin_url` and the topics with `prefix`; the replicas are ready, and so is the producer."""
    parts = urlsplit(admin_url)
    url = parts._replace(netloc=f"hallmark_notifier:test@{parts.hostname}:{parts.port}").geturl()
    scripts = Path(app.__file__).parent / "migrations"
    await asyncio.to_thread(migrate, "notifier", scripts, database_url=url, admin_database_url=admin_url)
    await apply_topics(bootstrap, prefix=prefix)
    key = ensure_key(directory, "auth")
    (directory / "access.yaml").write_text(ACCESS)
    (directory / "seal.key").write_bytes(b"k" * 32)
    environment = {
        "HALLMARK_DATABASE_URL": url,
        "HALLMARK_KAFKA_BOOTSTRAP": bootstrap,
        "HALLMARK_TOPIC_PREFIX": prefix,
        "HALLMARK_AUTH_JWKS": str(directory / "auth.jwks.json"),
        "HALLMARK_ACCESS_FILE": str(directory / "access.yaml"),
        "HALLMARK_SECRET_KEY": str(directory / "seal.key"),
        "HALLMARK_WEBHOOK_ALLOW": "127.0.0.0/8",
        "HALLMARK_LOG_LEVEL": "warning",
        **settings,
    }
    port = free_port()
    sink = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.notify_sink", str(port), stdout=DEVNULL
    )
    made = Fleet(environment, directory, make_token(key, "root", ["admins"]), f"http://127.0.0.1:{port}")
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=2)
    try:
        for _ in range(replicas):
            await made.start(free_port())
        await producer.start()
        await made.ready()
        yield made, producer
    finally:
        await made.stop()
        await producer.stop()
        sink.kill()
        await sink.wait()


async def publish(producer: AIOKafkaProducer, prefix: str, envelope: Envelope) -> "asyncio.Future[Any]":
    """What it gives is done once the broker has it."""
    sent: asyncio.Future[Any] = await producer.send(
        prefix + REGISTRY_EVENTS.name, value=envelope.value, key=envelope.key.encode(), headers=envelope.headers()
    )
    return sent
