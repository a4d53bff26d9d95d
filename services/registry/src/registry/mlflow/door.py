"""Between MLflow's routes and what they stand for: who calls, in which workspace, and errors in MLflow's form."""

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.access import Action
from contracts.payload import Workspace
from kit.problems import Problem
from registry import queries
from registry.api.common import Document, Gate
from registry.commands import Show
from registry.mlflow import errors, reading
from registry.mlflow.asks import Ask, parameters
from registry.mlflow.errors import INVALID, Refusal
from registry.mlflow.reading import Found

WORKSPACE = "x-mlflow-workspace"
Handler = Callable[[Ask], Awaitable[Document]]
_workspace: TypeAdapter[str] = TypeAdapter(Workspace)


class Door:
    """`wait` is how long a call waits for a decision, in seconds; `address` is the registry's public URL."""

    def __init__(self, gate: Gate, *, wait: float, address: str) -> None:
        self.gate = gate
        self.wait = wait
        self._address = address.rstrip("/")

    def add(self, api: APIRouter, method: str, path: str, handler: Handler) -> None:
        """Serves `handler`. Not in our OpenAPI document: MLflow's own is the description of these routes."""

        async def endpoint(request: Request) -> Response:
            try:
                return JSONResponse(await handler(await self._ask(request)))
            except Refusal as refusal:
                return errors.render(refusal)
            except Problem as problem:
                return errors.render(errors.of_problem(problem))
            except ValidationError as error:
                return errors.render(errors.of_validation(error))

        api.add_api_route(path, endpoint, methods=[method], include_in_schema=False)

    async def _ask(self, request: Request) -> Ask:
        caller = await self.gate.guard.verify(bearer(request.headers.get("authorization")))
        named = request.headers.get(WORKSPACE) or "default"
        try:
            workspace = _workspace.validate_python(named)
        except ValidationError as error:
            raise Refusal(INVALID, f"{named!r} cannot be the name of a workspace") from error
        return Ask(request, caller, workspace, await parameters(request))

    async def run(self, ask: Ask, command: Any, show: Show | None = None) -> Document:
        """Runs a command; gives what `show` reads of what it made, or the transition that it opened.

        Raises:
            Refusal: there is no such model or version, in MLflow's words.
            Problem: the rules are against it.
        """

        async def transition(tx: AsyncConnection, reference: str) -> Document:
            kind, _, name = reference.partition(" ")
            return await queries.transition_document(tx, name) if kind == "transition" else {}

        try:
            return await self.gate.run(ask.request, ask.caller, command, show=show or transition)
        except Problem as problem:
            if problem.code in ("model-not-found", "model-deleted"):
                raise errors.no_model(command.model) from problem
            if problem.code in ("version-not-found", "version-deleted"):
                raise errors.no_version(command.model, command.version) from problem
            raise

    async def present(self, ask: Ask, name: str) -> Found:
        """The living model of that present name, if the caller may read it; in one statement. Raises as `model`."""
        async with self.gate.db.look() as tx:
            return await self.model(tx, ask, name)

    async def model(self, tx: AsyncConnection, ask: Ask, name: str) -> Found:
        """The living model of that present name, if the caller may read it.

        Raises:
            Refusal: there is none.
            Problem: 403.
        """
        found = await reading.find(tx, ask.workspace, name)
        self.gate.guard.require(ask.caller, Action.READ, ask.workspace, found.identity if found else name)
        if found is None:
            raise errors.no_model(name)
        return found

    async def version(self, tx: AsyncConnection, ask: Ask, name: str, number: int) -> Document:
        """The version of a model that the caller may read. Raises as `model`."""
        found = await self.model(tx, ask, name)
        documents = await reading.versions(tx, ask.workspace, [(found.identity, number)])
        if not documents:
            raise errors.no_version(name, number)
        return documents[0]

    async def settle(self, ask: Ask, command: Any, what: str) -> None:
        """Runs a command that may need a decision, and waits for that. A request that is open already is waited for.

        Raises:
            Refusal: it was refused, or nobody has decided within the wait; both with the address of the request.
            Problem: the rules are against it.
        """
        try:
            document = await self.run(ask, command)
        except Problem as problem:
            if problem.code != "transition-open":
                raise
            document = {"transition_id": problem.extra["transition_id"], "status": "open"}
        if "transition_id" in document and document["status"] != "applied":
            await self._decided(document["transition_id"], what)

    async def _decided(self, transition_id: str, what: str) -> None:
        document = await self.gate.settled(
            lambda tx: queries.transition_document(tx, transition_id), unsettled="open", wait=self.wait
        )
        if document["status"] == "applied":
            return
        address = f"{self._address}/v1/transitions/{transition_id}"
        if document["status"] == "open":
            raise Refusal(
                errors.DENIED,
                f"{what} waits for approval: {address}. Nothing has changed yet; it does when the request is approved",
            )
        raise Refusal(errors.DENIED, f"{what} was {document['status']}: {document['detail']}. See {address}")


def bearer(authorization: str | None) -> str | None:
    """The header with the token: of basic authentication, the password is the token."""
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return authorization
    try:
        _, colon, password = base64.b64decode(given.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Problem(401, "token-invalid", "the basic authentication is malformed") from error
    if not colon or not password:
        raise Problem(401, "unauthenticated", "in basic authentication the password is the token")
    return f"Bearer {password}"
