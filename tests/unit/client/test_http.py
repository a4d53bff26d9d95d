"""Retries, problems, discovery and pages: what no real service would do on demand."""

import json
from collections.abc import Callable

import httpx2
import pytest

from contracts.model import Artifact
from hallmark import Client, HallmarkError

Handler = Callable[[httpx2.Request], httpx2.Response]
WELL_KNOWN = {"registry": "http://r", "approval": "http://a", "audit": "http://u", "notifier": "http://n"}
VERSION = {
    "workspace": "default",
    "model": "m",
    "version": 1,
    "digest": "sha256:" + "0" * 64,
    "stage": "Development",
    "content": {"artifact": {"digest": "sha256:" + "1" * 64, "size": 1, "filename": "f"}, "metrics": {"a": 1.0}},
    "registered_by": "ana",
    "registered_at": "2026-11-01T00:00:00Z",
}


def client(handler: Handler, retry_for: float = 5.0) -> Client:
    return Client("http://r", "secret-token", retry_for=retry_for, transport=httpx2.MockTransport(handler))


def test_a_problem_becomes_an_error_with_code_detail_request_id_and_extras() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        body = {
            "type": "urn:hallmark:problem:model-not-found",
            "title": "Model not found",
            "status": 404,
            "detail": "there is no model 'm'",
            "request_id": "r-1",
            "hint": "spell it",
        }
        return httpx2.Response(404, json=body)

    with pytest.raises(HallmarkError) as caught:
        client(handler).model("m")
    error = caught.value
    assert (error.code, error.status, error.request_id) == ("model-not-found", 404, "r-1")
    assert error.detail == "there is no model 'm'"
    assert error.type == "urn:hallmark:problem:model-not-found"
    assert error.extra == {"hint": "spell it"}
    assert not error.refused
    assert "r-1" in str(error)


def test_an_error_page_of_a_proxy_is_an_error_too() -> None:
    with pytest.raises(HallmarkError) as caught:
        client(lambda _: httpx2.Response(404, text="<html>nope</html>", headers={"x-request-id": "p"})).model("m")
    assert (caught.value.code, caught.value.status, caught.value.request_id) == ("http-error", 404, "p")


@pytest.mark.parametrize("status", [403, 409, 422])
def test_a_refusal_says_so(status: int) -> None:
    body = {"type": "urn:hallmark:problem:own-request", "detail": "no", "status": status}
    with pytest.raises(HallmarkError) as caught:
        client(lambda _: httpx2.Response(status, json=body), retry_for=0).model("m")
    assert caught.value.refused


def test_outages_are_waited_out_and_a_registration_keeps_its_key() -> None:
    seen: list[tuple[str, str]] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append((request.headers["idempotency-key"], request.content.decode()))
        if len(seen) == 1:
            return httpx2.Response(503, json={"type": "urn:hallmark:problem:unavailable"}, headers={"retry-after": "0"})
        if len(seen) == 2:
            raise httpx2.ReadError("the answer got lost")
        return httpx2.Response(201, json=VERSION)

    one = client(handler)
    content = one.content(Artifact(digest="sha256:" + "1" * 64, size=1, filename="f"))
    assert one.register_content("m", content).version == 1
    assert len(seen) == 3
    assert len(set(seen)) == 1
    one.register_content("m", content)
    assert len({key for key, _ in seen}) == 2


def test_giving_up_names_the_address_and_what_to_do() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    with pytest.raises(HallmarkError, match=r"http://r.*hallmark up") as caught:
        client(handler, retry_for=0).model("m")
    assert (caught.value.code, caught.value.status) == ("connection", None)


def test_a_lasting_503_is_reported_after_the_time_given() -> None:
    calls = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        calls.append(1)
        return httpx2.Response(503, json={"type": "urn:hallmark:problem:unavailable", "detail": "away"})

    with pytest.raises(HallmarkError) as caught:
        client(handler, retry_for=0.5).model("m")
    assert caught.value.code == "unavailable"
    assert len(calls) > 1


def test_other_services_are_found_through_the_registry_and_asked_once() -> None:
    seen: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(str(request.url.copy_with(query=None)))
        if request.url.path == "/.well-known/hallmark.json":
            return httpx2.Response(200, json=WELL_KNOWN)
        assert request.headers["authorization"] == "Bearer secret-token"
        return httpx2.Response(200, json={"items": [], "next": None})

    one = client(handler)
    assert list(one.requests()) == []
    assert list(one.timeline("m")) == []
    assert list(one.subscriptions()) == []
    assert seen == [
        "http://r/.well-known/hallmark.json",
        "http://a/v1/requests",
        "http://u/v1/timeline",
        "http://n/v1/subscriptions",
    ]


def test_pages_are_followed_to_the_end() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        after = int(request.url.params.get("after", 0))
        assert request.url.params["workspace"] == "default"
        items = [{**VERSION, "version": after + 1}, {**VERSION, "version": after + 2}]
        return httpx2.Response(200, json={"items": items, "next": after + 2 if after < 4 else None})

    assert [v.version for v in client(handler).versions("m")] == [1, 2, 3, 4, 5, 6]


def test_an_answer_of_another_shape_is_an_error_not_a_crash() -> None:
    with pytest.raises(HallmarkError) as caught:
        client(lambda _: httpx2.Response(200, json={"surprise": True})).version("m", 1)
    assert caught.value.code == "unexpected-answer"


def test_names_cannot_leave_their_place_in_the_path() -> None:
    seen = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.url.raw_path.decode())
        return httpx2.Response(200, json=VERSION)

    client(handler).version("a/../b c?x", 1)
    assert seen[0].startswith("/v1/models/a%2F..%2Fb%20c%3Fx/versions/1")


def test_waiting_long_polls_until_the_transition_closes() -> None:
    transition = {
        "transition_id": "t",
        "kind": "promotion",
        "workspace": "default",
        "model": "m",
        "version": 1,
        "from_stage": "Staging",
        "to_stage": "Production",
        "status": "open",
        "requested_by": "ana",
        "reason": "better",
    }
    waits: list[float] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            assert json.loads(request.content) == {"to_stage": "Production", "reason": "better"}
            return httpx2.Response(202, json=transition)
        waits.append(float(request.url.params["wait"]))
        done = {**transition, "status": "applied"}
        return httpx2.Response(200, json=done if len(waits) == 2 else transition)

    assert client(handler).request_stage("m", 1, "Production", "better", wait=50).applied
    assert len(waits) == 2
    assert all(0 < wait <= 30 for wait in waits)
