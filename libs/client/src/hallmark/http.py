"""HTTP with retries: a service that restarts, or a network that blinks, is not the caller's problem."""

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx2

from hallmark.errors import HallmarkError, from_problem

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 3.0
TRY_AGAIN = (429, 502, 503, 504)


class Http:
    """One connection pool. `retry_for` is how long, in seconds, trouble is waited out; 0 means one try."""

    def __init__(
        self, *, timeout: float, retry_for: float, transport: httpx2.BaseTransport | None = None, user_agent: str
    ) -> None:
        self._retry_for = retry_for
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(timeout, connect=min(timeout, 5.0)),
            headers={"user-agent": user_agent},
            transport=transport,
        )

    def close(self) -> None:
        self._client.close()

    def send(
        self,
        method: str,
        url: str,
        *,
        patience: float = 0.0,
        body: Callable[[], Any] | None = None,
        **options: Any,
    ) -> httpx2.Response:
        """The answer, whatever its status is once retrying has ended.

        Whatever is sent must stand being sent again: an answer may be lost on its way. `patience` is added to the
        read timeout (long polls). `body` makes the content anew for each try, for streams.

        Raises:
            HallmarkError: code `connection`; no answer came in time.
        """
        if patience:
            read = (self._client.timeout.read or 0.0) + patience
            options["timeout"] = httpx2.Timeout(read, connect=self._client.timeout.connect)
        deadline, pause = time.monotonic() + self._retry_for, FIRST_PAUSE_SECONDS
        while True:
            try:
                content = {"content": body()} if body else {}
                response = self._client.request(method, url, **content, **options)
            except httpx2.TransportError as error:
                if time.monotonic() + pause > deadline:
                    raise unreachable(url, error) from error
                wait = pause
            else:
                wait = _retry_after(response, pause)
                if response.status_code not in TRY_AGAIN or time.monotonic() + wait > deadline:
                    return response
            time.sleep(wait * random.uniform(0.7, 1.3))  # noqa: S311
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def stream(
        self, url: str, headers: dict[str, str] | None = None, **options: Any
    ) -> AbstractContextManager[httpx2.Response]:
        """A streaming GET, as a context manager; no retry."""
        return self._client.stream("GET", url, headers=headers, **options)


def unreachable(url: str, error: Exception) -> HallmarkError:
    where = httpx2.URL(url)
    return HallmarkError(
        "connection",
        f"no answer from {where.scheme}://{where.netloc.decode()} ({type(error).__name__}); "
        "is Hallmark running there? 'hallmark up' starts it on this machine, HALLMARK_URL says where to look",
    )


def check(response: httpx2.Response) -> httpx2.Response:
    """Raises HallmarkError unless the answer is a success (or 304)."""
    if response.is_success or response.status_code == 304:
        return response
    try:
        body = response.json()
    except ValueError:
        body = None
    where = f"{response.request.method} {response.request.url.path}"
    raise from_problem(response.status_code, body, response.headers.get("x-request-id"), where)


def _retry_after(response: httpx2.Response, pause: float) -> float:
    given = response.headers.get("retry-after", "")
    return min(float(given), LONGEST_PAUSE_SECONDS) if given.isdecimal() and float(given) > 0 else pause
