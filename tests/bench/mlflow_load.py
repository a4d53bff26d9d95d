"""The load of `tests.bench.mlflow`, in a process of its own: one JSON line in, one out, for each measurement.

In:  {"port", "headers", "operation", "models", "at_once", "seconds", "prefix"}
Out: {"rate": calls a second, "p50": seconds}

A bare HTTP/1.1 client: whatever the client costs, the server does not get on a machine with few cores.
"""

import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

from kit.loop import run_loop

API = "/api/2.0/mlflow"
Call = tuple[str, str, dict[str, Any]]  # method, path, parameters


def version(model: str, turn: int) -> Call:
    return "POST", "/model-versions/create", {"name": model, "source": f"s3://bucket/{turn}", "run_id": "run"}


def alias(model: str, turn: int) -> Call:
    return "POST", "/registered-models/alias", {"name": model, "alias": "champion", "version": str(1 + turn % 2)}


def tag(model: str, turn: int) -> Call:
    return "POST", "/model-versions/set-tag", {"name": model, "version": "1", "key": "k", "value": str(turn)}


def transition(model: str, turn: int) -> Call:
    stage = ("Staging", "Production")[turn % 2]
    return "POST", "/model-versions/transition-stage", {
        "name": model, "version": "1", "stage": stage, "archive_existing_versions": False,
    }  # fmt: skip


def by_alias(model: str, _: int) -> Call:
    return "GET", "/registered-models/alias", {"name": model, "alias": "champion"}


def latest(model: str, _: int) -> Call:
    return "POST", "/registered-models/get-latest-versions", {"name": model}


def registered(model: str, _: int) -> Call:
    return "GET", "/registered-models/get", {"name": model}


def search(model: str, _: int) -> Call:
    return "GET", "/model-versions/search", {"filter": f"name = '{model}'", "max_results": 10}


def search_models(model: str, _: int) -> Call:
    return "GET", "/registered-models/search", {"filter": f"name LIKE '{model}%'", "max_results": 10}


OPERATIONS: dict[str, Callable[[str, int], Call]] = {
    "create version": version,
    "set alias": alias,
    "set tag": tag,
    "transition": transition,
    "get by alias": by_alias,
    "get latest versions": latest,
    "get registered model": registered,
    "search versions": search,
    "search models": search_models,
}


def request(call: Call, headers: str) -> bytes:
    method, path, given = call
    if method == "GET":
        return f"GET {API}{path}?{urlencode(given)} HTTP/1.1\r\n{headers}\r\n".encode()
    body = json.dumps(given)
    return (
        f"{method} {API}{path} HTTP/1.1\r\n{headers}content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()


class Caller:
    """One connection, kept open."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self._port = port
        self._headers = "".join(f"{k}: {v}\r\n" for k, v in {"host": f"127.0.0.1:{port}", **headers}.items())

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def call(self, call: Call) -> None:
        """Raises RuntimeError for any answer but 200."""
        self._writer.write(request(call, self._headers))
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        body = await self._reader.readexactly(length)
        if " 200 " not in head.partition("\r\n")[0]:
            raise RuntimeError(f"{call}: {head} {body!r}")

    def close(self) -> None:
        self._writer.close()


async def measure(asked: dict[str, Any]) -> dict[str, float]:
    make, times = OPERATIONS[asked["operation"]], list[float]()
    callers = [Caller(asked["port"], asked["headers"]) for _ in range(asked["at_once"])]
    await asyncio.gather(*(caller.open() for caller in callers))
    begun = time.perf_counter()

    async def work(caller: Caller, model: str, turns: Iterator[int]) -> None:
        while time.perf_counter() - begun < asked["seconds"]:
            before = time.perf_counter()
            await caller.call(make(model, next(turns)))
            times.append(time.perf_counter() - before)

    models = asked["models"]
    await asyncio.gather(*(work(c, models[n % len(models)], itertools.count()) for n, c in enumerate(callers)))
    taken = time.perf_counter() - begun
    for caller in callers:
        caller.close()
    return {"rate": len(times) / taken, "p50": statistics.median(times)}


async def main() -> None:
    for line in iter(sys.stdin.readline, ""):  # nothing else runs between two measurements
        sys.stdout.write(json.dumps(await measure(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    run_loop(main())
