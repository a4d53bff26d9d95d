"""Reading an event stream: what is told, what is resumed, and what means that nothing is told."""

from collections.abc import Callable, Iterator

import httpx2
import pytest

from hallmark import HallmarkError
from hallmark.follow import Follower, NotTold
from hallmark.http import Http

STREAM = {"content-type": "text/event-stream; charset=utf-8"}


def follower(answer: Callable[[httpx2.Request], httpx2.Response]) -> Follower:
    http = Http(timeout=1, retry_for=0, transport=httpx2.MockTransport(answer), user_agent="test")
    return Follower(http, "http://r/v1/models/m/watch", {"stage": "Production"}, {"authorization": "Bearer t"})


def streaming(*chunks: bytes) -> httpx2.Response:
    def body() -> Iterator[bytes]:
        yield from chunks

    return httpx2.Response(200, headers=STREAM, content=body())


def test_events_signs_of_life_and_the_pause_are_read_wherever_the_bytes_are_cut() -> None:
    text = b'retry: 250\n\nevent: change\ndata: {"version":\ndata: 1}\nid: 7\n\n: ping\n\ndata: {"version": 2}\n\n'
    for size in (1, 7, len(text)):
        chunks = [text[at : at + size] for at in range(0, len(text), size)]
        one = follower(lambda _, chunks=chunks: streaming(*chunks))  # type: ignore[misc]
        assert list(one.changes()) == [{"version": 1}, {}, {"version": 2}]
        assert (one.last_id, one.retry_seconds) == ("7", 0.25)


def test_an_event_that_is_cut_off_was_not_told() -> None:
    one = follower(lambda _: streaming(b'data: {"version": 1}\nid: 7\n\ndata: {"version": 2}\nid: 8\n'))
    assert list(one.changes()) == [{"version": 1}]
    assert one.last_id == "7"


def test_it_resumes_after_the_last_change_that_was_dealt_with() -> None:
    asked: list[str | None] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.headers.get("last-event-id"))
        assert request.url.params["stage"] == "Production"
        assert request.headers["authorization"] == "Bearer t"
        return streaming(b'data: {"a": 1}\nid: 7\n\n', b'data: {"a": 2}\nid: 9\n\n')

    one = follower(answer)
    with pytest.raises(ZeroDivisionError):
        for change in one.changes():
            if change["a"] == 2:
                raise ZeroDivisionError
    list(one.changes())
    list(one.changes())
    assert asked == [None, "7", "9"]


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, json={"version": 1}),
        httpx2.Response(404, json={"type": "urn:hallmark:problem:not-found"}),
        httpx2.Response(404, text="a proxy's page"),
        httpx2.Response(422, json={"type": "urn:hallmark:problem:not-watchable"}),
        httpx2.Response(503, json={"type": "urn:hallmark:problem:unavailable"}),
    ],
)
def test_a_registry_without_such_a_stream_tells_nothing(answer: httpx2.Response) -> None:
    with pytest.raises(NotTold):
        list(follower(lambda _: answer).changes())


@pytest.mark.parametrize(("status", "code"), [(404, "model-not-found"), (401, "token-expired"), (410, "model-deleted")])
def test_what_the_registry_refuses_is_an_error(status: int, code: str) -> None:
    answer = httpx2.Response(status, json={"type": f"urn:hallmark:problem:{code}", "detail": "no"})
    with pytest.raises(HallmarkError) as caught:
        list(follower(lambda _: answer).changes())
    assert (caught.value.code, caught.value.status) == (code, status)


def test_a_broken_line_is_told_as_one() -> None:
    def broken(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("gone")

    with pytest.raises(HallmarkError) as caught:
        list(follower(broken).changes())
    assert caught.value.code == "connection"
