"""Aliases: names that people read instead of numbers."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import Field

from contracts.payload import AliasName, Payload, Reason, VersionNumber
from contracts.registry import RequestFields, SetAlias
from kit.auth import Principal
from registry import orders, queries
from registry.api.common import (
    AfterNumber,
    Document,
    Gate,
    IdempotencyKey,
    InWorkspace,
    Limit,
    ModelPath,
    Page,
    page,
)

AliasPath = Annotated[AliasName, Path(description="Name of the alias")]


class NewAlias(Payload):
    """`expected` is the compare of compare-and-set: the version it must point at now; 0: it must not exist.

    `fields` are what the policies ask for beside the reason, where the alias is protected.
    """

    version: VersionNumber
    expected: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None
    reason: Reason = "set"
    fields: RequestFields = Field(default_factory=dict)


def router(gate: Gate) -> APIRouter:
    api = APIRouter(prefix="/v1/models/{model}/aliases", tags=["aliases"])
    Caller = Annotated[Principal, Depends(gate.guard)]

    @api.get("", summary="All aliases of a model")
    async def list_(model: ModelPath, caller: Caller, workspace: InWorkspace = "default") -> Page:
        async with gate.db.snapshot() as tx:
            name = await gate.readable(tx, caller, workspace, model)
            return Page(items=await queries.alias_documents(tx, workspace, name), next=None)

    @api.put(
        "/{alias}",
        summary="Set or move an alias; a protected one waits for a decision (202)",
        responses={202: {"model": Document, "description": "It waits: an open transition"}},
    )
    async def set_(
        request: Request,
        response: Response,
        model: ModelPath,
        alias: AliasPath,
        body: NewAlias,
        caller: Caller,
        workspace: InWorkspace = "default",
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        command = SetAlias(workspace=workspace, model=model, alias=alias, **body.model_dump())
        document = await gate.run(request, caller, command, idempotency_key)
        if "transition_id" in document:
            response.status_code = 202
        return document

    @api.get("/{alias}", summary="Where an alias points")
    async def one(model: ModelPath, alias: AliasPath, caller: Caller, workspace: InWorkspace = "default") -> Document:
        async with gate.db.snapshot() as tx:
            name = await gate.readable(tx, caller, workspace, model)
            return await queries.alias_document(tx, workspace, name, alias)

    @api.get("/{alias}/history", summary="Where it has pointed, oldest first")
    async def history(
        model: ModelPath,
        alias: AliasPath,
        caller: Caller,
        workspace: InWorkspace = "default",
        limit: Limit = 50,
        after: AfterNumber = 0,
    ) -> Page:
        async with gate.db.snapshot() as tx:
            name = await gate.readable(tx, caller, workspace, model)
            found = await queries.alias_history(tx, workspace, name, alias, after=after, limit=limit + 1)
        return page(found, limit, "sequence")

    @api.delete("/{alias}", summary="Remove an alias; its history stays")
    async def remove(
        request: Request,
        model: ModelPath,
        alias: AliasPath,
        caller: Caller,
        reason: Annotated[Reason, Query()],
        workspace: InWorkspace = "default",
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        command = orders.RemoveAlias(workspace=workspace, model=model, alias=alias, reason=reason)
        return await gate.run(request, caller, command, idempotency_key)

    return api
