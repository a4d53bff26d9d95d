"""Artifacts on a real store and database, with versions made by folding their events."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx2
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.support.databases import migrated_database, role_url

from contracts.envelope import Envelope
from contracts.model import Artifact, ArtifactFile, Inspection, VersionContent, manifest_digest
from contracts.payload import Message
from contracts.registry import ModelRegistered, VersionRegistered, VersionRejected, VersionVerified
from embedded.fixtures import S3
from kit.blobs import BlobStore
from kit.db import Database
from kit.problems import Problem
from registry import views
from registry.artifacts import Artifacts, Aside
from registry.offers import Offer

MIB = 1 << 20
OTHER_BUCKETS = ("models-of-others",)


@contextmanager
def registry_database(postgres: str) -> Iterator[str]:
    """The URL of a new database with the registry's schema."""
    with migrated_database(postgres, "registry") as database:
        yield role_url(database, "registry")


def store_on(server: S3, bucket: str, public_endpoint: str | None = None) -> BlobStore:
    return BlobStore(
        endpoint=server.endpoint,
        public_endpoint=public_endpoint or server.endpoint,
        access_key=server.access_key,
        secret_key=server.secret_key,
        bucket=bucket,
        region="us-east-1",
    )


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def single(data: bytes, source: str | None = None) -> Artifact:
    return Artifact(digest=digest_of(data), size=len(data), filename="model.bin", source=source)


def directory(**files: bytes) -> Artifact:
    parts = tuple(ArtifactFile(path=p, digest=digest_of(d), size=len(d)) for p, d in sorted(files.items()))
    size = sum(part.size for part in parts)
    return Artifact(digest=manifest_digest(parts), size=size, filename="model", files=parts)


@dataclass
class World:
    db: Database
    store: BlobStore
    artifacts: Artifacts
    workspace: str = field(default_factory=lambda: f"w{uuid4().hex[:8]}")
    versions: dict[str, int] = field(default_factory=dict)
    sequence: int = 0

    async def offer(self, data: bytes, owner: str = "ana") -> Offer:
        return (await self.artifacts.offer([(digest_of(data), len(data))], owner))[0]

    async def upload(self, *blobs: bytes, owner: str = "ana") -> None:
        for data in blobs:
            offer = await self.offer(data, owner)
            if offer.state == "single":
                assert offer.url
                httpx2.put(offer.url, content=data, headers=offer.headers).raise_for_status()

    async def send(self, offer: Offer, data: bytes, numbers: Sequence[int] | None = None) -> None:
        """The parts that were asked for, or some of them."""
        for part in offer.parts:
            if numbers is None or part.number in numbers:
                start = (part.number - 1) * (offer.part_size or 0)
                piece = data[start : start + part.size]
                httpx2.put(part.url, content=piece, headers=part.headers, timeout=60).raise_for_status()

    async def register(self, artifact: Artifact, model: str = "m", *, owner: str = "ana") -> int:
        """As the registry does: claim and event in one transaction."""
        async with self.db.transaction() as tx:
            await self.artifacts.claim(tx, artifact, owner)
            return await self.registered(tx, artifact, model)

    async def missing(self, artifact: Artifact, owner: str = "ana", **given: Any) -> list[str]:
        """The files that a registration would be told are missing."""
        try:
            async with self.db.transaction() as tx:
                await self.artifacts.claim(tx, artifact, owner, **given)
        except Problem as problem:
            if problem.code != "artifact-missing":
                raise
            return list(problem.extra["files"])
        return []

    async def registered(self, tx: AsyncConnection, artifact: Artifact, model: str = "m") -> int:
        if model not in self.versions:
            await self._fold(tx, model, ModelRegistered(workspace=self.workspace, model=model))
        version = self.versions[model] = self.versions.get(model, 0) + 1
        event = VersionRegistered(
            workspace=self.workspace,
            model=model,
            version=version,
            digest=digest_of(b"content"),
            content=VersionContent(artifact=artifact),
            registered_by="ana",
        )
        await self._fold(tx, model, event)
        return version

    async def verify(self, artifact: Artifact, version: int, model: str = "m") -> None:
        asides = await self.keep(artifact)
        await self.is_verified(artifact, version, model)
        for aside in asides:
            await self.artifacts.release(aside)

    async def keep(self, artifact: Artifact) -> list[Aside]:
        asides = []
        for part in artifact.parts():
            asides.append(aside := await self.artifacts.set_aside(part, "ana"))
            await self.artifacts.keep(aside, part.digest)
            await self.artifacts.discard(aside)
        return asides

    async def is_verified(self, artifact: Artifact, version: int, model: str = "m") -> None:
        async with self.db.transaction() as tx:
            event = VersionVerified(
                workspace=self.workspace,
                model=model,
                version=version,
                digest=digest_of(b"content"),
                artifact_digest=artifact.digest,
                inspection=Inspection(scanner="test"),
            )
            await self._fold(tx, model, event)

    async def ready(self, *blobs: bytes, model: str = "m") -> Artifact:
        """A verified version that holds them."""
        artifact = single(blobs[0]) if len(blobs) == 1 else directory(**{f"f{n}": b for n, b in enumerate(blobs)})
        await self.upload(*blobs)
        await self.verify(artifact, await self.register(artifact, model), model)
        return artifact

    async def reject(self, version: int, model: str = "m") -> None:
        async with self.db.transaction() as tx:
            event = VersionRejected(
                workspace=self.workspace,
                model=model,
                version=version,
                digest=digest_of(b"content"),
                code="artifact-mismatch",
                detail="no",
            )
            await self._fold(tx, model, event)

    async def keys(self) -> set[str]:
        return {found.key async for found in self.store.objects("")}

    async def _fold(self, tx: AsyncConnection, model: str, event: Message) -> None:
        self.sequence += 1
        stream = f"{self.workspace}/{model}"
        envelope = Envelope.of(event, source="test", subject=stream, key=stream, sequence=self.sequence, actor="ana")
        await views.project(tx, envelope)
