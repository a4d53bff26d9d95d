"""How long a subscription has known nothing but failures, and what follows: pure, no I/O."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

SPAN = timedelta(days=5)
# Fewer failed tries in all that time say little: perhaps there was little to send.
LEAST_FAILURES = 10
# Percent of the span at which the owner is told; at 100 it is disabled.
STEPS = (50, 70, 90)


@dataclass(frozen=True)
class Health:
    """`failing_since`: the first of `failures` in a row; `told`: the last step the owner was told."""

    failing_since: datetime | None = None
    failures: int = 0
    told: int = 0

    def after(self, failed: bool, at: datetime) -> "Health":
        if not failed:
            return Health()
        return replace(self, failing_since=self.failing_since or at, failures=self.failures + 1)

    def lapsed(self, at: datetime) -> bool:
        """Whether it is to be disabled."""
        return self._percent(at) >= 100 and self.failures >= LEAST_FAILURES

    def step(self, at: datetime) -> int | None:
        """What its owner is to be told now, in percent of the span."""
        reached = [step for step in STEPS if self.told < step <= self._percent(at)]
        return reached[-1] if reached and self.failures >= LEAST_FAILURES else None

    def _percent(self, at: datetime) -> float:
        return 100 * ((at - self.failing_since) / SPAN) if self.failing_since else 0.0
