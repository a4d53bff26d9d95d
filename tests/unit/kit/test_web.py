"""The application's own layer: request ids, bodies, streams that pass through, hooks for the end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.responses import StreamingResponse

from kit import problems, web


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    problems.install(app)
    app.add_middleware(web._RequestIds, nameless=True)

    @app.post("/echo")
    async def echo(request: Request) -> dict[str, Any]:
        return {"id": request.state.request_id, "size": len(await request.body())}

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("boom")

    return app


def client(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app, raise_app_exceptions=False), base_url="http://s")


async def test_a_request_id_is_taken_over_or_made(app: FastAPI) -> None:
    async with client(app) as http:
        given = await http.post("/echo", content=b"abc", headers={"x-request-id": "mine-1"})
        assert (given.json(), given.headers["x-request-id"]) == ({"id": "mine-1", "size": 3}, "mine-1")
        made = await http.post("/echo", headers={"x-request-id": "not one\twith spaces"})
        assert made.json()["id"] == made.headers["x-request-id"] != "not one\twith spaces"
        named = await http.post("/echo", headers={"x-request-id": "ana@corp.example"})
        assert "ana" not in named.json()["id"] + named.headers["x-request-id"], "events have it for ever"
        assert (await http.get("/broken", headers={"x-request-id": "mine-2"})).json()["request_id"] == "mine-2"


async def test_a_body_that_is_too_large_or_of_unknown_length_is_refused(app: FastAPI) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"x"

    async with client(app) as http:
        large = await http.post("/echo", content=b"x" * (web.MAX_BODY_BYTES + 1))
        assert (large.status_code, large.headers["content-type"]) == (413, "application/problem+json")
        assert large.json()["request_id"] == large.headers["x-request-id"]
        assert (await http.post("/echo", content=endless())).status_code == 411
        both = {"content-length": "0", "transfer-encoding": "chunked"}
        assert (await http.post("/echo", content=b"x", headers=both)).status_code == 411


async def test_traces_say_nothing_of_a_url_where_people_have_pseudonyms(app: FastAPI) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider, server_request_hook=web._withhold)
    async with client(app) as http:
        await http.post("/echo?actor=ana")
        await http.get("/members/ana")
    told = [span.to_json() for span in exporter.get_finished_spans()]
    assert "POST /echo" in {span.name for span in exporter.get_finished_spans()}
    assert not any("ana" in span for span in told)


async def test_a_stream_reaches_the_client_piece_by_piece_and_hears_that_it_has_gone(app: FastAPI) -> None:
    go_on, closed = asyncio.Event(), asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            await go_on.wait()
            yield b"two"
            await asyncio.Event().wait()
        finally:
            closed.set()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(pieces())

    sent: asyncio.Queue[Any] = asyncio.Queue()
    gone = asyncio.Event()
    requests = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        for request in requests:
            return request
        await gone.wait()
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/stream",
        "raw_path": b"/stream",
        "query_string": b"",
        "headers": [],
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "server": ("s", 80),
        "client": ("c", 1),
        "asgi": {"version": "3.0", "spec_version": "2.3"},
    }
    async with asyncio.timeout(10):
        serving = asyncio.create_task(app(scope, receive, sent.put))
        assert (await sent.get())["status"] == 200
        assert (await sent.get())["body"] == b"one"
        go_on.set()
        assert (await sent.get())["body"] == b"two"
        gone.set()
        await closed.wait()
        await serving


def test_hooks_for_the_end_are_called_and_none_need_be_there() -> None:
    called: list[str] = []
    app = FastAPI()
    web.stopping(app)
    app.state.on_stopping = (lambda: called.append("a"), lambda: called.append("b"))
    web.stopping(app)
    assert called == ["a", "b"]
