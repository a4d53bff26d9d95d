"""What to serve, decided without threads and clocks: ask, distrust, load, swap; heed what was revoked."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from hallmark.client import Client
from hallmark.errors import HallmarkError, VersionRevoked
from hallmark.kept import Kept, read_pin
from hallmark.loading import Loaded, Loader
from hallmark.results import Pin
from hallmark.served import Served
from hallmark.standing import Reports, Standing

log = logging.getLogger("hallmark.watch")
M = TypeVar("M")


class Following(Generic[M]):
    """Of one target. `soon` is called when it should be asked for again. Thread-safe."""

    def __init__(
        self,
        client: Client,
        model: str,
        *,
        stage: str,
        alias: str | None,
        loader: Loader[M],
        kept: Kept,
        served: Served[M],
        standing: Standing,
        reports: Reports | None,
        bootstrap: Path | None,
        one_at_a_time: bool,
        fails_when_stale: bool,
        on_swap: Callable[[Loaded[M] | None, Loaded[M]], object] | None,
        on_revoked: Callable[[Loaded[M], VersionRevoked], object] | None,
        soon: Callable[[], object],
    ) -> None:
        self._client = client
        self._name = model
        self._stage = stage
        self._alias = alias
        self._loader = loader
        self._kept = kept
        self._served = served
        self._standing = standing
        self._reports = reports
        self._bootstrap = bootstrap
        self._one_at_a_time = one_at_a_time
        self._fails_when_stale = fails_when_stale
        self._on_swap = on_swap
        self._on_revoked = on_revoked
        self._soon = soon
        self._etag: str | None = None
        self._checking = threading.Lock()

    def check(self) -> None:
        """Asks the registry once and swaps if it must.

        Raises:
            VersionRevoked: what it follows was revoked; nothing has taken its place yet.
            Exception: whatever else went wrong; `current` is then as it was, unless it was revoked.
        """
        with self._checking:
            try:
                self._ask()
            except VersionRevoked as revoked:
                self._standing.asking = str(revoked)
                self._standing.confirm()
                raise
            except Exception as error:
                self._standing.asking = str(error) or repr(error)
                raise
            self._standing.asking = None
            self._standing.confirm()

    def drop_stale(self) -> None:
        """Where that is wanted: nothing is served that the registry has not confirmed for too long."""
        held = self._served.current
        if held is None or not self._too_old():
            return
        log.error("version %d of %s was not confirmed for too long; not served any more", held.version, self._name)
        self._etag = None
        self._served.drop()

    def _too_old(self) -> bool:
        return self._fails_when_stale and self._standing.stale

    def _ask(self) -> None:
        try:
            pin, etag = self._client.resolve_if_changed(
                self._name, stage=self._stage, alias=self._alias, etag=self._etag
            )
            if pin is not None and self._is_news(pin):
                self._swap(pin)
                self._kept.remember(pin)
        except VersionRevoked as revoked:
            self._loader.believe(revoked)
            self._heed(revoked)
            self._doubt(revoked)
            if self._served.current is None:
                self._served.revoked, self._etag = revoked, None
            raise
        except Exception as error:
            self._doubt(error)
            raise
        # Only now: a swap that failed must be tried again.
        self._etag = etag

    def serving_text(self) -> str:
        held = self._served.current
        return f"version {held.version}" if held else "nothing"

    def _is_news(self, pin: Pin) -> bool:
        held = self._served.current
        known = held.pin if held is not None else self._kept.pin() if self._loader.signed_only else None
        if known is not None and pin.epoch > known.epoch and not self._loader.signed_only:
            raise HallmarkError(
                "unsigned-epoch", f"the registry says that epoch {pin.epoch} has begun; only with pin_keys is it taken"
            )
        if known is not None and pin.age < known.age:
            raise HallmarkError(
                "stale-answer",
                f"the registry told of sequence {pin.sequence} of epoch {pin.epoch}, older than what is used; after a "
                "restore from a backup raise its HALLMARK_SERVING_EPOCH",
            )
        return held is None or pin.digest != held.pin.digest or pin.version != held.pin.version

    def _swap(self, pin: Pin, source: Path | None = None) -> None:
        self._refuse_revoked(pin)
        before = self._served.current
        try:
            path = self._loader.fetch(pin, source)
            if (same := self._served.at_hand(pin)) is not None:
                loaded = Loaded(same.model, pin, path)
            elif self._one_at_a_time and before is not None:
                loaded = self._make_room(before, pin, path)
            else:
                loaded = self._loader.open(pin, path)
        except Exception as error:
            self._standing.failed_swaps += 1
            if self._reports is not None:
                self._reports.owe(pin.version, "failed", str(error) or repr(error))
            raise
        self._refuse_revoked(pin)  # it may have been heard while the model was loaded
        self._served.swap(loaded)
        self._standing.swaps += 1
        if self._reports is not None:
            self._reports.owe(pin.version, "serving")
        log.info("serving %s version %d (%s)", self._name, pin.version, pin.artifact.digest)
        if self._on_swap is not None:
            try:
                self._on_swap(before, loaded)
            except Exception:
                log.exception("the on_swap callback failed")

    def _make_room(self, before: Loaded[M], pin: Pin, path: Path) -> Loaded[M]:
        """Two models do not fit into memory: the old one goes first, and comes back if the new one fails."""
        self._served.drop()
        try:
            return self._loader.open(pin, path)
        except Exception:
            self._refuse_revoked(before.pin)
            self._served.swap(self._loader.open(before.pin, before.path))
            raise

    def recall(self, trouble: Exception) -> None:
        """What is on the disk, while the registry gives nothing: the last known good version, or the bootstrap's.

        While something is served, only a bootstrap directory that has become newer counts: so an air-gapped server
        follows what is carried to it.
        """
        if self._too_old():
            return
        held = self._served.current
        carried = read_pin(self._bootstrap / "pin.json") if self._bootstrap is not None else None
        kept = self._kept.pin() if held is None else None
        found = [(pin, source) for pin, source in ((kept, None), (carried, self._bootstrap)) if pin is not None]
        for pin, source in sorted(found, key=lambda one: one[0].age, reverse=True):
            if held is not None and pin.age <= held.pin.age:
                return
            try:
                if answered(trouble):
                    self._ask_about(pin.version)
                self._swap(pin, source)
                self._kept.remember(pin)
                return
            except VersionRevoked as revoked:
                if self._served.current is None:
                    self._served.revoked = revoked
            except Exception as error:
                log.warning("version %d from the disk cannot be used: %s", pin.version, error)

    def heard(self, change: dict[str, Any]) -> None:
        """Raises if a revocation could not be confirmed: the change counts as not heard then, and is told again."""
        if self._standing.asking is None and self._served.current is not None:
            self._standing.confirm()
        for told in (change, *change.get("targets", ())):
            if told.get("revoked"):
                revoked = VersionRevoked.told(told["revoked"])
                if self._loader.signed_only:
                    self._confirm_revoked(int(revoked.version or 0))
                else:
                    self._heed(revoked)
        if change:
            self._soon()

    # -- revocations, on either thread -----------------------------------------------------------------------------

    def _heed(self, revoked: VersionRevoked) -> None:
        """Somebody's version was revoked: never to be loaded again, and if it is ours, not used from now on."""
        held = self._served.current
        model = revoked.model or (held.pin.model if held is not None else self._name)
        if revoked.version is not None:
            self._kept.revoke(model, revoked.version, revoked)
        dropped = self._served.revoke(model, revoked, lambda pin: self._kept.revocation(pin) is None)
        if dropped is None:
            return
        self._etag = None
        self._soon()
        told = f"{self._name} version {dropped.version} was revoked"
        log.error("%s: %s; serving %s now", told, revoked.detail, self.serving_text())
        if self._on_revoked is not None:
            try:
                self._on_revoked(dropped, revoked)
            except Exception:
                log.exception("the on_revoked callback failed")

    def _doubt(self, error: Exception) -> None:
        """The model in use outlives every trouble but one, which is asked for: what it follows may be elsewhere."""
        held = self._served.current
        if held is not None and answered(error):
            self._ask_about(held.version)

    def _ask_about(self, version: int) -> None:
        try:
            self._confirm_revoked(version)
        except HallmarkError as error:
            log.debug("whether version %d was revoked is not known: %s", version, error)

    def _confirm_revoked(self, version: int) -> None:
        """Heeds the registry's word on a version. Raises HallmarkError if it gives none that can be believed."""
        try:
            self._client.resolve(self._name, version=version)
        except VersionRevoked as revoked:
            self._loader.believe(revoked)
            self._heed(revoked)

    def _refuse_revoked(self, pin: Pin) -> None:
        if (revoked := self._kept.revocation(pin)) is not None:
            raise revoked


def answered(error: Exception) -> bool:
    """Whether the registry can be asked: the trouble was something else than that it is away."""
    return not (isinstance(error, HallmarkError) and (error.code == "connection" or (error.status or 0) >= 500))
