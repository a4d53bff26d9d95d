"""HTTP in: models, versions, artifacts, transitions, rollback, resolve."""

import asyncio
from hashlib import sha256
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import Field

from contracts.access import Action
from contracts.lifecycle import Stage
from contracts.model import VersionContent
from contracts.payload import Digest, Identifier, Key, Line, ModelName, Payload, Reason, Text, VersionNumber, Workspace
from contracts.registry import RegisterModel, RegisterVersion, RequestTransition, RollBack
from kit.auth import Principal
from kit.db import Database
from kit.problems import Problem
from kit.web import Guard
from registry import compare, queries
from registry.artifacts import Artifacts
from registry.commands import Command, Commands

Document = dict[str, Any]
InWorkspace = Annotated[Workspace, Query(description="Where the model lives")]
Limit = Annotated[int, Query(ge=1, le=500, description="How many at most")]
ModelPath = Annotated[ModelName, Path(description="Name of the model")]
VersionPath = Annotated[VersionNumber, Path(description="Number of the version")]
IdempotencyKey = Annotated[Key | None, Header(description="The same key never does the same thing twice")]
MAX_WAIT_SECONDS = 30


class ArtifactOffer(Payload):
    digest: Digest
    size: Annotated[int, Field(ge=0)]


class ArtifactAnswer(Payload):
    present: bool
    upload_url: str | None


class NewModel(Payload):
    name: ModelName
    description: Text = ""
    owner: Line | None = None
    tags: dict[Key, Text] = Field(default_factory=dict)


class NewTransition(Payload):
    to_stage: Stage
    reason: Reason
    expected_from: Stage | None = None


class NewRollback(Payload):
    stage: Stage = Stage.PRODUCTION
    to_version: VersionNumber | None = None
    reason: Reason


