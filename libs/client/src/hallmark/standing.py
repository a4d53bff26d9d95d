"""How a watcher is doing, for probes, logs and metrics; and what it tells the registry that it serves."""

import logging
import time
from dataclasses import dataclass
from typing import Literal

from hallmark.client import Client
from hallmark.errors import HallmarkError

log = logging.getLogger("hallmark.watch")
State = Literal["serving", "failed", "stopped"]
NOT_TAKEN = (401, 403, 404, 405, 422)  # it may not report, or the registry takes no reports
LONGEST_DETAIL = 500


@dataclass(frozen=True)
class Status:
    """`trouble` is None while all is well; `fresh_at` is when the registry last confirmed what is served
    (`time.time()`, 0 for never); `stale`: that is longer ago than `max_stale`."""

    trouble: str | None = None
    fresh_at: float = 0.0
    stale: bool = False

    @property
    def age_seconds(self) -> float:
        return time.time() - self.fresh_at


class Standing:
    """What asking and listening came to. Each has its own trouble: the one may work while the other does not."""

    def __init__(self, max_stale: float | None) -> None:
        self._max_stale = max_stale
        self._since = time.time()
        self._fresh_at = 0.0
        self.asking: str | None = None
        self.listening: str | None = None
        self.swaps = 0
        self.failed_swaps = 0

    def confirm(self) -> None:
        self._fresh_at = time.time()

    @property
    def stale(self) -> bool:
        return self._max_stale is not None and time.time() - (self._fresh_at or self._since) > self._max_stale

    @property
    def status(self) -> Status:
        return Status(self.asking or self.listening, self._fresh_at, self.stale)

    def exposition(self, model: str, target: str, version: int | None) -> str:
        """In Prometheus' text format."""
        escaped = [name.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for name in (model, target)]
        labels = '{{model="{}",target="{}"}}'.format(*escaped)
        gauges = {
            "version": (version or 0, "gauge", "The version that is served; 0 for none"),
            "pin_age_seconds": (time.time() - (self._fresh_at or self._since), "gauge", "Since the registry confirmed"),
            "stale": (int(self.stale), "gauge", "Whether that is longer than max_stale"),
            "swaps_total": (self.swaps, "counter", "Models that came into use"),
            "failed_swaps_total": (self.failed_swaps, "counter", "Models that could not be used"),
        }
        return "".join(
            f"# HELP hallmark_watch_{name} {text}\n# TYPE hallmark_watch_{name} {kind}\n"
            f"hallmark_watch_{name}{labels} {value:g}\n"
            for name, (value, kind, text) in gauges.items()
        )


class Reports:
    """Tells the registry what this server has loaded: the last word until it arrived. Never raises."""

    def __init__(self, client: Client, model: str, target: str, instance: str) -> None:
        self._client = client
        self._model = model
        self._target = target
        self._instance = instance
        self._owed: tuple[int, State, str] | None = None
        self._taken = True

    def owe(self, version: int, state: State, detail: str = "") -> None:
        self._owed = (version, state, detail[:LONGEST_DETAIL])

    def send(self) -> None:
        owed = self._owed
        if owed is None or not self._taken:
            return
        version, state, detail = owed
        try:
            self._client.report_serving(self._model, self._instance, version, state, target=self._target, detail=detail)
        except HallmarkError as error:
            if error.status in NOT_TAKEN:
                self._taken = False
                log.warning("what is served is not reported (the role `server` may): %s", error)
            return
        if self._owed is owed:
            self._owed = None
