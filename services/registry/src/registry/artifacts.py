"""Artifacts in the object store: content-addressed, stored once, verified before a version may be used.

Three places in the bucket. `uploads/` is written by clients, through presigned URLs: one object per digest and
principal, so that nobody can spoil what another one uploads. `verifying/` holds copies that only the registry writes
to, made so that nobody can change the bytes between check and use. `blobs/` holds verified bytes by their digest.

A blob that the view `blob` names was verified for a version that will never go away: it is there, and is not looked
for in the store. Any other blob or upload counts only when the store says so, at that moment.

The lock. `collect` deletes what no version references, a registration comes to rely on it: both take an advisory lock
of the digest (`lock_of`). A registration shares it, looks into the store, and commits its reference while it holds it.
The collector takes it alone, reads the references, and deletes while it holds it; it never waits for it. So either
the collector was first, and the registration is told that the bytes are missing; or it sees the reference.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa
from minio.error import S3Error
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import new_id
from contracts.model import Artifact, ArtifactFile
from contracts.payload import Payload
from kit.blobs import GONE, BlobStore, Stored
from kit.db import Database
from kit.errors import Transient
from kit.problems import Problem
from registry.offers import PARTS_PER_ANSWER, SINGLE_MAX, Offer, Uploads
from registry.places import ASIDE, UPLOADS, blob_key, lock_of, share, upload_key, uploads_of
from registry.settings import RegistrySettings
from registry.tables import BlobRow, t

T = TypeVar("T")
AT_ONCE = 8  # requests to the store for one call


class Download(Payload):
    path: str
    digest: str
    size: int
    url: str


@dataclass(frozen=True)
class Aside:
    """A copy that only the registry can write to; `upload` is the client's object that it was made of."""

    key: str
    size: int
    upload: str | None = None


