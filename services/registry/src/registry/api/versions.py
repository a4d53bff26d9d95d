"""Versions: register, list, compare, and what is appended to them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.model import Evaluation, Finding, VersionContent
from contracts.payload import Key, Payload, Reason, Text
from contracts.registry import EvaluateVersion, RegisterVersion, Tags, TagVersion
from kit.auth import Principal
from kit.problems import Problem
from registry import orders, queries
from registry.api.common import (
    MAX_WAIT_SECONDS,
    AfterNumber,
    Document,
    Gate,
    IdempotencyKey,
    InWorkspace,
    Limit,
    ModelPath,
    Page,
    VersionPath,
    Why,
    page,
)
from registry.compare import compare


class NewNote(Payload):
    text: Reason


class NewDescription(Payload):
    description: Text


class NewScan(Payload):
    scanner: Key
    findings: tuple[Finding, ...] = Field(min_length=1, max_length=200)


def router(gate: Gate) -> APIRouter:
    api = APIRouter(prefix="/v1/models/{model}", tags=["versions"])
    Caller = Annotated[Principal, Depends(gate.guard)]

    @api.post("/versions", status_code=201, summary="Register the next version; it is `pending` until verified")
    async def register(
        request: Request,
        model: ModelPath,
        body: VersionContent,
        caller: Caller,
        workspace: InWorkspace = "default",
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        command = RegisterVersion(workspace=workspace, model=model, content=body)
        return await gate.run(request, caller, command, idempotency_key)

    @api.get("/versions", summary="Versions by number")
    async def list_(
        model: ModelPath,
        caller: Caller,
        workspace: InWorkspace = "default",
        limit: Limit = 50,
        after: Annotated[int, Query(ge=0, le=2_147_483_647)] = 0,
    ) -> Page:
        async with gate.db.snapshot() as tx:
            name = await gate.readable(tx, caller, workspace, model)
            found = await queries.version_documents(tx, workspace, name, after=after, limit=limit + 1)
        return page(found, limit, "version")

    @api.get("/versions/{version}", summary="One version, also a deleted one; waits while it is pending")
    async def one(
        model: ModelPath,
        version: VersionPath,
        caller: Caller,
        workspace: InWorkspace = "default",
        wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait while it is pending")] = 0,
    ) -> Document:
        async def read(tx: AsyncConnection) -> Document:
            name = await gate.readable(tx, caller, workspace, model)
            [document] = await queries.version_documents(tx, workspace, name, numbers=[version])
            return document

        return await gate.settled(read, "pending", wait)

    @api.get("/compare", summary="What differs between 2 to 5 versions")
    async def compare_(
        model: ModelPath,
        versions: Annotated[str, Query(pattern=r"^[1-9]\d{0,9}(,[1-9]\d{0,9}){1,4}$", examples=["1,2"])],
        caller: Caller,
        workspace: InWorkspace = "default",
    ) -> Document:
        numbers = list(dict.fromkeys(int(n) for n in versions.split(",")))
        if len(numbers) < 2 or max(numbers) > 2_147_483_647:
            raise Problem(422, "invalid-request", "name 2 to 5 different versions, such as versions=1,2")
        async with gate.db.snapshot() as tx:
            name = await gate.readable(tx, caller, workspace, model)
            found = await queries.version_documents(tx, workspace, name, numbers=numbers)
        by_number = {document["version"]: document for document in found}
        return compare([by_number[n] for n in numbers])

    @api.get("/versions/{version}/remarks", summary="Evaluations, notes and scans, oldest first")
    async def remarks(
        model: ModelPath,
        version: VersionPath,
        caller: Caller,
        workspace: InWorkspace = "default",
        kind: Literal["evaluation", "note", "scan"] | None = None,
        limit: Limit = 50,
        after: AfterNumber = 0,
    ) -> Page:
        async with gate.db.snapshot() as tx:
            name = await gate.readable(tx, caller, workspace, model)
            found = await queries.remarks(tx, workspace, name, version, kind=kind, after=after, limit=limit + 1)
        return page(found, limit, "sequence")

    @api.post("/versions/{version}/evaluations", status_code=201, summary="Append metrics measured on a data set")
    async def evaluate(
        request: Request,
        model: ModelPath,
        version: VersionPath,
        body: Evaluation,
        caller: Caller,
        workspace: InWorkspace = "default",
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        command = EvaluateVersion(workspace=workspace, model=model, version=version, evaluation=body)
        return await gate.run(request, caller, command, idempotency_key)

    @api.patch("/versions/{version}", summary="Change the description; the notes of its registration stay")
    async def describe(
        request: Request,
        model: ModelPath,
        version: VersionPath,
        body: NewDescription,
        caller: Caller,
        workspace: InWorkspace = "default",
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        command = orders.DescribeVersion(
            workspace=workspace, model=model, version=version, description=body.description
        )
        return await gate.run(request, caller, command, idempotency_key)

    def reasoned(name: str, order: type[orders.DeleteVersion | orders.RestoreVersion], summary: str) -> None:
        @api.post(f"/versions/{{version}}/{name}", name=name, summary=summary)
        async def act(
            request: Request,
            model: ModelPath,
            version: VersionPath,
            body: Why,
            caller: Caller,
            workspace: InWorkspace = "default",
            idempotency_key: IdempotencyKey = None,
        ) -> Document:
            command = order(workspace=workspace, model=model, version=version, reason=body.reason)
            return await gate.run(request, caller, command, idempotency_key)

    reasoned("delete", orders.DeleteVersion, "Put it out of sight; nothing is erased, its number is not given again")
    reasoned("restore", orders.RestoreVersion, "Bring a deleted version back; its aliases are not")

    @api.patch("/versions/{version}/tags", summary="Set and remove tags")
    async def tag(
        request: Request,
        model: ModelPath,
        version: VersionPath,
        body: Tags,
        caller: Caller,
        workspace: InWorkspace = "default",
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        command = TagVersion(workspace=workspace, model=model, version=version, tags=body)
        return await gate.run(request, caller, command, idempotency_key)

    @api.post("/versions/{version}/notes", status_code=201, summary="Append a note")
    async def note(
        request: Request,
        model: ModelPath,
        version: VersionPath,
        body: NewNote,
        caller: Caller,
        workspace: InWorkspace = "default",
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        command = orders.AddNote(workspace=workspace, model=model, version=version, text=body.text)
        return await gate.run(request, caller, command, idempotency_key)

    @api.post("/versions/{version}/scans", status_code=201, summary="Append what a scanner found")
    async def scan(
        request: Request,
        model: ModelPath,
        version: VersionPath,
        body: NewScan,
        caller: Caller,
        workspace: InWorkspace = "default",
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        command = orders.AddScan(workspace=workspace, model=model, version=version, **dict(body))
        return await gate.run(request, caller, command, idempotency_key)

    return api
