"""The serving part of the registry on a real PostgreSQL: its routes behind a real server, and a pen for events.

No Kafka and no object store: what serving reads is in the database, and presigning asks nobody.
"""

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import uvicorn
from fastapi import FastAPI
from tests.support.databases import migrated_database, role_url
from tests.support.waiting import until

from contracts.lifecycle import Stage, TransitionKind, stream_of, subject_of
from contracts.model import Artifact, ArtifactFile, Dataset, Evaluation, Inspection, VersionContent, manifest_digest
from contracts.payload import Message
from contracts.registry import (
    AliasChanged,
    AliasRemoved,
    ModelRegistered,
    ServingReported,
    StageChanged,
    VersionEvaluated,
    VersionRegistered,
    VersionRejected,
    VersionRevoked,
    VersionVerified,
)
from contracts.topics import REGISTRY_EVENTS
from kit import problems, web
from kit.auth import Principal
from kit.blobs import BlobStore
from kit.db import Database
from kit.events import Cause, EventLog, New
from kit.keys import ensure_key, load_key, make_token
from kit.main import Server
from registry import views
from registry.domain import Refused
from registry.places import blob_key
from registry.serving.routes import router
from registry.serving.service import Serving
from registry.settings import RegistrySettings
from registry.tables import mechanism

ACCESS = """
roles:
  - {group: ml-engineers, role: contributor}
  - {group: auditors, role: auditor}
  - {group: servers, role: server}
"""
EVENTS = EventLog(mechanism, topic=REGISTRY_EVENTS.name, source="hallmark/registry")


