"""HTTP in: everything under `/api/2.0/mlflow/`."""

from fastapi import APIRouter

from kit.db import Database
from kit.web import Guard
from registry.api.common import Document, Gate
from registry.commands import Commands
from registry.mlflow.aliases import Aliases
from registry.mlflow.door import Door
from registry.mlflow.models import Models
from registry.mlflow.versions import Versions

PREFIX = "/api/2.0/mlflow"
SERVER_INFO = "/api/3.0/mlflow/server-info"


def router(db: Database, commands: Commands, guard: Guard, *, wait: float, address: str) -> APIRouter:
    """`wait` is how long a call waits for a decision, in seconds; `address` is the registry's public URL."""
    door = Door(Gate(db, commands, guard), wait=wait, address=address)
    api = APIRouter()
    for part in (Models(door), Aliases(door), Versions(door)):
        api.include_router(part.router(), prefix=PREFIX)

    @api.get(SERVER_INFO, include_in_schema=False)
    async def server_info() -> Document:
        """What clients look at before they name a workspace."""
        return {"store_type": "SqlStore", "workspaces_enabled": True}

    return api
