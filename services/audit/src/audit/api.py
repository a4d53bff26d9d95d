"""HTTP in: the timeline, points in time, and the log with its proofs."""

from collections.abc import Sequence
from pathlib import Path as File
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import PlainTextResponse, StreamingResponse

from audit import queries
from audit.access import AccessLog
from audit.answers import (
    AliasHistory,
    Completeness,
    Consistency,
    EntryPage,
    Inclusion,
    Occupant,
    Pointer,
    StageHistory,
    TimelinePage,
    Verdict,
)
from audit.checkpoints import Checkpoints, SplitLog
from audit.cursor import MAX
from audit.outcome import Outcome
from audit.paging import Document
from audit.params import (
    Asked,
    AsKnown,
    At,
    Index,
    Limit,
    ModelPath,
    OneWorkspace,
    Reader,
    Readers,
    Scope,
    Since,
    Until,
    readers,
)
from audit.pins import Pins
from audit.proofs import Proofs
from audit.queries import Place
from audit.reports import routes as reports
from contracts.envelope import now
from contracts.lifecycle import Stage
from contracts.payload import AliasName, Line, StageName, VersionNumber
from kit.db import Database
from kit.openapi import NO_TOKEN
from kit.web import Guard

PUBLIC: dict[str, Any] = {"tags": ["log"], "response_class": PlainTextResponse, "openapi_extra": NO_TOKEN}
VERIFIER = File(__file__).with_name("verify.py")
Text = Annotated[Line | None, Query()]
Pattern = Annotated[Line | None, Query(description="* and ? stand for anything")]


def router(
    db: Database, guard: Guard, proofs: Proofs, checkpoints: Checkpoints, access: AccessLog, pins: Pins
) -> APIRouter:
    api = APIRouter()
    reader = readers(db, guard, access)

    async def auditor(who: Annotated[Reader, Depends(reader)]) -> None:
        await who.everything()

    async def prove(indexes: Sequence[int]) -> Document:
        head, note = await checkpoints.current()
        found = [await proofs.inclusion(index, head.size) for index in indexes]
        items = [{name: each[name] for name in ("index", "leaf_hash", "proof")} for each in found]
        return {"size": head.size, "checkpoint": note, "items": items}

    log = APIRouter(prefix="/v1/log", tags=["log"], dependencies=[Depends(auditor)])
    _views(api, db, reader)
    api.include_router(reports.router(db, reader, pins, prove))

    @api.get("/checkpoint", summary="The signed checkpoint (C2SP)", **PUBLIC)
    async def checkpoint() -> PlainTextResponse:
        _, note = await checkpoints.current()
        return PlainTextResponse(note, headers={"Cache-Control": "no-cache"})

    @api.get("/keys", summary="The verifier key line (C2SP)", **PUBLIC)
    async def keys() -> PlainTextResponse:
        return PlainTextResponse(f"{checkpoints.vkey}\n")

    @api.get("/v1/log/verifier", summary="The offline verifier: one file", **PUBLIC)
    async def verifier() -> PlainTextResponse:
        return PlainTextResponse(VERIFIER.read_text(), media_type="text/x-python")

    @log.get("/entries", summary="Entries with their exact bytes", response_model=EntryPage)
    async def entries(start: Index = 0, limit: Limit = 50) -> Document:
        return await proofs.entries(start, limit)

    @log.get("/inclusion", summary="Proof that an entry is under the checkpoint", response_model=Inclusion)
    async def inclusion(index: Index) -> Document:
        head, note = await checkpoints.current()
        return {**await proofs.inclusion(index, head.size), "checkpoint": note}

    @log.get("/consistency", summary="Proof that the log only grew between two sizes", response_model=Consistency)
    async def consistency(
        first: Annotated[int, Query(alias="from", ge=0, le=MAX)],
        second: Annotated[int | None, Query(alias="to", ge=0, le=MAX)] = None,
    ) -> Document:
        head, note = await checkpoints.current()
        return {**await proofs.consistency(first, head.size if second is None else second), "checkpoint": note}

    @log.get("/export", summary="The whole log for the offline verifier", response_class=StreamingResponse)
    async def export() -> StreamingResponse:
        head, note = await checkpoints.current()
        return StreamingResponse(
            proofs.export(head, note),
            media_type="application/x-ndjson",
            headers={"Content-Disposition": f'attachment; filename="hallmark-audit-{head.size}.ndjson"'},
        )

    @log.get("/verify", summary="Hash everything again and compare", response_model=Verdict)
    async def verify() -> Document:
        try:
            head, note = await checkpoints.current()
        except SplitLog as split:
            return {"ok": False, "first_bad": {"index": None, "problem": split.detail}}
        return await proofs.verify(head, note)

    @log.get("/completeness", summary="Entries and duplicates against offsets", response_model=Completeness)
    async def completeness() -> Document:
        async with db.snapshot() as tx:
            return await queries.completeness(tx)

    api.include_router(log)
    return api


def _views(api: APIRouter, db: Database, reader: Readers) -> None:
    Who = Annotated[Reader, Depends(reader)]
    view: dict[str, Any] = {"tags": ["views"]}

    @api.get("/v1/timeline", summary="Who did what, why: oldest first", response_model=TimelinePage, **view)
    async def timeline(
        who: Who,
        where: Annotated[Scope, Depends()],
        ask: Asked,
        types: Annotated[
            list[Line] | None, Query(alias="type", max_length=20, description="* and ? stand for anything")
        ] = None,
        actor: Text = None,
        subject: Pattern = None,
        outcome: Annotated[Outcome | None, Query()] = None,
        correlationid: Text = None,
        problem: Annotated[bool | None, Query(description="Only entries with a problem, or without")] = None,
    ) -> Document:
        place = await who.place(where)
        wanted = queries.Filter(place, tuple(types or ()), actor, subject, outcome, correlationid, problem)
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
    ) -> Document:
        of = await who.model(workspace, model)
        async with db.snapshot() as tx:
            return await queries.occupant(tx, workspace, of, stage, at or now(), known)

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
    ) -> Document:
        of = await who.model(workspace, model)
        async with db.snapshot() as tx:
            return await queries.pointed(tx, workspace, of, alias, at or now(), known)

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
