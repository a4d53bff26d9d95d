"""The stream of one watcher: what it missed or the present state, then every change as it comes."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable

from fastapi.sse import KEEPALIVE_COMMENT
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from registry.serving.changes import Found, State, frames
from registry.serving.hub import Hub, Watcher
from registry.serving.usage import Use

HEARTBEAT_SECONDS = 15.0
SEND_SECONDS = 30.0  # a client that takes nothing for so long has gone
RECONNECT_MS = (500, 3_000)  # spread, so that not everybody comes back at once


class Stream:
    """`open` joins the hub (and may raise Problem); `response` tells.

    `after`: the Last-Event-ID, everything later than it is told; None: the present state comes first.
    `lifetime`: seconds after which the stream ends and the client comes back with its token.
    """

    def __init__(self, hub: Hub, watcher: Watcher, state: State, after: int | None, lifetime: float) -> None:
        self._hub = hub
        self._watcher = watcher
        self._state = state
        self._after = after
        self._lifetime = lifetime

    @classmethod
    async def open(cls, hub: Hub, found: Found, principal: str, after: int | None, lifetime: float) -> "Stream":
        watcher, state = await hub.join(found, principal)
        if after is not None and after > state.sequence:
            after = None  # an id of another registry's stream, or of one restored from a backup
        return cls(hub, watcher, state, after, lifetime)

    def uses(self) -> list[Use]:
        found = self._watcher.found
        versions = set(self._watcher.versions.values())
        return [Use(found.workspace, found.model, version, self._watcher.principal, "watch") for version in versions]

    def response(self) -> "EventStream":
        return EventStream(self._frames(), self._watcher, lambda: self._hub.leave(self._watcher))

    async def _frames(self) -> AsyncGenerator[bytes, None]:
        loop, watcher = asyncio.get_running_loop(), self._watcher
        until = loop.time() + self._lifetime
        yield f"retry: {random.randint(*RECONNECT_MS)}\n\n".encode()  # noqa: S311
        if self._after is None:
            yield self._state.frame
        else:
            async for frame in self._missed(self._after):
                yield frame
        while True:
            # Not all at the same moment: a thousand heartbeats at once are a hiccup.
            pause = HEARTBEAT_SECONDS * random.uniform(0.8, 1.0)  # noqa: S311
            left = until - loop.time()
            group = await watcher.next(min(pause, max(left, 0)))
            if group is not None:
                watcher.told(group)
                yield frames(group)
                if group[-1].kind == "deleted":
                    return
            elif watcher.ended is not None or loop.time() >= until:
                return
            else:
                yield KEEPALIVE_COMMENT

    async def _missed(self, after: int) -> AsyncGenerator[bytes, None]:
        """Everything after `after` up to the state, a page at a time; no connection is held while the client reads."""
        stream, upto = self._watcher.found.stream, self._state.sequence
        while after < upto:
            news = await self._hub.history.after({stream: after})
            after, groups = news.get(stream, (upto, []))
            for group in groups:
                wanted = self._watcher.concerning(group)
                if wanted and wanted[0].sequence <= upto:
                    yield frames(wanted)


class EventStream(StreamingResponse):
    """Ends when the client has gone, does not take what it is sent, or the watcher was ended.

    Not FastAPI's `EventSourceResponse`: it puts two tasks and a queue between the hub and each client.
    """

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncGenerator[bytes, None], watcher: Watcher, leave: Callable[[], None]) -> None:
        super().__init__(frames, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._frames = frames
        self._watcher = watcher
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        listening = asyncio.create_task(self._until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for frame in self._frames:
                async with asyncio.timeout(SEND_SECONDS):
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
            async with asyncio.timeout(SEND_SECONDS):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            return  # the server closes the connection of an answer that is not complete
        finally:
            self._leave()
            listening.cancel()
            await self._frames.aclose()

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._watcher.end("gone")
