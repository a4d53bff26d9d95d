"""What requests and answers look like: fields that routes have in common, subscriptions, deliveries."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from contracts.notifier import Bundling, Cel, Channel, Format, Order, Pauses
from contracts.payload import Line, Target, Workspace

Glob = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[a-z0-9.*-]+$")]
# "*" is the only wildcard: it cannot match more than a grant's own pattern does.
ModelGlob = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^/:?\[\]\x00-\x1f\x7f]+$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[\x21-\x7e]+$")]
Cursor = Annotated[int | None, Query(ge=1, le=2**63 - 1)]
Limit = Annotated[int, Query(ge=1, le=500)]
State = Literal["active", "unconfirmed", "paused", "removed", "disabled"]
Status = Literal["pending", "succeeded", "dead", "denied", "cancelled", "silenced", "inhibited", "waiting", "grouped"]


class Filter(BaseModel):
    """Which events. `types` and `model` are globs; with `stages` only events that enter or leave one of these.

    With an `audience` (`group:risk`, `user:ann`, `service:oncall`, `channel:ml`) only events that address one of these
    names are delivered: an emergency that pages them, an escalation to them, a vote on their behalf.
    `cel` is an expression over `event.type`, `event.model`, ... and `data`, the event's body.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    types: Annotated[tuple[Glob, ...], Field(max_length=20)] = ()
    workspace: Workspace = "default"
    model: ModelGlob = "*"
    audience: Annotated[tuple[Line, ...], Field(max_length=20)] = ()
    stages: Annotated[tuple[Target, ...], Field(max_length=20)] = ()
    cel: Cel | None = None


class NewSubscription(Filter):
    """`secret` (whsec_...) signs webhooks; without it one is made and shown once. `retry_seconds` are the pauses after
    failed tries, instead of the service's own: one try more than pauses. `order` any: an event that fails does not hold
    up the later ones of its model. `format` is of a webhook's body: an event of ours, or the message of another
    registry, which has some only. With `bundling` events go out together. The `address` is a URL, a mailbox, or
    PagerDuty's routing key."""

    channel: Channel
    format: Format = Format.CLOUDEVENTS
    address: Annotated[str, StringConstraints(min_length=1, max_length=2000)]
    secret: Annotated[str, StringConstraints(max_length=200)] | None = None
    retry_seconds: Pauses | None = None
    order: Order = Order.FIFO
    bundling: Bundling | None = None


class Alone(BaseModel):
    """Each event goes out in a message of its own."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["alone"]


class Edit(BaseModel):
    """What is to be different; what is left out stays. An empty list, or an empty expression, takes a filter away."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    types: Annotated[tuple[Glob, ...], Field(max_length=20)] = ()
    model: ModelGlob = "*"
    audience: Annotated[tuple[Line, ...], Field(max_length=20)] = ()
    stages: Annotated[tuple[Target, ...], Field(max_length=20)] = ()
    cel: Cel | Literal[""] | None = None
    bundling: Bundling | Alone | None = None


class Preview(Filter):
    """Tried on the `last` events that you may read in the workspace."""

    last: Annotated[int, Field(ge=1, le=500)] = 500


class PastEvent(BaseModel):
    event_id: str
    type: str
    subject: str
    time: str
    headline: str


class PreviewDocument(BaseModel):
    """Of `looked_at` events, back to `since`, `matched` would have been delivered; `newest` are some of them. `failed`:
    for so many the expression had no answer, for the newest of these because of `error`."""

    looked_at: int
    matched: int
    failed: int
    error: str | None
    since: str | None
    newest: list[PastEvent]


class FilterErrors(BaseModel):
    """The expression had no answer for `count` events, which were not delivered; `detail` is of the last of them."""

    count: int
    detail: str
    event_id: str
    at: str


class Health(BaseModel):
    """How its endpoint fares: since when and how often in a row it has only failed, and until when nothing is sent
    there, because it is ill or asked for that."""

    failing_since: str | None
    failures: int
    held_until: str | None


class ConfirmationDocument(BaseModel):
    """A mailbox that was asked whether it wants the mail: when its link was sent, until when it is good, and what kept
    it from being sent the last time."""

    asked_at: str
    expires_at: str
    sent_at: str | None
    error: str | None


class SubscriptionDocument(BaseModel):
    """`address` as people may see it; `secret` only in the answer that made it; `confirmation` of one that is
    unconfirmed, not in lists."""

    subscription_id: str
    owner: str
    channel: Channel
    address: str
    types: list[str]
    workspace: str
    model: str
    audience: list[str] = Field(default_factory=list)
    retry_seconds: list[float] | None = None
    stages: list[str] = Field(default_factory=list)
    cel: str | None = None
    order: Order = Order.FIFO
    status: State
    format: Format = Format.CLOUDEVENTS
    reason: str | None
    created_at: str
    ended_at: str | None
    filter_errors: FilterErrors | None = None
    bundling: Bundling | None = None
    confirmation: ConfirmationDocument | None = None
    secret: str | None = None


class DeliveryDocument(BaseModel):
    """`attempts` counts tries; `due_at` is when the next one is due, while the delivery is open. `held_by` is the
    silence or the rule that kept it from being sent, or the delivery of the message that it is in with others."""

    delivery_id: str
    subscription_id: str
    channel: Channel
    address: str
    event_id: str
    event_type: str
    subject: str
    status: Status
    attempts: int
    due_at: str | None
    created_at: str
    closed_at: str | None
    held_by: str | None = None
    template: str | None = None
    template_error: str | None = None


class HeadersDocument(BaseModel):
    """Without secrets."""

    sent: dict[str, str]
    received: dict[str, str]


class TryDocument(BaseModel):
    """An `unknown` outcome: the try is under way, or was cut off and the receiver may have got it."""

    attempt: int
    started_at: str
    outcome: str
    status: int | None
    latency_ms: float | None
    detail: str
    response: str
    headers: HeadersDocument


class DeliveryDetail(DeliveryDocument):
    tries: list[TryDocument]


class Rotation(BaseModel):
    """`at_once`: nothing is signed with the present secret any more, because somebody else knows it."""

    model_config = ConfigDict(extra="forbid")

    at_once: bool = False


class Rotated(BaseModel):
    """The new secret, shown this once. Until `former_until` every message is signed with the former one too."""

    subscription_id: str
    secret: str
    former_until: datetime | None


class Subscriptions(BaseModel):
    items: list[SubscriptionDocument]
    next: str | None


class Deliveries(BaseModel):
    items: list[DeliveryDocument]
    next: str | None
