"""The event loop that services run on, and what aiokafka must be told to live on it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

T = TypeVar("T")
_send = AIOKafkaConnection.send


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on the loop that services run on."""
    AIOKafkaConnection.send = _send_or_broken
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _send_or_broken(self: Any, *args: Any, **options: Any) -> Any:
    """As aiokafka's own, which takes an OSError alone for a broken connection; on a closed transport uvloop raises a
    RuntimeError. That ended the task that renews a client's metadata, and a consumer that outlives its broker then
    waited for ever (https://github.com/aio-libs/aiokafka/issues/1038, open in 0.14)."""
    try:
        return _send(self, *args, **options)
    except RuntimeError as error:
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"the connection is broken: {error}") from error
