"""What a server predicts with: the model in use, the one before, and those that wait to be unloaded."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from hallmark.errors import VersionRevoked
from hallmark.loading import Loaded
from hallmark.results import Pin

log = logging.getLogger("hallmark.watch")
M = TypeVar("M")


class Served(Generic[M]):
    """`current` is read without a lock, and replaced as a whole. Everything else is done under one."""

    def __init__(
        self, *, keep_previous: bool, fall_back: bool, unload: Callable[[M], object] | None, grace: float
    ) -> None:
        self._keep_previous = keep_previous or fall_back
        self._fall_back = fall_back
        self._unload = unload
        self._grace = grace
        self._lock = threading.Lock()
        self._retired: list[tuple[float, M]] = []
        self._previous: Loaded[M] | None = None
        self.current: Loaded[M] | None = None
        self.revoked: VersionRevoked | None = None

    def at_hand(self, pin: Pin) -> Loaded[M] | None:
        """The model before, where it is what the pin names."""
        held = self._previous
        same = held is not None and (held.pin.version, held.pin.digest, held.pin.artifact.digest) == (
            pin.version,
            pin.digest,
            pin.artifact.digest,
        )
        return held if same else None

    def swap(self, loaded: Loaded[M]) -> None:
        with self._lock:
            before, older = self.current, self._previous
            self.current, self.revoked = loaded, None
            self._previous = before if self._keep_previous else None
            for gone in (older, None if self._keep_previous else before):
                if gone is not None and gone.model is not loaded.model:
                    self._retire(gone)
        self.unload_due()

    def drop(self) -> None:
        """Nothing is served from now on."""
        with self._lock:
            before, self.current = self.current, None
            if before is not None:
                self._retire(before)
        self.unload_due()

    def revoke(self, model: str, revoked: VersionRevoked, good: Callable[[Pin], bool]) -> Loaded[M] | None:
        """Takes the version out of use; gives what was in use, if it was that. `good` says who may take its place."""

        def is_it(held: Loaded[M] | None) -> bool:
            return held is not None and (held.pin.model, held.version) == (model, revoked.version)

        with self._lock:
            held, before = self.current, self._previous
            if is_it(before):
                self._previous = None
                self._retire(before)  # type: ignore[arg-type]  # is_it has looked
            if not is_it(held) or held is None:
                return None
            self.current, self.revoked = None, revoked
            if self._fall_back and self._previous is not None and good(self._previous.pin):
                self.current, self.revoked, self._previous = self._previous, None, None
            self._retire(held)
        return held

    def unload_due(self) -> None:
        """Hands over what was retired `grace` seconds ago; whoever still predicted with it then has ended by now."""
        now = time.monotonic()
        with self._lock:
            due = [model for at, model in self._retired if at <= now]
            self._retired = [(at, model) for at, model in self._retired if at > now]
        for model in due:
            self._give_back(model)

    def close(self) -> None:
        """Nobody predicts any more: what was replaced goes; what is in use is left to its user."""
        with self._lock:
            gone, self._retired = [model for _, model in self._retired], []
            if self._previous is not None:
                gone.append(self._previous.model)
                self._previous = None
        for model in gone:
            self._give_back(model)

    def _retire(self, loaded: Loaded[M]) -> None:
        if self._unload is not None:
            self._retired.append((time.monotonic() + self._grace, loaded.model))

    def _give_back(self, model: M) -> None:
        try:
            if self._unload is not None:
                self._unload(model)
        except Exception:
            log.exception("the unload callback failed")
