"""Fetching artifact bytes straight from the object store; nothing is used before its digest was checked."""

import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import IO

import httpx2

from contracts.model import ArtifactFile
from hallmark.artifacts import CHUNK, Progress, cached, matches, shared, tree
from hallmark.errors import HallmarkError
from hallmark.http import Http, unreachable
from hallmark.kept import without_addresses
from hallmark.results import Pin

TRIES = 4
AT_ONCE = 6


def obtain(http: Http, pin: Pin, cache: Path, directory: Path | None = None, progress: Progress | None = None) -> Path:
    """The verified file, or directory, of a pin: in the cache, or below `directory` under its own name.

    Raises:
        HallmarkError: code `artifact-external` (the registry has an address only), `no-download` (the pin has no
            address and the cache not the bytes), `digest-mismatch`, `download-failed`, `unexpected-files` (`directory`
            has files there that are not the artifact's), `unsafe-path`, `connection`.
    """
    urls = {file.digest: file.url for file in pin.files if file.url}
    artifact = pin.artifact
    if artifact.external:
        where = f"the artifact is not in the registry; it stays at {artifact.filename}"
        raise HallmarkError("artifact-external", f"{where}: load it from there, with MLflow's client for its addresses")
    if not artifact.files:
        kept = cached(cache, artifact.digest)
        name = artifact.parts()[0].path
        target = directory / name if directory else kept
        if matches(target, artifact.digest):
            return target
        if directory and matches(kept, artifact.digest):
            return _copy(kept, target)
        url = pin.download_url or urls.get(artifact.digest)
        return fetch(http, _address(url, pin), artifact.digest, target, progress)
    root = directory / (Path(artifact.filename).name or "artifact") if directory else tree(cache, artifact.digest)
    _clear(root, artifact.files, ours=directory is None)
    same = groupby(sorted(artifact.files, key=lambda file: file.digest), key=lambda file: file.digest)
    jobs = [(digest, [_inside(root, file.path) for file in files]) for digest, files in same]
    told, stop = shared(progress), threading.Event()

    def report(count: int) -> None:
        if stop.is_set():  # an error or Ctrl-C: the others need not go on
            raise HallmarkError("download-stopped", f"the download of {root} was given up")
        if told:
            told(count)

    def get(job: tuple[str, list[Path]]) -> None:
        digest, targets = job
        wrong = [target for target in targets if not matches(target, digest)]
        if not wrong:
            return
        kept = cached(cache, digest)
        here = next((target for target in targets if target not in wrong), None)
        if here is None and matches(kept, digest):
            here = kept
        if here is None:
            here = wrong.pop(0) if directory else kept
            fetch(http, _address(urls.get(digest), pin), digest, here, report)
        for target in wrong:
            # In the cache, one copy serves all versions that hold the bytes.
            _copy(here, target, link=directory is None)

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="hallmark-download") as pool:
        futures = [pool.submit(get, job) for job in jobs]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return root


def seed(cache: Path, source: Path, pin: Pin) -> None:
    """Takes what `export` wrote below `source` into the cache, as far as it is needed and is what it should be."""
    for part in pin.artifact.parts():
        kept, given = cached(cache, part.digest), cached(source, part.digest)
        if not kept.exists() and matches(given, part.digest):
            _copy(given, kept)


def export(http: Http, pin: Pin, target: Path, progress: Progress | None = None) -> Path:
    """Writes the pin, and its files by their digests, below `target`: all that a server needs without the registry.

    Raises:
        HallmarkError: as `obtain`.
    """
    obtain(http, pin, target, None, progress)
    shutil.rmtree(target / "trees", ignore_errors=True)  # made anew from the files where it is needed
    file = target / "pin.json"
    scratch = file.with_name(".pin.json.new")
    scratch.write_text(without_addresses(pin).model_dump_json(indent=2) + "\n")
    scratch.replace(file)  # last: whoever follows the directory sees a pin only with its files
    return file


def fetch(http: Http, url: str, digest: str, target: Path, progress: Progress | None = None) -> Path:
    """Downloads to `target`, which appears only when complete and verified. A lost connection is taken up where it
    broke.

    Raises:
        HallmarkError: code `digest-mismatch` (the bytes are not the registered ones), `download-failed` (with the
            store's status), `connection`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.")
    scratch = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            stream = _Stream(file, progress)
            for attempt in range(1, TRIES + 1):
                try:
                    stream.read(http, url)
                    break
                except httpx2.TransportError as error:
                    if attempt == TRIES:
                        raise unreachable(url, error) from error
                    time.sleep(0.2 * attempt)
        if stream.digest != digest:
            raise HallmarkError("digest-mismatch", f"the store sent {stream.digest}, registered is {digest}: not used")
        scratch.replace(target)
        return target
    finally:
        with contextlib.suppress(FileNotFoundError):
            scratch.unlink()


class _Stream:
    """What has come so far, over any number of connections."""

    def __init__(self, file: IO[bytes], progress: Progress | None) -> None:
        self._file = file
        self._progress = progress
        self._restart()
        self._told = 0

    def _restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hasher, self._count = hashlib.sha256(), 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hasher.hexdigest()}"

    def read(self, http: Http, url: str) -> None:
        headers = {"range": f"bytes={self._count}-"} if self._count else {}
        with http.stream(url, headers=headers) as response:
            if not response.is_success:
                code = response.status_code
                raise HallmarkError("download-failed", f"the object store answered {code}", status=code)
            if self._count and response.status_code != 206:
                self._restart()
            for chunk in response.iter_bytes(CHUNK):
                self._hasher.update(chunk)
                self._file.write(chunk)
                self._count += len(chunk)
                if self._progress and self._count > self._told:
                    self._progress(self._count - self._told)
                    self._told = self._count


def _address(url: str | None, pin: Pin) -> str:
    if url is None:
        raise HallmarkError("no-download", f"{pin.model} version {pin.version} has no download address")
    return url


def _inside(root: Path, path: str) -> Path:
    """Raises HallmarkError, code `unsafe-path`, when the path leads out of the root, be it through a link."""
    target = root / path
    if not target.parent.resolve().is_relative_to(root.resolve()) or target.name in ("", ".", ".."):
        raise HallmarkError("unsafe-path", f"{path!r} leads out of {root}")
    return target


def _clear(root: Path, files: tuple[ArtifactFile, ...], *, ours: bool) -> None:
    """A directory with more in it than the artifact is not the artifact. In the cache, which is ours, it goes."""
    known = {file.path for file in files}
    more = [path for path in root.rglob("*") if not path.is_dir() or path.is_symlink()] if root.is_dir() else []
    more = [path for path in more if path.relative_to(root).as_posix() not in known]
    if more and not ours:
        names = ", ".join(path.relative_to(root).as_posix() for path in sorted(more)[:3])
        raise HallmarkError("unexpected-files", f"{root} has {len(more)} files of another artifact ({names}, ...)")
    for path in more:
        path.unlink()


def _copy(source: Path, target: Path, *, link: bool = False) -> Path:
    """Appears complete or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.")
    os.close(handle)
    scratch = Path(name)
    try:
        if link:
            scratch.unlink()
            with contextlib.suppress(OSError):  # another file system, or one without links
                os.link(source, scratch)
        if not link or not scratch.exists():
            shutil.copyfile(source, scratch)
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    return target
