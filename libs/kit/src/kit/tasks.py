"""Tasks in the background: going on for certain, and ending for certain."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from kit.errors import is_transient

log = structlog.get_logger()


async def repeat(step: Callable[[], Awaitable[object]], pause: Callable[[], Awaitable[object]], name: str) -> None:
    """Step after step until cancelled; a `pause` after each that gives nothing, or that meets what will pass
    (`is_transient`). What will not is raised. `name` is for the log."""
    while True:
        try:
            if await step():
                continue
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("cannot go on now; trying again", task=name, error=repr(error))
        await pause()


async def cancel(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    """Cancels until they are gone: one cancellation may be swallowed on the way (`asyncio.wait_for` up to 3.11)."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)
