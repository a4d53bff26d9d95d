"""Events the notifier writes."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from contracts.payload import Identifier, Line, Message, Payload, Reason, Text


class Channel(StrEnum):
    SLACK = "slack"
    EMAIL = "email"
    WEBHOOK = "webhook"
    PAGERDUTY = "pagerduty"
    TEAMS = "teams"
    APPRISE = "apprise"


class Format(StrEnum):
    """What the body of a webhook looks like: an event of ours, or one that software of others reads."""

    CLOUDEVENTS = "cloudevents"
    DATABRICKS = "databricks"
    MLFLOW = "mlflow"
    SAGEMAKER = "sagemaker"
    SLACK = "slack"


class Order(StrEnum):
    """FIFO: the events of a model one after the other. ANY: none waits for another."""

    FIFO = "fifo"
    ANY = "any"


# Seconds between two tries of a delivery.
Pause = Annotated[float, Field(gt=0, le=24 * 3600)]
Pauses = Annotated[tuple[Pause, ...], Field(min_length=1, max_length=30)]
# What events have in common, where they are grouped or hush one another.
Label = Literal["workspace", "model", "version", "type", "request"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Grouped(Payload):
    """Events that have the labels `by` in common go out in one message: the first one `wait_seconds` after it came, so
    that others can join it, what comes later every `interval_seconds`. With `request` among the labels, a request that
    is still open is told of again after `repeat_seconds` without news."""

    mode: Literal["grouped"] = "grouped"
    by: Annotated[tuple[Label, ...], Field(max_length=5)] = ()
    wait_seconds: Annotated[int, Field(ge=0, le=24 * 3600)] = 30
    interval_seconds: Annotated[int, Field(ge=1, le=7 * 24 * 3600)] = 300
    repeat_seconds: Annotated[int, Field(ge=60, le=30 * 24 * 3600)] = 4 * 3600


class Digest(Payload):
    """All events go out in one message a day, or a week, when a clock in `zone` (IANA) shows `at`. An event after
    `first_at_once_seconds` of quiet goes out at once, and the digest has what follows it."""

    mode: Literal["digest"] = "digest"
    every: Literal["day", "week"] = "day"
    at: Annotated[str, StringConstraints(pattern=r"^(?:[01][0-9]|2[0-3]):[0-5][0-9]$")] = "09:00"
    weekday: Weekday = "mon"
    zone: Line = "UTC"
    first_at_once_seconds: Annotated[int, Field(ge=60, le=7 * 24 * 3600)] | None = None


Bundling = Annotated[Grouped | Digest, Field(discriminator="mode")]
Cel = Annotated[str, StringConstraints(min_length=1, max_length=2_000, pattern=r"^[^\x00]*$")]


class SubscriptionCreated(Message):
    """Who hears of what, and where. Secrets never travel.

    With an `audience` (`group:risk`, `user:ann`, `service:oncall`, `channel:ml`) only what is addressed to one of it;
    with `stages` only what enters or leaves one of these; with `cel` only what this expression holds for.
    `retry_seconds` are its own pauses after failed tries, instead of the service's. One that is not `confirmed` is sent
    nothing before whoever reads its mailbox agrees.
    """

    TYPE: ClassVar[str] = "hallmark.subscription.created.v1"
    subscription_id: Identifier
    owner: Line
    channel: Channel
    address: Line
    types: tuple[Line, ...]
    workspace: Line
    model: Line
    audience: tuple[Line, ...] = ()
    format: Format = Format.CLOUDEVENTS
    retry_seconds: Pauses | None = None
    stages: tuple[Line, ...] = ()
    cel: Cel | None = None
    order: Order = Order.FIFO
    bundling: Bundling | None = None
    confirmed: bool = True


class ConfirmationAsked(Message):
    """A mailbox that the owner's token does not prove was sent a link; it confirms the subscription until then."""

    TYPE: ClassVar[str] = "hallmark.confirmation.asked.v1"
    subscription_id: Identifier
    asked_by: Line
    expires_at: AwareDatetime


