"""HTTP out of the box: lifespan, health, metrics, request ids, problems, AsyncAPI."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.trace import Span
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.access import Action
from contracts.asyncapi import document as asyncapi_document
from contracts.envelope import new_id
from contracts.people import has_address
from kit import problems
from kit.auth import Access, KeySource, Principal, Verifier
from kit.bus import Bus
from kit.db import Database
from kit.nameless import Nameless
from kit.openapi import NO_TOKEN, PROBLEM_RESPONSES, Documented
from kit.people import People
from kit.settings import Settings
from kit.tasks import cancel

log = structlog.get_logger()
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,100}")
ALIVE = Gauge("hallmark_consumer_alive", "1 while the consumer fetches", ["service", "topic"])
MAX_BODY_BYTES = 1_000_000
URL_ATTRIBUTES = ("http.url", "http.target", "url.full", "url.path", "url.query")
OPERATION: dict[str, Any] = {"tags": ["operations"], "openapi_extra": NO_TOKEN}
UNAVAILABLE: dict[int | str, dict[str, Any]] = {
    503: {"description": "It is not; the same document says why", "content": {"application/json": {"schema": {}}}}
}
Background = Callable[[], Coroutine[Any, Any, None]]


class Guard:
    """Who calls and what they may do, for routes: `principal = await guard(request)`, then `guard.require(...)`."""

    def __init__(self, settings: Settings) -> None:
        self.access = Access.load(settings.access_file)
        self.people = People.of(settings)
        self._verifier = Verifier(
            KeySource(settings.auth_jwks),
            issuer=settings.auth_issuer,
            audience=settings.auth_audience,
            people=self.people,
        )

    async def __call__(self, request: Request) -> Principal:
        return await self.verify(request.headers.get("authorization"))

    async def verify(self, authorization: str | None) -> Principal:
        """Raises Problem 401."""
        return await self._verifier.principal(authorization)

    async def named(self, name: str) -> str:
        """Whom a request means by a name: with the vault on their pseudonym, else the name as it is.

        Raises:
            Problem: 422, the vault knows nobody of that name.
        """
        return name if self.people is None else await self.people.named(name)

    async def meant(self, name: str) -> str:
        """As `named`, where a name may also be a team's or a service account's: that stays as it is."""
        return name if self.people is None else await self.people.meant(name)

    def require(self, principal: Principal, action: Action, workspace: str, model: str = "*") -> None:
        """Raises Problem 403."""
        self.access.require(principal, action, workspace, model)

    def require_some(self, principal: Principal, action: Action, workspace: str) -> frozenset[str]:
        """The patterns of the models that it is allowed with. Raises Problem 403 when there are none."""
        patterns = self.access.patterns(principal, action, workspace)
        if not patterns:
            self.require(principal, action, workspace)
        return patterns


def make_app(
    settings: Settings,
    *,
    service: str,
    version: str,
    db: Database,
    bus: Bus,
    routers: Sequence[APIRouter],
    background: Sequence[Background] = (),
    on_start: Sequence[Callable[[], Awaitable[None]]] = (),
    on_stopping: Sequence[Callable[[], None]] = (),
    people: People | None = None,
) -> FastAPI:
    """The service's application. Background tasks run from start to stop; one that ends is started again.

    `on_stopping` is called as soon as the server is told to stop, before it waits for open answers: whoever holds
    endless ones ends them there. With `people`, the vault, no text with an e-mail address is taken (`kit.nameless`).
    """
    state = _State()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for start in on_start:
            await start()
        await bus.start()
        tasks = [asyncio.create_task(_keep_running(service, work), name=work.__qualname__) for work in background]
        state.started = True
        try:
            yield
        finally:
            state.started = False
            stopping(app)
            await bus.stop()
            await cancel(tasks)
            await db.close()
            if people is not None:
                await people.close()

    app = Documented(
        title=f"Hallmark {service}",
        version=version,
        lifespan=lifespan,
        responses=PROBLEM_RESPONSES,
        redirect_slashes=False,
    )
    app.state.on_stopping = tuple(on_stopping)
    problems.install(app)
    if people is not None:
        app.add_middleware(Nameless)
    app.add_middleware(_RequestIds, nameless=people is not None)  # the last one added is the first to see a request
    for router in routers:
        app.include_router(router)
    _operations(app, service, db, bus, state, people)
    if settings.otlp_endpoint:
        hook = None if people is None else _withhold
        FastAPIInstrumentor.instrument_app(app, excluded_urls="healthz,readyz,metrics", server_request_hook=hook)
    return app


def _withhold(span: Span, _: Scope) -> None:
    """Keeps what a URL says out of traces, since people are named there. The name of the span tells the route."""
    if span.is_recording():
        span.set_attributes(dict.fromkeys(URL_ATTRIBUTES, "(withheld)"))


def stopping(app: FastAPI) -> None:
    """Tells the application that its server stops. More than once does no harm."""
    for hook in getattr(app.state, "on_stopping", ()):
        hook()


class _State:
    started = False


def _operations(app: FastAPI, service: str, db: Database, bus: Bus, state: _State, people: People | None) -> None:
    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/asyncapi.json", summary="What the service says and hears on Kafka", **OPERATION)
    async def asyncapi() -> dict[str, Any]:
        return asyncapi_document(service, app.version)

    @app.get("/healthz", summary="Alive: the consumers fetch", responses=UNAVAILABLE, **OPERATION)
    async def healthz() -> Response:
        consumers = bus.health() if state.started else {}
        for topic, health in consumers.items():
            ALIVE.labels(service, topic).set(health["alive"])
        alive = all(health["alive"] for health in consumers.values())
        return JSONResponse({"alive": alive, "consumers": consumers}, status_code=200 if alive else 503)

    @app.get("/readyz", summary="Ready: database and partitions are there", responses=UNAVAILABLE, **OPERATION)
    async def readyz() -> Response:
        missing = [] if state.started else ["start-up"]
        parts: dict[str, Database | People] = {"database": db} | ({"vault": people} if people else {})
        for name, part in parts.items():
            try:
                await asyncio.wait_for(part.ping(), 3)
            except Exception as error:
                missing.append(f"{name}: {type(error).__name__}")
        if state.started:
            idle = {topic: h for topic, h in bus.health().items() if not h["partitions"]}
            missing += [f"{topic}: no partitions" for topic, h in idle.items() if not h["standby"]]
        # Who answers: another process may hold the port.
        identity = {"service": service, "pid": os.getpid()}
        return JSONResponse({"ready": not missing, "missing": missing, **identity}, status_code=503 if missing else 200)


class _RequestIds:
    """Gives every request an id and refuses bodies that are too large. Plain ASGI: Starlette's `BaseHTTPMiddleware`
    puts tasks and a queue between a stream and its client, and a stream would not hear that its client has gone."""

    def __init__(self, app: ASGIApp, *, nameless: bool = False) -> None:
        """`nameless`: an id with an e-mail address in it is not taken, since events have it."""
        self._app, self._nameless = app, nameless

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        given = request.headers.get("x-request-id", "")
        taken = REQUEST_ID.fullmatch(given) and not (self._nameless and has_address(given))
        request_id = given if taken else str(new_id())
        request.state.request_id = request_id

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await (_refuse_body(request) or self._app)(scope, receive, with_id)


def _refuse_body(request: Request) -> Response | None:
    """The answer to a body that is too large, or that comes in chunks, so that nobody knows how large it is."""
    length = request.headers.get("content-length")
    if "transfer-encoding" in request.headers:  # whatever the length says: the server goes by the chunks
        return problems.render(request, 411, "length-required", "send the body with a Content-Length")
    if length is not None and (not length.isdecimal() or int(length) > MAX_BODY_BYTES):
        return problems.render(request, 413, "body-too-large", f"a body may have {MAX_BODY_BYTES} bytes")
    return None


async def _keep_running(service: str, work: Background) -> None:
    while True:
        try:
            await work()
        except Exception as error:
            log.error("background task failed; starting again", service=service, task=work.__qualname__, exc_info=error)
        await asyncio.sleep(1)
