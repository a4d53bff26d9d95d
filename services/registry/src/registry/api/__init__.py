"""HTTP in."""

from collections.abc import Sequence

from fastapi import APIRouter

from kit.db import Database
from kit.openapi import NO_TOKEN
from kit.web import Guard
from registry.api import aliases, models, stages, versions, workspaces
from registry.api.common import Gate
from registry.commands import Commands


def router(
    db: Database, commands: Commands, guard: Guard, services: dict[str, str], others: Sequence[APIRouter] = ()
) -> APIRouter:
    gate = Gate(db, commands, guard)
    api = APIRouter()

    @api.get(
        "/.well-known/hallmark.json", tags=["discovery"], summary="Where the other services are", openapi_extra=NO_TOKEN
    )
    async def well_known() -> dict[str, str]:
        return services

    for part in (workspaces, models, versions, stages, aliases):
        api.include_router(part.router(gate))
    for other in others:
        api.include_router(other)
    return api
