"""Following a stage or an alias from a server: the model that is served changes without a restart, and never breaks.

The registry tells of changes as they happen (server-sent events); one that cannot is asked every so often instead.
The thread that predicts reads one attribute. Everything else (listening, asking, downloading, checking, loading)
happens on the watcher's own thread; whatever fails there, the model in use stays in use.
"""

import contextlib
import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from pydantic import ValidationError

from hallmark.artifacts import cache_dir
from hallmark.client import Client
from hallmark.download import obtain
from hallmark.errors import HallmarkError
from hallmark.follow import NotTold
from hallmark.pins import Keys, verify
from hallmark.results import Pin

log = logging.getLogger("hallmark.watch")
M = TypeVar("M")
LONGEST_PAUSE_SECONDS = 10.0
FORBIDDEN_PAUSE_SECONDS = 300.0
NO_STREAM_SECONDS = 300.0  # a registry that tells no changes may be a newer one some day


@dataclass(frozen=True)
class Loaded(Generic[M]):
    """A model ready to predict, and the pin it came from."""

    model: M
    pin: Pin
    path: Path

    @property
    def version(self) -> int:
        return self.pin.version


@dataclass(frozen=True)
class Status:
    """How the watcher is doing. `trouble` is None while all is well; `fresh_at` is when the registry last confirmed
    what is served (`time.time()`, 0 for never)."""

    trouble: str | None = None
    fresh_at: float = 0.0

    @property
    def age_seconds(self) -> float:
        return time.time() - self.fresh_at


