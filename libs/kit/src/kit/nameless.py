"""Where the vault of identities is on, no e-mail address gets past the door: what is stored here stays for ever.

Looked at are the path, the query, and every text of a JSON body.
"""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.people import has_address
from kit import problems
from kit.problems import Problem

# What names people: whoever reads it exchanges it for pseudonyms.
EXCHANGED = frozenset(("actor", "person", "q", "delegate", "delegator", "on_behalf_of", "owner", "lineage.committers"))
# Routes that must take an address, and where. They keep it where it can be erased.
TAKES = {"/v1/people": frozenset({"subject"}), "/v1/subscriptions": frozenset({"address"})}


def personal_data() -> Problem:
    return Problem(
        422,
        "personal-data",
        "something in it looks like an e-mail address. What is stored here is in a log that forgets nothing, so people "
        "are in it by pseudonym only (hallmark audit person find); leave the address out",
    )


def refuse_addresses(document: Any) -> None:
    """Raises Problem 422 when a text of the document, which is as JSON is, looks like an address."""
    if any(has_address(text) for _, text in _inside("", document)):
        raise personal_data()


class Nameless:
    """Refuses requests with an e-mail address in them, before they reach a route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        body = await _body(request, receive)
        may = EXCHANGED | TAKES.get(request.url.path, frozenset())
        if any(name not in may and has_address(text) for name, text in _texts(request, body)):
            refusal = personal_data()
            answer = problems.render(request, refusal.status, refusal.code, refusal.detail)
            await answer(scope, receive, send)
            return
        await self._app(scope, receive if body is None else _again(body, receive), send)


async def _body(request: Request, receive: Receive) -> bytes | None:
    """The whole body, which `_RequestIds` has limited; None: there is none."""
    if not int(request.headers.get("content-length") or 0):
        return None
    parts = bytearray()
    while True:
        message = await receive()
        parts += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body"):
            return bytes(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    given = False

    async def read() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read


def _texts(request: Request, body: bytes | None) -> Iterator[tuple[str, str]]:
    """What it says, and where: the names of the fields that lead there, or the name of the part of the query."""
    yield "", request.url.path
    for part in request.url.query.split("&"):
        name, _, value = part.partition("=")
        yield "", unquote_plus(name)
        yield unquote_plus(name), unquote_plus(value)
    if body:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = body.decode(errors="replace")
        yield from _inside("", document)


def _inside(at: str, document: Any) -> Iterator[tuple[str, str]]:
    waiting = [(at, document)]
    while waiting:
        where, value = waiting.pop()
        match value:
            case str(text):
                yield where, text
            case dict(fields):
                yield from (("", name) for name in fields)
                waiting += ((f"{where}.{name}" if where else name, inner) for name, inner in fields.items())
            case list(items):
                waiting += ((where, item) for item in items)
