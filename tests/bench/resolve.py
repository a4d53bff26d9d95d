"""How fast is resolve, and how soon does a watcher hear of a change? A measurement, not a test.

python -m tests.bench.resolve [SECONDS]

Server and clients share this process and its cores: what a server of its own does is more.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx2
from tests.support.serving import House, Pen, running, settings_for

from embedded.fixtures import acquire
from registry.settings import RegistrySettings

AT_ONCE = (1, 8, 32)


async def resolves(house: House, pen: Pen, at_once: int, seconds: float, headers: dict[str, str]) -> str:
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def ask(client: httpx2.AsyncClient) -> None:
        while time.perf_counter() < end:
            began = time.perf_counter()
            response = await client.get("/v1/models/m/resolve", params={"stage": "Production"}, headers=headers)
            assert response.status_code in (200, 304)
            times.append(time.perf_counter() - began)

    transport = httpx2.ASGITransport(house.app)
    async with house.client(pen, transport=transport) as client:
        await asyncio.gather(*(ask(client) for _ in range(at_once)))
    cuts = statistics.quantiles(times, n=100)
    return f"{len(times) / seconds:6.0f}/s  p50 {cuts[49] * 1e3:5.2f} ms  p99 {cuts[98] * 1e3:6.2f} ms"


async def hearing(house: House, pen: Pen, times: int = 50) -> str:
    found: list[float] = []
    now = 1
    async with house.client(pen) as client, client.sse("/v1/models/m/watch", params={"alias": "live"}) as source:
        events = aiter(source)
        while not (await anext(events)).data:
            pass
        for _ in range(times):
            now, before = 3 - now, now
            began = time.perf_counter()
            await pen.alias("m", "live", now, before)
            acknowledged = time.perf_counter()
            await anext(events)
            found.append(time.perf_counter() - acknowledged)
            assert acknowledged > began
    return f"p50 {statistics.median(found) * 1e3:5.2f} ms after the acknowledgement, worst {max(found) * 1e3:.2f} ms"


def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        postgres = acquire("postgres", Path(scratch) / "infra")["url"]
        with settings_for(postgres, Path(scratch)) as settings:
            asyncio.run(measure(settings, seconds))


async def measure(settings: RegistrySettings, seconds: float) -> None:
    async with running(settings) as house:
        pen = Pen(house.db)
        await pen.model("m", 2)
        await pen.promote("m", 1, origin="Development")
        await pen.alias("m", "live", 1)
        await resolves(house, pen, 8, 0.5, {})
        for at_once in AT_ONCE:
            full = await resolves(house, pen, at_once, seconds, {})
            etag = f'"1.{await sequence(house, pen)}.ready"'
            same = await resolves(house, pen, at_once, seconds, {"if-none-match": etag})
            say(f"resolve, {at_once:3} at once:  200: {full}   304: {same}")
        say(f"watch: {await hearing(house, pen)}")


async def sequence(house: House, pen: Pen) -> int:
    async with house.client(pen) as client:
        return int((await client.get("/v1/models/m/resolve", params={"stage": "Production"})).json()["sequence"])


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)
