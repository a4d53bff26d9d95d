"""Following a stage or an alias from a server: the model that is served changes without a restart, and never breaks.

The registry tells of changes as they happen (server-sent events); one that cannot is asked every so often instead.
The thread that predicts reads one attribute. Everything else (listening, asking, downloading, checking, loading)
happens on the watcher's own thread; whatever fails there, the model in use stays in use. Only one thing takes it away:
the registry's word that its version was revoked.
"""

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from hallmark.artifacts import cache_dir
from hallmark.client import Client
from hallmark.errors import HallmarkError, VersionRevoked
from hallmark.follow import NotTold
from hallmark.kept import Kept
from hallmark.loading import Loaded, Loader
from hallmark.pins import Keys
from hallmark.results import Pin

log = logging.getLogger("hallmark.watch")
M = TypeVar("M")
LONGEST_PAUSE_SECONDS = 10.0
FORBIDDEN_PAUSE_SECONDS = 300.0
NO_STREAM_SECONDS = 300.0  # a registry that tells no changes may be a newer one some day


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
    """Keeps `current` at the version that a stage or an alias names. Made by `watch`.

    `current` is None before the first model is loaded, and when the version in use was revoked and nothing has taken
    its place yet: `revoked` says why, and `use()` raises it.
    """

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
        on_revoked: Callable[[Loaded[M], VersionRevoked], object] | None = None,
        directory: Path | None = None,
    ) -> None:
        self._client = client
        self._name = model
        self._stage = stage
        self._alias = alias
        self._target = f"@{alias}" if alias is not None else stage
        self._follower = client.follow(model, stage=stage, alias=alias)
        self._no_stream_until = 0.0
        self._on_swap = on_swap
        self._on_revoked = on_revoked
        self._every = every
        cache = directory or cache_dir()
        self._loader = Loader(
            client, model, self._target, load, self_test=self_test, pin_keys=pin_keys, directory=cache
        )
        self._kept = Kept(cache, client.workspace, model, self._target)
        self._etag: str | None = None
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self.current: Loaded[M] | None = None
        self.revoked: VersionRevoked | None = None
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
            VersionRevoked: what it follows was revoked, and nothing took its place within `wait` seconds.
            HallmarkError: code `nothing-to-serve`; no model could be loaded within `wait` seconds.
        """
        self._thread = threading.Thread(target=self._run, name=f"hallmark-watch-{self._name}", daemon=True)
        self._thread.start()
        self._ready.wait(wait)
        if self.current is None:
            self.stop()
        return self.use()

    def use(self) -> Loaded[M]:
        """What to predict with now.

        Raises:
            VersionRevoked: nobody may use what was served, and nothing has taken its place yet.
            HallmarkError: code `nothing-to-serve`.
        """
        loaded, revoked = self.current, self.revoked
        if loaded is not None:
            return loaded
        if revoked is not None:
            raise revoked.again()
        why = self.status.trouble or "no answer in time"
        raise HallmarkError("nothing-to-serve", f"no {self._target} model of {self._name} could be loaded: {why}")

    def stop(self) -> None:
        self._stop.set()
        self._follower.interrupt()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5)

    def check(self) -> None:
        """Asks the registry once and swaps if it must.

        Raises:
            VersionRevoked: what it follows was revoked; nothing has taken its place yet.
            Exception: whatever else went wrong; `current` is then as it was, unless it was revoked.
        """
        try:
            pin, etag = self._client.resolve_if_changed(
                self._name, stage=self._stage, alias=self._alias, etag=self._etag
            )
            if pin is not None and self._is_news(pin):
                self._swap(pin)
                self._kept.remember(pin)
        except VersionRevoked as revoked:
            self._heed(revoked)
            self._doubt(revoked)
            if self.current is None:
                self.revoked, self._etag = revoked, None
            self.status = Status(str(revoked), time.time())
            raise
        except Exception as error:
            self._doubt(error)
            raise
        # Only now: a swap that failed must be tried again.
        self._etag = etag
        self.status = Status(None, time.time())

    def _run(self) -> None:
        pause = self._every
        while not self._stop.is_set():
            try:
                self._follow()
                pause = self._every
                if self.current is not None:
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
                    self._recall(error)
            if self.current is not None:
                self._ready.set()
            self._stop.wait(pause * random.uniform(0.8, 1.2))  # noqa: S311

    def _follow(self) -> None:
        """`check`, to which a revoked version is an answer like others: what comes after it is told as a change."""
        with contextlib.suppress(VersionRevoked):
            self.check()

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
                    for told in (change, *change.get("targets", ())):
                        if told.get("revoked"):
                            self._heed(VersionRevoked.told(told["revoked"]))
                    self._follow()
                if self.current is not None:
                    self._ready.set()
                self.status = Status(self.status.trouble if self.revoked else None, time.time())
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

    def _heed(self, revoked: VersionRevoked) -> None:
        """Somebody's version was revoked: never to be loaded again, and if it is ours, not used from now on."""
        held = self.current
        ours = held is not None and held.version == revoked.version
        model = revoked.model or (held.pin.model if held is not None else self._name)
        if revoked.version is not None:
            self._kept.revoke(model, revoked.version, revoked)
        if held is None or not ours or model != held.pin.model:
            return
        self.revoked, self.current, self._etag = revoked, None, None
        log.error("%s version %d was revoked; it is not served any more: %s", self._name, held.version, revoked.detail)
        if self._on_revoked is not None:
            try:
                self._on_revoked(held, revoked)
            except Exception:
                log.exception("the on_revoked callback failed")

    def _doubt(self, error: Exception) -> None:
        """The model in use outlives every trouble but one, which is asked for: what it follows may be elsewhere."""
        held = self.current
        if held is not None and _answered(error):
            self._ask_about(held.version)

    def _ask_about(self, version: int) -> None:
        try:
            self._client.resolve(self._name, version=version)
        except VersionRevoked as revoked:
            self._heed(revoked)
        except HallmarkError as error:
            log.debug("whether version %d was revoked is not known: %s", version, error)

    def _swap(self, pin: Pin) -> None:
        if (revoked := self._kept.revocation(pin)) is not None:
            raise revoked
        loaded = self._loader.load(pin)
        before, self.current = self.current, loaded
        self.revoked = None
        log.info("serving %s version %d (%s)", self._name, pin.version, pin.artifact.digest)
        if self._on_swap is not None:
            try:
                self._on_swap(before, loaded)
            except Exception:
                log.exception("the on_swap callback failed")

    def _recall(self, trouble: Exception) -> None:
        """The last known good version from the disk, if nobody says that it was revoked."""
        pin = self._kept.pin()
        if pin is None:
            return
        try:
            if _answered(trouble):
                self._ask_about(pin.version)
            self._swap(pin)
        except VersionRevoked as revoked:
            self.revoked = revoked
        except Exception as error:
            log.warning("the last known good version cannot be used: %s", error)


def _answered(error: Exception) -> bool:
    """Whether the registry can be asked: the trouble was something else than that it is away."""
    return not (isinstance(error, HallmarkError) and (error.code == "connection" or (error.status or 0) >= 500))


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
    must then be the name it was registered under), self_test, on_swap(before, now), on_revoked(loaded, why) (the
    version in use must not be used any more: `current` is None until another takes its place), directory (the cache),
    every (seconds between questions to a registry that tells no changes, jittered).
    """
    # No retry inside: the watcher has its own pace, and a stuck question must not delay `stop`.
    return Watcher(client or Client(retry_for=0, timeout=10), model, load, stage=stage, **options)
