"""The audit service's parts on real PostgreSQL, and the whole of it on Kafka as well."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from tests.support.databases import migrated_database, role_url

from audit import app as audit_app
from audit import tables
from audit.guards import EVENT_TRIGGERS
from audit.ledger import Ledger
from audit.projector import Projector
from audit.settings import AuditSettings
from audit.tlog.archive import Archive
from audit.views import Views
from contracts.envelope import Envelope
from contracts.lifecycle import Stage, TransitionKind
from contracts.model import Artifact, VersionContent
from contracts.payload import Message
from contracts.registry import Approval, Criterion, StageChanged, VersionRegistered, WorkspaceConfigured
from contracts.topics import REGISTRY_EVENTS
from embedded.fixtures import S3
from kit.bus import Record
from kit.db import Database
from kit.keys import ensure_key, ensure_mldsa44, make_token
from kit.migrations import migrate

ACCESS = """
roles:
  - {group: ml-engineers, role: contributor, workspace: default}
  - {group: auditors, role: auditor}
  - {group: local-auditors, role: auditor, workspace: default}
  - {group: fraud-auditors, role: auditor, model: fraud}
"""
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
_offsets = iter(range(10**9))


@dataclass(frozen=True)
class Outcome:
    """What became of a record: its index (None: it was there already), and what was found to be wrong with it."""

    index: int | None
    flaw: str | None


class Log:
    """The ledger and what follows it, in one call."""

    def __init__(self, db: Database, archive: Archive, views: Views) -> None:
        self.db, self.views = db, views
        self.ledger = Ledger(db, archive)
        self.projector = Projector(db, views, self.ledger.appended)

    async def append(self, records: Sequence[Record]) -> list[Outcome]:
        indexes = await self.ledger.append(records)
        await self.projector.catch_up()
        async with self.db.snapshot() as tx:
            found = {row["index"]: row["code"] for row in (await tx.execute(sa.select(tables.finding))).mappings()}
        return [Outcome(index, None if index is None else found.get(index)) for index in indexes]


@dataclass
class Harness:
    """The service without its consumers, and a way to hand it records."""

    settings: AuditSettings
    admin_url: str
    db: Database
    archive: Archive
    ledger: Log
    directory: Path
    made: FastAPI | None = None

    @property
    def app(self) -> FastAPI:
        """Made when it is asked for the first time: many tests never do, and it takes a quarter of a second."""
        if self.made is None:
            self.made = audit_app.build(self.settings)
        return self.made

    def log(self, views: Views | None = None, db: Database | None = None) -> Log:
        """Another writer of the same log, with views of its own."""
        return Log(db or self.db, self.archive, views or Views(archive=self.archive))

    def client(self, subject: str = "aud", *groups: str) -> httpx2.AsyncClient:
        token = make_token(ensure_key(self.directory, "auth"), subject, list(groups or ("auditors",)))
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app),
            base_url="http://audit",
            headers={"authorization": f"Bearer {token}"},
            timeout=30,
        )

    async def get(self, path: str, *groups: str) -> Any:
        """The body of a good answer."""
        async with self.client("aud", *groups) as client:
            response = await client.get(path)
        assert response.status_code == 200, response.text
        return response.json() if response.headers["content-type"] == "application/json" else response.text

    async def status(self, path: str, *groups: str) -> int:
        async with self.client("eve", *groups) as client:
            return (await client.get(path)).status_code

    async def rows(self, table: sa.Table) -> list[dict[str, Any]]:
        async with self.db.snapshot() as tx:
            found = await tx.execute(sa.select(table).order_by(*table.primary_key.columns))
            return [dict(row) for row in found.mappings()]

    async def entries(self) -> list[dict[str, Any]]:
        """The log, each entry with what was found to be wrong with it (`problem`)."""
        found = {row["index"]: f"{row['code']}: {row['detail']}" for row in await self.rows(tables.finding)}
        return [row | {"problem": found.get(row["index"])} for row in await self.rows(tables.entry)]

    async def execute(self, *statements: str) -> None:
        """As the owner of the tables, who may do what the service may not."""
        for statement in statements:
            await _execute(self.admin_url, statement)

    async def tamper(self, *statements: str) -> None:
        """As a superuser who switches the guards off first, the event triggers and then all others."""
        guarded = ("entry", "node", "finding", "checkpoint", "tree_head")
        await self.execute(
            *(f"alter event trigger {name} disable" for name in EVENT_TRIGGERS),
            *(f"alter table audit.{table} disable trigger all" for table in guarded),
            *statements,
        )


@pytest.fixture
def migrated(infra_postgres: str) -> Iterator[str]:
    """The superuser's URL of a new migrated database, dropped after the test."""
    with migrated_database(infra_postgres, "audit", migrate_audit) as database:
        yield database


def service_url(admin_url: str) -> str:
    return role_url(admin_url, "audit")


def people_url(admin_url: str) -> str:
    """Of the vault of identities; who does not give it to a service has the vault off."""
    return role_url(admin_url, "people")


