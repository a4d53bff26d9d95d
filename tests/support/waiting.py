"""Waiting for what comes by itself: looks again and again, hands over what it found, says what never came."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")
What = str | Callable[[], object]
PAUSE_SECONDS = 0.02


@overload
async def until(condition: Callable[[], Awaitable[T | None]], seconds: float = ..., what: What = ...) -> T: ...
@overload
async def until(condition: Callable[[], T | None], seconds: float = ..., what: What = ...) -> T: ...
async def until(condition: Callable[[], Any], seconds: float = 30.0, what: What = "") -> Any:
    """What the condition, plain or awaitable, gives once it is truthy. A callable `what` is asked when it is too late.

    What the condition raises ends the waiting: an assertion in it says what must hold meanwhile.
    """
    try:
        async with asyncio.timeout(seconds) as limit:
            while True:
                found = condition()
                if inspect.isawaitable(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(PAUSE_SECONDS)
    except TimeoutError:
        if not limit.expired():
            raise
    raise _missing(condition, seconds, what)


def until_now(condition: Callable[[], T | None], seconds: float = 30.0, what: What = "") -> T:
    """The same where no loop runs. It cannot cut a look off that takes too long."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise _missing(condition, seconds, what)
        time.sleep(PAUSE_SECONDS)
    return found


def _missing(condition: Callable[[], object], seconds: float, what: What) -> AssertionError:
    said = what() if callable(what) else what
    return AssertionError(f"not within {seconds:g} s: {said or _source(condition)}")


def _source(condition: Callable[[], object]) -> str:
    try:
        return inspect.getsource(condition).strip()
    except (OSError, TypeError):  # it is not written in Python, or not in a file
        return repr(condition)
