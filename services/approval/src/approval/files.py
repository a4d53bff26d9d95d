"""The files of evidence, in a bucket of approval's own.

Two places in it. `incoming/` is written by clients, through presigned URLs: one object for each digest and principal,
so that nobody can spoil what another one uploads. `files/` holds what was read and found to be what its digest says;
only this service writes there. Files are kept for each model apart: to know a digest is not to have the bytes, and who
may read one model's evidence may not read another's by naming it.
"""

import asyncio
import mimetypes
from datetime import timedelta
from hashlib import sha256
from typing import Literal

import structlog
from minio.error import S3Error
from pydantic import Field

from approval.settings import ApprovalSettings
from contracts.envelope import new_id, now
from contracts.payload import Payload
from kit.blobs import GONE, BlobStore
from kit.problems import Problem

log = structlog.get_logger()
MAX_FILE = 64 << 20
# Not at the top: even in a bucket that it shares, nothing here can lie where another service looks.
INCOMING, FILES = "evidence/incoming/", "evidence/files/"
KEPT_INCOMING = timedelta(days=1)
TIDY_SECONDS = 3_600.0
Place = tuple[str, str]  # workspace, model


class Offer(Payload):
    """present: nothing to send. single: PUT all bytes to `url` with `headers`; it is good for an hour."""

    digest: str
    size: int
    state: Literal["present", "single"]
    url: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)


class Files:
    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._made = False

    async def offer(self, digest: str, size: int, owner: str, media_type: str | None = None) -> Offer:
        """Where `owner` sends the file. What they have sent before, since a day at most, they need not send again."""
        await self._bucket()
        key = _incoming(digest, owner)
        if await self._blobs.has(key, size):
            return Offer(digest=digest, size=size, state="present")
        url, headers = self._blobs.presign_put(key, size, digest)
        # Not signed, but sent with it, the store keeps the type for those who download.
        typed = {**headers, "content-type": media_type} if media_type else headers
        return Offer(digest=digest, size=size, state="single", url=url, headers=typed)

    async def keep(self, place: Place, digest: str, size: int, owner: str) -> None:
        """Makes sure that the file is kept for that model, and that its bytes are those of the digest.

        Raises:
            Problem: 422, neither kept already nor uploaded by `owner` (`evidence-missing`), or other bytes
                (`evidence-mismatch`).
        """
        await self._bucket()
        kept = _kept(place, digest)
        found = await self._blobs.digest(kept)
        if found is not None and found[0] == digest:
            _compare(found, digest, size)
            return
        upload, aside = _incoming(digest, owner), f"{INCOMING}aside/{new_id()}"
        if not await self._blobs.has(upload, size):
            raise _missing(digest, size)
        try:
            await self._blobs.copy(upload, aside)  # what is looked at must not change before it is kept
        except S3Error as error:
            if error.code in GONE:
                raise _missing(digest, size) from error
            raise
        try:
            found = await self._blobs.digest(aside) or ("nothing", 0)
            if found[0] != digest:
                await self._blobs.delete(upload)
            _compare(found, digest, size)
            await self._blobs.copy(aside, kept)
        finally:
            await self._blobs.delete(aside)

    def url(self, place: Place, digest: str, title: str, media_type: str | None) -> str:
        """Where to download the file, for an hour. It comes as an attachment: no browser shows it as a page of ours."""
        suffix = "" if "." in title else mimetypes.guess_extension(media_type or "") or ""
        return self._blobs.presign_get(_kept(place, digest), filename=title + suffix)

    async def tidy(self) -> None:
        """Deletes uploads that nobody attached within a day. Runs until cancelled."""
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            try:
                await self.tidy_once()
            except Exception as error:
                log.warning("uploads not tidied; trying again", error=repr(error))

    async def tidy_once(self) -> int:
        """Gives how many it deleted."""
        await self._bucket()
        until = now() - KEPT_INCOMING
        old = [one.key async for one in self._blobs.objects(INCOMING) if one.modified < until]
        for key in old:
            await self._blobs.delete(key)
        return len(old)

    async def _bucket(self) -> None:
        """Not at the start: decisions need no store."""
        if not self._made:
            await self._blobs.ensure_bucket()
            self._made = True


def files_of(settings: ApprovalSettings) -> Files | None:
    """None without a store."""
    access, secret = settings.s3_access_key, settings.s3_secret_key
    if settings.s3_endpoint is None or access is None or secret is None:
        return None
    return Files(
        BlobStore(
            endpoint=settings.s3_endpoint,
            public_endpoint=settings.s3_public_endpoint or settings.s3_endpoint,
            access_key=access.get_secret_value(),
            secret_key=secret.get_secret_value(),
            bucket=settings.s3_bucket,
            region=settings.s3_region,
        )
    )


def _incoming(digest: str, owner: str) -> str:
    return f"{INCOMING}{digest.removeprefix('sha256:')}.{sha256(owner.encode()).hexdigest()[:16]}"


def _kept(place: Place, digest: str) -> str:
    name = sha256("/".join(place).encode()).hexdigest()[:32]
    return f"{FILES}{name}/{digest.removeprefix('sha256:')}"


def _compare(found: tuple[str, int], digest: str, size: int) -> None:
    if found != (digest, size):
        said = f"said to be {digest} of {size} bytes, but is {found[0]} of {found[1]}"
        raise Problem(422, "evidence-mismatch", f"the uploaded file was {said}")


def _missing(digest: str, size: int) -> Problem:
    return Problem(
        422, "evidence-missing", f"no upload of {digest} with {size} bytes; POST /v1/evidence/uploads says where to"
    )