class Watcher(Generic[M]):
    """Keeps `current` at the version that a stage or an alias names. Made by `watch`."""

    def __init__(
        self,
        client: Client,
        model: str,
        load: Callable[[Path], M],
        *,
        stage: str = "Production",
        alias: str | None = None,
        every: float = 1.0,
        pin_keys: Keys | None = None,
        self_test: Callable[[M], object] | None = None,
        on_swap: Callable[[Loaded[M] | None, Loaded[M]], object] | None = None,
        directory: Path | None = None,
    ) -> None:
        self._client = client
        self._name = model
        self._stage = stage
        self._alias = alias
        self._target = f"@{alias}" if alias is not None else stage
        self._pin_keys = pin_keys
        self._follower = client.follow(model, stage=stage, alias=alias)
        self._no_stream_until = 0.0
        self._load = load
        self._self_test = self_test
        self._on_swap = on_swap
        self._every = every
        self._directory = directory or cache_dir()
        self._pin_file = self._directory / "pins" / f"{client.workspace}.{_file_name(model)}.{self._target}.json"
        self._etag: str | None = None
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self.current: Loaded[M] | None = None
        self.status = Status()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, wait: float = 30.0) -> Loaded[M]:
        """Begins to follow; returns when a model is loaded: from the registry, or the last known good one on disk.

        Raises:
            HallmarkError: code `nothing-to-serve`; no model could be loaded within `wait` seconds.
        """
        self._thread = threading.Thread(target=self._run, name=f"hallmark-watch-{self._name}", daemon=True)
        self._thread.start()
        self._ready.wait(wait)
        if self.current is None:
            self.stop()
            why = self.status.trouble or "no answer in time"
            raise HallmarkError("nothing-to-serve", f"no {self._target} model of {self._name} could be loaded: {why}")
        return self.current

    def stop(self) -> None:
        self._stop.set()
        self._follower.interrupt()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5)

    def check(self) -> None:
        """Asks the registry once and swaps if it must.

        Raises:
            Exception: whatever went wrong; `current` is then as it was.
        """
        pin, etag = self._client.resolve_if_changed(self._name, stage=self._stage, alias=self._alias, etag=self._etag)
        if pin is not None and self._is_news(pin):
            self._swap(pin)
            self._remember(pin)
        # Only now: a swap that failed must be tried again.
        self._etag = etag
        self.status = Status(None, time.time())

    def _run(self) -> None:
        pause = self._every
        while not self._stop.is_set():
            try:
                self.check()
                pause = self._every
                self._ready.set()
                if self._listen():
                    continue
            except Exception as error:
                # Fail static: whatever it is, what is served stays served.
                self.status = Status(str(error) or repr(error), self.status.fresh_at)
                log.warning("following %s: %s; keeping %s", self._name, self.status.trouble, self._serving())
                denied = isinstance(error, HallmarkError) and error.status in (401, 403)
                pause = min(max(pause, self._every) * 2, FORBIDDEN_PAUSE_SECONDS if denied else LONGEST_PAUSE_SECONDS)
                if self.current is None:
                    self._recall()
            if self.current is not None:
                self._ready.set()
            self._stop.wait(pause * random.uniform(0.8, 1.2))  # noqa: S311

    def _listen(self) -> bool:
        """Swaps at every change the registry tells, until its stream ends. False: it tells none, ask it later.

        Raises:
            Exception: what `check` raises; the change is then not lost, because everything is asked for again.
        """
        if time.monotonic() < self._no_stream_until:
            return False
        try:
            for change in self._follower.changes():
                if self._stop.is_set():
                    return True
                if change:
                    self.check()
                self.status = Status(None, time.time())
        except NotTold as error:
            log.info("%s of %s is asked for every %g s: %s", self._target, self._name, self._every, error)
            self._no_stream_until = time.monotonic() + NO_STREAM_SECONDS
            return False
        # An answer that ended is nothing to hurry about: everybody else's has ended too.
        self._stop.wait(self._follower.retry_seconds * random.uniform(0.5, 1.0))  # noqa: S311
        return True

    def _serving(self) -> str:
        return f"version {self.current.version}" if self.current else "nothing"

    def _is_news(self, pin: Pin) -> bool:
        if self.current is None:
            return True
        if pin.sequence < self.current.pin.sequence:
            raise HallmarkError(
                "stale-answer", f"the registry told of sequence {pin.sequence}, older than what is used"
            )
        return pin.digest != self.current.pin.digest or pin.version != self.current.version

    def _verify(self, pin: Pin) -> None:
        """Raises HallmarkError unless the registry's signature says the same as the answer, where keys are given."""
        if self._pin_keys is None:
            return
        claims = verify(
            pin.pin or "", self._pin_keys, workspace=self._client.workspace, model=self._name, target=self._target
        )
        if (claims.version, claims.digest, claims.artifact_digest, claims.sequence) != (
            pin.version,
            pin.digest,
            pin.artifact.digest,
            pin.sequence,
        ):
            raise HallmarkError("pin-mismatch", f"the pin is for version {claims.version}, the answer says otherwise")

    def _bytes(self, pin: Pin) -> Path:
        """The verified file or directory: what is cached is hashed again, because disks lie too."""
        return obtain(self._client.http, pin, self._directory)

    def _swap(self, pin: Pin) -> None:
        self._verify(pin)
        path = self._bytes(pin)
        model = self._load(path)
        if self._self_test is not None:
            self._self_test(model)
        before, self.current = self.current, Loaded(model, pin, path)
        log.info("serving %s version %d (%s)", self._name, pin.version, pin.artifact.digest)
        if self._on_swap is not None:
            try:
                self._on_swap(before, self.current)
            except Exception:
                log.exception("the on_swap callback failed")

    def _remember(self, pin: Pin) -> None:
        """Keeps the pin for a start without the registry; without its addresses, which expire."""
        kept = pin.model_copy(update={"download_url": None, "files": ()})
        with contextlib.suppress(OSError):
            self._pin_file.parent.mkdir(parents=True, exist_ok=True)
            scratch = self._pin_file.with_suffix(f".{os.getpid()}.new")
            scratch.write_text(json.dumps(kept.model_dump(mode="json")))
            scratch.replace(self._pin_file)

    def _recall(self) -> None:
        try:
            pin = Pin.model_validate_json(self._pin_file.read_bytes())
            self._swap(pin)
        except (OSError, ValidationError):
            return
        except Exception as error:
            log.warning("the last known good version cannot be used: %s", error)


def watch(
    model: str,
    load: Callable[[Path], M],
    *,
    stage: str = "Production",
    client: Client | None = None,
    **options: Any,
) -> Watcher[M]:
    """A watcher of one model's stage, or with `alias` of that. `load` opens the verified file; `self_test(model)`
    raises to refuse it.

    >>> watcher = hallmark.watch("fraud", load=onnxruntime.InferenceSession)
    >>> with watcher:
    ...     watcher.current.model.run(None, {"X": rows})

    `options`: alias, pin_keys (the registry's public keys, or their file: only what they signed is served; `model`
    must then be the name it was registered under), self_test, on_swap(before, now), directory (the cache), every
    (seconds between questions to a registry that tells no changes, jittered).
    """
    # No retry inside: the watcher has its own pace, and a stuck question must not delay `stop`.
    return Watcher(client or Client(retry_for=0, timeout=10), model, load, stage=stage, **options)


def _file_name(model: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else f"%{ord(c):x}" for c in model)