class SubscriptionConfirmed(Message):
    """Whoever reads the mailbox agreed: it is sent to from now on."""

    TYPE: ClassVar[str] = "hallmark.subscription.confirmed.v1"
    subscription_id: Identifier


class SubscriptionChanged(Message):
    """The filters it has from now on, all of them, and whether events go out together."""

    TYPE: ClassVar[str] = "hallmark.subscription.changed.v1"
    subscription_id: Identifier
    changed_by: Line
    types: tuple[Line, ...]
    model: Line
    audience: tuple[Line, ...] = ()
    stages: tuple[Line, ...] = ()
    cel: Cel | None = None
    bundling: Bundling | None = None


class SubscriptionPaused(Message):
    """What is for it is kept from now on, and not sent."""

    TYPE: ClassVar[str] = "hallmark.subscription.paused.v1"
    subscription_id: Identifier
    paused_by: Line


class SubscriptionResumed(Message):
    TYPE: ClassVar[str] = "hallmark.subscription.resumed.v1"
    subscription_id: Identifier
    resumed_by: Line


class SubscriptionRemoved(Message):
    TYPE: ClassVar[str] = "hallmark.subscription.removed.v1"
    subscription_id: Identifier
    removed_by: Line


class SubscriptionDisabled(Message):
    """The receiver asked for no more (410 Gone), or has only failed for days."""

    TYPE: ClassVar[str] = "hallmark.subscription.disabled.v1"
    subscription_id: Identifier
    reason: Text


class SecretRotated(Message):
    """Messages are signed with a new secret; with the former ones too, until `former_until` (none: no more)."""

    TYPE: ClassVar[str] = "hallmark.secret.rotated.v1"
    subscription_id: Identifier
    rotated_by: Line
    former_until: AwareDatetime | None = None


class Told(Payload):
    """An event that a message shows."""

    event_id: Identifier
    type: Line
    subject: Line
    at: AwareDatetime
    headline: Line


class GroupComposed(Message):
    """One message about `count` events with these labels in common: how many of which kind, and the newest.

    `repeats`: nothing is new, but the request that it is about is still open.
    """

    TYPE: ClassVar[str] = "hallmark.group.composed.v1"
    subscription_id: Identifier
    labels: Text = ""
    count: Annotated[int, Field(ge=1)]
    first_at: AwareDatetime
    last_at: AwareDatetime
    kinds: dict[Line, int]
    newest: tuple[Told, ...]
    repeats: bool = False


class TemplatePublished(Message):
    """A revision of the words for some events in a channel, in force from now on. `parts` are Jinja2."""

    TYPE: ClassVar[str] = "hallmark.template.published.v1"
    workspace: Line
    channel: Line
    types: Line
    revision: Annotated[int, Field(ge=1)]
    parts: dict[Line, Annotated[str, StringConstraints(max_length=20_000)]]
    published_by: Line


class TemplateWithdrawn(Message):
    """The built-in words are used again."""

    TYPE: ClassVar[str] = "hallmark.template.withdrawn.v1"
    workspace: Line
    channel: Line
    types: Line
    withdrawn_by: Line


class SilenceCreated(Message):
    """From `starts_at` until `ends_at` nothing that it selects is sent: to the subscriptions of `owner`, or to anybody
    in the workspace when there is none. `types` and `model` are patterns."""

    TYPE: ClassVar[str] = "hallmark.silence.created.v1"
    silence_id: Identifier
    workspace: Line
    types: tuple[Line, ...]
    model: Line
    stages: tuple[Line, ...] = ()
    cel: Cel | None = None
    owner: Line | None = None
    starts_at: AwareDatetime
    ends_at: AwareDatetime
    author: Line
    comment: Reason


class SilenceExpired(Message):
    """Somebody ended it before its time; the end of its time is no event."""

    TYPE: ClassVar[str] = "hallmark.silence.expired.v1"
    silence_id: Identifier
    expired_by: Line


