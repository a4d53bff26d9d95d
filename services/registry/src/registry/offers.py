"""Uploads: what to send of a blob and where, resumed where an earlier one stopped."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from contracts.model import Size
from contracts.payload import Digest, Payload
from kit.blobs import BlobStore, StoredPart
from kit.problems import Problem
from registry.places import upload_key

MIB = 1 << 20
SINGLE_MAX = 64 * MIB
PART_SIZE = 32 * MIB
MAX_PARTS = 10_000
MAX_SIZE = 5 << 40  # the largest object that S3 keeps
PARTS_PER_ANSWER = 500  # further ones are in the next answer: URLs are long, and good for an hour only


def part_size(size: int) -> int:
    """Of the size alone, so that whoever resumes an upload cuts it the same way."""
    return max(PART_SIZE, -(-size // (MAX_PARTS * MIB)) * MIB)


class Wanted(Payload):
    digest: Digest
    size: Annotated[Size, Field(le=MAX_SIZE)]


class PartOffer(Payload):
    """PUT `size` bytes, from `(number - 1) * part_size` on, to `url` with `headers`."""

    number: int
    size: int
    url: str
    headers: dict[str, str]


class Offer(Payload):
    """How a blob comes into the store.

    present: nothing to send. single: PUT all bytes to `url` with `headers`. multipart: PUT the `parts`, then complete
    the upload; `stored` parts are there already. Not all missing parts need to be in one offer: after these, ask again.
    """

    digest: str
    size: int
    state: Literal["present", "single", "multipart"]
    url: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    upload_id: str | None = None
    part_size: int | None = None
    parts: tuple[PartOffer, ...] = ()
    stored: tuple[int, ...] = ()


# SeaweedFS's have 73 characters, AWS's more than 128.
UploadId = Annotated[str, StringConstraints(min_length=1, max_length=1_000, pattern=r"^[\x21-\x7e]+$")]


class Completion(Wanted):
    upload_id: UploadId


class Uploads:
    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    async def offer(self, digest: str, size: int, owner: str, *, parts: int = PARTS_PER_ANSWER) -> Offer:
        """With the addresses of at most `parts` missing parts."""
        key = upload_key(digest, owner)
        if await self._blobs.has(key, size):
            return Offer(digest=digest, size=size, state="present")
        if size <= SINGLE_MAX:
            url, headers = self._blobs.presign_put(key, size, digest)
            return Offer(digest=digest, size=size, state="single", url=url, headers=headers)
        expected = _expected(size)
        upload_id, stored = await self._resumed(key, expected)
        missing = [n for n in expected if n not in stored][:parts]
        offered = []
        for number in missing:
            url, headers = self._blobs.presign_part(key, upload_id, number, expected[number])
            offered.append(PartOffer(number=number, size=expected[number], url=url, headers=headers))
        return Offer(
            digest=digest,
            size=size,
            state="multipart",
            upload_id=upload_id,
            part_size=part_size(size),
            parts=tuple(offered),
            stored=tuple(stored),
        )

    async def _resumed(self, key: str, expected: dict[int, int]) -> tuple[str, list[int]]:
        """The unfinished upload that has most of the bytes, or a new one, and the parts that it has."""
        best: tuple[str, list[int]] | None = None
        for upload in await self._blobs.unfinished(key):
            parts = await self._blobs.parts(key, upload.upload_id) if upload.key == key else None
            if parts is None:
                continue
            stored = [part.number for part in _whole(parts, expected)]
            if best is None or len(stored) > len(best[1]):
                best = upload.upload_id, stored
        return best or (await self._blobs.start_multipart(key), [])

    async def complete(self, digest: str, size: int, upload_id: str, owner: str) -> None:
        """Makes one object of the uploaded parts. Doing it again does nothing.

        Raises:
            Problem: 409 `parts-missing` (with `parts`), or `upload-gone`: ask for a new offer.
        """
        key = upload_key(digest, owner)
        if await self._blobs.has(key, size):
            await self._blobs.abort_multipart(key, upload_id)  # another upload of the same bytes was faster
            return
        expected = _expected(size)
        found = await self._blobs.parts(key, upload_id)
        stored = _whole(found or [], expected)
        if found is not None and len(stored) < len(expected):
            missing = sorted(set(expected) - {part.number for part in stored})
            detail = (
                f"{len(missing)} of {len(expected)} parts of {digest} are missing; POST /v1/artifacts gives addresses"
            )
            raise Problem(409, "parts-missing", detail, parts=missing[:1_000])
        if found is None or not await self._blobs.finish_multipart(key, upload_id, stored):
            if await self._blobs.has(key, size):  # somebody else completed it meanwhile
                return
            raise Problem(409, "upload-gone", f"this upload of {digest} is no more; POST /v1/artifacts gives a new one")


def _expected(size: int) -> dict[int, int]:
    """Number -> bytes of every part."""
    each = part_size(size)
    return {n: min(each, size - start) for n, start in enumerate(range(0, size, each), 1)}


def _whole(parts: Iterable[StoredPart], expected: dict[int, int]) -> list[StoredPart]:
    return [part for part in parts if expected.get(part.number) == part.size]
