"""HTTP in: exports, evidence bundles, and the feed for a SIEM."""

import asyncio
from collections.abc import AsyncIterator
from typing import IO, Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from audit import queries
from audit.access import FEED, AccessLog
from audit.cursor import Cursor, decode
from audit.forgetting import refuse_forgotten
from audit.out.evidence.gather import Bundles
from audit.out.export import export
from audit.out.query import Query as Wanted
from audit.out.siem.cef import TEXT
from audit.out.siem.feed import FORMATS, LAG, Feed
from audit.outcome import Outcome
from audit.params import Instant
from audit.tlog.publisher import Publisher
from contracts.access import Action
from contracts.payload import Line, ModelName, VersionNumber, Workspace
from kit.auth import Principal
from kit.db import Database
from kit.openapi import NO_TOKEN
from kit.problems import Problem
from kit.web import Guard

MAX_INDEX = 2**63 - 1
ZIP = "application/zip"
CHUNK = 1 << 18
Formats = list[Literal["ndjson", "csv", "parquet"]]
Index = Annotated[int, Query(ge=0, le=MAX_INDEX)]
BINARY: dict[str, Any] = {"content": {ZIP: {"schema": {"type": "string", "format": "binary"}}}}
RECORDS: dict[str, Any] = {
    "content": {
        kind: {"schema": {"type": "string"} if kind == TEXT else {"type": "array", "items": {"type": "object"}}}
        for _, kind in FORMATS.values()
    },
    "headers": {
        "Hallmark-After": {"description": "`after` of the next page", "schema": {"type": "integer"}},
        "Hallmark-Lag": {"description": "Entries behind this page", "schema": {"type": "integer"}},
    },
}


