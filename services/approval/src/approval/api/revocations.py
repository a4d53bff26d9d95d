"""Revocations: a version must not be used any more."""

from fastapi import APIRouter, Request

from approval.api.common import Body, Callers, Said
from approval.revocations import Revocations
from contracts.access import Action
from contracts.approval import RevocationOrdered
from contracts.payload import ModelName, VersionNumber, Workspace


class RevocationBody(Body):
    """`fallback`: the version that its stage returns to; by default the one that was approved with it for that."""

    workspace: Workspace = "default"
    model: ModelName
    version: VersionNumber
    reason: Said
    fallback: VersionNumber | None = None


def router(callers: Callers, revocations: Revocations) -> APIRouter:
    api = APIRouter(tags=["revocations"])

    @api.post("/v1/revocations", summary="Order that nobody uses a version any more", status_code=201)
    async def revoke(http: Request, body: RevocationBody) -> RevocationOrdered:
        principal = await callers.guard(http)
        callers.guard.require(principal, Action.REVOKE, body.workspace, body.model)
        return await revocations.revoke(
            body.workspace,
            body.model,
            body.version,
            by=principal.subject,
            reason=body.reason,
            fallback=body.fallback,
        )

    return api