def router(db: Database, commands: Commands, artifacts: Artifacts, guard: Guard, services: dict[str, str]) -> APIRouter:
    api = APIRouter()
    Caller = Annotated[Principal, Depends(guard)]

    async def run(request: Request, caller: Principal, command: Command, key: str | None) -> Document:
        digest = sha256(f"{command.TYPE}\n{command.model_dump_json()}".encode()).hexdigest()
        return await commands.run(command, caller, request_id=request.state.request_id, key=key, digest=digest)

    @api.get("/.well-known/hallmark.json", tags=["discovery"], summary="Where the other services are")
    async def well_known() -> Document:
        return services

    @api.post("/v1/artifacts", tags=["artifacts"], summary="Where to upload bytes, or that they are here already")
    async def offer(body: ArtifactOffer, caller: Caller, workspace: InWorkspace = "default") -> ArtifactAnswer:
        guard.require(caller, Action.REGISTER, workspace)
        url = await artifacts.offer(body.digest, body.size)
        return ArtifactAnswer(present=url is None, upload_url=url)

    @api.post("/v1/models", status_code=201, tags=["models"], summary="Register a model")
    async def register_model(
        request: Request,
        body: NewModel,
        caller: Caller,
        workspace: InWorkspace = "default",
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        given = body.model_dump(exclude={"name"})
        return await run(request, caller, RegisterModel(workspace=workspace, model=body.name, **given), idempotency_key)

    @api.get("/v1/models", tags=["models"], summary="Models by name")
    async def models(
        caller: Caller, workspace: InWorkspace = "default", limit: Limit = 50, after: Text = ""
    ) -> Document:
        guard.require(caller, Action.READ, workspace)
        async with db.snapshot() as tx:
            found = await queries.model_documents(tx, workspace, after=after, limit=limit + 1)
        return _page(found, limit, "model")

    @api.get("/v1/models/{model}", tags=["models"], summary="One model")
    async def model_(model: ModelPath, caller: Caller, workspace: InWorkspace = "default") -> Document:
        guard.require(caller, Action.READ, workspace, model)
        async with db.snapshot() as tx:
            return await queries.model_document(tx, workspace, model)

    @api.post("/v1/models/{model}/versions", status_code=201, tags=["versions"], summary="Register the next version")
    async def register_version(
        request: Request,
        model: ModelPath,
        body: VersionContent,
        caller: Caller,
        workspace: InWorkspace = "default",
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        command = RegisterVersion(workspace=workspace, model=model, content=body)
        return await run(request, caller, command, idempotency_key)

    @api.get("/v1/models/{model}/versions", tags=["versions"], summary="Versions by number")
    async def versions(
        model: ModelPath,
        caller: Caller,
        workspace: InWorkspace = "default",
        limit: Limit = 50,
        after: Annotated[int, Query(ge=0, le=2_147_483_647)] = 0,
    ) -> Document:
        guard.require(caller, Action.READ, workspace, model)
        async with db.snapshot() as tx:
            found = await queries.version_documents(tx, workspace, model, after=after, limit=limit + 1)
        return _page(found, limit, "version")

    @api.get("/v1/models/{model}/versions/{version}", tags=["versions"], summary="One version")
    async def version_(
        model: ModelPath, version: VersionPath, caller: Caller, workspace: InWorkspace = "default"
    ) -> Document:
        guard.require(caller, Action.READ, workspace, model)
        async with db.snapshot() as tx:
            return (await queries.version_documents(tx, workspace, model, numbers=[version]))[0]

    @api.get("/v1/models/{model}/compare", tags=["versions"], summary="What differs between 2 to 5 versions")
    async def compare_(
        model: ModelPath,
        versions: Annotated[str, Query(pattern=r"^[1-9]\d{0,9}(,[1-9]\d{0,9}){1,4}$", examples=["1,2"])],
        caller: Caller,
        workspace: InWorkspace = "default",
    ) -> Document:
        guard.require(caller, Action.READ, workspace, model)
        numbers = list(dict.fromkeys(int(n) for n in versions.split(",")))
        if len(numbers) < 2 or max(numbers) > 2_147_483_647:
            raise Problem(422, "invalid-request", "name 2 to 5 different versions, such as versions=1,2")
        async with db.snapshot() as tx:
            found = await queries.version_documents(tx, workspace, model, numbers=numbers)
        by_number = {document["version"]: document for document in found}
        return compare.compare([by_number[n] for n in numbers])

    @api.post(
        "/v1/models/{model}/versions/{version}/transitions",
        status_code=202,
        tags=["stages"],
        summary="Ask for a stage; a gated one is entered only by a signed decision",
    )
    async def request_transition(
        request: Request,
        model: ModelPath,
        version: VersionPath,
        body: NewTransition,
        caller: Caller,
        workspace: InWorkspace = "default",
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        command = RequestTransition(workspace=workspace, model=model, version=version, **body.model_dump())
        return await run(request, caller, command, idempotency_key)

    @api.post("/v1/models/{model}/rollback", status_code=202, tags=["stages"], summary="Back to the last good version")
    async def roll_back(
        request: Request,
        model: ModelPath,
        body: NewRollback,
        caller: Caller,
        workspace: InWorkspace = "default",
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        command = RollBack(workspace=workspace, model=model, **body.model_dump())
        return await run(request, caller, command, idempotency_key)

    @api.get("/v1/transitions/{transition_id}", tags=["stages"], summary="One transition; waits while it is open")
    async def transition(
        transition_id: Annotated[Identifier, Path()],
        caller: Caller,
        wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait while it is open")] = 0,
    ) -> Document:
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            async with db.snapshot() as tx:
                document = await queries.transition_document(tx, transition_id)
            guard.require(caller, Action.READ, document["workspace"], document["model"])
            left = deadline - asyncio.get_running_loop().time()
            if document["status"] != "open" or left <= 0:
                return document
            await db.changed.wait(min(left, 1.0))

    @api.get("/v1/models/{model}/resolve", tags=["serving"], summary="The version to serve, with its download address")
    async def resolve(
        request: Request,
        response: Response,
        model: ModelPath,
        caller: Caller,
        workspace: InWorkspace = "default",
        stage: Stage | None = None,
        version: Annotated[VersionNumber | None, Query()] = None,
    ) -> Any:
        guard.require(caller, Action.READ, workspace, model)
        if (stage is None) == (version is None):
            raise Problem(422, "invalid-request", "name either a stage or a version, such as stage=Production")
        async with db.snapshot() as tx:
            document = await queries.resolve(tx, workspace, model, stage=stage, version=version)
        etag = f'"{document["version"]}.{document["sequence"]}"'
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"ETag": etag})
        response.headers["ETag"] = etag
        return {**document, "download_url": artifacts.download_url(document["artifact"]["digest"])}

    return api


def _page(found: list[Document], limit: int, cursor: str) -> Document:
    items = found[:limit]
    return {"items": items, "next": items[-1][cursor] if len(found) > limit else None}
