"""Every error of an application leaves it as problem+json with a stable type, and tells no secret."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from kit import problems
from kit.errors import Permanent, Transient
from kit.problems import Problem


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    size: float


def app() -> FastAPI:
    application = FastAPI()
    problems.install(application)

    @application.get("/raise/{kind}")
    async def fail(kind: str) -> None:
        raise {
            "problem": Problem(409, "stage-moved", "load it again", expected="Staging"),
            "permanent": Permanent("no-such-stage", "there is no such stage"),
            "unauthenticated": Problem(401, "token-expired", "get a new one"),
            "transient": Transient("away"),
            "refused": ConnectionRefusedError("away"),
            "bug": RuntimeError("password=hunter2"),
        }[kind]

    @application.post("/body")
    async def body(given: Body) -> None: ...

    return application


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app(), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("problem", 409, "stage-moved"),
        ("permanent", 422, "no-such-stage"),
        ("unauthenticated", 401, "token-expired"),
        ("transient", 503, "unavailable"),
        ("refused", 503, "unavailable"),
        ("bug", 500, "internal-error"),
    ],
)
async def test_raised(client: httpx2.AsyncClient, kind: str, status: int, code: str) -> None:
    answer = await client.get(f"/raise/{kind}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == f"urn:hallmark:problem:{code}"
    assert body["status"] == status
    assert body["instance"] == f"/raise/{kind}"
    assert body["detail"]
    assert "hunter2" not in answer.text


async def test_extras_and_headers(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/raise/problem")).json()["expected"] == "Staging"
    assert (await client.get("/raise/unauthenticated")).headers["www-authenticate"] == "Bearer"
    assert (await client.get("/raise/transient")).headers["retry-after"] == "1"


@pytest.mark.parametrize(
    "content", [b"", b"not json", b"{}", b'{"size": NaN}', b'{"size": 1e999}', b'{"size": 1, "x": "hunter2"}']
)
async def test_bad_bodies(client: httpx2.AsyncClient, content: bytes) -> None:
    answer = await client.post("/body", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:hallmark:problem:invalid-request"
    assert answer.json()["errors"]
    assert "hunter2" not in answer.text


async def test_a_body_that_is_no_text(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/body", content=b"\xff", headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["type"] == "urn:hallmark:problem:invalid-request"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "not-found"), ("GET", "/body", 405, "method-not-allowed")],
)
async def test_the_framework_s_own_errors(
    client: httpx2.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == f"urn:hallmark:problem:{code}"
