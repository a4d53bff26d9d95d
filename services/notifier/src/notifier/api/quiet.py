"""HTTP in: silences and inhibition rules."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from contracts.access import Action
from contracts.envelope import now
from contracts.notifier import Cel, Label
from contracts.payload import Reason, Target, Workspace
from kit.auth import Principal
from kit.db import Database
from kit.problems import Problem
from notifier import quiet_views, views
from notifier.api.callers import Callers
from notifier.api.documents import FilterErrors, Glob, Limit, ModelGlob, Name
from notifier.quiet import Silence
from notifier.quieting import Quieting

Types = Annotated[tuple[Glob, ...], Field(min_length=1, max_length=20)]


class NewSilence(BaseModel):
    """Until `ends_at` nothing of these events is sent to your subscriptions; with `everybody` to none of the workspace.
    `types` and `model` are globs, `stages` and `cel` as those of subscriptions."""

    model_config = ConfigDict(extra="forbid")

    workspace: Workspace = "default"
    types: Types = ("hallmark.*",)
    model: ModelGlob = "*"
    stages: Annotated[tuple[Target, ...], Field(max_length=20)] = ()
    cel: Cel | None = None
    everybody: bool = False
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime
    comment: Reason


class SilenceDocument(BaseModel):
    """`state` is pending, active or expired. Without an `owner` it is everybody's. `filter_errors`: its expression had
    no answer for so many events, which it kept from nobody."""

    silence_id: str
    workspace: str
    types: list[str]
    model: str
    stages: list[str]
    cel: str | None
    owner: str | None
    starts_at: datetime
    ends_at: datetime
    author: str
    comment: str
    created_at: datetime
    expired_by: str | None
    state: str
    filter_errors: FilterErrors | None = None


class Silences(BaseModel):
    items: list[SilenceDocument]
    next: str | None


class NewInhibition(BaseModel):
    """After an event of the `source_types` (for which `cel` holds), until one of the `until_types` or for so many
    `seconds`, nothing of the `target_types` is sent whose `equal` labels are the same."""

    model_config = ConfigDict(extra="forbid")

    workspace: Workspace = "default"
    source_types: Types
    cel: Cel | None = None
    until_types: Annotated[tuple[Glob, ...], Field(max_length=20)] = ()
    seconds: Annotated[int, Field(ge=1, le=30 * 24 * 3600)] = 4 * 3600
    target_types: Types
    equal: Annotated[tuple[Label, ...], Field(max_length=5)] = ("model",)
    comment: Reason


class InhibitionDocument(BaseModel):
    inhibition_id: str
    workspace: str
    source_types: list[str]
    cel: str | None
    until_types: list[str]
    seconds: int
    target_types: list[str]
    equal: list[str]
    author: str
    comment: str
    created_at: datetime
    removed_by: str | None


class Inhibitions(BaseModel):
    items: list[InhibitionDocument]
    next: str | None = None


def router(db: Database, quieting: Quieting, callers: Callers) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["notifier"])

    def manages(principal: Principal, workspace: str) -> bool:
        return callers.access.allows(principal, Action.MANAGE, workspace)

    async def find(principal: Principal, silence_id: str) -> Silence:
        """Another's own silence is told apart from none by nothing."""
        async with db.snapshot() as tx:
            state = await quiet_views.silence(tx, silence_id)
        if state is not None and (state.owner == principal.subject or manages(principal, state.workspace)):
            return state
        if state is not None and state.owner is None and callers.access.allows(principal, Action.READ, state.workspace):
            return state
        raise Problem(404, "no-such-silence", "there is no such silence of yours")

    @routes.post("/silences", status_code=201)
    async def silence(request: Request, body: NewSilence) -> SilenceDocument:
        principal = await callers(request)
        callers.require(principal, Action.MANAGE if body.everybody else Action.SUBSCRIBE, body.workspace, body.model)
        asked = {name: getattr(body, name) for name in ("workspace", "types", "model", "stages", "cel", "comment")}
        owner = None if body.everybody else principal.subject
        made = await quieting.silence(
            principal.subject, ends_at=body.ends_at, starts_at=body.starts_at, owner=owner, **asked
        )
        return SilenceDocument(**made)

    @routes.get("/silences")
    async def list_silences(
        request: Request,
        workspace: Workspace = "default",
        ended: Annotated[bool, Query()] = False,
        limit: Limit = 50,
        after: Name | None = None,
    ) -> Silences:
        """Everybody's and yours; with `ended` also those that are over."""
        principal = await callers(request)
        callers.require(principal, Action.READ, workspace)
        reader = None if manages(principal, workspace) else principal.subject
        async with db.snapshot() as tx:
            page = await quiet_views.silences(
                tx, workspace, reader=reader, at=now(), all_=ended, limit=limit, after=after
            )
            errors = await views.errors_of(tx, [one["silence_id"] for one in page["items"]])
        items = [SilenceDocument(**one, filter_errors=errors.get(one["silence_id"])) for one in page["items"]]
        return Silences(items=items, next=page["next"])

    @routes.get("/silences/{silence_id}")
    async def get_silence(request: Request, silence_id: Name) -> SilenceDocument:
        principal = await callers(request)
        return SilenceDocument(**quiet_views.silence_document(await find(principal, silence_id), now()))

    @routes.post("/silences/{silence_id}/expire")
    async def expire(request: Request, silence_id: Name) -> SilenceDocument:
        """Ends it now."""
        principal = await callers(request)
        state = await find(principal, silence_id)
        if state.owner is None:
            callers.require(principal, Action.MANAGE, state.workspace)
        return SilenceDocument(**await quieting.expire(silence_id, principal.subject))

    @routes.post("/inhibitions", status_code=201)
    async def inhibit(request: Request, body: NewInhibition) -> InhibitionDocument:
        principal = await callers(request)
        callers.require(principal, Action.CONFIGURE, body.workspace)
        return InhibitionDocument(**await quieting.inhibit(principal.subject, **dict(body)))

    @routes.get("/inhibitions")
    async def list_inhibitions(
        request: Request, workspace: Workspace = "default", ended: Annotated[bool, Query()] = False
    ) -> Inhibitions:
        principal = await callers(request)
        callers.require(principal, Action.READ, workspace)
        async with db.snapshot() as tx:
            found = await quiet_views.inhibitions(tx, [workspace], all_=ended)
        return Inhibitions(items=[InhibitionDocument(**quiet_views.inhibition_document(one)) for one in found])

    @routes.delete("/inhibitions/{inhibition_id}", status_code=204)
    async def remove(request: Request, inhibition_id: Name) -> Response:
        principal = await callers(request)
        async with db.snapshot() as tx:
            state = await quiet_views.inhibition(tx, inhibition_id)
        if state is None or not callers.access.allows(principal, Action.READ, state.workspace):
            raise Problem(404, "no-such-inhibition", "there is no such rule; GET /v1/inhibitions lists them")
        callers.require(principal, Action.CONFIGURE, state.workspace)
        await quieting.remove(inhibition_id, principal.subject)
        return Response(status_code=204)

    return routes
