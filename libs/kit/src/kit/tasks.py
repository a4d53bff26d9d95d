"""Ending tasks for certain."""

import asyncio
from collections.abc import Sequence
from typing import Any


async def cancel(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    """Cancels until they are gone: one cancellation may be swallowed on the way (`asyncio.wait_for` up to 3.11)."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)
