"""HTTP in: the timeline, points in time and histories. The log itself is in `audit.tlog.routes`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query

from audit import changes, queries
from audit.answers import (
    AliasHistory,
    Changes,
    Occupant,
    Pointer,
    StageHistory,
    TimelinePage,
)
from audit.paging import Document
from audit.params import (
    Asked,
    AsKnown,
    At,
    Filters,
    Index,
    ModelPath,
    OneWorkspace,
    Reader,
    Readers,
    Scope,
    Since,
    Until,
)
from audit.pins import Pins
from audit.queries import Place
from audit.reports import routes as reports
from audit.reports.proving import Prove
from contracts.envelope import now
from contracts.lifecycle import Stage
from contracts.payload import AliasName, StageName, Target, VersionNumber
from kit.db import Database
from kit.problems import Problem

WithProofs = Annotated[bool, Query(description="With an inclusion proof of each entry that is named")]
MOST_PROVEN = 100


def router(db: Database, reader: Readers, pins: Pins, prove: Prove) -> APIRouter:
    """`reader` is the dependency of `params.readers`."""
    api = APIRouter()
    _views(api, db, reader, prove)
    api.include_router(reports.router(db, reader, pins, prove))
    return api


async def _proven(found: Document, held: list[Document], prove: Prove) -> Document | None:
    """Proofs of the entries by which it was so, and no longer was, of at most 100 versions."""
    named = [each[name] for each in held[:MOST_PROVEN] for name in ("index", "closed_by")]
    named += [each["index"] for each in (found["deleted"], found["revoked"]) if each]
    indexes = sorted({index for index in named if index is not None})
    return await prove(indexes) if indexes else None


def _views(api: APIRouter, db: Database, reader: Readers, prove: Prove) -> None:
    Who = Annotated[Reader, Depends(reader)]
    view: dict[str, Any] = {"tags": ["views"]}

    @api.get("/v1/timeline", summary="Who did what, why: oldest first", response_model=TimelinePage, **view)
    async def timeline(
        who: Who,
        where: Annotated[Filters, Depends()],
        ask: Asked,
        start: Annotated[Index, Query(description="Entries from this index on")] = 0,
    ) -> Document:
        wanted = await who.filter(where, start)
        async with db.snapshot() as tx:
            return await queries.timeline_page(tx, wanted, ask)

    @api.get("/v1/models/{model}/production", summary="What was in a stage", response_model=Occupant, **view)
    async def production(
        model: ModelPath,
        who: Who,
        known: AsKnown,
        workspace: OneWorkspace = "default",
        at: At = None,
        stage: Annotated[StageName, Query(description="Any stage of the workspace")] = Stage.PRODUCTION.value,
        proofs: WithProofs = False,
    ) -> Document:
        of = await who.model(workspace, model)
        async with db.snapshot() as tx:
            found = await queries.occupant(tx, workspace, of, stage, at or now(), known)
        return found | {"proofs": await _proven(found, found["occupants"], prove) if proofs else None}

    @api.get("/v1/changes", summary="What is different between two instants", response_model=Changes, **view)
    async def changed(
        who: Who,
        where: Annotated[Scope, Depends()],
        ask: Asked,
        known: AsKnown,
        target: Annotated[Target | None, Query(description="Only what was or is in that stage, or @alias")] = None,
    ) -> Document:
        until = where.until or now()
        if where.since is None or where.since > until:
            raise Problem(422, "invalid-request", "give 'since', and no later than 'until' (now when absent)")
        place = await who.place(where)
        async with db.snapshot() as tx:
            return await changes.changes(tx, place, where.since, until, target, known, ask)

    @api.get("/v1/models/{model}/history", summary="Stages as ranges of time", response_model=StageHistory, **view)
    async def history(
        model: ModelPath,
        who: Who,
        known: AsKnown,
        ask: Asked,
        workspace: OneWorkspace = "default",
        version: Annotated[VersionNumber | None, Query()] = None,
        stage: Annotated[StageName | None, Query(description="Capitals do not matter")] = None,
        since: Since = None,
        until: Until = None,
    ) -> Document:
        place = Place(workspace, await who.model(workspace, model), version, since, until)
        async with db.snapshot() as tx:
            return await queries.stage_history(tx, place, stage, known, ask)

    @api.get("/v1/models/{model}/aliases/{alias}", summary="Where an alias pointed", response_model=Pointer, **view)
    async def pointed(
        model: ModelPath,
        alias: Annotated[AliasName, Path()],
        who: Who,
        known: AsKnown,
        workspace: OneWorkspace = "default",
        at: At = None,
        proofs: WithProofs = False,
    ) -> Document:
        of = await who.model(workspace, model)
        async with db.snapshot() as tx:
            found = await queries.pointed(tx, workspace, of, alias, at or now(), known)
        return found | {"proofs": await _proven(found, [found], prove) if proofs else None}

    @api.get(
        "/v1/models/{model}/aliases/{alias}/history",
        summary="Where an alias pointed, as ranges of time",
        response_model=AliasHistory,
        **view,
    )
    async def alias_history(
        model: ModelPath,
        alias: Annotated[AliasName, Path()],
        who: Who,
        known: AsKnown,
        ask: Asked,
        workspace: OneWorkspace = "default",
        since: Since = None,
        until: Until = None,
    ) -> Document:
        place = Place(workspace, await who.model(workspace, model), None, since, until)
        async with db.snapshot() as tx:
            return await queries.alias_history(tx, place, alias, known, ask)
