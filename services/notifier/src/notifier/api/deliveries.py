"""HTTP in: deliveries, one and many at once."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from contracts.access import Action
from contracts.payload import Line, Workspace
from kit.db import Database
from notifier import views
from notifier.api.callers import Callers
from notifier.api.documents import (
    Cursor,
    Deliveries,
    DeliveryDetail,
    Glob,
    Limit,
    ModelGlob,
    Name,
    Status,
)
from notifier.channels.webhook import body_of
from notifier.commands import Commands
from notifier.reconciling import Reconciling
from notifier.replaying import Choice, Replaying, Which

EVERYWHERE = "*"


class Replay(BaseModel):
    """`since` and `before` are when events happened; `after` is the `next` of the answer before."""

    model_config = ConfigDict(extra="forbid")

    which: Which
    since: AwareDatetime | None = None
    before: AwareDatetime | None = None
    types: Annotated[tuple[Glob, ...], Field(max_length=20)] = ()
    model: ModelGlob = "*"
    after: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    dry_run: bool = False


class ReplayDocument(BaseModel):
    """Of `looked_at` events, `deliveries` are due again, or would be. Call again with `after` = `next` while there is
    one."""

    looked_at: int
    deliveries: int
    next: int | None


class Reconcile(BaseModel):
    """`since`: of the events taken in since then; all without it."""

    model_config = ConfigDict(extra="forbid")

    since: AwareDatetime | None = None


class Unaccounted(BaseModel):
    subscription_id: str
    event_id: str
    why: str


class Reconciliation(BaseModel):
    """`checked` pairs of an event and a subscription that wanted it; `unaccounted` of them have no delivery that ended
    or is going to be tried."""

    events: int
    checked: int
    unaccounted: int
    examples: list[Unaccounted]


def router(
    db: Database, commands: Commands, replaying: Replaying, reconciling: Reconciling, callers: Callers
) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["notifier"])

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
        principal = await callers(request)
        callers.require(principal, Action.READ, workspace)
        async with db.snapshot() as tx:
            page = await views.deliveries(
                tx,
                workspace,
                owner=callers.owner_for(principal, workspace),
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
        principal = await callers(request)
        document, _ = await callers.delivery(principal, delivery_id)
        return DeliveryDetail(**document)

    @routes.get("/deliveries/{delivery_id}/event")
    async def get_event(request: Request, delivery_id: UUID) -> Response:
        """All of the event, as a CloudEvent in JSON: what `dataref` of a webhook leads to."""
        principal = await callers(request)
        document, _ = await callers.delivery(principal, delivery_id)
        async with db.transaction() as tx:
            envelope = await views.source_event(tx, document["event_id"])
        return Response(body_of(envelope), media_type="application/cloudevents+json")

    @routes.post("/deliveries/{delivery_id}/replay", status_code=202)
    async def resend(request: Request, delivery_id: UUID) -> DeliveryDetail:
        """Sends it again, under the same id."""
        principal = await callers.acting(request)
        _, state = await callers.delivery(principal, delivery_id)
        return DeliveryDetail(**await commands.replay(delivery_id, state))

    @routes.post("/subscriptions/{subscription_id}/replay")
    async def replay(request: Request, subscription_id: Name, body: Replay) -> ReplayDocument:
        """Sends again what failed, what was never sent, or all, under the same ids. A page of events a call."""
        principal = await callers.acting(request)
        state = await callers.subscription(principal, subscription_id)
        callers.require(principal, Action.SUBSCRIBE, state.workspace, state.model)
        choice = Choice(body.which, body.since, body.before, body.types, body.model)
        found = await replaying.replay(
            subscription_id, principal.subject, choice, after=body.after, dry_run=body.dry_run
        )
        return ReplayDocument(**found)

    @routes.post("/reconciliation")
    async def reconcile(request: Request, body: Reconcile) -> Reconciliation:
        """Whether each event has reached, or is going to reach, each subscription that wanted it."""
        principal = await callers(request)
        callers.require(principal, Action.CONFIGURE, EVERYWHERE)
        since: datetime | None = body.since
        found = await reconciling.reconcile(since=since, by=principal.subject)
        examples = [Unaccounted(**one) for one in found.examples]
        return Reconciliation(
            events=found.events, checked=found.checked, unaccounted=found.unaccounted, examples=examples
        )

    return routes
