"""Where the vault of identities is on, no e-mail address gets past the door: what is stored here stays for ever.

Looked at are the path, the query, the idempotency key, and every text of a JSON body.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any
from urllib.parse import unquote_plus

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.people import has_address
from kit import problems
from kit.problems import Problem

Where = tuple[str, ...]
COMMITTERS = ("lineage", "committers")
DEEPEST = len(COMMITTERS)
SMALL = 10_000  # bytes
# What names people: whoever reads it exchanges it for pseudonyms.
EXCHANGED: frozenset[Where] = frozenset(
    (*((name,) for name in ("actor", "person", "q", "delegate", "delegator", "on_behalf_of", "owner")), COMMITTERS)
)
# Routes that must take an address, and where. They keep it where it can be erased.
TAKES: dict[str, frozenset[Where]] = {
    "/v1/people": frozenset({("subject",)}),
    "/v1/subscriptions": frozenset({("address",)}),
}


def personal_data() -> Problem:
    return Problem(
        422,
        "personal-data",
        "something in it looks like an e-mail address. What is stored here is in a log that forgets nothing, so people "
        "are in it by pseudonym only (hallmark audit person find); leave the address out",
    )


def refuse_addresses(document: Any) -> None:
    """Raises Problem 422 when a text of the document, which is as JSON is, looks like an address."""
    if any(has_address(text) for _, text in _inside(document)):
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
        # On a thread: a large body takes long, and nobody has looked yet who sends it.
        look = asyncio.to_thread if body and len(body) > SMALL else _at_once
        if await look(_names_somebody, request, body, may):
            refusal = personal_data()
            answer = problems.render(request, refusal.status, refusal.code, refusal.detail)
            await answer(scope, receive, send)
            return
        await self._app(scope, receive if body is None else _again(body, receive), send)


async def _at_once(look: Callable[..., bool], *args: Any) -> bool:
    return look(*args)


def _names_somebody(request: Request, body: bytes | None, may: frozenset[Where]) -> bool:
    """Whether there is an address anywhere but in the fields, and parts of the query, that may have one."""
    return any(has_address(text) and where not in may for where, text in _texts(request, body))


async def _body(request: Request, receive: Receive) -> bytes | None:
    """The whole body, which `_RequestIds` has limited; None: there is none."""
    if not int(request.headers.get("content-length") or 0) and "transfer-encoding" not in request.headers:
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


def _texts(request: Request, body: bytes | None) -> Iterator[tuple[Where, str]]:
    """What it says, and where: the names of the fields that lead there, or the name of the part of the query."""
    yield (), request.url.path
    yield (), request.headers.get("idempotency-key", "")
    for part in request.url.query.split("&"):
        name, _, value = part.partition("=")
        yield (), unquote_plus(name)
        yield (unquote_plus(name),), unquote_plus(value)
    if body:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = body.decode(errors="replace")
        yield from _inside(document)


def _inside(document: Any) -> Iterator[tuple[Where, str]]:
    """Takes memory for the depth of the document only, and copies no names: strangers choose both."""
    above: list[Iterator[tuple[Where, Any]]] = [iter([((), document)])]
    while above:
        found = next(above[-1], None)
        if found is None:
            above.pop()
            continue
        where, value = found
        match value:
            case str(text):
                yield where, text
            case dict(fields):
                yield from (((), name) for name in fields)
                above.append(_fields(where, fields))
            case list(items):
                above.append(zip(repeat(where), items))


def _fields(where: Where, fields: dict[str, Any]) -> Iterator[tuple[Where, Any]]:
    """No field further down than `DEEPEST` may have an address, so its whole path does not matter."""
    return (((*where, name)[: DEEPEST + 1], value) for name, value in fields.items())
