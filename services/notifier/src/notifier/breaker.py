"""When an endpoint is left in peace, and how fast it is sent to: pure, no I/O.

The numbers are those of other webhook systems: 70 % failures of at least 10 tries within five minutes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

SLOT_SECONDS, SLOTS = 30, 10
LEAST_TRIES = 10
SHARE = 0.7
FIRST_PROBE_SECONDS, MAX_PROBE_SECONDS = 30.0, 600.0


@dataclass(frozen=True)
class Breaker:
    """`slots`: (number, tries, of these ill) of the last five minutes, half a minute each. It is open while `probe_at`
    is set: then one try may go to see whether the endpoint is well again; `probes` have failed before."""

    slots: tuple[tuple[int, int, int], ...] = ()
    probe_at: datetime | None = None
    probes: int = 0

    @property
    def open(self) -> bool:
        return self.probe_at is not None

    def after(self, ill: bool, at: datetime, *, probe: bool) -> "Breaker":
        """With one more try, which said that the endpoint is `ill`, or not. While it is open only the `probe` may find
        it ill (others were sent before it opened), and any answer shows that it is well."""
        if self.open:
            if not ill:
                return Breaker()
            pause = min(FIRST_PROBE_SECONDS * 2 ** (self.probes + 1), MAX_PROBE_SECONDS)
            return replace(self, probe_at=at + timedelta(seconds=pause), probes=self.probes + 1) if probe else self
        number = int(at.timestamp()) // SLOT_SECONDS
        kept = {n: (tries, bad) for n, tries, bad in self.slots if number - n < SLOTS}
        tries, bad = kept.get(number, (0, 0))
        kept[number] = (tries + 1, bad + ill)
        slots = tuple((n, *counts) for n, counts in sorted(kept.items()))
        total, failed = (sum(column) for column in zip(*kept.values(), strict=True))
        if ill and total >= LEAST_TRIES and failed >= SHARE * total:
            return Breaker(probe_at=at + timedelta(seconds=FIRST_PROBE_SECONDS))
        return replace(self, slots=slots)


@dataclass(frozen=True)
class Rate:
    """A token bucket: `per_second` on average, never more than `burst` at once."""

    per_second: float

    @property
    def burst(self) -> float:
        return max(1.0, self.per_second)

    def filled(self, tokens: float, seconds: float) -> float:
        """The tokens after so many seconds more."""
        return min(self.burst, tokens + self.per_second * max(seconds, 0.0))


def rates_of(text: str) -> dict[str, Rate]:
    """`slack=1/s,pagerduty=120/min` by channel.

    Raises:
        ValueError: it is not written like that.
    """
    units = {"s": 1, "min": 60, "h": 3600}
    found = {}
    for part in _parts(text):
        channel, equals, rate = part.partition("=")
        count, slash, unit = rate.partition("/")
        try:
            per_second = float(count) / units[unit.strip()]
        except (ValueError, KeyError) as error:
            raise ValueError(f"{part!r} is no rate such as slack=1/s or pagerduty=120/min") from error
        if not (equals and slash and 0 < per_second < 1e6):
            raise ValueError(f"{part!r} is no rate such as slack=1/s or pagerduty=120/min")
        found[channel.strip()] = Rate(per_second)
    return found


def _parts(text: str) -> Iterable[str]:
    return (part.strip() for part in text.split(",") if part.strip())
