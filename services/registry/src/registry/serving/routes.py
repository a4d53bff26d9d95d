"""HTTP in: resolve, watch, what servers report, usage, and what is stale."""

import base64
import json
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import AfterValidator, Field

from contracts.access import Action
from contracts.payload import (
    AliasName,
    Key,
    Line,
    Payload,
    Reason,
    StageName,
    Target,
    Text,
    VersionNumber,
)
from contracts.registry import ServingReported
from kit.auth import Principal
from kit.openapi import NO_TOKEN
from kit.problems import Problem
from kit.web import Guard
from registry.api.common import Document, InWorkspace, Limit, ModelPath
from registry.serving import desired, stale, targets
from registry.serving.resolve import resolve
from registry.serving.service import Serving
from registry.serving.stream import EventStream, Stream
from registry.serving.usage import Use

LONGEST_STREAM_SECONDS = 3_600.0
# Appends the event of a report: (report, who, request id).
Report = Callable[[ServingReported, Principal, str], Awaitable[Document]]
# Asks for the move to the archive stage: (workspace, model, version, reason, who, request id).
Archive = Callable[[str, str, int, str, Principal, str], Awaitable[Document]]

OfStage = Annotated[StageName | None, Query(description="The newest version in this stage")]
OfAlias = Annotated[AliasName | None, Query(description="The version that this alias points at")]
Sequence = Annotated[int, Field(ge=0, le=2**63 - 1)]
Days = Annotated[int, Field(ge=1, le=36_500)]


def _cursor(text: str) -> str:
    """A cursor as a page gave it: a number, a colon, text."""
    number, colon, _ = text.partition(":")
    if text and not (colon and number.isascii() and number.isdecimal() and len(number) < 10 and "\x00" not in text):
        raise ValueError("use the `next` of the page before")
    return text


After = Annotated[str, Query(max_length=1_000, description="The `next` of the page before"), AfterValidator(_cursor)]


class NewReport(Payload):
    """What a server has loaded for a target: `Production` or `@champion`."""

    server: Line
    target: Target
    version: VersionNumber
    state: Literal["loaded", "serving", "failed", "stopped"]
    detail: Text = ""


class ArchiveStale(Payload):
    """The criteria of `GET /v1/stale`. Nothing is archived unless `dry_run` is false."""

    unused_days: Days | None = None
    metric: Key | None = None
    floor: float | None = None
    stage: StageName | None = None
    dry_run: bool = True
    include_serving: bool = False
    reason: Reason = "stale"
    limit: Annotated[int, Field(ge=1, le=500)] = 500
    after: Annotated[str, Field(max_length=1_000), AfterValidator(_cursor)] = ""


