"""What all routes share: parameters, pages, and the way from a request to a command."""

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Annotated, Any

from fastapi import Header, Path, Query, Request
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.access import Action
from contracts.payload import Key, ModelName, Payload, Reason, VersionNumber, Workspace
from kit.auth import Principal
from kit.db import Database
from kit.web import Guard
from registry import state
from registry.commands import Commands, Show

MAX_WAIT_SECONDS = 30
Document = dict[str, Any]
InWorkspace = Annotated[Workspace, Query(description="Where the model lives")]
Limit = Annotated[int, Query(ge=1, le=500, description="How many at most")]
AfterNumber = Annotated[int, Query(ge=0, le=2**63 - 1, description="The `next` of the page before")]
ModelPath = Annotated[ModelName, Path(description="Name of the model, its present or any former one")]
VersionPath = Annotated[VersionNumber, Path(description="Number of the version")]
IdempotencyKey = Annotated[Key | None, Header(description="The same key never does the same thing twice")]


class Why(Payload):
    reason: Reason


class Page(Payload):
    """A page of a list. `next` is the `after` of the page behind it; null on the last."""

    items: list[Document]
    next: str | int | None


class Gate:
    """Between routes and commands: who asks, under which request id and idempotency key."""

    def __init__(self, db: Database, commands: Commands, guard: Guard) -> None:
        self.db = db
        self.commands = commands
        self.guard = guard

    async def run(
        self, request: Request, caller: Principal, command: Any, key: str | None = None, show: Show | None = None
    ) -> Document:
        """As `Commands.run`."""
        digest = sha256(f"{command.TYPE}\n{command.model_dump_json()}".encode()).hexdigest() if key is not None else ""
        request_id = request.state.request_id
        return await self.commands.run(command, caller, request_id=request_id, key=key, digest=digest, show=show)

    async def readable(self, tx: AsyncConnection, caller: Principal, workspace: str, name: str) -> str:
        """The identity of the model of that name, if the caller may read it.

        Raises:
            Problem: 403.
        """
        identity = await state.identity(tx, workspace, name)
        self.guard.require(caller, Action.READ, workspace, identity)
        return identity

    async def settled(
        self, read: Callable[[AsyncConnection], Awaitable[Document]], unsettled: str, wait: float
    ) -> Document:
        """What is read, as soon as its status is not `unsettled`, or after `wait` seconds."""
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            async with self.db.snapshot() as tx:
                document = await read(tx)
            left = deadline - asyncio.get_running_loop().time()
            if document["status"] != unsettled or left <= 0:
                return document
            await self.db.changed.wait(min(left, 1.0))


def page(found: list[Document], limit: int, cursor: str) -> Page:
    """`found` has one row more than `limit` where there is another page."""
    items = found[:limit]
    return Page(items=items, next=items[-1][cursor] if len(found) > limit else None)
