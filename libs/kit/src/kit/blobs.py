"""The object store: objects in one bucket of any S3, single and multipart uploads, copies, presigned URLs."""

import asyncio
import base64
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from urllib.parse import SplitResult, quote, urlsplit

import urllib3
from minio import Minio
from minio.commonconfig import COMPLIANCE, CopySource
from minio.datatypes import Part
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, S3Error, ServerError
from minio.retention import Retention

from kit.errors import Transient
from kit.presign import Presigner

T = TypeVar("T")
PAGE = 1000
PRESIGN_FOR = timedelta(hours=1)
# One copy request moves at most this much: S3 takes 5 GiB, but the answer must come before the read times out.
COPY_PART = 1 << 30
GONE = ("NoSuchKey", "NoSuchObject", "NotFound", "NoSuchBucket", "NoSuchUpload")
NO_LOCK = ("NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "InvalidRequest")
# What stores say of an upload id that they never gave.
NO_UPLOAD_ID = ("InvalidRequest", "InvalidArgument")


@dataclass(frozen=True)
class Stored:
    """An object: its key, bytes, and when it was written."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class Unfinished:
    """A multipart upload that is neither completed nor aborted."""

    key: str
    upload_id: str
    started: datetime


@dataclass(frozen=True)
class StoredPart:
    number: int
    size: int
    etag: str
    modified: datetime


class BlobStore:
    """Calls run in threads: the client is synchronous. `public_endpoint` is what presigned URLs name."""

    def __init__(
        self, *, endpoint: str, public_endpoint: str, access_key: str, secret_key: str, bucket: str, region: str
    ) -> None:
        self.bucket = bucket
        self._client = _client(endpoint, access_key, secret_key, region)
        outside = _client(public_endpoint, access_key, secret_key, region)
        self._inside = Presigner(_addresses(self._client, region), access_key, secret_key, region)
        self._outside = Presigner(_addresses(outside, region), access_key, secret_key, region)

    async def _call(self, work: Callable[[Minio], T]) -> T:
        try:
            return await asyncio.to_thread(work, self._client)
        except S3Error as error:
            if error.response.status >= 500 or error.code == "SlowDown":
                raise Transient(f"the object store: {error.code}") from error
            raise
        except (ServerError, InvalidResponseError) as error:  # an answer that is not S3's: a proxy's, say
            raise Transient(f"the object store: {error}") from error

    async def _unless_gone(self, work: Callable[[Minio], T], *more: str) -> T | None:
        try:
            return await self._call(work)
        except S3Error as error:
            if error.code in (*GONE, *more):
                return None
            raise

    async def ensure_bucket(self, *, object_lock: bool = False) -> None:
        """Makes the bucket where it is not there. `object_lock`: the objects of a new one can be locked."""

        def work(client: Minio) -> None:
            if client.bucket_exists(self.bucket):
                return
            try:
                client.make_bucket(self.bucket, object_lock=object_lock)
            except S3Error as error:
                if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise

        await self._call(work)

    async def can_lock(self) -> bool:
        """Whether objects of the bucket can be locked (S3 Object Lock)."""

        def work(client: Minio) -> bool:
            client.get_object_lock_config(self.bucket)
            return True

        return bool(await self._unless_gone(work, "ObjectLockConfigurationNotFoundError", "NotImplemented"))

    async def hold(self, key: str, *, on: bool) -> bool:
        """Puts S3's legal hold on every version of an object, or takes it off. False: the bucket has no object lock, or
        there is no such object."""

        def work(client: Minio) -> bool:
            versions = [
                str(found.version_id)
                for found in client.list_objects(self.bucket, prefix=key, include_version=True)
                if found.object_name == key and not found.is_delete_marker
            ]
            for version in versions:
                change = client.enable_object_legal_hold if on else client.disable_object_legal_hold
                change(self.bucket, key, version_id=version)
            return bool(versions)

        return bool(await self.can_lock() and await self._call(work))

    async def lock_until(self, key: str, until: datetime) -> bool:
        """Locks the newest version of an object (COMPLIANCE) at least until then. False: there is no such object, or it
        is not locked afterwards."""

        def is_locked(client: Minio) -> bool:
            try:
                found = client.get_object_retention(self.bucket, key)
            except S3Error as error:
                if error.code in NO_LOCK:
                    return False
                raise
            if found is None or found.mode != COMPLIANCE:
                return False
            ends = found.retain_until_date
            return (ends if ends.tzinfo else ends.replace(tzinfo=UTC)) >= until.replace(microsecond=0)

        def work(client: Minio) -> bool:
            if not is_locked(client):
                client.set_object_retention(self.bucket, key, Retention(COMPLIANCE, until))
            return is_locked(client)

        return bool(await self._unless_gone(work))

    # -- objects -------------------------------------------------------------------------------------------------

    async def stat(self, key: str, *, bucket: str | None = None) -> Stored | None:
        """None when there is no such object, or no such bucket."""
        found = await self._unless_gone(lambda c: c.stat_object(bucket or self.bucket, key))
        return None if found is None else Stored(key, found.size or 0, _time(found.last_modified))

    async def has(self, key: str, size: int) -> bool:
        """Whether there is such an object of exactly that many bytes."""
        found = await self.stat(key)
        return found is not None and found.size == size

    async def objects(self, prefix: str) -> AsyncIterator[Stored]:
        """Every object whose key starts so, a page at a time, in the store's order."""
        found = await self._call(lambda c: c.list_objects(self.bucket, prefix=prefix, recursive=True))
        objects = (Stored(o.object_name, o.size or 0, _time(o.last_modified)) for o in found if not o.is_dir)
        while page := await self._call(lambda _: tuple(itertools.islice(objects, PAGE))):
            for item in page:
                yield item

    async def first_key(self, prefix: str) -> str | None:
        """The first key, in the store's order, that starts so; also one of which only an old version is left."""

        def work(client: Minio) -> str | None:
            found = client.list_objects(self.bucket, prefix=prefix, recursive=True, include_version=True)
            return next((str(o.object_name) for o in found if not o.is_dir), None)

        return await self._unless_gone(work)

    async def put(self, key: str, data: bytes, headers: dict[str, str]) -> str | None:
        """Writes a small object and gives its ETag; None when a condition in the headers does not hold (412)."""

        def work(client: Minio) -> str | None:
            return client._put_object(self.bucket, key, data, dict(headers)).etag

        return await self._unless_gone(work, "PreconditionFailed", "ConditionalRequestConflict")

    async def read(self, key: str) -> tuple[bytes, str] | None:
        """The bytes of a small object and its ETag; None when there is no such object."""

        def work(client: Minio) -> tuple[bytes, str]:
            response = client.get_object(self.bucket, key)
            try:
                return response.data, response.headers.get("etag", "").strip('"')
            finally:
                response.close()
                response.release_conn()

        return await self._unless_gone(work)

    async def digest(self, key: str) -> tuple[str, int] | None:
        """The digest (`sha256:...`) and the bytes of what really lies there, read piece by piece; None: no object."""

        def work(client: Minio) -> tuple[str, int]:
            found, size = hashlib.sha256(), 0
            response = client.get_object(self.bucket, key)
            try:
                for piece in response.stream(1 << 20):
                    found.update(piece)
                    size += len(piece)
            finally:
                response.close()
                response.release_conn()
            return f"sha256:{found.hexdigest()}", size

        return await self._unless_gone(work)

    async def copy(self, source: str, target: str, *, source_bucket: str | None = None) -> None:
        """Within the store; no byte comes here. Raises S3Error, code NoSuchKey, when the source is gone."""
        origin = source_bucket or self.bucket

        def work(client: Minio) -> None:
            size = client.stat_object(origin, source).size or 0
            if size <= COPY_PART:
                client.copy_object(self.bucket, target, CopySource(origin, source))
                return
            upload_id = client._create_multipart_upload(self.bucket, target, {})
            try:
                parts = []
                for number, start in enumerate(range(0, size, COPY_PART), 1):
                    end = min(start + COPY_PART, size) - 1
                    headers: dict[str, str | list[str] | tuple[str]] = {
                        "x-amz-copy-source": quote(f"/{origin}/{source}"),
                        "x-amz-copy-source-range": f"bytes={start}-{end}",
                    }
                    etag, _ = client._upload_part_copy(self.bucket, target, upload_id, number, headers)
                    parts.append(Part(number, etag))
                client._complete_multipart_upload(self.bucket, target, upload_id, parts)
            except BaseException:
                client._abort_multipart_upload(self.bucket, target, upload_id)
                raise

        await self._call(work)

    async def delete(self, *keys: str) -> None:
        """What is not there is no error."""

        def work(client: Minio) -> None:
            if len(keys) == 1:
                client.remove_object(self.bucket, keys[0])
                return
            for error in client.remove_objects(self.bucket, [DeleteObject(key) for key in keys]):
                raise Transient(f"the object store did not delete {error.name}: {error.code}")

        if keys:
            await self._call(work)

    def presign_put(self, key: str, size: int, digest: str) -> tuple[str, dict[str, str]]:
        """A URL and the headers to send with it. Both are signed: the store takes exactly that many bytes, and, where
        it knows S3's checksums, only those of the digest (`sha256:...`)."""
        checksum = base64.b64encode(bytes.fromhex(digest.removeprefix("sha256:"))).decode()
        headers = {"content-length": str(size), "x-amz-checksum-sha256": checksum}
        return self._outside.url("PUT", self.bucket, key, PRESIGN_FOR, headers=headers), headers

    def presign_get(self, key: str, *, inside: bool = False, filename: str | None = None) -> str:
        """A URL to download from, good for an hour. `inside`: for the service's own processes."""
        query = {}
        if filename:
            query["response-content-disposition"] = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
        return (self._inside if inside else self._outside).url("GET", self.bucket, key, PRESIGN_FOR, query=query)

    # -- multipart uploads ---------------------------------------------------------------------------------------

    async def start_multipart(self, key: str) -> str:
        """The upload's id."""
        return str(await self._call(lambda c: c._create_multipart_upload(self.bucket, key, {})))

    async def unfinished(self, prefix: str) -> list[Unfinished]:
        """Every unfinished upload to a key that starts so, oldest first."""

        def work(client: Minio) -> list[Unfinished]:
            return sorted(_unfinished(client, self.bucket, prefix), key=lambda u: (u.started, u.upload_id))

        return await self._call(work)

    async def parts(self, key: str, upload_id: str) -> list[StoredPart] | None:
        """By number; None when there is no such upload (any more)."""

        def work(client: Minio) -> list[StoredPart]:
            found: dict[int, StoredPart] = {}
            marker = None
            while True:
                answer = client._list_parts(
                    self.bucket, key, upload_id, max_parts=PAGE, part_number_marker=str(marker) if marker else None
                )
                for p in answer.parts:
                    found[p.part_number] = StoredPart(p.part_number, p.size or 0, p.etag, _time(p.last_modified))
                last = max(found, default=0)
                if not answer.is_truncated or last == marker:
                    return [found[number] for number in sorted(found)]
                marker = last

        return await self._unless_gone(work, *NO_UPLOAD_ID)

    def presign_part(self, key: str, upload_id: str, number: int, size: int) -> tuple[str, dict[str, str]]:
        """A URL for one part, and the headers to send with it."""
        query = {"partNumber": str(number), "uploadId": upload_id}
        headers = {"content-length": str(size)}
        return self._outside.url("PUT", self.bucket, key, PRESIGN_FOR, query=query, headers=headers), headers

    async def finish_multipart(self, key: str, upload_id: str, parts: Iterable[StoredPart]) -> bool:
        """Makes the object of the parts. False when there is no such upload (any more)."""
        chosen = [Part(part.number, part.etag) for part in parts]

        def work(client: Minio) -> bool:
            client._complete_multipart_upload(self.bucket, key, upload_id, chosen)
            return True

        return bool(await self._unless_gone(work))

    async def abort_multipart(self, key: str, upload_id: str) -> None:
        await self._unless_gone(lambda c: c._abort_multipart_upload(self.bucket, key, upload_id))


def _unfinished(client: Minio, bucket: str, prefix: str) -> Iterator[Unfinished]:
    seen: set[str] = set()
    key_marker = upload_marker = None
    while True:
        answer = client._list_multipart_uploads(
            bucket, prefix=prefix, max_uploads=PAGE, key_marker=key_marker, upload_id_marker=upload_marker
        )
        fresh = [
            Unfinished(upload.object_name, upload.upload_id, _time(upload.initiated_time))
            for upload in answer.uploads
            if upload.upload_id and upload.upload_id not in seen
        ]
        yield from fresh
        seen.update(upload.upload_id for upload in fresh)
        if not answer.is_truncated or not fresh:
            return
        key_marker, upload_marker = answer.next_key_marker, fresh[-1].upload_id


def _time(given: datetime | None) -> datetime:
    """An object without a date counts as new: nobody collects it."""
    return given or datetime.now(UTC)


def _addresses(client: Minio, region: str) -> Callable[[str, str], SplitResult]:
    """As the SDK addresses objects: the bucket in the host's name at AWS, in the path elsewhere."""

    def address(bucket: str, key: str) -> SplitResult:
        built = client._base_url.build(method="GET", region=region, bucket_name=bucket, object_name=key)
        assert isinstance(built, SplitResult)
        return built

    return address


def _client(endpoint: str, access_key: str, secret_key: str, region: str) -> Minio:
    parts = urlsplit(endpoint)
    return Minio(
        parts.netloc,
        access_key=access_key,
        secret_key=secret_key,
        secure=parts.scheme == "https",
        region=region,
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5, read=60), retries=urllib3.Retry(2, backoff_factor=0.2), maxsize=16
        ),
    )
