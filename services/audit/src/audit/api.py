"""HTTP in: the timeline and points in time. The log itself is in `audit.tlog.routes`."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import AfterValidator, AwareDatetime

from audit import queries
from audit.access import ALL
from audit.answers import Occupant, Pointer, TimelinePage
from contracts.access import Action
from contracts.envelope import now
from contracts.lifecycle import Stage
from contracts.payload import AliasName, Line, ModelName, StageName, VersionNumber, Workspace
from kit.auth import Principal
from kit.db import Database
from kit.web import Guard

Document = dict[str, Any]
Limit = Annotated[int, Query(ge=1, le=500, description="How many at most")]
Cursor = Annotated[str | None, Query(pattern=r"^-?[0-9]{1,18}\.[0-9]{1,19}$", description="`next` of a page")]
ModelPath = Annotated[ModelName, Path(description="Any name that the model has or had")]


def _utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("in UTC it is beyond the years 1 to 9999") from error


Instant = Annotated[AwareDatetime, AfterValidator(_utc)]
At = Annotated[Instant | None, Query(description="With its offset; now when absent")]


def router(db: Database, guard: Guard) -> APIRouter:
    api = APIRouter()
    Caller = Annotated[Principal, Depends(guard)]

    @api.get("/v1/timeline", tags=["views"], summary="Who did what, why: oldest first", response_model=TimelinePage)
    async def timeline(
        caller: Caller,
        workspace: Annotated[str, Query(pattern=r"^(\*|[a-z0-9-]{1,63})$", description="* for all")] = "default",
        model: Annotated[ModelName | None, Query(description="Any name it has or had")] = None,
        version: Annotated[VersionNumber | None, Query()] = None,
        event_type: Annotated[Line | None, Query(alias="type")] = None,
        actor: Annotated[Line | None, Query()] = None,
        correlationid: Annotated[Line | None, Query()] = None,
        limit: Limit = 50,
        after: Cursor = None,
    ) -> Document:
        rest = (version, event_type, actor, correlationid)
        async with db.snapshot() as tx:
            if workspace == ALL:
                guard.require(caller, Action.AUDIT, ALL, model or ALL)
                wanted = queries.Filter(None, model, *rest)
            else:
                of = None if model is None else await queries.identity(tx, workspace, model)
                guard.require(caller, Action.READ, workspace, of or ALL)
                wanted = queries.Filter(workspace, of, *rest)
            return await queries.timeline_page(tx, wanted, limit=limit, after=after)

    @api.get("/v1/models/{model}/production", tags=["views"], summary="What was in a stage", response_model=Occupant)
    async def production(
        model: ModelPath,
        caller: Caller,
        workspace: Annotated[Workspace, Query()] = "default",
        at: At = None,
        stage: Annotated[StageName, Query(description="Any stage of the workspace")] = Stage.PRODUCTION.value,
    ) -> Document:
        async with db.snapshot() as tx:
            of = await queries.identity(tx, workspace, model)
            guard.require(caller, Action.READ, workspace, of)
            return await queries.occupant(tx, workspace, of, stage, at or now())

    @api.get(
        "/v1/models/{model}/aliases/{alias}", tags=["views"], summary="Where an alias pointed", response_model=Pointer
    )
    async def pointed(
        model: ModelPath,
        alias: Annotated[AliasName, Path()],
        caller: Caller,
        workspace: Annotated[Workspace, Query()] = "default",
        at: At = None,
    ) -> Document:
        async with db.snapshot() as tx:
            of = await queries.identity(tx, workspace, model)
            guard.require(caller, Action.READ, workspace, of)
            return await queries.pointed(tx, workspace, of, alias, at or now())

    return api
