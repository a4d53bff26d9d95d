"""The object store: content-addressed blobs in one bucket of any S3."""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.commonconfig import CopySource
from minio.error import S3Error

from kit.errors import Transient

T = TypeVar("T")
CHUNK = 1 << 20
PRESIGN_FOR = timedelta(hours=1)


class BlobStore:
    """Calls run in threads: the client is synchronous. `public_endpoint` is what presigned URLs name."""

    def __init__(
        self, *, endpoint: str, public_endpoint: str, access_key: str, secret_key: str, bucket: str, region: str
    ) -> None:
        self.bucket = bucket
        self._inside = _client(endpoint, access_key, secret_key, region)
        self._outside = _client(public_endpoint, access_key, secret_key, region)

    async def _call(self, work: Callable[[Minio], T]) -> T:
        try:
            return await asyncio.to_thread(lambda: work(self._inside))
        except S3Error as error:
            if error.response.status >= 500 or error.code == "SlowDown":
                raise Transient(f"the object store: {error.code}") from error
            raise

    async def ensure_bucket(self) -> None:
        def work(client: Minio) -> None:
            if not client.bucket_exists(self.bucket):
                try:
                    client.make_bucket(self.bucket)
                except S3Error as error:
                    if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                        raise

        await self._call(work)

    async def size(self, key: str) -> int | None:
        """Bytes, or None when there is no such object."""

        def work(client: Minio) -> int | None:
            try:
                return client.stat_object(self.bucket, key).size
            except S3Error as error:
                if error.code in ("NoSuchKey", "NoSuchObject", "NotFound"):
                    return None
                raise

        return await self._call(work)

    async def digest(self, key: str) -> tuple[str, int]:
        """`sha256:...` and size of the object's bytes, read back in constant memory."""

        def work(client: Minio) -> tuple[str, int]:
            response = client.get_object(self.bucket, key)
            try:
                hasher, size = hashlib.sha256(), 0
                for chunk in response.stream(CHUNK):
                    hasher.update(chunk)
                    size += len(chunk)
                return f"sha256:{hasher.hexdigest()}", size
            finally:
                response.close()
                response.release_conn()

        return await self._call(work)

    async def copy(self, source: str, target: str) -> None:
        await self._call(lambda c: c.copy_object(self.bucket, target, CopySource(self.bucket, source)))

    async def delete(self, key: str) -> None:
        await self._call(lambda c: c.remove_object(self.bucket, key))

    def presign_put(self, key: str) -> str:
        """A URL to upload with, good for an hour. No I/O: the region is known."""
        return self._outside.presigned_put_object(self.bucket, key, PRESIGN_FOR)

    def presign_get(self, key: str) -> str:
        """A URL to download from, good for an hour."""
        return self._outside.presigned_get_object(self.bucket, key, PRESIGN_FOR)


def _client(endpoint: str, access_key: str, secret_key: str, region: str) -> Minio:
    parts = urlsplit(endpoint)
    return Minio(
        parts.netloc,
        access_key=access_key,
        secret_key=secret_key,
        secure=parts.scheme == "https",
        region=region,
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5, read=60), retries=urllib3.Retry(2, backoff_factor=0.2), maxsize=8
        ),
    )
