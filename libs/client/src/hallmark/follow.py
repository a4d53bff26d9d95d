"""Listening to the registry: changes as server-sent events, resumed where they broke off."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx2

from hallmark.errors import HallmarkError
from hallmark.http import Http, check, unreachable

SILENCE_SECONDS = 40.0  # the registry sends a sign of life every 15 s
# Answers of a registry that has no such stream (an older one), or none for this target.
CANNOT = ("not-found", "method-not-allowed", "http-error", "not-watchable")
TOO_MANY = (429, 503)  # it has no room for one more stream


class NotTold(Exception):
    """The registry does not tell changes of this target; it can only be asked."""


class Follower:
    """One target of one model. `interrupt` may be called from another thread."""

    def __init__(self, http: Http, url: str, params: dict[str, Any], headers: dict[str, str]) -> None:
        self._http = http
        self._url = url
        self._params = params
        self._headers = headers | {"accept": "text/event-stream"}
        self._socket: socket.socket | None = None
        self._interrupted = False
        self.last_id: str | None = None
        self.retry_seconds = 1.0

    def changes(self, opened: Callable[[], object] = lambda: None) -> Iterator[dict[str, Any]]:
        """Every change since the last one told, as JSON; an empty one for a sign of life. Ends with the stream.

        Called again, it goes on after the last change. `opened` is called once the registry has accepted to tell.

        Raises:
            NotTold: there is no such stream.
            HallmarkError: code `connection`, or what the registry answered.
        """
        headers = self._headers | ({"last-event-id": self.last_id} if self.last_id else {})
        timeout = httpx2.Timeout(SILENCE_SECONDS, connect=5.0)
        try:
            with self._http.stream(self._url, headers, params=self._params, timeout=timeout) as response:
                self._accept(response)
                try:
                    self._socket = _socket(response)
                    opened()
                    yield from self._read(response)
                finally:
                    self._socket = None
        except httpx2.TransportError as error:
            if not self._interrupted:
                raise unreachable(self._url, error) from error

    def interrupt(self) -> None:
        """Ends the stream for good, also while it is waited for."""
        self._interrupted = True
        held = self._socket
        if held is not None:
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _accept(response: httpx2.Response) -> None:
        try:
            if not response.is_success:
                response.read()
            check(response)
        except HallmarkError as error:
            if error.code in CANNOT or error.status in TOO_MANY:
                raise NotTold(error.detail) from error
            raise
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            raise NotTold(f"the answer is {kind or 'of no type'}")

    def _read(self, response: httpx2.Response) -> Iterator[dict[str, Any]]:
        """As the HTML standard, section 9.2.6, reads an event stream."""
        data: list[str] = []
        event_id = self.last_id
        for line in response.iter_lines():
            if self._interrupted:
                return
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                if data:
                    yield json.loads("\n".join(data))
                    self.last_id = event_id  # only now: the reader has done its part
                data = []
            elif not name:
                yield {}
            elif name == "data":
                data.append(value)
            elif name == "id":
                event_id = value
            elif name == "retry" and value.isdecimal():
                self.retry_seconds = int(value) / 1_000


def _socket(response: httpx2.Response) -> socket.socket | None:
    stream = response.extensions.get("network_stream")
    found = stream.get_extra_info("socket") if stream is not None else None
    return found if isinstance(found, socket.socket) else None
