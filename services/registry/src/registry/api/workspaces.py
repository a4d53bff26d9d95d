"""The rules of a workspace."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import Field

from contracts.access import Action
from contracts.lifecycle import DEFAULT_LIFECYCLE, Lifecycle
from contracts.payload import AliasName, Payload, Text, Workspace
from kit.auth import Principal
from registry import queries
from registry.api.common import Document, Gate
from registry.orders import ConfigureWorkspace

WorkspacePath = Annotated[Workspace, Path(description="Name of the workspace")]


class NewRules(Payload):
    """What is left out is as in a workspace without rules of its own."""

    lifecycle: Lifecycle = DEFAULT_LIFECYCLE
    naming: Annotated[str, Field(max_length=500)] | None = None
    naming_message: Text = ""
    protected_aliases: Annotated[tuple[AliasName, ...], Field(max_length=100)] = ()


def router(gate: Gate) -> APIRouter:
    api = APIRouter(prefix="/v1/workspaces", tags=["workspaces"])
    Caller = Annotated[Principal, Depends(gate.guard)]

    @api.get("/{workspace}", summary="Lifecycle, naming rule and protected aliases")
    async def rules(workspace: WorkspacePath, caller: Caller) -> Document:
        gate.guard.require(caller, Action.READ, workspace)
        async with gate.db.snapshot() as tx:
            return await queries.workspace_document(tx, workspace)

    @api.put("/{workspace}", summary="Set them, all at once")
    async def configure(request: Request, workspace: WorkspacePath, body: NewRules, caller: Caller) -> Document:
        command = ConfigureWorkspace(workspace=workspace, **dict(body))
        return await gate.commands.configure(command, caller, request.state.request_id)

    return api