class InhibitionCreated(Message):
    """After an event of the `source_types` (for which `cel` holds), until one of the `until_types` or for so many
    seconds, nothing of the `target_types` is sent whose labels in `equal` are the same."""

    TYPE: ClassVar[str] = "hallmark.inhibition.created.v1"
    inhibition_id: Identifier
    workspace: Line
    source_types: tuple[Line, ...]
    cel: Cel | None = None
    until_types: tuple[Line, ...] = ()
    seconds: Annotated[int, Field(ge=1, le=30 * 24 * 3600)]
    target_types: tuple[Line, ...]
    equal: tuple[Label, ...]
    author: Line
    comment: Reason


class InhibitionRemoved(Message):
    TYPE: ClassVar[str] = "hallmark.inhibition.removed.v1"
    inhibition_id: Identifier
    removed_by: Line


class SubscriptionEnabled(Message):
    """One that was disabled is sent to again, from now on."""

    TYPE: ClassVar[str] = "hallmark.subscription.enabled.v1"
    subscription_id: Identifier
    enabled_by: Line


class SubscriptionFaltered(Message):
    """Its endpoint has only failed `since` then; `percent` of the time is over after which it is disabled."""

    TYPE: ClassVar[str] = "hallmark.subscription.faltered.v1"
    subscription_id: Identifier
    percent: Annotated[int, Field(ge=1, le=100)]
    since: AwareDatetime
    disables_at: AwareDatetime
    detail: Text = ""


class SubscriptionReplayed(Message):
    """So many deliveries were made due again: those that `failed`, that were `missing`, or `all`."""

    TYPE: ClassVar[str] = "hallmark.subscription.replayed.v1"
    subscription_id: Identifier
    replayed_by: Line
    which: Line
    deliveries: Annotated[int, Field(ge=1)]


class DeliveriesReconciled(Message):
    """Of the `events` taken in `since` then, `checked` pairs of an event and a subscription that wanted it were looked
    at; `unaccounted` of them had no delivery that has ended or is going to be tried."""

    TYPE: ClassVar[str] = "hallmark.deliveries.reconciled.v1"
    since: AwareDatetime | None = None
    events: Annotated[int, Field(ge=0)]
    checked: Annotated[int, Field(ge=0)]
    unaccounted: Annotated[int, Field(ge=0)]


class OwnerSeen(Message):
    """The groups that a token of an owner told, issued at that time: what they may read is what they are sent."""

    TYPE: ClassVar[str] = "hallmark.owner.seen.v1"
    owner: Line
    groups: Annotated[tuple[Line, ...], Field(max_length=500)]
    person: bool
    issued_at: AwareDatetime


class Attempt(Payload):
    delivery_id: Identifier
    subscription_id: Identifier
    event_id: Identifier
    event_type: Line
    attempt: Annotated[int, Field(ge=1)]
    latency_ms: Annotated[float, Field(ge=0)]
    detail: Text = ""


class DeliverySucceeded(Message, Attempt):
    TYPE: ClassVar[str] = "hallmark.delivery.succeeded.v1"


class DeliveryFailed(Message, Attempt):
    """One try failed; another is due."""

    TYPE: ClassVar[str] = "hallmark.delivery.failed.v1"
    next_attempt_at: AwareDatetime


class DeliveryDenied(Message, Attempt):
    """It was not sent: the owner of the subscription may not read it any more."""

    TYPE: ClassVar[str] = "hallmark.delivery.denied.v1"


class DeliveryDead(Message, Attempt):
    """No try is left, or the receiver refused for good."""

    TYPE: ClassVar[str] = "hallmark.delivery.dead.v1"


EVENTS = (
    SubscriptionCreated,
    ConfirmationAsked,
    SubscriptionConfirmed,
    SubscriptionChanged,
    SubscriptionPaused,
    SubscriptionResumed,
    SubscriptionRemoved,
    SubscriptionDisabled,
    GroupComposed,
    TemplatePublished,
    TemplateWithdrawn,
    SilenceCreated,
    SilenceExpired,
    InhibitionCreated,
    InhibitionRemoved,
    SubscriptionEnabled,
    SubscriptionFaltered,
    SubscriptionReplayed,
    DeliveriesReconciled,
    SecretRotated,
    DeliverySucceeded,
    DeliveryFailed,
    DeliveryDenied,
    DeliveryDead,
    OwnerSeen,
)
