"""Subscriptions, and what matches them: pure, no I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from uuid import UUID, uuid5

from contracts.audience import user
from contracts.envelope import Envelope
from contracts.notifier import (
    Channel,
    Digest,
    Format,
    Grouped,
    Order,
    SubscriptionChanged,
    SubscriptionConfirmed,
    SubscriptionCreated,
    SubscriptionDisabled,
    SubscriptionEnabled,
    SubscriptionPaused,
    SubscriptionRemoved,
    SubscriptionResumed,
)
from notifier.matching import Seen, selects
from policy.expressions import ExpressionError

DEFAULT_TYPES = ("hallmark.stage.*",)
# Of a subscription for somebody: whatever addresses them.
ADDRESSED_TYPES = ("hallmark.*",)
UNCONFIRMED = "unconfirmed"
# Two hosts told the times that are compared: an event too many is better than one lost.
CLOCKS_DIFFER = timedelta(seconds=60)
# Any fixed value does; it must never change, since receivers drop repetitions by the ids made from it.
_DELIVERIES = UUID("6f2d4c1e-5a0b-5c8e-9f57-68616c6c6d6b")


@dataclass(frozen=True)
class Subscription:
    """`address` is what people may see of it; the full one of Slack and webhooks is a secret. `audience` are the names
    that it stands for; without one it stands for nobody and hears of all that its other filters let through.
    `retry_seconds` are pauses of its own between tries."""

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
    retry_seconds: tuple[float, ...] | None = None
    stages: tuple[str, ...] = ()
    cel: str | None = None
    order: Order = Order.FIFO
    paused: bool = False
    bundling: Grouped | Digest | None = None
    format: Format = Format.CLOUDEVENTS

    @property
    def active(self) -> bool:
        """Confirmed, and not ended. While it is paused too, what is for it is kept, and not sent."""
        return self.status == "active"

    def wants(self, event: Seen) -> bool:
        """Whether an event is for it now: active, not from before it was created, and let through by its filters.

        Raises:
            ExpressionError: its expression has no answer for this event.
        """
        return self.active and event.envelope.time >= self.created_at - CLOCKS_DIFFER and self.hears_of(event)

    def hears_of(self, event: Seen) -> bool:
        """Whether its filters let an event through, whenever it was: selected, and addressed to its audience if it has
        one.

        Raises:
            ExpressionError: its expression has no answer for this event.
        """
        return (
            (event.workspace == self.workspace or (event.workspace is None and self._personal(event)))
            and (not self.audience or not event.recipients.isdisjoint(self.audience))
            and selects(self, event)
        )

    def _personal(self, event: Seen) -> bool:
        """Of an event outside of workspaces: whether its owner may hear of it."""
        return event.everybodys or user(self.owner) in event.recipients


def evolve(state: Subscription | None, envelope: Envelope) -> Subscription | None:  # noqa: PLR0911  # one an event
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
                status="active" if made.confirmed else UNCONFIRMED,
                audience=made.audience,
                retry_seconds=made.retry_seconds,
                stages=made.stages,
                cel=made.cel,
                bundling=made.bundling,
                order=made.order,
                format=made.format,
            )
        case SubscriptionChanged.TYPE if state:
            new = envelope.payload(SubscriptionChanged)
            return replace(
                state,
                types=new.types,
                model=new.model,
                audience=new.audience,
                stages=new.stages,
                cel=new.cel,
                bundling=new.bundling,
            )
        case SubscriptionConfirmed.TYPE if state and state.status == UNCONFIRMED:
            return replace(state, status="active")
        case SubscriptionPaused.TYPE if state:
            return replace(state, paused=True)
        case SubscriptionResumed.TYPE if state:
            return replace(state, paused=False)
        case SubscriptionRemoved.TYPE if state:
            by = envelope.payload(SubscriptionRemoved).removed_by
            return replace(state, status="removed", reason=f"removed by {by}", ended_at=envelope.time)
        case SubscriptionDisabled.TYPE if state:
            reason = envelope.payload(SubscriptionDisabled).reason
            return replace(state, status="disabled", reason=reason, ended_at=envelope.time)
        case SubscriptionEnabled.TYPE if state:
            return replace(state, status="active", reason=None, ended_at=None)
    return state


@dataclass(frozen=True)
class Matched:
    """Who wants an event. `failed`: whose expression had no answer, and why; they do not get it."""

    wanted: list[Subscription] = field(default_factory=list)
    failed: list[tuple[Subscription, str]] = field(default_factory=list)


def matching(subscriptions: Iterable[Subscription], event: Seen) -> Matched:
    found = Matched()
    for subscription in subscriptions:
        try:
            if subscription.wants(event):
                found.wanted.append(subscription)
        except ExpressionError as error:
            found.failed.append((subscription, str(error)))
    return found


def unknown_types(patterns: Sequence[str], known: Iterable[str]) -> list[str]:
    """The patterns that no event can ever match."""
    names = tuple(known)
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]


def delivery_id(subscription_id: str, event_id: str) -> UUID:
    """The same for every try, and after a rebuild: receivers drop repetitions by it."""
    return uuid5(_DELIVERIES, f"{subscription_id}:{event_id}")
