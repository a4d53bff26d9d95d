"""Artifact bytes: hashed, sent and fetched straight to and from the object store, never trusted unverified."""

import contextlib
import hashlib
import mimetypes
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2

from contracts.model import Artifact
from hallmark.errors import HallmarkError
from hallmark.http import Http, unreachable

CHUNK = 1 << 20
DOWNLOAD_TRIES = 3
Progress = Callable[[int], None]


def sha256_file(path: Path) -> str:
    """`sha256:` and the hex digest, read in constant memory."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def exists(path: Path) -> None:
    """Raises HallmarkError, code `no-such-file`, unless it is a file."""
    if not path.is_file():
        raise HallmarkError("no-such-file", f"the artifact {path} is not a file; pack a directory first")


def describe(path: Path, media_type: str | None = None) -> Artifact:
    """The artifact that a file is.

    Raises:
        HallmarkError: code `no-such-file`.
    """
    exists(path)
    guessed = mimetypes.guess_type(path.name)[0]
    return Artifact(
        digest=sha256_file(path),
        size=path.stat().st_size,
        filename=path.name,
        media_type=media_type or guessed or "application/octet-stream",
    )


def put(http: Http, url: str, path: Path, size: int, progress: Progress | None = None) -> None:
    """Uploads to a presigned URL.

    Raises:
        HallmarkError: code `upload-failed` or `connection`.
    """
    headers = {"content-length": str(size), "content-type": "application/octet-stream"}
    response = http.send("PUT", url, body=lambda: _chunks(path, progress), headers=headers)
    if not response.is_success:
        raise HallmarkError(
            "upload-failed", f"the object store answered {response.status_code} to the upload of {path.name}"
        )


def fetch(http: Http, url: str, digest: str, target: Path, progress: Progress | None = None) -> Path:
    """Downloads to `target`, which appears only when complete and verified.

    Raises:
        HallmarkError: code `digest-mismatch` (the bytes are not the registered ones), `download-failed`, `connection`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, DOWNLOAD_TRIES + 1):
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.")
        scratch = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                found = _stream(http, url, file.write, progress)
            if found != digest:
                raise HallmarkError("digest-mismatch", f"the store sent {found}, registered is {digest}: not used")
            scratch.replace(target)
            return target
        except httpx2.TransportError as error:
            if attempt == DOWNLOAD_TRIES:
                raise unreachable(url, error) from error
            time.sleep(0.2 * attempt)
        finally:
            with contextlib.suppress(FileNotFoundError):
                scratch.unlink()
    raise AssertionError("unreachable")


def cache_dir() -> Path:
    """`HALLMARK_CACHE_DIR`, else the user's cache directory."""
    given = os.environ.get("HALLMARK_CACHE_DIR")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hallmark"


def cached(directory: Path, digest: str) -> Path:
    """Where a blob is, or would be, in a cache: named by its digest, so that it can never be stale."""
    return directory / "blobs" / digest.replace(":", "-")


def _stream(http: Http, url: str, write: Callable[[bytes], object], progress: Progress | None) -> str:
    hasher = hashlib.sha256()
    with http.stream(url) as response:
        if not response.is_success:
            raise HallmarkError("download-failed", f"the object store answered {response.status_code}")
        for chunk in response.iter_bytes(CHUNK):
            hasher.update(chunk)
            write(chunk)
            if progress:
                progress(len(chunk))
    return f"sha256:{hasher.hexdigest()}"


def _chunks(path: Path, progress: Progress | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
            if progress:
                progress(len(chunk))
