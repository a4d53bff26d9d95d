"""Streams the parts of an artifact from the store, in constant memory: hashes all, keeps what is to be inspected."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3
from urllib3.exceptions import HTTPError

from registry.inspection.jobs import ExaminedPart, Part
from registry.inspection.report import MIB, DiskFull
from registry.inspection.safetensors import header_size

CHUNK = MIB


class StoreAway(Exception):
    """The store did not give the bytes; later it may."""


class Fetcher:
    """`sizes` has, after the work, the real size of every file of which only the head was kept."""

    def __init__(self, directory: Path, room: int) -> None:
        self.directory = directory
        self.room = room
        self.sizes: dict[str, int] = {}
        self._known: dict[tuple[str, str, int], tuple[ExaminedPart, Path]] = {}
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5, read=60),
            retries=urllib3.Retry(2, backoff_factor=0.2, redirect=0),
            maxsize=1,
        )

    def fetch(self, part: Part) -> ExaminedPart:
        target = self.directory / part.path
        target.parent.mkdir(parents=True, exist_ok=True)
        # The same object under another path; a presigned query may differ.
        key = (part.url.partition("?")[0], part.digest, part.size)
        known = self._known.get(key)
        if known is not None:
            before, where = known
            os.link(where, target)
            if str(where.relative_to(self.directory)) in self.sizes:
                self.sizes[part.path] = part.size
            return before.model_copy(update={"path": part.path})
        with self._get(part) as response:
            if response is None:
                return ExaminedPart(path=part.path, digest=None, size=None)
            found = self._read(part, response, target)
        if (found.digest, found.size) == (part.digest, part.size):
            self._known[key] = (found, target)
        return found

    @contextmanager
    def _get(self, part: Part) -> Iterator[urllib3.BaseHTTPResponse | None]:
        try:
            response = self._http.request(
                "GET", part.url, preload_content=False, redirect=False, headers={"Accept-Encoding": "identity"}
            )
            try:
                if response.status == 404:
                    yield None
                elif response.status != 200:
                    raise StoreAway(f"{part.path}: the store answered {response.status}")
                else:
                    yield response
            finally:
                response.close()
        except HTTPError as error:
            raise StoreAway(f"{part.path}: {type(error).__name__}") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(str(error)) from error
            raise

    def _read(self, part: Part, response: urllib3.BaseHTTPResponse, target: Path) -> ExaminedPart:
        hasher, size, keep = hashlib.sha256(), 0, -1
        with target.open("wb") as out:
            for chunk in response.stream(CHUNK, decode_content=False):
                if size == 0:
                    keep = self._keep(part, chunk)
                size += len(chunk)
                if size > part.size:
                    return ExaminedPart(path=part.path, digest=None, size=size)
                hasher.update(chunk)
                if out.tell() < keep:
                    out.write(chunk[: keep - out.tell()])
            self.room -= out.tell()
        if size > keep >= 0:
            self.sizes[part.path] = size
        return ExaminedPart(path=part.path, digest=f"sha256:{hasher.hexdigest()}", size=size)

    def _keep(self, part: Part, head: bytes) -> int:
        """How many bytes of this file go to the disk."""
        if part.size <= self.room:
            return part.size
        header = header_size(head)
        return min(MIB if header is None else max(MIB, 8 + header), max(self.room, 4096))
