"""Artifacts in the object store: content-addressed, verified before a version may name them."""

from contracts.envelope import new_id
from contracts.model import Artifact
from kit.blobs import BlobStore
from kit.db import Database
from kit.problems import Problem
from registry import queries


def upload_key(digest: str) -> str:
    """Where a client puts bytes that nobody has verified yet."""
    return f"uploads/sha256/{digest.removeprefix('sha256:')}"


def blob_key(digest: str) -> str:
    """Where verified bytes live. Only the registry writes here."""
    name = digest.removeprefix("sha256:")
    return f"blobs/sha256/{name[:2]}/{name}"


class Artifacts:
    def __init__(self, db: Database, blobs: BlobStore) -> None:
        self._db = db
        self._blobs = blobs

    async def offer(self, digest: str, size: int) -> str | None:
        """A URL to upload to, or None when the bytes are here already."""
        async with self._db.snapshot() as tx:
            known = await queries.blob_size(tx, digest)
        return None if known == size else self._blobs.presign_put(upload_key(digest))

    async def ensure(self, artifact: Artifact) -> None:
        """Makes sure that the store holds exactly these bytes under the blob's key.

        The upload is copied aside before it is read back, so that nobody can change it between check and use.

        Raises:
            Problem: 422, the upload is missing or its bytes are not the declared ones.
        """
        async with self._db.snapshot() as tx:
            known = await queries.blob_size(tx, artifact.digest)
        if known is not None:
            _compare(artifact, artifact.digest, known)
            return
        source = upload_key(artifact.digest)
        if await self._blobs.size(source) is None:
            raise Problem(
                422,
                "artifact-missing",
                f"{artifact.filename}: {artifact.digest} was not uploaded; POST /v1/artifacts gives the address",
            )
        aside = f"verifying/{new_id()}"
        await self._blobs.copy(source, aside)
        try:
            _compare(artifact, *await self._blobs.digest(aside))
            await self._blobs.copy(aside, blob_key(artifact.digest))
        finally:
            await self._blobs.delete(aside)

    def download_url(self, digest: str) -> str:
        return self._blobs.presign_get(blob_key(digest))


def _compare(artifact: Artifact, digest: str, size: int) -> None:
    if (digest, size) != (artifact.digest, artifact.size):
        raise Problem(
            422,
            "artifact-mismatch",
            f"{artifact.filename}: declared {artifact.digest} with {artifact.size} bytes, "
            f"the store holds {digest} with {size} bytes",
        )
