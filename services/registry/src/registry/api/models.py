"""Models: register, list, change, rename, delete, restore."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from contracts.payload import Key, Line, ModelName, Payload, Text
from contracts.registry import RegisterModel, Tags
from kit.auth import Principal
from kit.patterns import fits
from registry import orders, queries
from registry.api.common import Document, Gate, IdempotencyKey, InWorkspace, Limit, ModelPath, Page, Why, page
from registry.search.access import readable


class NewModel(Payload):
    name: ModelName
    description: Text = ""
    owner: Line | None = None
    tags: dict[Key, Text] = Field(default_factory=dict)


class ModelChange(Payload):
    """What is left out stays as it is."""

    description: Text | None = None
    owner: Line | None = None
    tags: Tags | None = None


class NewName(Payload):
    name: ModelName


def router(gate: Gate) -> APIRouter:
    api = APIRouter(prefix="/v1/models", tags=["models"])
    Caller = Annotated[Principal, Depends(gate.guard)]

    @api.post("", status_code=201, summary="Register a model")
    async def register(
        request: Request,
        body: NewModel,
        caller: Caller,
        workspace: InWorkspace = "default",
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        given = body.model_dump(exclude={"name"})
        command = RegisterModel(workspace=workspace, model=body.name, **given)
        return await gate.run(request, caller, command, idempotency_key)

    @api.get("", summary="Models by name")
    async def list_(
        caller: Caller,
        workspace: InWorkspace = "default",
        limit: Limit = 50,
        after: Text = "",
        deleted: Annotated[bool, Query(description="The deleted ones instead")] = False,
    ) -> Page:
        patterns = readable(gate.guard, caller, workspace)
        seen = None if patterns is None else fits(queries.MODEL, patterns)
        async with gate.db.snapshot() as tx:
            found = await queries.model_documents(
                tx, workspace, after=after, limit=limit + 1, deleted=deleted, readable=seen
            )
        return page(found, limit, "model")

    @api.get("/{model}", summary="One model, also a deleted one")
    async def one(model: ModelPath, caller: Caller, workspace: InWorkspace = "default") -> Document:
        async with gate.db.snapshot() as tx:
            name = await gate.readable(tx, caller, workspace, model)
            return await queries.model_document(tx, workspace, name)

    @api.patch("/{model}", summary="Change description, owner or tags")
    async def change(
        request: Request,
        model: ModelPath,
        body: ModelChange,
        caller: Caller,
        workspace: InWorkspace = "default",
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        command = orders.UpdateModel(workspace=workspace, model=model, **dict(body))
        return await gate.run(request, caller, command, idempotency_key)

    @api.post("/{model}/rename", summary="Give it another name; every former one still leads to it")
    async def rename(
        request: Request,
        model: ModelPath,
        body: NewName,
        caller: Caller,
        workspace: InWorkspace = "default",
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        command = orders.RenameModel(workspace=workspace, model=model, name=body.name)
        return await gate.run(request, caller, command, idempotency_key)

    def reasoned(name: str, order: type[orders.DeleteModel | orders.RestoreModel], summary: str) -> None:
        @api.post(f"/{{model}}/{name}", name=name, summary=summary)
        async def act(
            request: Request,
            model: ModelPath,
            body: Why,
            caller: Caller,
            workspace: InWorkspace = "default",
            idempotency_key: IdempotencyKey = None,
        ) -> Document:
            command = order(workspace=workspace, model=model, reason=body.reason)
            return await gate.run(request, caller, command, idempotency_key)

    reasoned("delete", orders.DeleteModel, "Put it out of sight; nothing is erased, its names stay reserved")
    reasoned("restore", orders.RestoreModel, "Bring a deleted model back")
    return api