def router(serving: Serving, guard: Guard, *, report: Report, archive: Archive) -> APIRouter:
    api = APIRouter()
    Caller = Annotated[Principal, Depends(guard)]

    def may(caller: Principal, action: Action, workspace: str) -> Callable[[str], None]:
        return lambda model: guard.require(caller, action, workspace, model)

    def seen(caller: Principal, workspace: str, found: list[Document]) -> list[Document]:
        """A page may be shorter for who may not read every model; its cursor goes on all the same."""
        return [item for item in found if guard.access.allows(caller, Action.READ, workspace, item["model"])]

    @api.get("/v1/keys/serving", tags=["serving"], summary="The public keys that verify pins", openapi_extra=NO_TOKEN)
    async def keys() -> Document:
        return serving.signer.jwks

    @api.get(
        "/v1/models/{model}/resolve",
        tags=["serving"],
        summary="The version to serve, with download addresses (good for an hour) and a signed pin",
        responses={304: {"description": "Still the version of If-None-Match"}},
    )
    async def resolve_(
        request: Request,
        response: Response,
        model: ModelPath,
        caller: Caller,
        workspace: InWorkspace = "default",
        stage: OfStage = None,
        alias: OfAlias = None,
        version: Annotated[VersionNumber | None, Query()] = None,
        allow_quarantined: bool = False,
    ) -> Any:
        target = targets.Target.of(stage, alias, version)
        if target is None:
            raise Problem(422, "invalid-request", "name a stage, an alias or a version, such as stage=Production")
        may_read = may(caller, Action.READ, workspace)
        try:
            found = await resolve(serving.db, workspace, model, target, may_read, allow_quarantined=allow_quarantined)
        except Problem as problem:
            if problem.code == "version-revoked":
                problem.extra["signed"] = serving.sign_revocation(workspace, problem.extra)
            raise
        serving.usage.saw(Use(workspace, found.model, found.version, caller.subject, "resolve"))
        # Not to be kept by caches: it holds addresses that are secrets, and end before the answer does.
        headers = {"ETag": found.etag, "Cache-Control": "private, no-store"}
        if _matches(request.headers.get("if-none-match"), found.etag):
            return Response(status_code=304, headers=headers)
        response.headers.update(headers)
        return await serving.document(found)

    @api.get(
        "/v1/models/{model}/watch",
        status_code=200,
        tags=["serving"],
        summary="Every change of a stage, an alias, or all of a model, as server-sent events",
        response_class=EventStream,
    )
    async def watch(
        request: Request,
        model: ModelPath,
        caller: Caller,
        workspace: InWorkspace = "default",
        stage: OfStage = None,
        alias: OfAlias = None,
        last_event_id: Annotated[Sequence | None, Query(description="As the header Last-Event-ID")] = None,
        resume: Annotated[Sequence | None, Header(alias="Last-Event-ID")] = None,
    ) -> Response:
        target = targets.Target.of(stage, alias)
        found = await serving.hub.history.find(workspace, model, target, may(caller, Action.READ, workspace))
        after = resume if resume is not None else last_event_id
        stream = await Stream.open(serving.hub, found, caller.subject, after, _lifetime(request))
        for use in stream.uses():
            serving.usage.saw(use)
        return stream.response()

    @api.post("/v1/models/{model}/serving", tags=["serving"], summary="A server says what it has loaded")
    async def report_(
        request: Request, model: ModelPath, body: NewReport, caller: Caller, workspace: InWorkspace = "default"
    ) -> Document:
        may_report = may(caller, Action.REPORT, workspace)
        found = await serving.hub.history.find(workspace, model, None, may_report)
        target = await serving.hub.history.spelled(workspace, targets.Target.parse(body.target))
        given = body.model_dump(exclude={"target"})
        said = ServingReported(workspace=workspace, model=found.model, target=str(target), **given)
        if not await desired.is_news(serving.db, said):
            return {"recorded": False, **said.model_dump(mode="json")}
        return await report(said, caller, request.state.request_id)

    @api.get("/v1/models/{model}/serving", tags=["serving"], summary="What should be served, and what servers run")
    async def side_by_side(model: ModelPath, caller: Caller, workspace: InWorkspace = "default") -> Document:
        found = await serving.hub.history.find(workspace, model, None, may(caller, Action.READ, workspace))
        return await desired.side_by_side(serving.db, serving.hub.history, found)

    @api.get("/v1/models/{model}/usage", tags=["serving"], summary="Who used which version, how often, and when last")
    async def usage(
        model: ModelPath, caller: Caller, workspace: InWorkspace = "default", limit: Limit = 100, after: After = ""
    ) -> Document:
        found = await serving.hub.history.find(workspace, model, None, may(caller, Action.READ, workspace))
        await serving.usage.flush()
        version, how, principal = [*after.split(":", 2), "", ""][:3]
        cursor = (int(version or 0), principal, how)
        items = await serving.usage.listed(workspace, found.model, cursor, limit + 1)
        last = items[limit - 1] if len(items) > limit else None
        following = f"{last['version']}:{last['how']}:{last['principal']}" if last else None
        return {"items": items[:limit], "next": following}

    @api.get("/v1/stale", tags=["serving"], summary="Versions that nobody uses, or that are no longer good enough")
    async def stale_(
        caller: Caller,
        workspace: InWorkspace = "default",
        unused_days: Annotated[Days | None, Query()] = None,
        metric: Annotated[Key | None, Query()] = None,
        floor: Annotated[float | None, Query(allow_inf_nan=False)] = None,
        stage: Annotated[StageName | None, Query()] = None,
        limit: Limit = 100,
        after: After = "",
    ) -> Document:
        guard.require_some(caller, Action.READ, workspace)
        criteria = stale.Criteria(workspace, unused_days, metric, floor, stage)
        found = await stale.find(serving.db, criteria, _place(after), limit + 1)
        return {"items": seen(caller, workspace, found[:limit]), "next": _next(found, limit)}

    @api.post("/v1/stale/archive", tags=["serving"], summary="Archive what is stale; a dry run unless told otherwise")
    async def archive_stale(
        request: Request, body: ArchiveStale, caller: Caller, workspace: InWorkspace = "default"
    ) -> Document:
        guard.require_some(caller, Action.READ, workspace)

        async def one(model: str, version: int) -> Document:
            guard.require(caller, Action.REQUEST, workspace, model)
            return await archive(workspace, model, version, body.reason, caller, request.state.request_id)

        criteria = stale.Criteria(workspace, body.unused_days, body.metric, body.floor, body.stage)
        found = await stale.find(serving.db, criteria, _place(body.after), body.limit + 1, archived=False)
        items = await stale.archive_all(
            seen(caller, workspace, found[: body.limit]),
            one,
            dry_run=body.dry_run,
            include_serving=body.include_serving,
        )
        return {"dry_run": body.dry_run, "items": items, "next": _next(found, body.limit)}

    return api


def _matches(header: str | None, etag: str) -> bool:
    return header is not None and any(tag.strip().removeprefix("W/") in (etag, "*") for tag in header.split(","))


def _lifetime(request: Request) -> float:
    """Seconds until the token, which the guard has verified, expires; at most LONGEST_STREAM_SECONDS."""
    token = request.headers["authorization"].split()[1]
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return min(max(float(claims["exp"]) - time.time(), 1.0), LONGEST_STREAM_SECONDS)


def _place(cursor: str) -> tuple[str, int]:
    number, _, model = cursor.partition(":")
    return (model, int(number)) if cursor else ("", 0)


def _next(found: list[Document], limit: int) -> str | None:
    last = found[limit - 1] if len(found) > limit else None
    return f"{last['version']}:{last['model']}" if last else None
