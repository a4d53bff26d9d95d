"""With the vault on, no e-mail address gets past the door; all else does, byte for byte."""

import tracemalloc
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request

from kit.nameless import Nameless, refuse_addresses
from kit.problems import Problem

ADDRESS = "ana@corp.example"


@pytest.fixture
def http() -> httpx2.AsyncClient:
    app = FastAPI()
    app.add_middleware(Nameless)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def echo(request: Request) -> dict[str, Any]:
        return {"body": (await request.body()).decode(), "query": request.url.query}

    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://s")


@pytest.mark.parametrize(
    "body",
    [
        {"reason": f"ask {ADDRESS}"},
        {"fields": {"owner": ADDRESS}},
        {"tags": {"set": {ADDRESS: "x"}}},
        {"files": [{"source": [ADDRESS]}]},
        {"committers": [ADDRESS]},
        [ADDRESS],
        ADDRESS,
    ],
)
async def test_an_address_in_a_body_is_refused(http: httpx2.AsyncClient, body: Any) -> None:
    answer = await http.post("/v1/anything", json=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:hallmark:problem:personal-data")
    assert ADDRESS not in answer.text


async def test_so_is_one_that_json_spells_otherwise_or_that_is_no_json(http: httpx2.AsyncClient) -> None:
    for body in (
        rb'{"reason": "ana\u0040corp.example"}',
        b"not json but ana@corp.example",
        b"[" * 100_000 + b"a@b.org",
    ):
        assert (await http.post("/v1/anything", content=body)).status_code == 422


@pytest.mark.parametrize("path", [f"/v1/members/{ADDRESS}", "/v1/x?note=ana%40corp.example", f"/v1/x?{ADDRESS}=1"])
async def test_so_is_one_in_path_and_query(http: httpx2.AsyncClient, path: str) -> None:
    assert (await http.put(path)).status_code == 422


async def test_so_is_one_in_an_idempotency_key_or_in_chunks_beside_a_length(http: httpx2.AsyncClient) -> None:
    for headers in ({"Idempotency-Key": f"for-{ADDRESS}"}, {"Content-Length": "0", "Transfer-Encoding": "chunked"}):
        answer = await http.post(
            "/v1/anything", content=ADDRESS if "Content-Length" in headers else b"", headers=headers
        )
        assert answer.status_code == 422


async def test_long_names_of_fields_are_not_copied_for_each_field_in_them(http: httpx2.AsyncClient) -> None:
    body = b'{"%s": {%s}}' % (b"k" * 50_000, b",".join(b'"%d": {}' % n for n in range(10_000)))
    tracemalloc.start()
    assert (await http.post("/v1/anything", content=body)).status_code == 200
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20_000_000


async def test_a_name_with_a_dot_is_not_a_field_in_a_field(http: httpx2.AsyncClient) -> None:
    for body in ({"lineage.committers": [ADDRESS]}, {"lineage": {"committers": {"x": ADDRESS}}}):
        assert (await http.post("/v1/models/churn/versions", json=body)).status_code == 422


async def test_where_people_are_named_an_address_is_exchanged_later(http: httpx2.AsyncClient) -> None:
    lineage = {"lineage": {"committers": [ADDRESS]}, "owner": ADDRESS, "delegate": ADDRESS}
    answers = [
        await http.post("/v1/models/churn/versions", json=lineage),
        await http.get("/v1/timeline", params={"actor": ADDRESS}),
        await http.get("/v1/people", params={"subject": ADDRESS}),
        await http.post("/v1/subscriptions", json={"channel": "email", "address": ADDRESS}),
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert (await http.get("/v1/other", params={"subject": ADDRESS})).status_code == 422


async def test_all_else_passes_byte_for_byte(http: httpx2.AsyncClient) -> None:
    for body in (b'{"a" :1.10, "b": "git@host.example:x"}', b"\x00not json", b""):
        answer = await http.post("/v1/anything?at=@champion", content=body)
        assert answer.json() == {"body": body.decode(), "query": "at=@champion"}


def test_a_document_is_refused_as_a_request_is() -> None:
    refuse_addresses({"a": ["x", {"b": 1, "c": None}]})
    with pytest.raises(Problem):
        refuse_addresses({"a": [{"b": ADDRESS}]})
