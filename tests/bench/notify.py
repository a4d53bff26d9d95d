"""How many deliveries a second the notifier makes, and how soon the first try of an event is. A measurement.

python -m tests.bench.notify [EVENTS]     (600 when absent; each goes to ten subscriptions)

One replica as in production, PostgreSQL with fsync, Apache Kafka, and a receiver in a process of its own, all on this
machine. Ends with status 1 below 300 deliveries a second, or when the 99th percentile from the event's time to its
arrival is a second or more at a steady 50 deliveries a second. It also says what CPU a thousand deliveries cost: on a
machine that is shared that is the figure to compare.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
from aiokafka import AIOKafkaProducer
from tests.support.notify_fleet import Fleet, fleet, publish
from tests.support.waiting import until

from embedded.infra import RunningInfra, start_infra
from kit.loop import run_loop

SUBSCRIPTIONS, MODELS = 10, 20
STEADY_EVENTS, STEADY_PER_SECOND = 75, 5.0
LEAST_PER_SECOND, MOST_SECONDS = 300.0, 1.0


async def measure(directory: Path, running: RunningInfra, events: int) -> bool:
    infra = running.infra
    async with fleet(directory, infra.postgres_admin_url, infra.kafka_bootstrap, "", replicas=1, settings={}) as (
        notifier,
        producer,
    ):
        for n in range(SUBSCRIPTIONS):
            await notifier.subscribe(f"live{n}", "*")

        async def arrived(count: int) -> bool:
            return len(await notifier.taken()) >= count

        for _ in range(2):  # warm: connections, caches
            await (await publish(producer, "", notifier.event("m0")))
        await until(lambda: arrived(2 * SUBSCRIPTIONS), 60)
        for n in range(STEADY_EVENTS):
            await publish(producer, "", notifier.event(f"m{n % MODELS}"))
            await asyncio.sleep(1 / STEADY_PER_SECOND)
        before = 2 * SUBSCRIPTIONS + STEADY_EVENTS * SUBSCRIPTIONS
        await until(lambda: arrived(before), 60)
        ages = [age for *_, age in (await notifier.taken())[2 * SUBSCRIPTIONS :]]
        [replica] = notifier.replicas.values()
        pids = {"notifier": replica.pid, "PostgreSQL": running.postgres.pid, "Kafka": running.kafka.pid}
        begun = {name: _cpu_seconds(pid) for name, pid in pids.items()}
        rate = await _burst(notifier, producer, events, before)
        thousands = events * SUBSCRIPTIONS / 1000
        cost = {name: (_cpu_seconds(pid) - begun[name]) / thousands for name, pid in pids.items()}
    cuts = statistics.quantiles(ages, n=100)
    p50, p99, worst = (1e3 * seconds for seconds in (cuts[49], cuts[98], max(ages)))
    sys.stdout.write(
        f"{events * SUBSCRIPTIONS} deliveries at once: {rate:.0f} a second (must: {LEAST_PER_SECOND:.0f})\n"
        f"CPU seconds for a thousand of them: {', '.join(f'{name} {spent:.2f}' for name, spent in cost.items())}\n"
        f"event to arrival at {STEADY_PER_SECOND * SUBSCRIPTIONS:.0f} deliveries a second, {len(ages)} of them: "
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, worst {worst:.0f} ms (must: p99 1000 ms)\n"
    )
    return rate >= LEAST_PER_SECOND and cuts[98] < MOST_SECONDS


def _cpu_seconds(pid: int | None) -> float:
    """Of the process and its children, also those that have ended."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:4]) for process in processes)


async def _burst(notifier: Fleet, producer: AIOKafkaProducer, events: int, before: int) -> float:
    """Deliveries a second, from the first event's publication to the last one's arrival."""
    wanted = before + events * SUBSCRIPTIONS
    begun = time.monotonic()
    for n in range(events):
        await publish(producer, "", notifier.event(f"m{n % MODELS}"))
    while len(await notifier.taken()) < wanted:  # noqa: ASYNC110  # another process
        await asyncio.sleep(0.25)  # looking costs the machine something too
    return events * SUBSCRIPTIONS / (time.monotonic() - begun)


def main(events: int) -> bool:
    with tempfile.TemporaryDirectory(prefix="hallmark-bench-") as name, start_infra(name, "apache") as running:
        return run_loop(measure(Path(name), running, events))


if __name__ == "__main__":
    sys.exit(not main(int(sys.argv[1]) if len(sys.argv) > 1 else 600))
