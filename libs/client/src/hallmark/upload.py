"""Sending artifact bytes: only what the store lacks, in parallel, and resumed where an earlier call stopped.

The registry offers an address for each missing blob or part; the bytes go straight to the object store.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any, Literal

from pydantic import Field

from hallmark.artifacts import CHUNK, Local, Progress, shared
from hallmark.errors import HallmarkError
from hallmark.http import Http
from hallmark.results import Result

AT_ONCE = 6
IDLE_ROUNDS = 3
LOST = ("parts-missing", "upload-gone")


class PartOffer(Result):
    number: int
    size: int
    url: str
    headers: dict[str, str]


class Offer(Result):
    """How the registry wants a blob: see POST /v1/artifacts."""

    digest: str
    size: int
    state: Literal["present", "single", "multipart"]
    url: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    upload_id: str | None = None
    part_size: int | None = None
    parts: tuple[PartOffer, ...] = ()
    stored: tuple[int, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing is missing once these parts are sent."""
        return (len(self.parts) + len(self.stored)) * (self.part_size or 0) >= self.size


class Offers(Result):
    files: tuple[Offer, ...]


Ask = Callable[[list[Mapping[str, Any]]], Sequence[Offer]]
Complete = Callable[[Mapping[str, Any]], object]


class Uploader:
    """One upload of some files. `ask` gets offers, `complete` says that all parts of a multipart upload are sent."""

    def __init__(self, http: Http, ask: Ask, complete: Complete, progress: Progress | None = None) -> None:
        self._http = http
        self._ask = ask
        self._complete = complete
        self._progress = shared(progress)
        self._stop = threading.Event()
        self._trouble = ""

    def send(self, files: Sequence[Local]) -> None:
        """Returns when the store has all of them. Called again after a failure, it sends only what is missing.

        Raises:
            HallmarkError: code `file-changed`, `upload-failed`, `connection`, or what the registry answers.
        """
        todo = {file.digest: file for file in files}  # the same bytes under two names are sent once
        idle = 0
        while todo:
            done, moved = self._round(todo)
            for digest in done:
                todo.pop(digest).check()
            # Addresses may have expired, or another client may have completed the upload: new offers tell.
            idle = 0 if done or moved else idle + 1
            if todo and idle == IDLE_ROUNDS:
                name = next(iter(todo.values())).path.name
                raise HallmarkError("upload-failed", f"the object store does not take {name}: {self._trouble}")

    def _round(self, todo: Mapping[str, Local]) -> tuple[set[str], bool]:
        """What is in the store now, and whether anything was sent."""
        offers = self._ask([{"digest": file.digest, "size": file.size} for file in todo.values()])
        done = {offer.digest for offer in offers if offer.state == "present"}
        moved = False
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="hallmark-upload")
        try:
            running: dict[Future[bool], Offer] = {}
            left: dict[str, int] = {}
            for offer in offers:
                if offer.state == "present":
                    continue
                pieces = self._pieces(offer, todo[offer.digest])
                left[offer.digest] = len(pieces)
                running.update({pool.submit(self._put, *piece): offer for piece in pieces})
                if not pieces and self._finish(offer):
                    done.add(offer.digest)
            for future in as_completed(running):
                offer = running[future]
                if not future.result():
                    continue
                moved = True
                left[offer.digest] -= 1
                if not left[offer.digest] and self._finish(offer):
                    done.add(offer.digest)
        finally:
            self._stop.set()  # an error or Ctrl-C: the others need not go on
            pool.shutdown(cancel_futures=True)
            self._stop.clear()
        return done, moved

    def _pieces(self, offer: Offer, file: Local) -> list[tuple[Local, int, int, str, dict[str, str]]]:
        """File, first byte, length, address and headers of everything to send."""
        if offer.state == "single":
            return [(file, 0, file.size, offer.url or "", offer.headers)]
        starts = [(part.number - 1) * (offer.part_size or 0) for part in offer.parts]
        return [(file, s, p.size, p.url, p.headers) for s, p in zip(starts, offer.parts, strict=True)]

    def _finish(self, offer: Offer) -> bool:
        if offer.state == "single":
            return True
        if not offer.whole:
            return False
        try:
            self._complete({"digest": offer.digest, "size": offer.size, "upload_id": offer.upload_id})
        except HallmarkError as error:
            if error.code not in LOST:
                raise
            self._trouble = str(error)
            return False
        return True

    def _put(self, file: Local, start: int, length: int, url: str, headers: dict[str, str]) -> bool:
        """False when the store refused: a new offer is needed."""
        told = [0]
        response = self._http.send(
            "PUT",
            url,
            body=lambda: self._chunks(file, start, length, told),
            headers={"content-type": "application/octet-stream", **headers, "content-length": str(length)},
        )
        if response.is_success:
            return True
        if response.status_code == 400 and b"Digest" in response.content:
            raise HallmarkError("file-changed", f"{file.path} changed while it was uploaded; nothing was registered")
        self._trouble = f"it answered {response.status_code}"
        return False

    def _chunks(self, file: Local, start: int, length: int, told: list[int]) -> Iterator[bytes]:
        """The bytes. A second try tells `progress` only of what the first did not get to."""
        sent = 0
        with file.path.open("rb") as source:
            source.seek(start)
            while sent < length:
                chunk = source.read(min(CHUNK, length - sent))
                if not chunk:
                    raise HallmarkError("file-changed", f"{file.path} became shorter while it was uploaded")
                if self._stop.is_set():
                    raise HallmarkError("upload-stopped", f"the upload of {file.path} was given up")
                yield chunk
                sent += len(chunk)
                if self._progress and sent > told[0]:
                    self._progress(sent - told[0])
                    told[0] = sent
