"""What matches, when to try again, what an outcome means: pure, no I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any
from uuid import UUID, uuid5

from contracts.audience import recipients_of, user
from contracts.envelope import Envelope
from contracts.lifecycle import parse_subject
from contracts.notifier import (
    Channel,
    DeliveryDead,
    DeliveryFailed,
    DeliverySucceeded,
    SubscriptionCreated,
    SubscriptionDisabled,
    SubscriptionRemoved,
)
from contracts.payload import Message

DEFAULT_TYPES = ("hallmark.stage.*",)
# Of a subscription for somebody: whatever addresses them.
ADDRESSED_TYPES = ("hallmark.*",)
MAX_PAUSE_SECONDS = 24 * 3600.0
JITTER = 0.2
# Two hosts told the times that are compared: an event too many is better than one lost.
CLOCKS_DIFFER = timedelta(seconds=60)
# Any fixed value does; it must never change, since receivers drop repetitions by the ids made from it.
_DELIVERIES = UUID("6f2d4c1e-5a0b-5c8e-9f57-68616c6c6d6b")


@dataclass(frozen=True)
class Subscription:
    """`address` is what people may see of it; the full one of Slack and webhooks is a secret. `audience` are the names
    that it stands for; without one it stands for nobody and hears of all that its other filters let through."""

    subscription_id: str
    owner: str
    channel: Channel
    address: str
    types: tuple[str, ...]
    workspace: str
    model: str
    created_at: datetime
    status: str = "active"
    reason: str | None = None
    ended_at: datetime | None = None
    audience: tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        return self.status == "active"

    def wants(self, envelope: Envelope) -> bool:
        """Whether an event is for it: active, of a wanted type and model, addressed to its audience if it has one, and
        not from before it was created."""
        workspace, model = place_of(envelope)
        return (
            self.active
            and envelope.time >= self.created_at - CLOCKS_DIFFER
            and fnmatchcase(model, self.model)
            and any(fnmatchcase(envelope.type, pattern) for pattern in self.types)
            and (workspace == self.workspace or (workspace is None and self._personal(envelope)))
            and (not self.audience or not recipients_of(envelope).isdisjoint(self.audience))
        )

    def _personal(self, envelope: Envelope) -> bool:
        """Of an event outside of workspaces: whether its owner may hear of it."""
        return everybodys(envelope) or user(self.owner) in recipients_of(envelope)


def evolve(state: Subscription | None, envelope: Envelope) -> Subscription | None:
    """Folds one event into the subscription; events of deliveries change nothing of it."""
    match envelope.type:
        case SubscriptionCreated.TYPE:
            made = envelope.payload(SubscriptionCreated)
            return Subscription(
                subscription_id=made.subscription_id,
                owner=made.owner,
                channel=made.channel,
                address=made.address,
                types=made.types,
                workspace=made.workspace,
                model=made.model,
                created_at=envelope.time,
                audience=made.audience,
            )
        case SubscriptionRemoved.TYPE if state:
            by = envelope.payload(SubscriptionRemoved).removed_by
            return replace(state, status="removed", reason=f"removed by {by}", ended_at=envelope.time)
        case SubscriptionDisabled.TYPE if state:
            reason = envelope.payload(SubscriptionDisabled).reason
            return replace(state, status="disabled", reason=reason, ended_at=envelope.time)
    return state


def place_of(envelope: Envelope) -> tuple[str | None, str]:
    """The workspace and model an event is about; None and nothing where its subject names neither."""
    if envelope.subject.startswith("workspace:"):
        return envelope.subject.removeprefix("workspace:"), ""
    if ":" in envelope.subject:  # of a policy or a person: names of workspaces and models have none
        return None, ""
    try:
        workspace, model, _ = parse_subject(envelope.subject)
    except ValueError:
        return None, ""
    return workspace, model


def everybodys(envelope: Envelope) -> bool:
    """Policies govern every workspace, and so do requests to change them. Other events outside of workspaces (rejected
    commands, groups of people) are not for all to read."""
    return envelope.subject.startswith("policy:")


def matching(subscriptions: Iterable[Subscription], envelope: Envelope) -> list[Subscription]:
    return [s for s in subscriptions if s.wants(envelope)]


def unknown_types(patterns: Sequence[str], known: Iterable[str]) -> list[str]:
    """The patterns that no event can ever match."""
    names = tuple(known)
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]


def delivery_id(subscription_id: str, event_id: str) -> UUID:
    """The same for every try, and after a rebuild: receivers drop repetitions by it."""
    return uuid5(_DELIVERIES, f"{subscription_id}:{event_id}")


class Verdict(StrEnum):
    SUCCEEDED = "succeeded"
    RETRY = "retry"
    REFUSED = "refused"
    GONE = "gone"


@dataclass(frozen=True)
class Outcome:
    """How one try ended. `retry_after` is in seconds; `response` is an excerpt with the secrets taken out."""

    verdict: Verdict
    detail: str
    status: int | None = None
    response: str = ""
    retry_after: float | None = None


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
    done: Try, outcome: Outcome, schedule: Schedule, *, at: datetime, chance: float, active: bool = True
) -> Next:
    """What follows from one try. A subscription that has ended meanwhile gets no further one."""
    said: dict[str, Any] = {
        "delivery_id": done.delivery_id,
        "subscription_id": done.subscription_id,
        "event_id": done.event_id,
        "event_type": done.event_type,
        "attempt": done.attempt,
        "latency_ms": done.latency_ms,
        "detail": outcome.detail,
    }
    if outcome.verdict is Verdict.SUCCEEDED:
        return Next("succeeded", None, (DeliverySucceeded(**said),))
    if outcome.verdict is Verdict.GONE:
        gone = SubscriptionDisabled(subscription_id=done.subscription_id, reason=outcome.detail)
        return Next("dead", None, (DeliveryDead(**said), *((gone,) if active else ())))
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
