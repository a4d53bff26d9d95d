"""How long to wait before the next try: two regimes, for a registry that is away and for one that says no."""

import random
import time
from hashlib import sha256

from hallmark.errors import HallmarkError

OUTAGE_SECONDS = (1.0, 30.0)  # first and longest pause
REFUSED_SECONDS = (300.0, 3_600.0)
REFUSALS = (401, 403, 404)  # only people can change these answers
JITTER = 0.5
CALM_SECONDS = 60.0  # so long without trouble, and the next one begins with the first pause


class Pace:
    """Of one caller. Thread-safe enough: a lost update is one pause of another length."""

    def __init__(self) -> None:
        self._next = 0.0
        self._regime = OUTAGE_SECONDS
        self._good_since: float | None = None

    def good(self) -> None:
        if self._good_since is None:
            self._good_since = time.monotonic()

    def after(self, error: Exception) -> float:
        """Seconds to wait now."""
        refused = isinstance(error, HallmarkError) and error.status in REFUSALS
        regime = REFUSED_SECONDS if refused else OUTAGE_SECONDS
        calm = self._good_since is not None and time.monotonic() - self._good_since >= CALM_SECONDS
        if calm or regime != self._regime or not self._next:
            self._next = regime[0]
        self._regime, self._good_since = regime, None
        pause = self._next
        self._next = min(self._next * 2, regime[1])
        return pause * random.uniform(1 - JITTER, 1)  # noqa: S311


def share_of(instance: str, target: str) -> float:
    """Between 0 and 1, always the same of an instance, evenly spread over many: when in a roll-out it has its turn."""
    return int.from_bytes(sha256(f"{instance}\n{target}".encode()).digest()[:8]) / 2**64
