"""Requests by the SDK: pages, waits, and what is sent."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from hallmark import Client, HallmarkError

REQUEST: dict[str, Any] = {
    "request_id": "r-1",
    "kind": "promotion",
    "workspace": "default",
    "model": "fraud",
    "version": 3,
    "from_stage": "Staging",
    "to_stage": "Production",
    "status": "open",
    "requested_by": "ana",
    "reason": "better",
}
Answers = Callable[..., Client]


@pytest.fixture
def asked() -> list[httpx2.Request]:
    return []


@pytest.fixture
def answers(asked: list[httpx2.Request]) -> Answers:
    """A client whose service gives these answers, one by one; the last for ever."""

    def answers(*given: tuple[int, Any]) -> Client:
        left: Iterator[tuple[int, Any]] = iter(given)
        last: list[tuple[int, Any]] = []

        def handler(request: httpx2.Request) -> httpx2.Response:
            if request.url.path == "/.well-known/hallmark.json":
                return httpx2.Response(200, json={"registry": "http://r", "approval": "http://a"})
            asked.append(request)
            last[:] = [next(left, last[0] if last else (500, None))]
            return httpx2.Response(last[0][0], json=last[0][1])

        return Client("http://r", "t", retry_for=0, transport=httpx2.MockTransport(handler))

    return answers


def test_requests_are_of_every_workspace_page_by_page(answers: Answers, asked: list[httpx2.Request]) -> None:
    second = {**REQUEST, "request_id": "r-2"}
    client = answers((200, {"items": [REQUEST], "next": "r-1"}), (200, {"items": [second], "next": None}))
    assert [one.request_id for one in client.requests("open", view="needs-me", model="fraud")] == ["r-1", "r-2"]
    first = {"view": "needs-me", "status": "open", "model": "fraud", "limit": "200"}
    assert [dict(one.url.params) for one in asked] == [first, {**first, "after": "r-1"}]


def test_a_request_is_asked_for_until_it_is_known_and_its_gates_are_evaluated(
    answers: Answers, asked: list[httpx2.Request]
) -> None:
    unknown = (404, {"type": "urn:hallmark:problem:request-not-found", "detail": "not yet"})
    client = answers(unknown, (200, REQUEST), (200, {**REQUEST, "phase": "people"}))
    assert client.request("r-1", wait=10).phase == "people"
    assert len(asked) == 3
    with pytest.raises(HallmarkError) as caught:
        answers(unknown).request("r-1")
    assert caught.value.code == "request-not-found"


UNKNOWN = (404, {"type": "urn:hallmark:problem:version-not-found", "detail": "it may not have arrived yet"})


def test_approval_may_hear_of_a_version_a_moment_later(answers: Answers, asked: list[httpx2.Request]) -> None:
    about = {"workspace": "default", "model": "fraud", "version": 3, "type": "card", "title": "card"}
    piece = {**about, "evidence_id": "e-1", "posted_by": "ci", "at": "2026-03-04T05:06:07Z"}
    client = answers(UNKNOWN, (200, None), UNKNOWN, (200, piece))
    assert client.attach_evidence("fraud", 3, "card", "card", url="https://x.example").evidence_id == "e-1"
    assert [(one.method, one.url.host, one.url.path) for one in asked] == [
        ("POST", "a", "/v1/evidence"),
        ("GET", "r", "/v1/models/fraud/versions/3"),
        *[("POST", "a", "/v1/evidence")] * 2,
    ]


def test_what_the_registry_does_not_know_either_is_told_at_once(answers: Answers, asked: list[httpx2.Request]) -> None:
    acts: list[Callable[[Client], Any]] = [
        lambda client: client.attach_evidence("fraud", 3, "card", "card", url="https://x.example"),
        lambda client: client.explain_policy("fraud", 3, "Production"),
        lambda client: client.revoke_version("fraud", 3, "poisoned"),
    ]
    for act in acts:
        asked.clear()
        with pytest.raises(HallmarkError) as caught:
            act(answers(UNKNOWN))
        assert (caught.value.code, len(asked)) == ("version-not-found", 2)


def test_a_wait_ends_with_the_request_or_with_the_time(answers: Answers, asked: list[httpx2.Request]) -> None:
    ended = answers((200, REQUEST), (200, {**REQUEST, "status": "expired"})).wait_for_request("r-1", 30)
    assert ended.status == "expired"
    assert float(asked[0].url.params["wait"]) == 20.0
    started = time.monotonic()
    assert answers((200, REQUEST)).wait_for_request("r-1", 0.2).open
    assert time.monotonic() - started < 5


def test_a_watch_tells_each_change_once(answers: Answers) -> None:
    voted = {**REQUEST, "votes": [{"voter": "ben", "choice": "approve"}]}
    same = {**voted, "you": {"may_vote": False}}
    client = answers((200, REQUEST), (200, REQUEST), (200, voted), (200, same), (200, {**voted, "status": "approved"}))
    told = [(len(one.votes), one.status) for one in client.watch_request("r-1")]
    assert told == [(0, "open"), (1, "open"), (1, "approved")]
    assert [one.open for one in answers((200, REQUEST)).watch_request("r-1", 0.1)] == [True]


def test_votes_say_only_what_was_given(answers: Answers, asked: list[httpx2.Request]) -> None:
    client = answers((200, REQUEST))
    client.approve("r-1")
    client.reject("r-1", "leak", request_digest="sha256:x", rule="p/risk", on_behalf_of="bea")
    assert [json.loads(one.content) for one in asked] == [
        {"choice": "approve", "comment": ""},
        {
            "choice": "reject",
            "comment": "leak",
            "request_digest": "sha256:x",
            "rule": "p/risk",
            "on_behalf_of": "bea",
        },
    ]


def test_what_a_service_of_another_release_says_beside_is_left_out(answers: Answers) -> None:
    found = answers((200, {**REQUEST, "mood": "good", "kind": "policy", "model": "production"})).request("r-1")
    assert found.about == "policy production revision 3"
    assert "mood" not in found.model_dump()


def test_a_document_that_is_no_policy_is_told_with_its_mistakes(answers: Answers) -> None:
    problem = {"type": "urn:hallmark:problem:invalid-policy", "detail": "line 2, spec: missing"}
    errors = [{"line": 2, "field": "spec", "message": "missing"}]
    [mistake] = answers((422, {**problem, "errors": errors})).check_policy("kind: x").errors
    assert (mistake.line, mistake.field, mistake.message) == (2, "spec", "missing")
    [mistake] = answers((422, problem)).check_policy("kind: x").errors
    assert mistake.message == "line 2, spec: missing"
    with pytest.raises(HallmarkError):
        answers((403, {"type": "urn:hallmark:problem:forbidden"})).check_policy("kind: x")


def test_times_of_a_delegation_are_sent_with_their_zone(answers: Answers, asked: list[httpx2.Request]) -> None:
    at = datetime(2026, 12, 31, tzinfo=UTC)
    made = {"delegation_id": "d", "delegator": "ben", "delegate": "carl", "starts": at.isoformat()}
    client = answers((201, {**made, "ends": at.isoformat()}))
    assert client.delegate("carl", at).ends == at
    assert json.loads(asked[0].content) == {"delegate": "carl", "ends": "2026-12-31T00:00:00+00:00"}