def migrate_audit(admin_url: str) -> None:
    migrate(
        "audit",
        Path(audit_app.__file__).parent / "migrations",
        database_url=service_url(admin_url),
        admin_database_url=admin_url,
        append_only=("entry", "node", "finding", "checkpoint"),
        people_database_url=people_url(admin_url),
    )


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
def settings(migrated: str, infra_s3: S3, bucket: str, tmp_path: Path) -> AuditSettings:
    for name in ("auth", "checkpoint"):
        ensure_key(tmp_path, name)
    (tmp_path / "access.yaml").write_text(ACCESS)
    return AuditSettings(
        database_url=service_url(migrated),
        kafka_bootstrap="127.0.0.1:1",
        auth_jwks=str(tmp_path / "auth.jwks.json"),
        access_file=tmp_path / "access.yaml",
        checkpoint_key=tmp_path / "checkpoint.jwk",
        checkpoint_mldsa_key=ensure_mldsa44(tmp_path, "checkpoint"),
        checkpoint_seconds=0.1,
        graceful_seconds=3,
        s3_endpoint=infra_s3.endpoint,
        s3_access_key=infra_s3.access_key,
        s3_secret_key=infra_s3.secret_key,
        s3_bucket=bucket,
    )


@pytest.fixture
async def audit(settings: AuditSettings, migrated: str, tmp_path: Path) -> AsyncIterator[Harness]:
    db = Database(settings.database_url.get_secret_value(), name="test")
    archive = audit_app.archive_of(settings)
    log = Log(db, archive, Views(archive=archive))
    try:
        yield Harness(settings, migrated, db, archive, log, tmp_path)
    finally:
        await db.close()


def record(
    envelope: Envelope, *, topic: str = REGISTRY_EVENTS.name, offset: int | None = None, **changed: Any
) -> Record:
    """The envelope as a record, at a fresh offset of partition 0 unless told otherwise."""
    given: dict[str, Any] = {
        "topic": topic,
        "partition": 0,
        "offset": next(_offsets) if offset is None else offset,
        "timestamp_ms": 1_763_640_000_000,
        "key": envelope.key.encode(),
        "headers": tuple(envelope.headers()),
        "value": envelope.value,
    }
    return Record(**{**given, **changed})


def event(message: Message, sequence: int | None, *, at: datetime = NOON, **attributes: Any) -> Envelope:
    key = f"default/{getattr(message, 'model', 'fraud')}"
    if isinstance(message, WorkspaceConfigured):
        key = f"workspace:{message.workspace}"
    given = {"source": "hallmark/registry", "subject": f"{key}/1", "key": key, "actor": "ana"}
    return Envelope.of(message, **{**given, "sequence": sequence, "time": at, **attributes})


def digest(version: int) -> str:
    return f"sha256:{version:064x}"


def registered(version: int, model: str = "fraud", stage: str = Stage.DEVELOPMENT) -> VersionRegistered:
    return VersionRegistered(
        workspace="default",
        model=model,
        version=version,
        digest=digest(version),
        content=VersionContent(artifact=Artifact(digest=digest(version), size=1, filename="model.onnx")),
        registered_by="ana",
        stage=stage,
    )


def changed(
    version: int, start: str, to: str, kind: TransitionKind = TransitionKind.PROMOTION, **more: Any
) -> StageChanged:
    given = {"requested_by": "ana", "reason": f"{to} for v{version}", **more}
    return StageChanged(
        transition_id=f"t-{version}-{to}-{kind}",
        kind=kind,
        workspace="default",
        model="fraud",
        version=version,
        digest=digest(version),
        artifact_digest=digest(version),
        from_stage=start,
        to_stage=to,
        **given,
    )


def hours(n: float) -> datetime:
    return NOON + timedelta(hours=n)


APPROVED: dict[str, Any] = {
    "approved_by": (Approval(name="ben", at=NOON, meaning="approval"),),
    "criteria": (Criterion(gate="accuracy", expression="metrics.accuracy > 0.9", result="passed"),),
    "policy": "prod@1",
    "decision_id": "d-1",
}


def story() -> list[Envelope]:
    """v1 to Production at 2 h; v2 takes over at 4 h; a rollback to v1 at 6 h. One stream, in sequence."""
    dev, staging, production, archived = Stage.DEVELOPMENT, Stage.STAGING, Stage.PRODUCTION, Stage.ARCHIVED
    moves: list[tuple[float, Message]] = [
        (0, registered(1)),
        (1, changed(1, dev, staging)),
        (2, changed(1, staging, production, **APPROVED)),
        (2.5, registered(2)),
        (3, changed(2, dev, staging)),
        (4, changed(1, production, archived, TransitionKind.SUPERSEDED, superseded_by=2)),
        (4, changed(2, staging, production, replaces=1, **APPROVED)),
        (6, changed(2, production, archived, TransitionKind.SUPERSEDED, superseded_by=1)),
        (6, changed(1, archived, production, TransitionKind.ROLLBACK, replaces=2, requested_by="olga")),
    ]
    return [event(message, n, at=hours(at)) for n, (at, message) in enumerate(moves, start=1)]
