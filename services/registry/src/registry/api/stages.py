"""Stages: transitions and rollback."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.access import Action
from contracts.lifecycle import Stage
from contracts.payload import Identifier, Payload, Reason, StageName, Text, VersionNumber
from contracts.registry import RequestFields, RequestTransition, RollBack
from kit.auth import Principal
from registry import orders, queries
from registry.api.common import (
    MAX_WAIT_SECONDS,
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

TransitionPath = Annotated[Identifier, Path(description="Id of the transition")]


class NewTransition(Payload):
    """`fields` are what the policies ask for beside the reason; an ungated stage asks nobody, and keeps none."""

    to_stage: StageName
    reason: Reason
    expected_from: StageName | None = None
    fields: RequestFields = Field(default_factory=dict)


class NewRollback(Payload):
    stage: StageName = Stage.PRODUCTION
    to_version: VersionNumber | None = None
    reason: Reason
    fields: RequestFields = Field(default_factory=dict)


def router(gate: Gate) -> APIRouter:
    api = APIRouter(prefix="/v1", tags=["stages"])
    Caller = Annotated[Principal, Depends(gate.guard)]

    @api.post(
        "/models/{model}/versions/{version}/transitions",
        status_code=202,
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
        return await gate.run(request, caller, command, idempotency_key)

    @api.get("/models/{model}/transitions", summary="Transitions of a model, oldest first")
    async def list_(
        model: ModelPath,
        caller: Caller,
        workspace: InWorkspace = "default",
        status: Literal["open", "applied", "refused", "expired", "cancelled"] | None = None,
        limit: Limit = 50,
        after: Text = "",
    ) -> Page:
        async with gate.db.snapshot() as tx:
            name = await gate.readable(tx, caller, workspace, model)
            found = await queries.transition_documents(tx, workspace, name, status=status, after=after, limit=limit + 1)
        return page(found, limit, "transition_id")

    @api.post("/models/{model}/rollback", status_code=202, summary="Back to the last good version")
    async def roll_back(
        request: Request,
        model: ModelPath,
        body: NewRollback,
        caller: Caller,
        workspace: InWorkspace = "default",
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        command = RollBack(workspace=workspace, model=model, **body.model_dump())
        return await gate.run(request, caller, command, idempotency_key)

    @api.get("/transitions/{transition_id}", summary="One transition; waits while it is open")
    async def one(
        transition_id: TransitionPath,
        caller: Caller,
        wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait while it is open")] = 0,
    ) -> Document:
        async def read(tx: AsyncConnection) -> Document:
            document = await queries.transition_document(tx, transition_id)
            gate.guard.require(caller, Action.READ, document["workspace"], document["model"])
            return document

        return await gate.settled(read, "open", wait)

    @api.post("/transitions/{transition_id}/cancel", summary="Take an open transition back")
    async def cancel(
        request: Request,
        transition_id: TransitionPath,
        body: Why,
        caller: Caller,
        idempotency_key: IdempotencyKey = None,
    ) -> Document:
        async with gate.db.snapshot() as tx:
            document = await queries.transition_document(tx, transition_id)
        command = orders.CancelTransition(
            workspace=document["workspace"],
            model=document["model"],
            transition_id=transition_id,
            reason=body.reason,
        )
        return await gate.run(request, caller, command, idempotency_key)

    return api
