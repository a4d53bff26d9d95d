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
from collections.abc import Awaitable, Callable, Iterable, Sequence
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
from registry.places import ASIDE, UPLOADS, blob_key, lock_of, share, upload_key
from registry.settings import RegistrySettings
from registry.tables import BlobRow, BlobUseRow, t

T = TypeVar("T")
Readable = Callable[[str, str], bool]  # workspace, model
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

    def __init__(self, db: Database, blobs: BlobStore, references: tuple[str, ...] = ()) -> None:
        self._db = db
        self._blobs = blobs
        self._uploads = Uploads(blobs)
        self._references = references

    # -- uploading -----------------------------------------------------------------------------------------------

    async def offer(
        self, files: Sequence[tuple[str, int]], owner: str, readable: Readable | None = None
    ) -> list[Offer]:
        """One offer for each digest, in the order given. As everywhere here, bytes that only versions hold which the
        caller may not read (`readable`; None: all of them) are asked for: to know a digest is not to have the bytes.

        Raises:
            Problem: 422, a digest has another size than is known of it.
        """
        sizes = dict(files)
        for digest, size in files:
            _compare(digest, size, sizes[digest], "in the same question")
        async with self._db.snapshot() as tx:
            known = await _known(tx, sizes, readable)
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

    async def claim(
        self,
        tx: AsyncConnection,
        artifact: Artifact,
        owner: str = "",
        *,
        workspace: str = "default",
        readable: Readable | None = None,
    ) -> None:
        """For the transaction that registers: what it finds stays until the transaction ends, and then is referenced.
        Costs nothing when every blob is known. Take no other lock before it.

        Raises:
            Problem: 422 `artifact-missing` (with `files`: neither a known blob, nor uploaded, nor where `source` says),
                `artifact-mismatch` (known or referenced with another size), `reference-not-allowed`.
        """
        if artifact.external:  # nothing of it is in the store
            return
        digests = [part.digest for part in artifact.parts()]
        unknown = set(digests) - set(await _known(tx, digests, readable))
        for lock in sorted({lock_of(digest) for digest in unknown}):
            await tx.execute(share(lock))
        # Verification makes a blob known before it deletes the upload: what was neither then is one of them now.
        for _ in range(2):
            known = await _known(tx, digests, readable)
            paths = await self._missing(artifact, owner, workspace, known, trusted=readable is None)
            if not paths:
                return
        raise Problem(422, "artifact-missing", _absent(artifact, paths[0]), files=paths[:100])

    async def _missing(
        self, artifact: Artifact, owner: str, workspace: str, known: dict[str, int], *, trusted: bool
    ) -> list[str]:
        parts = artifact.parts()
        for part in parts:
            _compare(part.path, part.size, known.get(part.digest, part.size))
        unknown = [part for part in parts if part.digest not in known or part.source is not None]
        origins = await _bounded(self._origin(part, owner, workspace, trusted=trusted) for part in unknown)
        return [part.path for part, origin in zip(unknown, origins, strict=True) if origin is None]

    async def _origin(
        self, part: ArtifactFile, owner: str, workspace: str, *, trusted: bool = True
    ) -> tuple[str, str] | None:
        """Bucket and key of the bytes to verify. Who is not trusted has to have brought them."""
        if part.source is not None:
            bucket, key = part.source.removeprefix("s3://").split("/", 1)
            if bucket == self._blobs.bucket or not any(
                _lies_in(place, workspace, bucket, key) for place in self._references
            ):
                detail = f"{part.path}: workspace {workspace} may not refer to {part.source}"
                raise Problem(422, "reference-not-allowed", detail, file=part.path)
            found = await self._stat(key, bucket)
            if found is None:
                return None
            _compare(part.path, part.size, found.size, f"at {part.source}")
            return bucket, key
        own, blob = upload_key(part.digest, owner), blob_key(part.digest)
        if await self._blobs.has(own, part.size):
            return self._blobs.bucket, own
        return (self._blobs.bucket, blob) if trusted and await self._blobs.has(blob, part.size) else None

    # -- verifying -----------------------------------------------------------------------------------------------

    async def set_aside(self, part: ArtifactFile, owner: str = "", workspace: str = "default") -> Aside:
        """A copy to verify: of the referenced object, else the owner's upload, else of the blob.

        Raises:
            Problem: 422 `artifact-missing`, `artifact-mismatch` (its size is another one), `reference-not-allowed`.
            Transient: the object went away just now; look again.
        """
        origin = await self._origin(part, owner, workspace)
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
        """The copy has exactly this digest: it becomes the blob.

        Call it only for a version that is registered: its reference keeps the collector away. A blob that is there is
        never written again: somebody may be reading it.

        Raises:
            Transient: the copy is gone; make another.
        """
        if not await self._blobs.has(blob_key(digest), aside.size):
            await self._copy(aside.key, blob_key(digest), self._blobs.bucket)

    async def release(self, aside: Aside) -> None:
        """The blob is known (committed): the upload is of no more use. Until then registrations rely on it."""
        if aside.upload is not None:
            await self._blobs.delete(aside.upload)

    async def discard(self, aside: Aside) -> None:
        await self._blobs.delete(aside.key)

    async def refuse(self, aside: Aside) -> None:
        """The copy is not what was declared: it goes, and so does the upload, so that it can be sent again."""
        await self.discard(aside)
        await self.release(aside)

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
        except ValueError as error:  # the SDK's own opinion of a key
            raise Problem(422, "reference-not-allowed", f"s3://{bucket}/{key}: {error}") from error


def store_of(settings: RegistrySettings) -> BlobStore:
    return BlobStore(
        endpoint=settings.s3_endpoint,
        public_endpoint=settings.s3_public_endpoint or settings.s3_endpoint,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        bucket=settings.s3_bucket,
        region=settings.s3_region,
    )


async def _known(tx: AsyncConnection, digests: Iterable[str], readable: Readable | None) -> dict[str, int]:
    """Digest -> size of the verified blobs among them that the caller may know of."""
    blob, use = t(BlobRow), t(BlobUseRow)
    rows = await tx.execute(sa.select(blob.c.digest, blob.c.size).where(blob.c.digest.in_(set(digests))))
    known = {row.digest: row.size for row in rows}
    if readable is None or not known:
        return known
    holders = await tx.execute(
        sa.select(use.c.digest, use.c.workspace, use.c.model).distinct().where(use.c.digest.in_(known))
    )
    seen = {row.digest for row in holders if readable(row.workspace, row.model)}
    return {digest: size for digest, size in known.items() if digest in seen}


def _lies_in(place: str, workspace: str, bucket: str, key: str) -> bool:
    """Whether an object is in `bucket`, `bucket/prefix/`, or, for one workspace only, `risk:bucket/prefix/`."""
    owner, colon, rest = place.rpartition(":")
    of_bucket, _, prefix = rest.partition("/")
    return (not colon or owner == workspace) and of_bucket == bucket and key.startswith(prefix)


def _absent(artifact: Artifact, path: str) -> str:
    source = next(part.source for part in artifact.parts() if part.path == path)
    if source is not None:
        return f"{path}: there is nothing at {source}"
    return f"{path} was not uploaded; POST /v1/artifacts gives the address"


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
