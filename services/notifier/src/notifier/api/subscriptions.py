"""HTTP in: subscriptions."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from contracts.access import Action
from contracts.audience import user
from contracts.notifier import Channel
from contracts.payload import Workspace
from kit.db import Database
from notifier import endpoints, views
from notifier.api.callers import Callers
from notifier.api.documents import (
    Alone,
    Edit,
    Health,
    Limit,
    Name,
    NewSubscription,
    Preview,
    PreviewDocument,
    Rotated,
    Rotation,
    State,
    SubscriptionDocument,
    Subscriptions,
)
from notifier.commands import Commands
from notifier.confirming import Confirming
from notifier.domain import Subscription
from notifier.editing import Editing
from notifier.filters import checked_filters
from notifier.matching import Seen
from notifier.preview import preview

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def router(db: Database, commands: Commands, editing: Editing, confirming: Confirming, callers: Callers) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["notifier"])

    @routes.post("/subscriptions", status_code=201)
    async def subscribe(
        request: Request,
        body: NewSubscription,
        idempotency_key: Annotated[Name | None, Header()] = None,
    ) -> SubscriptionDocument:
        principal = await callers.acting(request)
        callers.require(principal, Action.SUBSCRIBE, body.workspace, body.model)
        callers.require_types(principal, body.types, body.workspace, body.model)
        audience = await callers.addressed(body.audience)
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
            proved=body.channel is Channel.EMAIL and await callers.reads(principal, body.address),
            idempotency_key=idempotency_key,
        )
        return SubscriptionDocument(**made)

    @routes.post("/subscriptions/preview")
    async def preview_filter(request: Request, body: Preview) -> PreviewDocument:
        """What a filter would have matched. Nothing is made or sent."""
        principal = await callers(request)
        callers.require(principal, Action.SUBSCRIBE, body.workspace, body.model)
        audience = await callers.addressed(body.audience)
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
            return callers.access.allows(principal, Action.READ, event.workspace, event.model or "*")

        return PreviewDocument(**await preview(db, asked, readable, body.last))

    @routes.get("/subscriptions")
    async def list_subscriptions(
        request: Request,
        workspace: Workspace = "default",
        status: State | None = None,
        limit: Limit = 50,
        after: Name | None = None,
    ) -> Subscriptions:
        principal = await callers(request)
        callers.require(principal, Action.READ, workspace)
        async with db.snapshot() as tx:
            owner = callers.owner_for(principal, workspace)
            page = await views.subscriptions(tx, workspace, owner=owner, status=status, limit=limit, after=after)
        return Subscriptions(**page)

    @routes.get("/subscriptions/{subscription_id}")
    async def get_subscription(request: Request, subscription_id: Name) -> SubscriptionDocument:
        principal = await callers(request)
        async with db.transaction() as tx:
            state = callers.theirs(principal, await views.subscription(tx, subscription_id))
            return SubscriptionDocument(**await views.told(tx, state))

    @routes.post("/subscriptions/{subscription_id}/confirmation")
    async def ask_again(request: Request, subscription_id: Name) -> SubscriptionDocument:
        """Mails another link to a mailbox that has not been confirmed."""
        principal = await callers.acting(request)
        await callers.subscription(principal, subscription_id)
        return SubscriptionDocument(**await confirming.ask_again(subscription_id, principal.subject))

    @routes.get("/subscriptions/{subscription_id}/health")
    async def get_health(request: Request, subscription_id: Name) -> Health:
        principal = await callers(request)
        await callers.subscription(principal, subscription_id)
        async with db.transaction() as tx:
            return Health(**(await endpoints.health(tx, subscription_id)))

    @routes.patch("/subscriptions/{subscription_id}")
    async def edit_subscription(request: Request, subscription_id: Name, body: Edit) -> SubscriptionDocument:
        """Other filters, for the events that come from now on."""
        principal = await callers.acting(request)
        state = await callers.subscription(principal, subscription_id)
        changes = body.model_dump(include=body.model_fields_set)
        callers.require(principal, Action.SUBSCRIBE, state.workspace, changes.get("model", state.model))
        callers.require_types(
            principal, changes.get("types", state.types), state.workspace, changes.get("model", state.model)
        )
        if "audience" in changes:
            changes["audience"] = await callers.addressed(body.audience)
        if "cel" in changes:
            changes["cel"] = body.cel or None
        if "bundling" in changes:
            changes["bundling"] = None if isinstance(body.bundling, Alone) else body.bundling
        return SubscriptionDocument(**await editing.edit(subscription_id, principal.subject, changes))

    @routes.post("/subscriptions/{subscription_id}/enable")
    async def enable(request: Request, subscription_id: Name) -> SubscriptionDocument:
        """One that was disabled is sent to again, from now on. What was missed can be replayed."""
        principal = await callers.acting(request)
        await callers.subscription(principal, subscription_id)
        return SubscriptionDocument(**await editing.enable(subscription_id, principal.subject))

    @routes.post("/subscriptions/{subscription_id}/pause")
    async def pause(request: Request, subscription_id: Name) -> SubscriptionDocument:
        """Nothing is sent any more, and what comes is kept until it is resumed."""
        principal = await callers.acting(request)
        await callers.subscription(principal, subscription_id)
        return SubscriptionDocument(**await editing.pause(subscription_id, principal.subject))

    @routes.post("/subscriptions/{subscription_id}/resume")
    async def resume(request: Request, subscription_id: Name) -> SubscriptionDocument:
        principal = await callers.acting(request)
        await callers.subscription(principal, subscription_id)
        return SubscriptionDocument(**await editing.resume(subscription_id, principal.subject))

    @routes.delete("/subscriptions/{subscription_id}", status_code=204)
    async def remove(request: Request, subscription_id: Name) -> Response:
        principal = await callers.acting(request)
        await callers.subscription(principal, subscription_id)
        await commands.remove(subscription_id, principal.subject)
        return Response(status_code=204)

    @routes.post("/subscriptions/{subscription_id}/secret")
    async def rotate(request: Request, subscription_id: Name, body: Rotation | None = None) -> Rotated:
        """A new secret for a webhook."""
        principal = await callers.acting(request)
        await callers.subscription(principal, subscription_id)
        at_once = body is not None and body.at_once
        secret, until = await commands.rotate(subscription_id, principal.subject, at_once=at_once)
        return Rotated(subscription_id=subscription_id, secret=secret, former_until=until)

    return routes
