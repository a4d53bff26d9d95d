"""HTTP in: subscriptions and deliveries."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from contracts.access import Action, Role
from contracts.audience import user
from contracts.notifier import Bundling, Cel, Channel, Format, Order, Pauses
from contracts.payload import Line, Target, Workspace
from kit.auth import Principal
from kit.db import Database
from kit.problems import Problem
from kit.web import Guard
from notifier import endpoints, views
from notifier.channels.webhook import body_of
from notifier.commands import Commands
from notifier.domain import Subscription
from notifier.editing import Editing
from notifier.filters import asks_for_own, checked_filters
from notifier.matching import Seen
from notifier.preview import preview

Glob = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[a-z0-9.*-]+$")]
# "*" is the only wildcard: it cannot match more than a grant's own pattern does.
ModelGlob = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^/:?\[\]\x00-\x1f\x7f]+$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[\x21-\x7e]+$")]
Cursor = Annotated[int | None, Query(ge=1, le=2**63 - 1)]
Limit = Annotated[int, Query(ge=1, le=500)]
State = Literal["active", "paused", "removed", "disabled"]
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
Status = Literal["pending", "succeeded", "dead", "cancelled", "silenced", "inhibited", "waiting", "grouped"]


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


class SubscriptionDocument(BaseModel):
    """`address` as people may see it; `secret` only in the answer that made it."""

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


def router(db: Database, commands: Commands, editing: Editing, guard: Guard) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["notifier"])

    def all_of(principal: Principal, workspace: str) -> bool:
        return sees_all(guard, principal, workspace)

    def owner_for(principal: Principal, workspace: str) -> str | None:
        """Whose rows a list shows; None: everybody's."""
        return None if all_of(principal, workspace) else principal.subject

    def may_ask(principal: Principal, types: tuple[str, ...], workspace: str, model: str) -> None:
        """What is said of deliveries is said of everybody's: for those who manage the models."""
        if asks_for_own(types):
            guard.require(principal, Action.MANAGE, workspace, model)

    def theirs(principal: Principal, state: Subscription | None) -> Subscription:
        """Another's subscription is told apart from none by nothing."""
        if state is None or not may_see(guard, principal, state):
            raise Problem(404, "no-such-subscription", "there is no such subscription of yours")
        return state

    async def find(principal: Principal, subscription_id: str) -> Subscription:
        async with db.transaction() as tx:
            return theirs(principal, await views.subscription(tx, subscription_id))

    async def find_delivery(principal: Principal, delivery_id: UUID) -> tuple[dict[str, Any], Subscription]:
        async with db.transaction() as tx:
            found = await views.delivery_detail(tx, delivery_id)
        if found is None or not (found[1].owner == principal.subject or all_of(principal, found[1].workspace)):
            raise Problem(404, "no-such-delivery", "there is no such delivery of yours")
        return found

    @routes.post("/subscriptions", status_code=201)
    async def subscribe(
        request: Request,
        body: NewSubscription,
        idempotency_key: Annotated[Name | None, Header()] = None,
    ) -> SubscriptionDocument:
        principal = await guard(request)
        guard.require(principal, Action.SUBSCRIBE, body.workspace, body.model)
        may_ask(principal, body.types, body.workspace, body.model)
        audience = tuple([await _addressed(guard, name) for name in body.audience])
        made = await commands.subscribe(
            principal.subject,
            body.channel,
            body.address,
            types=body.types,
            workspace=body.workspace,
            model=body.model,
            secret=body.secret,
            audience=audience,
            retry_seconds=body.retry_seconds,
            stages=body.stages,
            cel=body.cel,
            order=body.order,
            bundling=body.bundling,
            format=body.format,
            idempotency_key=idempotency_key,
        )
        return SubscriptionDocument(**made)

    @routes.post("/subscriptions/preview")
    async def preview_filter(request: Request, body: Preview) -> PreviewDocument:
        """What a filter would have matched. Nothing is made or sent."""
        principal = await guard(request)
        guard.require(principal, Action.SUBSCRIBE, body.workspace, body.model)
        audience = tuple([await _addressed(guard, name) for name in body.audience])
        filters = checked_filters(body.types, audience, body.stages, body.cel)
        asked = Subscription(
            subscription_id="preview",
            owner=principal.subject,
            channel=Channel.WEBHOOK,
            address="",
            types=filters.types,
            workspace=body.workspace,
            model=body.model,
            created_at=BEGINNING,
            audience=filters.audience,
            stages=filters.stages,
            cel=filters.cel,
        )

        def readable(event: Seen) -> bool:
            if event.workspace is None:
                return event.everybodys or user(principal.subject) in event.recipients
            return guard.access.allows(principal, Action.READ, event.workspace, event.model or "*")

        return PreviewDocument(**await preview(db, asked, readable, body.last))

    @routes.get("/subscriptions")
    async def list_subscriptions(
        request: Request,
        workspace: Workspace = "default",
        status: State | None = None,
        limit: Limit = 50,
        after: Name | None = None,
    ) -> Subscriptions:
        principal = await guard(request)
        guard.require(principal, Action.READ, workspace)
        async with db.snapshot() as tx:
            owner = owner_for(principal, workspace)
            page = await views.subscriptions(tx, workspace, owner=owner, status=status, limit=limit, after=after)
        return Subscriptions(**page)

    @routes.get("/subscriptions/{subscription_id}")
    async def get_subscription(request: Request, subscription_id: Name) -> SubscriptionDocument:
        principal = await guard(request)
        async with db.transaction() as tx:
            state = theirs(principal, await views.subscription(tx, subscription_id))
            return SubscriptionDocument(**await views.told(tx, state))

    @routes.get("/subscriptions/{subscription_id}/health")
    async def get_health(request: Request, subscription_id: Name) -> Health:
        principal = await guard(request)
        await find(principal, subscription_id)
        async with db.transaction() as tx:
            return Health(**(await endpoints.health(tx, subscription_id)))

    @routes.patch("/subscriptions/{subscription_id}")
    async def edit_subscription(request: Request, subscription_id: Name, body: Edit) -> SubscriptionDocument:
        """Other filters, for the events that come from now on."""
        principal = await guard(request)
        state = await find(principal, subscription_id)
        changes = body.model_dump(include=body.model_fields_set)
        guard.require(principal, Action.SUBSCRIBE, state.workspace, changes.get("model", state.model))
        may_ask(principal, changes.get("types", state.types), state.workspace, changes.get("model", state.model))
        if "audience" in changes:
            changes["audience"] = tuple([await _addressed(guard, name) for name in body.audience])
        if "cel" in changes:
            changes["cel"] = body.cel or None
        if "bundling" in changes:
            changes["bundling"] = None if isinstance(body.bundling, Alone) else body.bundling
        return SubscriptionDocument(**await editing.edit(subscription_id, principal.subject, changes))

    @routes.post("/subscriptions/{subscription_id}/enable")
    async def enable(request: Request, subscription_id: Name) -> SubscriptionDocument:
        """One that was disabled is sent to again, from now on. What was missed can be replayed."""
        principal = await guard(request)
        await find(principal, subscription_id)
        return SubscriptionDocument(**await editing.enable(subscription_id, principal.subject))

    @routes.post("/subscriptions/{subscription_id}/pause")
    async def pause(request: Request, subscription_id: Name) -> SubscriptionDocument:
        """Nothing is sent any more, and what comes is kept until it is resumed."""
        principal = await guard(request)
        await find(principal, subscription_id)
        return SubscriptionDocument(**await editing.pause(subscription_id, principal.subject))

    @routes.post("/subscriptions/{subscription_id}/resume")
    async def resume(request: Request, subscription_id: Name) -> SubscriptionDocument:
        principal = await guard(request)
        await find(principal, subscription_id)
        return SubscriptionDocument(**await editing.resume(subscription_id, principal.subject))

    @routes.delete("/subscriptions/{subscription_id}", status_code=204)
    async def remove(request: Request, subscription_id: Name) -> Response:
        principal = await guard(request)
        await find(principal, subscription_id)
        await commands.remove(subscription_id, principal.subject)
        return Response(status_code=204)

    @routes.post("/subscriptions/{subscription_id}/secret")
    async def rotate(request: Request, subscription_id: Name, body: Rotation | None = None) -> Rotated:
        """A new secret for a webhook."""
        principal = await guard(request)
        await find(principal, subscription_id)
        at_once = body is not None and body.at_once
        secret, until = await commands.rotate(subscription_id, principal.subject, at_once=at_once)
        return Rotated(subscription_id=subscription_id, secret=secret, former_until=until)

    @routes.get("/deliveries")
    async def list_deliveries(
        request: Request,
        workspace: Workspace = "default",
        subscription: Name | None = None,
        status: Status | None = None,
        event: Name | None = None,
        held_by: Annotated[Line | None, Query()] = None,
        limit: Limit = 50,
        after: Cursor = None,
    ) -> Deliveries:
        principal = await guard(request)
        guard.require(principal, Action.READ, workspace)
        async with db.snapshot() as tx:
            page = await views.deliveries(
                tx,
                workspace,
                owner=owner_for(principal, workspace),
                subscription_id=subscription,
                status=status,
                event_id=event,
                held_by=held_by,
                limit=limit,
                after=after,
            )
        return Deliveries(**page)

    @routes.get("/deliveries/{delivery_id}")
    async def get_delivery(request: Request, delivery_id: UUID) -> DeliveryDetail:
        principal = await guard(request)
        document, _ = await find_delivery(principal, delivery_id)
        return DeliveryDetail(**document)

    @routes.get("/deliveries/{delivery_id}/event")
    async def get_event(request: Request, delivery_id: UUID) -> Response:
        """All of the event, as a CloudEvent in JSON: what `dataref` of a webhook leads to."""
        principal = await guard(request)
        document, _ = await find_delivery(principal, delivery_id)
        async with db.transaction() as tx:
            envelope = await views.source_event(tx, document["event_id"])
        return Response(body_of(envelope), media_type="application/cloudevents+json")

    @routes.post("/deliveries/{delivery_id}/replay", status_code=202)
    async def replay(request: Request, delivery_id: UUID) -> DeliveryDetail:
        """Sends it again, under the same id."""
        principal = await guard(request)
        _, state = await find_delivery(principal, delivery_id)
        return DeliveryDetail(**await commands.replay(delivery_id, state))

    return routes


def sees_all(guard: Guard, principal: Principal, workspace: str) -> bool:
    return Role.ADMIN in guard.access.roles(principal, workspace)


def may_see(guard: Guard, principal: Principal, state: Subscription) -> bool:
    """Whether a subscription is theirs, or they administer its workspace."""
    return state.owner == principal.subject or sees_all(guard, principal, state.workspace)


async def _addressed(guard: Guard, name: str) -> str:
    """`user:ann` with the pseudonym of ann, where people have one; other names as they are. Raises Problem 422."""
    kind, colon, rest = name.partition(":")
    return f"{kind}:{await guard.named(rest)}" if kind == "user" and colon else name
