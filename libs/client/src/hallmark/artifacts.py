"""Artifact bytes on this machine: files and directories described by digest, and the cache of what was downloaded.

`upload.py` sends them, `download.py` fetches them, both straight to and from the object store.
"""

import hashlib
import mimetypes
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from contracts.envelope import explain
from contracts.model import DIRECTORY, MAX_FILES, Artifact, ArtifactFile, manifest_digest
from hallmark.errors import HallmarkError

CHUNK = 1 << 20
HASHERS = min(8, os.cpu_count() or 2)
Progress = Callable[[int], None]
T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class Local:
    """A file as it was when it was hashed. `stamp` (ns) tells whether it changed since."""

    path: Path
    digest: str
    size: int
    stamp: int

    def check(self) -> None:
        """Raises HallmarkError, code `file-changed`."""
        try:
            now = self.path.stat()
        except OSError:
            now = None
        if now is None or (now.st_size, now.st_mtime_ns) != (self.size, self.stamp):
            raise HallmarkError("file-changed", f"{self.path} changed while it was read; nothing was registered")


def sha256_file(path: Path) -> str:
    """`sha256:` and the hex digest, read in constant memory."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def exists(path: Path) -> None:
    """Raises HallmarkError, code `no-such-file`, unless it is a file."""
    if not path.is_file():
        raise HallmarkError("no-such-file", f"the artifact {path} is not a file")


def survey(
    path: Path, media_type: str | None = None, progress: Progress | None = None
) -> tuple[Artifact, tuple[Local, ...]]:
    """The artifact that a file or a directory is, and its files. `progress` hears of the bytes that were hashed.

    A directory has every file below it, hidden ones too. A symbolic link counts as what it leads to, but only inside
    the directory. Of empty directories there is no trace; a warning names the first.

    Raises:
        HallmarkError: code `no-such-file`, `empty-directory`, `too-many-files`, `symlink-escapes`, `symlink-loop`,
            `special-file`, `invalid-file-name`, `unreadable-file`, `file-changed`.
    """
    if not path.exists():
        raise HallmarkError("no-such-file", f"the artifact {path} is not there")
    report = shared(progress)
    if not path.is_dir():
        if not path.is_file():  # opening a pipe would wait for a writer
            raise HallmarkError("special-file", f"{path} is neither a file nor a directory")
        local = _hash(path, report)
        guessed = media_type or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return _made(Artifact, digest=local.digest, size=local.size, filename=path.name, media_type=guessed), (local,)
    found = dict(_walk(path))
    if not found:
        raise HallmarkError("empty-directory", f"the artifact {path} is a directory without files")
    if len(found) > MAX_FILES:
        raise HallmarkError(
            "too-many-files", f"{path} has {len(found)} files, {MAX_FILES} is the most; pack some of them into one"
        )
    names = sorted(found)
    with ThreadPoolExecutor(HASHERS) as pool:
        locals_ = tuple(pool.map(lambda name: _hash(found[name], report), names))
    files = tuple(
        _made(ArtifactFile, path=name, digest=local.digest, size=local.size)
        for name, local in zip(names, locals_, strict=True)
    )
    artifact = _made(
        Artifact,
        digest=manifest_digest(files),
        size=sum(file.size for file in files),
        filename=path.resolve().name or "artifact",
        media_type=media_type or DIRECTORY,
        files=files,
    )
    return artifact, locals_


def cache_dir() -> Path:
    """`HALLMARK_CACHE_DIR`, else the user's cache directory."""
    given = os.environ.get("HALLMARK_CACHE_DIR")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hallmark"


def cached(directory: Path, digest: str) -> Path:
    """Where a blob is, or would be, in a cache: named by its digest, so that it can never be stale."""
    return directory / "blobs" / digest.replace(":", "-")


def tree(directory: Path, digest: str) -> Path:
    """Where a directory artifact is, or would be, in a cache."""
    return directory / "trees" / digest.replace(":", "-")


def matches(path: Path, digest: str) -> bool:
    """Whether the file has this digest: read again each time, because disks lie too."""
    return path.is_file() and sha256_file(path) == digest


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Relative name, with "/", and path of every file."""
    top = root.resolve()

    def below(directory: Path, name: str, above: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
        here = directory.resolve()
        if here in above:
            raise HallmarkError("symlink-loop", f"{directory} is a symbolic link to a directory that it is in")
        entries = sorted(directory.iterdir())
        if not entries:
            warnings.warn(f"the empty directory {directory} is not in the artifact", stacklevel=5)
        for entry in entries:
            if entry.is_symlink() and not entry.resolve().is_relative_to(top):
                raise HallmarkError(
                    "symlink-escapes",
                    f"{entry} is a symbolic link that leads out of {root}; copy the directory with its links "
                    "resolved (cp -rL) first",
                )
            inner = f"{name}{entry.name}"
            if entry.is_dir():
                yield from below(entry, f"{inner}/", (*above, here))
            elif entry.is_file():
                yield inner, entry
            elif entry.is_symlink():
                raise HallmarkError("no-such-file", f"{entry} is a symbolic link to nothing")
            else:
                raise HallmarkError("special-file", f"{entry} is neither a file nor a directory")

    try:
        yield from below(root, "", ())
    except OSError as error:
        raise HallmarkError("unreadable-file", f"{error.filename or root}: {error.strerror or error}") from error


def _hash(path: Path, progress: Progress | None) -> Local:
    hasher, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            while chunk := file.read(CHUNK):
                hasher.update(chunk)
                size += len(chunk)
                if progress:
                    progress(len(chunk))
    except OSError as error:
        raise HallmarkError("unreadable-file", f"{path}: {error.strerror or error}") from error
    local = Local(path, f"sha256:{hasher.hexdigest()}", size, before.st_mtime_ns)
    local.check()
    return local


def shared(progress: Progress | None) -> Progress | None:
    """For several threads."""
    if progress is None:
        return None
    lock = threading.Lock()

    def report(count: int) -> None:
        with lock:
            progress(count)

    return report


def _made(kind: type[T], **values: object) -> T:
    try:
        return kind.model_validate(values)
    except (ValidationError, UnicodeEncodeError) as error:
        why = explain(error) if isinstance(error, ValidationError) else "a name is not text"
        name = values.get("path") or values.get("filename")
        raise HallmarkError("invalid-file-name", f"{name!r} cannot be in an artifact: {why}") from error
