"""HTTP in: what is asked of many deliveries at once."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from contracts.access import Action
from kit.db import Database
from kit.problems import Problem
from kit.web import Guard
from notifier import views
from notifier.api import Glob, ModelGlob, Name, may_see
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


def router(db: Database, replaying: Replaying, reconciling: Reconciling, guard: Guard) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["notifier"])

    @routes.post("/subscriptions/{subscription_id}/replay")
    async def replay(request: Request, subscription_id: Name, body: Replay) -> ReplayDocument:
        """Sends again what failed, what was never sent, or all, under the same ids. A page of events a call."""
        principal = await guard(request)
        async with db.transaction() as tx:
            state = await views.subscription(tx, subscription_id)
        if state is None or not may_see(guard, principal, state):
            raise Problem(404, "no-such-subscription", "there is no such subscription of yours")
        guard.require(principal, Action.SUBSCRIBE, state.workspace, state.model)
        choice = Choice(body.which, body.since, body.before, body.types, body.model)
        found = await replaying.replay(
            subscription_id, principal.subject, choice, after=body.after, dry_run=body.dry_run
        )
        return ReplayDocument(**found)

    @routes.post("/reconciliation")
    async def reconcile(request: Request, body: Reconcile) -> Reconciliation:
        """Whether each event has reached, or is going to reach, each subscription that wanted it."""
        principal = await guard(request)
        guard.require(principal, Action.CONFIGURE, EVERYWHERE)
        since: datetime | None = body.since
        found = await reconciling.reconcile(since=since, by=principal.subject)
        examples = [Unaccounted(**one) for one in found.examples]
        return Reconciliation(
            events=found.events, checked=found.checked, unaccounted=found.unaccounted, examples=examples
        )

    return routes
