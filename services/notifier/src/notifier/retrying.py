"""When to try again, and what an outcome means: pure, no I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from contracts.notifier import DeliveryDead, DeliveryDenied, DeliveryFailed, DeliverySucceeded, SubscriptionDisabled
from contracts.payload import Message

MAX_PAUSE_SECONDS = 24 * 3600.0
JITTER = 0.2


class Verdict(StrEnum):
    """REFUSED: this message never. GONE: nothing of this subscription any more. DENIED: not sent, since its owner may
    not read it."""

    SUCCEEDED = "succeeded"
    RETRY = "retry"
    REFUSED = "refused"
    GONE = "gone"
    DENIED = "denied"


@dataclass(frozen=True)
class Outcome:
    """How one try ended. `retry_after` is in seconds; `response` is an excerpt with the secrets taken out, and so are
    the headers `sent` and `received`. `disable`: the receiver took it, and asked for no more. `ours`: a fault of this
    service, which says nothing of the receiver."""

    verdict: Verdict
    detail: str
    status: int | None = None
    response: str = ""
    retry_after: float | None = None
    sent: Mapping[str, str] = field(default_factory=dict)
    received: Mapping[str, str] = field(default_factory=dict)
    disable: bool = False
    ours: bool = False

    @property
    def ill(self) -> bool:
        """Whether it says that the endpoint is ill (no answer, no connection, overload, an error of its own), rather
        than that it does not like this message."""
        failed = self.verdict is Verdict.RETRY and not self.ours
        return failed and (self.status is None or self.status == 429 or self.status >= 500)


@dataclass(frozen=True)
class Schedule:
    """Pauses between tries, in seconds. `jitter` spreads them by that share to either side."""

    pauses: tuple[float, ...]
    jitter: float = JITTER

    def pause(self, tries: int, retry_after: float | None, chance: float) -> float | None:
        """How long to wait after try number `tries` failed, or None when none is left. `chance` is in [0, 1)."""
        if tries > len(self.pauses):
            return None
        planned = self.pauses[tries - 1] * (1 - self.jitter + 2 * self.jitter * chance)
        return min(max(planned, retry_after or 0.0), MAX_PAUSE_SECONDS)


@dataclass(frozen=True)
class Try:
    """One try of a delivery: what its event says, whatever the outcome."""

    delivery_id: str
    subscription_id: str
    event_id: str
    event_type: str
    attempt: int
    tries: int
    latency_ms: float


@dataclass(frozen=True)
class Next:
    """What an outcome leads to: the delivery's status, when it is due again, and the events that record it."""

    status: str
    due_at: datetime | None
    events: tuple[Message, ...] = field(default_factory=tuple)


def decide(
    done: Try,
    outcome: Outcome,
    schedule: Schedule,
    *,
    at: datetime,
    chance: float,
    active: bool = True,
    needed: bool = True,
) -> Next:
    """What follows from one try. A subscription that has ended meanwhile gets no further one, nor does anybody of what
    is not `needed` any more."""
    said: dict[str, Any] = {
        "delivery_id": done.delivery_id,
        "subscription_id": done.subscription_id,
        "event_id": done.event_id,
        "event_type": done.event_type,
        "attempt": done.attempt,
        "latency_ms": done.latency_ms,
        "detail": outcome.detail,
    }
    gone = SubscriptionDisabled(subscription_id=done.subscription_id, reason=outcome.detail)
    ends = (gone,) if active and (outcome.disable or outcome.verdict is Verdict.GONE) else ()
    if outcome.verdict is Verdict.SUCCEEDED:
        return Next("succeeded", None, (DeliverySucceeded(**said), *ends))
    if outcome.verdict is Verdict.GONE:
        return Next("dead", None, (DeliveryDead(**said), *ends))
    if outcome.verdict is Verdict.DENIED:
        return Next("denied", None, (DeliveryDenied(**said),))
    if active and not needed:
        return Next("cancelled", None)
    pause = schedule.pause(done.tries, outcome.retry_after, chance) if outcome.verdict is Verdict.RETRY else None
    if pause is None or not active:
        return Next("dead", None, (DeliveryDead(**said),))
    due = at + timedelta(seconds=pause)
    return Next("pending", due, (DeliveryFailed(**said, next_attempt_at=due),))


def retry_after_seconds(header: str | None, at: datetime) -> float | None:
    """The `Retry-After` header (seconds or a date); None when absent or malformed."""
    if not header:
        return None
    if header.strip().isascii() and header.strip().isdecimal():
        return min(float(header.strip()[:12]), MAX_PAUSE_SECONDS)
    try:
        when = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return min(max((when - at).total_seconds(), 0.0), MAX_PAUSE_SECONDS)


def redact(text: str, secrets: Iterable[str], limit: int = 2048) -> str:
    """At most `limit` characters, without the secrets and without control characters."""
    for secret in sorted((s for s in secrets if s), key=len, reverse=True):
        text = text.replace(secret, "[redacted]")
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)[:limit]