class Artifacts:
    """`owner` is always the principal's subject. `reference_buckets`: where artifacts may be registered from by their
    address; with none, references are refused."""

    def __init__(self, db: Database, blobs: BlobStore, reference_buckets: tuple[str, ...] = ()) -> None:
        self._db = db
        self._blobs = blobs
        self._uploads = Uploads(blobs)
        self._buckets = frozenset(reference_buckets) - {blobs.bucket}

    # -- uploading -----------------------------------------------------------------------------------------------

    async def offer(self, files: Sequence[tuple[str, int]], owner: str) -> list[Offer]:
        """One offer for each digest, in the order given.

        Raises:
            Problem: 422, a digest has another size than is known of it.
        """
        sizes = dict(files)
        for digest, size in files:
            _compare(digest, size, sizes[digest], "in the same question")
        async with self._db.snapshot() as tx:
            known = await _known(tx, sizes)
        for digest, size in known.items():
            _compare(digest, sizes[digest], size)
        large = sum(size > SINGLE_MAX for digest, size in sizes.items() if digest not in known)
        each = max(4, PARTS_PER_ANSWER // max(large, 1))

        async def one(digest: str, size: int) -> Offer:
            if digest in known:
                return Offer(digest=digest, size=size, state="present")
            return await self._uploads.offer(digest, size, owner, parts=each)

        return await _bounded(one(digest, size) for digest, size in sizes.items())

    async def complete(self, digest: str, size: int, upload_id: str, owner: str) -> None:
        """As `Uploads.complete`."""
        await self._uploads.complete(digest, size, upload_id, owner)

    # -- registering ---------------------------------------------------------------------------------------------

    async def missing(self, artifact: Artifact, owner: str = "") -> list[str]:
        """The paths of files that are neither a known blob, nor uploaded, nor where `source` says.

        Raises:
            Problem: 422 `artifact-mismatch` (known or referenced with another size), `reference-not-allowed`.
        """
        async with self._db.snapshot() as tx:
            known = await _known(tx, [part.digest for part in artifact.parts()])
        return await self._missing(artifact, owner, known)

    async def claim(self, tx: AsyncConnection, artifact: Artifact, owner: str = "") -> None:
        """For the transaction that registers: what it finds stays until the transaction ends, and then is referenced.
        Costs nothing when every blob is known. Take no other lock before it.

        Raises:
            Problem: 422, as `missing`, or `artifact-missing`.
        """
        digests = [part.digest for part in artifact.parts()]
        unknown = set(digests) - set(await _known(tx, digests))
        for lock in sorted({lock_of(digest) for digest in unknown}):
            await tx.execute(share(lock))
        known = await _known(tx, digests)
        if paths := await self._missing(artifact, owner, known):
            detail = f"{paths[0]} was not uploaded; POST /v1/artifacts gives the address"
            raise Problem(422, "artifact-missing", detail, files=paths[:100])

    async def _missing(self, artifact: Artifact, owner: str, known: dict[str, int]) -> list[str]:
        parts = artifact.parts()
        for part in parts:
            _compare(part.path, part.size, known.get(part.digest, part.size))
        unknown = [part for part in parts if part.digest not in known or part.source is not None]
        origins = await _bounded(self._origin(part, owner) for part in unknown)
        return [part.path for part, origin in zip(unknown, origins, strict=True) if origin is None]

    async def _origin(self, part: ArtifactFile, owner: str) -> tuple[str, str] | None:
        """Bucket and key of the bytes to verify."""
        if part.source is not None:
            bucket, key = part.source.removeprefix("s3://").split("/", 1)
            if bucket not in self._buckets:
                detail = f"{part.path}: the registry takes no references into the bucket {bucket}"
                raise Problem(422, "reference-not-allowed", detail, file=part.path)
            found = await self._stat(key, bucket)
            if found is None:
                return None
            _compare(part.path, part.size, found.size, f"at {part.source}")
            return bucket, key
        own, blob = upload_key(part.digest, owner), blob_key(part.digest)
        if await self._blobs.has(own, part.size):
            return self._blobs.bucket, own
        # Uploaded under another name: by the person, registered by the service.
        others = [o async for o in self._blobs.objects(uploads_of(part.digest)) if o.size == part.size]
        if others:
            return self._blobs.bucket, max(others, key=lambda o: o.modified).key
        return (self._blobs.bucket, blob) if await self._blobs.has(blob, part.size) else None

    # -- verifying -----------------------------------------------------------------------------------------------

    async def set_aside(self, part: ArtifactFile, owner: str = "") -> Aside:
        """A copy to verify: of the referenced object, else the owner's upload, else another's, else of the blob.

        Raises:
            Problem: 422 `artifact-missing`, `artifact-mismatch` (its size is another one), `reference-not-allowed`.
            Transient: the object went away just now; look again.
        """
        origin = await self._origin(part, owner)
        if origin is None:
            where = part.source or "the store"
            raise Problem(422, "artifact-missing", f"{part.path}: {part.digest} is not in {where}", file=part.path)
        bucket, key = origin
        aside = f"{ASIDE}{new_id()}"
        await self._copy(key, aside, bucket)
        ours = bucket == self._blobs.bucket and key.startswith(UPLOADS)
        return Aside(aside, part.size, key if ours else None)

    def url(self, aside: Aside) -> str:
        """For the process that reads it: of the inside, good for an hour."""
        return self._blobs.presign_get(aside.key, inside=True)

    async def keep(self, aside: Aside, digest: str) -> None:
        """The copy has exactly this digest: it becomes the blob, and the upload is of no more use.

        Call it only for a version that is registered: its reference keeps the collector away. A blob that is there is
        never written again: somebody may be reading it.

        Raises:
            Transient: the copy is gone; make another.
        """
        if not await self._blobs.has(blob_key(digest), aside.size):
            await self._copy(aside.key, blob_key(digest), self._blobs.bucket)
        if aside.upload is not None:
            await self._blobs.delete(aside.upload)

    async def discard(self, aside: Aside) -> None:
        await self._blobs.delete(aside.key)

    async def refuse(self, aside: Aside) -> None:
        """The copy is not what was declared: it goes, and so does the upload, so that it can be sent again."""
        await self._blobs.delete(aside.key)
        if aside.upload is not None:
            await self._blobs.delete(aside.upload)

    # -- downloading ---------------------------------------------------------------------------------------------

    def download_url(self, digest: str, filename: str | None = None) -> str:
        return self._blobs.presign_get(blob_key(digest), filename=filename)

    def downloads(self, artifact: Artifact) -> list[Download]:
        """Every file with a public address, good for an hour."""
        return [
            Download(
                path=part.path,
                digest=part.digest,
                size=part.size,
                url=self.download_url(part.digest, part.path.rsplit("/", 1)[-1]),
            )
            for part in artifact.parts()
        ]

    async def _copy(self, source: str, target: str, bucket: str) -> None:
        try:
            await self._blobs.copy(source, target, source_bucket=bucket)
        except S3Error as error:
            if error.code not in (*GONE, "PreconditionFailed"):
                raise
            raise Transient(f"{source} went away before it was copied") from error

    async def _stat(self, key: str, bucket: str) -> Stored | None:
        try:
            return await self._blobs.stat(key, bucket=bucket)
        except S3Error as error:
            raise Problem(422, "reference-not-allowed", f"s3://{bucket}/{key}: the store says {error.code}") from error


def store_of(settings: RegistrySettings) -> BlobStore:
    return BlobStore(
        endpoint=settings.s3_endpoint,
        public_endpoint=settings.s3_public_endpoint or settings.s3_endpoint,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        bucket=settings.s3_bucket,
        region=settings.s3_region,
    )


async def _known(tx: AsyncConnection, digests: Iterable[str]) -> dict[str, int]:
    blob = t(BlobRow)
    rows = await tx.execute(sa.select(blob.c.digest, blob.c.size).where(blob.c.digest.in_(set(digests))))
    return {row.digest: row.size for row in rows}


async def _bounded(work: Iterable[Awaitable[T]]) -> list[T]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(item: Awaitable[T]) -> T:
        async with gate:
            return await item

    return await asyncio.gather(*map(one, work))


def _compare(what: str, declared: int, found: int, where: str = "in the store") -> None:
    if declared != found:
        detail = f"{what}: declared with {declared} bytes, {where} it has {found}"
        raise Problem(422, "artifact-mismatch", detail, file=what)
