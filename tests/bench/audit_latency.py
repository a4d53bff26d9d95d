"""How soon after its commit in the registry is one event durable in the audit log, and queryable? A measurement.

python -m tests.bench.audit_latency [TIMES] [apache|tansu]

The whole system on this machine, PostgreSQL with fsync; one event at a time. The clock starts at the event's own time,
which is a little before its commit, and ends when a query of the timeline's table finds it (looked at every ms). Ends
with status 1 when the 99th percentile is above 50 ms.
"""

import asyncio
import statistics
import sys
import tempfile
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import asyncpg

from embedded.ports import free_port
from embedded.services import PORTS, database_url
from embedded.stack import Options, Stack
from hallmark import Client

WARM_UP = 20


async def measure(stack: Stack, times: int) -> list[float]:
    """Seconds of each event."""
    assert stack.infra is not None
    url = stack.urls["registry"]
    client = Client(url, stack.token("ana", ["ml-engineers"]), workspace="default", retry_for=30)
    (stack.data / "m.bin").write_text("x")
    client.register("latency", stack.data / "m.bin", metrics={"accuracy": 0.95})
    connection = await asyncpg.connect(database_url(stack.infra.infra))
    found = []
    for n in range(times + WARM_UP):
        await asyncio.to_thread(client.tag, "latency", 1, {f"n{n}": "v"})
        at: datetime = await connection.fetchval("select max(at) from registry.event")
        while not await connection.fetchval(  # noqa: ASYNC110  # another process
            "select 1 from audit.timeline where at = $1 and topic like '%registry%'", at
        ):
            await asyncio.sleep(0.001)
        seen: datetime = await connection.fetchval("select clock_timestamp()")
        found.append((seen - at).total_seconds())
        await asyncio.sleep(0.02)
    await connection.close()
    return found[WARM_UP:]


def main(times: int, kind: str) -> bool:
    with ExitStack() as held:
        data = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="hallmark-bench-")))
        ports = {name: free_port() for name in PORTS}
        stack = held.enter_context(Stack(Options(data_dir=data, kafka=kind, ports=ports)))  # type: ignore[arg-type]
        found = asyncio.run(measure(stack, times))
    cuts = statistics.quantiles(found, n=100)
    sys.stdout.write(
        f"commit to queryable on {kind}, {times} events: p50 {cuts[49] * 1e3:.1f} ms, p99 {cuts[98] * 1e3:.1f} ms, "
        f"worst {max(found) * 1e3:.1f} ms (must: p99 50 ms on an idle machine)\n"
    )
    return cuts[98] <= 0.05


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(not main(int(arguments[0]) if arguments else 300, arguments[1] if len(arguments) > 1 else "apache"))