def router(
    db: Database, guard: Guard, access: AccessLog, publisher: Publisher, bundles: Bundles, feed: Feed
) -> APIRouter:
    api = APIRouter()
    entries = bundles.entries
    Caller = Annotated[Principal, Depends(guard)]

    @api.get(
        "/v1/export",
        tags=["out"],
        summary="Entries as NDJSON, CSV and Parquet in a zip, with a signed manifest",
        response_class=StreamingResponse,
        responses={200: BINARY},
    )
    async def exported(
        request: Request,
        caller: Caller,
        form: Annotated[Formats | None, Query(alias="format", description="One or more; NDJSON when absent")] = None,
        workspace: Annotated[Workspace | None, Query()] = None,
        model: Annotated[ModelName | None, Query(description="Any name it has or had; wants a workspace")] = None,
        version: Annotated[VersionNumber | None, Query()] = None,
        event_type: Annotated[Line | None, Query(alias="type", description="* and ? stand for anything")] = None,
        actor: Annotated[Line | None, Query()] = None,
        subject: Annotated[Line | None, Query(description="* and ? stand for anything")] = None,
        outcome: Annotated[Outcome | None, Query()] = None,
        correlationid: Annotated[Line | None, Query()] = None,
        since: Annotated[Instant | None, Query(description="Happened then or later")] = None,
        until: Annotated[Instant | None, Query(description="Happened before")] = None,
        start: Annotated[Index, Query(description="From this index on")] = 0,
        end: Annotated[Index | None, Query(description="Up to but without this index")] = None,
        after: Annotated[
            str | None, Query(max_length=2_000, description="`next` of the last manifest: on from there, and proved so")
        ] = None,
        proofs: Annotated[bool, Query(description="With an inclusion proof of each entry")] = False,
    ) -> StreamingResponse:
        await access.admit(caller, await access.told(request))
        if model is not None and workspace is None:
            raise Problem(422, "invalid-request", "'model' wants a 'workspace'")
        if model is not None and workspace is not None:
            async with db.snapshot() as tx:
                model = await queries.identity(tx, workspace, model)
        before = _cursor(after)
        if before is not None and start:
            raise Problem(422, "invalid-request", "give either 'start' or 'after'")
        actor = await access.meant(actor)
        published = await publisher.current()
        head = published.checkpoint
        follows = None
        if before is not None:
            start = before.place[0]
            follows = (before.size, await bundles.proofs.consistency(before.size, head.size))
        if end is not None and start > end:
            raise Problem(422, "invalid-request", f"'end' is {end}: it comes before entry {start}, to begin with")
        start = min(start, head.size)
        size = min(head.size, await entries.known())
        last = max(start, size if end is None else min(end, size))
        narrowed = (workspace, model, version, event_type, actor, subject, outcome, correlationid, since, until)
        wanted = Wanted(start, last, *narrowed)
        refuse_forgotten(wanted, await entries.pruned_until())
        paths = (await bundles.proofs.paths(head.size)).of if proofs else None
        return StreamingResponse(
            export(
                entries,
                wanted,
                head,
                published.note,
                form or ["ndjson"],
                bundles.signer,
                caller.subject,
                paths=paths,
                follows=follows,
            ),
            media_type=ZIP,
            headers={"Content-Disposition": f'attachment; filename="hallmark-export-{wanted.start}-{last}.zip"'},
        )

    @api.get(
        "/v1/models/{model}/versions/{version}/evidence",
        tags=["out"],
        summary="Everything about one version, provable without the service",
        response_class=StreamingResponse,
        responses={200: BINARY},
    )
    async def evidence(
        request: Request,
        model: Annotated[ModelName, Path(description="Any name that the model has or had")],
        version: Annotated[VersionNumber, Path()],
        caller: Caller,
        workspace: Annotated[Workspace, Query()] = "default",
        since: Annotated[
            Index | None,
            Query(description="Size of a checkpoint that you kept: with the proof that the log extends it"),
        ] = None,
    ) -> StreamingResponse:
        async with db.snapshot() as tx:
            of = await queries.identity(tx, workspace, model)
        await access.admit(caller, await access.told(request), Action.READ, workspace, of)
        name = quote(f"evidence-{workspace}-{of}-{version}.zip", safe="")
        return StreamingResponse(
            _chunks(await bundles.of(workspace, of, version, since)),
            media_type=ZIP,
            headers={"Content-Disposition": f"attachment; filename=\"evidence.zip\"; filename*=UTF-8''{name}"},
        )

    @api.get(
        "/v1/log/policy",
        tags=["log"],
        summary="The log's keys, its witnesses and their quorum (C2SP tlog-policy)",
        response_class=PlainTextResponse,
        openapi_extra=NO_TOKEN,
    )
    async def policy() -> PlainTextResponse:
        return PlainTextResponse(bundles.policy() or "", headers={"Cache-Control": "no-cache"})

    @api.get(
        "/v1/siem",
        tags=["out"],
        summary="The feed for a SIEM: at least once, the log's index in every record",
        response_class=Response,
        responses={200: RECORDS},
    )
    async def siem(
        request: Request,
        caller: Caller,
        after: Annotated[int, Query(ge=-1, le=MAX_INDEX, description="The last index that you have; -1: none")] = -1,
        form: Annotated[Literal["ocsf", "cloudevents", "cef"], Query(alias="format")] = "ocsf",
        limit: Annotated[int, Query(ge=1, le=1_000, description="How many at most")] = 500,
    ) -> Response:
        await access.admit_sparsely(caller, FEED, await access.told(request), (after + 1, after + 1 + limit))
        published = await publisher.newest()
        size = published.checkpoint.size if published else 0
        page = await feed.page(after, size, form=form, limit=limit)
        LAG.labels("pull").set(page.lag)
        headers = {"Hallmark-After": str(page.after), "Hallmark-Lag": str(page.lag), "Cache-Control": "no-store"}
        return Response(await asyncio.to_thread(page.body), media_type=FORMATS[form][1], headers=headers)

    return api


def _cursor(text: str | None) -> Cursor | None:
    """Raises Problem 422: it is none of ours."""
    try:
        return None if text is None else decode(text, (int,))
    except ValueError as error:
        raise Problem(422, "invalid-request", f"'after': {error}") from error


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    try:
        while data := await asyncio.to_thread(file.read, CHUNK):
            yield data
    finally:
        file.close()
