"""Following a stage or an alias from a server: the model that is served changes without a restart, and never breaks.

The registry tells of changes as they happen (server-sent events); one that cannot is asked every so often instead.
The thread that predicts reads one attribute: no lock, no I/O, no exception. One thread of the watcher listens, so that
a revocation is heard while a model loads; another one asks, downloads, checks and loads. Whatever fails there, the
model in use stays in use. Only one thing takes it away: the registry's word that its version was revoked.
"""

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

from hallmark.artifacts import cache_dir
from hallmark.client import Client
from hallmark.errors import HallmarkError, VersionRevoked
from hallmark.follow import NotTold
from hallmark.following import Following, answered
from hallmark.kept import Kept
from hallmark.loading import Loaded, Loader
from hallmark.pace import Pace, share_of
from hallmark.pins import Keys
from hallmark.served import Served
from hallmark.standing import Reports, Standing, Status

log = logging.getLogger("hallmark.watch")
M = TypeVar("M")
TICK_SECONDS = 1.0
NO_STREAM_SECONDS = 300.0  # a registry that tells no changes may be a newer one some day
TOLD_FACTOR = 10  # who is told of changes asks that much more seldom
EMPTY = ("nothing-in-stage", "alias-not-found")  # an answer, not trouble with the registry: it will tell of the first


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
        every: float = 30.0,
        pin_keys: Keys | None = None,
        self_test: Callable[[M], object] | None = None,
        on_swap: Callable[[Loaded[M] | None, Loaded[M]], object] | None = None,
        on_revoked: Callable[[Loaded[M], VersionRevoked], object] | None = None,
        directory: Path | None = None,
        bootstrap: Path | None = None,
        spread: float = 0.0,
        mode: Literal["availability", "resource"] = "availability",
        keep_previous: bool = False,
        if_revoked: Literal["stop", "previous"] = "stop",
        unload: Callable[[M], object] | None = None,
        grace: float = 30.0,
        max_stale: float | None = None,
        on_stale: Literal["serve", "fail"] = "serve",
        instance: str | None = None,
        report: bool = True,
    ) -> None:
        self._name = model
        self._target = f"@{alias}" if alias is not None else stage
        self._every = every
        name = instance or os.environ.get("HALLMARK_INSTANCE") or socket.gethostname()
        self._delay = spread * share_of(name, f"{client.workspace}/{model}/{self._target}")
        cache = directory or cache_dir()
        self._served: Served[M] = Served(
            keep_previous=keep_previous and mode != "resource",
            fall_back=if_revoked == "previous",
            unload=unload,
            grace=0.0 if mode == "resource" else grace,
        )
        self._reports = Reports(client, model, self._target, name) if report else None
        self._standing = Standing(max_stale)
        self._following = Following(
            client,
            model,
            stage=stage,
            alias=alias,
            loader=Loader(client, model, self._target, load, self_test=self_test, pin_keys=pin_keys, directory=cache),
            kept=Kept(cache, client.workspace, model, self._target),
            served=self._served,
            standing=self._standing,
            reports=self._reports,
            bootstrap=bootstrap,
            one_at_a_time=mode == "resource",
            fails_when_stale=on_stale == "fail",
            on_swap=on_swap,
            on_revoked=on_revoked,
            soon=self._soon,
        )
        self._follower = client.follow(model, stage=stage, alias=alias)
        self._told = False  # whether the registry tells changes now
        self._due = 0.0  # when to ask next (time.monotonic); both threads bring it forward
        self._due_lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def current(self) -> Loaded[M] | None:
        """What to predict with now; hold it for the length of one prediction. Never blocks, never raises."""
        return self._served.current

    @property
    def revoked(self) -> VersionRevoked | None:
        return self._served.revoked

    @property
    def status(self) -> Status:
        return self._standing.status

    def metrics(self) -> str:
        """For a scraper, in Prometheus' text format: version, pin_age_seconds, stale, swaps, failed swaps."""
        held = self.current
        return self._standing.exposition(self._name, self._target, held.version if held else None)

    def start(self, wait: float = 30.0) -> Loaded[M]:
        """Begins to follow; returns when a model is loaded: the registry's, or without it the last known good one on
        disk, or that of the bootstrap directory.

        Raises:
            VersionRevoked: what it follows was revoked, and nothing took its place within `wait` seconds.
            HallmarkError: code `nothing-to-serve`; no model could be loaded within `wait` seconds.
        """
        for work in (self._keep_up, self._listen):
            name = f"hallmark-{work.__name__.strip('_')}-{self._name}"
            self._threads.append(threading.Thread(target=work, name=name, daemon=True))
            self._threads[-1].start()
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
        self._wake.set()
        self._follower.interrupt()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(5)

    def check(self) -> None:
        """Asks the registry once and swaps if it must.

        Raises:
            VersionRevoked: what it follows was revoked; nothing has taken its place yet.
            Exception: whatever else went wrong; `current` is then as it was, unless it was revoked.
        """
        self._following.check()

    # -- asking, on a thread of its own ----------------------------------------------------------------------------

    def _keep_up(self) -> None:
        pace = Pace()
        while not self._stop.is_set():
            left = self._due - time.monotonic()
            if left > 0:
                self._wake.wait(min(left, TICK_SECONDS))
                self._wake.clear()
                self._look_at_the_clock()
                continue
            with self._due_lock:
                self._due = float("inf")  # before asking: what is told meanwhile must be asked for again
            pause = self._every * (TOLD_FACTOR if self._told else 1) * random.uniform(0.8, 1.2)  # noqa: S311
            trouble: Exception | None = None
            try:
                self.check()
                pace.good()
            except VersionRevoked:
                pace.good()  # an answer like others: what comes after it is told as a change
            except Exception as error:
                # Fail static: whatever it is, what is served stays served.
                trouble = error
                log.warning(
                    "following %s: %s; keeping %s", self._name, self._standing.asking, self._following.serving_text()
                )
                if not (isinstance(error, HallmarkError) and error.code in EMPTY):
                    pause = pace.after(error)
                self._following.recall(error)
            self._ask_within(pause)
            if self.current is not None:
                self._ready.set()
            if self._reports is not None and (trouble is None or answered(trouble)):
                self._reports.send()
        if self._reports is not None and (held := self.current) is not None and self._standing.asking is None:
            self._reports.owe(held.version, "stopped")
            self._reports.send()
        self._served.close()

    def _look_at_the_clock(self) -> None:
        self._served.unload_due()
        self._following.drop_stale()

    def _soon(self) -> None:
        """Something changed. Each instance of a fleet has its own moment to follow it."""
        self._ask_within(self._delay if self.current is not None else 0.0)
        self._wake.set()

    def _ask_within(self, seconds: float) -> None:
        with self._due_lock:
            self._due = min(self._due, time.monotonic() + seconds)

    # -- listening, on another thread ------------------------------------------------------------------------------

    def _listen(self) -> None:
        pace = Pace()
        while not self._stop.is_set():
            try:
                for change in self._follower.changes(self._opened):
                    if self._stop.is_set():
                        return
                    self._following.heard(change)
                # An answer that ended is nothing to hurry about: everybody else's has ended too.
                pace.good()
                pause = self._follower.retry_seconds * random.uniform(0.5, 1.0)  # noqa: S311
            except NotTold as error:
                log.info("%s of %s is asked for every %g s: %s", self._target, self._name, self._every, error)
                self._standing.listening = None
                pause = NO_STREAM_SECONDS
            except Exception as error:
                if self._told:
                    pace.good()
                self._standing.listening = str(error) or repr(error)
                pause = pace.after(error)
            if self._told:  # from now on it must be asked more often
                self._told = False
                self._ask_within(self._every * random.uniform(0.8, 1.2))  # noqa: S311
            self._stop.wait(pause)

    def _opened(self) -> None:
        self._told = True
        self._standing.listening = None
        self._soon()


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

    `options`, seconds where they are times:
    alias; pin_keys (the registry's public keys, or their file: only what they signed is served, only a revocation that
    they signed is obeyed; `model` must then be the name it was registered under); self_test;
    on_swap(before, now); on_revoked(loaded, why); directory (the cache);
    bootstrap (what `hallmark serving export` wrote: served when registry and cache give nothing, and followed as it is
    replaced while the registry is away); every (30, between questions to a registry that tells no changes, jittered);
    spread (0: a fleet swaps over so many seconds, each instance at its own moment);
    mode ("availability", or "resource": the old model goes before the new one is loaded, and `current` is None
    meanwhile); keep_previous (the model before stays in memory, and a rollback is immediate);
    if_revoked ("stop", or "previous": go on with that model at once);
    unload(model) (called `grace`, 30, after a model was replaced); max_stale and on_stale ("serve", or "fail": without
    a word of the registry for so long, `current` is None); instance (the name in reports: HALLMARK_INSTANCE, else the
    host's); report (True: tell the registry what is served; needs the role `server`).
    """
    # No retry inside: the watcher has its own pace, and a stuck question must not delay `stop`.
    return Watcher(client or Client(retry_for=0, timeout=10), model, load, stage=stage, **options)