def digest_of(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@contextmanager
def settings_for(postgres: str, directory: Path) -> Iterator[RegistrySettings]:
    """Settings of a registry whose database is new and migrated; the rest points nowhere."""
    for name in ("auth", "serving"):
        ensure_key(directory, name)
    (directory / "access.yaml").write_text(ACCESS)
    with migrated_database(postgres, "registry") as database:
        yield RegistrySettings(
            database_url=role_url(database, "registry"),
            kafka_bootstrap="127.0.0.1:1",
            auth_jwks=str(directory / "auth.jwks.json"),
            access_file=directory / "access.yaml",
            decision_jwks=str(directory / "none.json"),
            serving_key=directory / "serving.jwk",
            s3_endpoint="http://127.0.0.1:1",
            s3_access_key="key",
            s3_secret_key="secret",
        )


class Pen:
    """Writes events of one workspace, as the registry's commands do: the event and its fold in one transaction."""

    def __init__(self, db: Database, workspace: str | None = None) -> None:
        self.db = db
        self.workspace = workspace or f"w{uuid4().hex[:8]}"

    async def write(self, model: str, *messages: Message, version: int | None = None) -> int:
        """Appends to the model's stream; gives the last sequence."""
        stream = stream_of(self.workspace, model)
        subject = subject_of(self.workspace, model, version)
        async with self.db.transaction() as tx:
            last = await EVENTS.lock(tx, stream)
            news = [New(message, subject) for message in messages]
            envelopes = await EVENTS.append(tx, stream, last, news, Cause(actor="ana"))
            for envelope in envelopes:
                await views.project(tx, envelope)
        return int(envelopes[-1].sequence or 0)

    async def model(self, model: str, versions: int = 1, **content: Any) -> int:
        """A model with so many ready versions."""
        await self.write(model, ModelRegistered(workspace=self.workspace, model=model))
        last = 0
        for number in range(1, versions + 1):
            last = await self.version(model, number, **content)
        return last

    async def version(
        self,
        model: str,
        number: int,
        *,
        status: str = "ready",
        files: Sequence[str] = (),
        artifact: Artifact | None = None,
        **content: Any,
    ) -> int:
        of = {"workspace": self.workspace, "model": model, "version": number, "digest": digest_of(f"{model}{number}")}
        artifact = artifact or artifact_of(f"{model}/{number}", files)
        registered = VersionRegistered(**of, content=VersionContent(artifact=artifact, **content), registered_by="ana")
        messages: list[Message] = [registered]
        if status in ("ready", "quarantined"):
            findings = [{"severity": "unsafe", "code": "x", "detail": "x"}] if status == "quarantined" else []
            inspection = Inspection.model_validate({"scanner": "test", "findings": findings}, strict=False)
            messages.append(VersionVerified(**of, artifact_digest=artifact.digest, inspection=inspection))
        elif status == "rejected":
            messages.append(VersionRejected(**of, code="artifact-mismatch", detail="other bytes", file="m"))
        return await self.write(model, *messages, version=number)

    def moved(self, model: str, version: int, origin: str, to: str, **more: Any) -> StageChanged:
        given = {"kind": TransitionKind.PROMOTION, "transition_id": uuid4().hex, "requested_by": "ana", "reason": "r"}
        return StageChanged(
            workspace=self.workspace,
            model=model,
            version=version,
            digest=digest_of(f"{model}{version}"),
            artifact_digest=digest_of(f"{model}/{version}"),
            from_stage=origin,
            to_stage=to,
            **{**given, **more},
        )

    async def move(self, model: str, version: int, origin: str, to: str) -> int:
        return await self.write(model, self.moved(model, version, origin, to), version=version)

    async def promote(self, model: str, version: int, former: int | None = None, origin: str = Stage.STAGING) -> int:
        """Into Production; the former occupant leaves in the same transaction, first."""
        entering = self.moved(model, version, origin, Stage.PRODUCTION, replaces=former)
        if former is None:
            return await self.write(model, entering)
        superseded = {"kind": TransitionKind.SUPERSEDED, "transition_id": entering.transition_id}
        leaving = self.moved(model, former, Stage.PRODUCTION, Stage.ARCHIVED, superseded_by=version, **superseded)
        return await self.write(model, leaving, entering)

    async def alias(self, model: str, alias: str, version: int | None, previous: int | None = None) -> int:
        of = {"workspace": self.workspace, "model": model, "alias": alias, "requested_by": "ana", "reason": "r"}
        if version is None:
            return await self.write(model, AliasRemoved(**of, previous=previous))
        digests = {"digest": digest_of(f"{model}{version}"), "artifact_digest": digest_of(f"{model}/{version}")}
        return await self.write(model, AliasChanged(**of, **digests, version=version, previous=previous))

    def revoked(self, model: str, version: int, **more: Any) -> VersionRevoked:
        of = {"workspace": self.workspace, "model": model, "version": version, "digest": digest_of(f"{model}{version}")}
        return VersionRevoked(**of, **{"revoked_by": "olga", "reason": "it leaks", "revocation": "jws", **more})

    async def revoke(self, model: str, version: int) -> int:
        return await self.write(model, self.revoked(model, version), version=version)

    async def evaluate(self, model: str, version: int, ago: timedelta = timedelta(), **metrics: float) -> int:
        at = datetime.now(UTC) - ago
        evaluation = Evaluation(dataset=Dataset(name="d"), metrics=metrics, evaluated_at=at)
        of = {"workspace": self.workspace, "model": model, "version": version}
        return await self.write(model, VersionEvaluated(**of, evaluation=evaluation))


def artifact_of(seed: str, files: Sequence[str]) -> Artifact:
    if not files:
        return Artifact(digest=digest_of(seed), size=3, filename="model.onnx")
    parts = tuple(ArtifactFile(path=path, digest=digest_of(seed + path), size=2) for path in sorted(files))
    return Artifact(digest=manifest_digest(parts), size=2 * len(parts), filename="model", files=parts)


@dataclass
class House:
    """A running server of the serving routes."""

    settings: RegistrySettings
    db: Database
    serving: Serving
    app: FastAPI
    url: str = ""
    archived: list[tuple[str, int]] = field(default_factory=list)
    server: uvicorn.Server | None = None

    def token(self, subject: str = "server-1", group: str = "servers", ttl: int = 600) -> str:
        return make_token(
            load_key(Path(self.settings.auth_jwks).parent / "auth.jwk"), subject, [group], ttl_seconds=ttl
        )

    def client(self, pen: Pen, subject: str = "server-1", group: str = "servers", **options: Any) -> httpx2.AsyncClient:
        given: dict[str, Any] = {"timeout": httpx2.Timeout(20), **options}
        return httpx2.AsyncClient(
            base_url=self.url,
            params={"workspace": pen.workspace},
            headers={"authorization": f"Bearer {self.token(subject, group)}"},
            limits=httpx2.Limits(max_connections=None),
            **given,
        )


def build(settings: RegistrySettings) -> House:
    """The application, as `registry.app` puts it together; commands are the test's own."""
    db = Database(settings.database_url.get_secret_value(), name="serving-test", pool=4)
    store = BlobStore(
        endpoint=settings.s3_endpoint,
        public_endpoint=settings.s3_endpoint,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        bucket=settings.s3_bucket,
        region=settings.s3_region,
    )
    app = FastAPI()
    serving = Serving(
        db, load_key(settings.serving_key), lambda digest: store.presign_get(blob_key(digest)), settings.serving_epoch
    )
    problems.install(app)
    app.add_middleware(web._RequestIds)
    app.state.on_stopping = (serving.close,)
    house = House(settings, db, serving, app)

    async def report(said: ServingReported, _: Principal, __: str) -> dict[str, Any]:
        return {
            "recorded": True,
            **said.model_dump(mode="json"),
            "sequence": await Pen(db, said.workspace).write(said.model, said, version=said.version),
        }

    async def archive(w: str, model: str, version: int, _: str, __: Principal, ___: str) -> dict[str, Any]:
        if model == "stubborn":
            raise Refused("move-not-allowed", "it stays")
        pen = Pen(db, w)
        moved = pen.moved(model, version, Stage.DEVELOPMENT, Stage.ARCHIVED, kind=TransitionKind.RETIREMENT)
        await pen.write(model, moved)
        house.archived.append((model, version))
        return {"transition_id": moved.transition_id}

    app.include_router(router(serving, web.Guard(settings), report=report, archive=archive))
    return house


@asynccontextmanager
async def running(settings: RegistrySettings, port: int = 0, send_buffer: int | None = None) -> AsyncIterator[House]:
    """The application behind uvicorn, from start to graceful stop. `send_buffer`: bytes the kernel takes of an answer
    that nobody reads."""
    house = build(settings)
    config = uvicorn.Config(house.app, log_level="warning", timeout_graceful_shutdown=10, lifespan="off")
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if send_buffer is not None:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    listening.bind(("127.0.0.1", port))
    house.server = server = Server(house.app, config)
    background = [asyncio.create_task(work()) for work in house.serving.background]
    serve = asyncio.create_task(server.serve([listening]))
    try:
        await until(lambda: server.started)
        house.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        yield house
    finally:
        server.should_exit = True
        await serve
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await house.db.close()
