"""A receiver of webhooks in a process of its own: fast, and ill in ways that its paths name.

python -m tests.support.notify_sink PORT

`/live...` takes everything, `/slow...` after a while, `/flapping...` two of three, `/busy...` three of four (and asks
for a pause with 429), `/dead...` never answers. `GET /taken` lists what was taken: path, webhook-id, key, sequence, and
seconds from the event to its arrival.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from datetime import datetime

from kit.loop import run_loop

Taken = tuple[str, str, str, int, float]
SLOW_SECONDS = 0.3


class Sink:
    def __init__(self) -> None:
        self.taken: list[Taken] = []
        self.asked = Counter[str]()

    async def serve(self, port: int) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", port)
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.split("\r\n")
                method, path, _ = first.split(" ")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                writer.write(await self._answer(method, path, headers, body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        if method == "GET":
            return _http("200 OK", json.dumps(self.taken).encode())
        kind = path.strip("/").rstrip("0123456789")
        self.asked[path] += 1
        if kind == "dead":
            await asyncio.sleep(3600)
        if kind == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        if kind == "flapping" and self.asked[path] % 3 == 0:
            return _http("500 Internal Server Error")
        if kind == "busy" and self.asked[path] % 4 == 0:
            return _http("429 Too Many Requests", extra="retry-after: 1\r\n")
        event = json.loads(body)
        age = time.time() - datetime.fromisoformat(event["time"]).timestamp()
        self.taken.append((path, headers["webhook-id"], event["partitionkey"], event["sequence"], age))
        return _http("200 OK")


def _http(status: str, body: bytes = b"", extra: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode() + body


if __name__ == "__main__":
    run_loop(Sink().serve(int(sys.argv[1])))
