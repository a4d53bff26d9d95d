"""HTTP in: the timeline, points in time, and the log with its proofs."""

from datetime import UTC, datetime
from pathlib import Path as File
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import AfterValidator, AwareDatetime

from audit import queries
from audit.access import ALL, AccessLog
from audit.answers import Completeness, Consistency, EntryPage, Inclusion, Occupant, Pointer, TimelinePage, Verdict
from audit.checkpoints import Checkpoints, SplitLog
from audit.proofs import Proofs
from contracts.access import Action
from contracts.envelope import now
from contracts.lifecycle import Stage
from contracts.payload import AliasName, Line, ModelName, StageName, VersionNumber, Workspace
from kit.auth import Principal
from kit.db import Database
from kit.openapi import NO_TOKEN
from kit.web import Guard

Document = dict[str, Any]
PUBLIC: dict[str, Any] = {"tags": ["log"], "response_class": PlainTextResponse, "openapi_extra": NO_TOKEN}
MAX_INDEX = 2**63 - 1
VERIFIER = File(__file__).with_name("verify.py")
Limit = Annotated[int, Query(ge=1, le=500, description="How many at most")]
Index = Annotated[int, Query(ge=0, le=MAX_INDEX)]
Cursor = Annotated[str | None, Query(pattern=r"^-?[0-9]{1,18}\.[0-9]{1,19}$", description="`next` of a page")]
ModelPath = Annotated[ModelName, Path(description="Any name that the model has or had")]


def _utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("in UTC it is beyond the years 1 to 9999") from error


Instant = Annotated[AwareDatetime, AfterValidator(_utc)]
At = Annotated[Instant | None, Query(description="With its offset; now when absent")]


def router(db: Database, guard: Guard, proofs: Proofs, checkpoints: Checkpoints, access: AccessLog) -> APIRouter:
    api = APIRouter()
    Caller = Annotated[Principal, Depends(guard)]

    async def auditor(request: Request, caller: Caller) -> Principal:
        query = f"{request.method} {request.url.path}" + (f"?{request.url.query}" if request.url.query else "")
        await access.admit(caller, query)
        return caller

    log = APIRouter(prefix="/v1/log", tags=["log"], dependencies=[Depends(auditor)])

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
        first: Annotated[int, Query(alias="from", ge=0, le=MAX_INDEX)],
        second: Annotated[int | None, Query(alias="to", ge=0, le=MAX_INDEX)] = None,
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
