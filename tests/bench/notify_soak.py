"""The notifier dies every few seconds, endpoints fail in every way, and nothing is lost.

python -m tests.bench.notify_soak [EVENTS [ENDPOINTS [KILLS]]]     (10,000, 50 and 30 when absent)

Each event is of a model of one endpoint. Of the endpoints one never answers, one is slow, one fails a third of its
tries, one answers 429 to a quarter, the others are well. Of two replicas one after the other dies by SIGKILL while
there is work, and is started again. Ends with status 1 unless each event has arrived at its endpoint (but for the one
that never answers: its deliveries are open, or dead), the order of each model was kept, what came twice came under the
same id, and the reconciliation finds nothing unaccounted for.
"""

import asyncio
import random
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from aiokafka import AIOKafkaProducer
from tests.support.notify_fleet import Fleet, fleet, publish
from tests.support.notify_sink import Taken

from embedded.infra import start_infra
from kit.loop import run_loop

MODELS = 4  # of each endpoint
ILL = ("dead", "slow", "flapping", "busy")
SETTINGS = {
    "HALLMARK_RETRY_SECONDS": ",".join(["0.5"] * 30),
    "HALLMARK_SEND_TIMEOUT_SECONDS": "1.5",
    "HALLMARK_LEASE_SECONDS": "3",
    "HALLMARK_KAFKA_SESSION_SECONDS": "6",
}


def paths_of(endpoints: int) -> list[str]:
    return [f"{ILL[n] if n < len(ILL) else 'live'}{n}" for n in range(endpoints)]


async def soak(
    notifier: Fleet, producer: AIOKafkaProducer, prefix: str, *, events: int, endpoints: int, kills: int, seconds: float
) -> list[str]:
    """What was wrong, in words; nothing when all is well. `seconds`: how long it may take at most."""
    paths, luck, begun = paths_of(endpoints), random.Random(7), time.monotonic()
    for n, path in enumerate(paths):
        await notifier.subscribe(path, f"e{n}-*")
    sent = [notifier.event(f"e{n % endpoints}-{n // endpoints % MODELS}") for n in range(events)]
    acknowledged = [await publish(producer, prefix, envelope) for envelope in sent]
    await asyncio.gather(*acknowledged)
    wanted = {(one.key, one.sequence) for one in sent if not one.key.startswith("default/e0-")}
    killed, taken, said, before = 0, list[Taken](), begun, 0
    ports = list(notifier.replicas)
    while time.monotonic() - begun < seconds:
        taken = await notifier.taken()
        missing = wanted - {(key, sequence) for _, _, key, sequence, _ in taken}
        if time.monotonic() - said >= 10:
            said = time.monotonic()
            print(f"{said - begun:.0f} s: {killed} kills, {len(missing)} to come", file=sys.stderr, flush=True)
        if not missing and killed >= kills:
            break
        # Spread over the work: who dies while it starts dies of nothing.
        if killed < kills and (len(taken) - before >= len(wanted) / (kills + 1) or not missing):
            await asyncio.sleep(luck.uniform(0.0, 2.0))  # the moment of a death is luck
            await notifier.kill(ports[killed % len(ports)])
            killed, before = killed + 1, len(taken)
        else:
            await asyncio.sleep(0.5)
    await notifier.ready()
    took = time.monotonic() - begun
    done = f"{len(taken)} arrivals of {len(wanted)} deliveries in {took:.0f} s"
    sys.stdout.write(f"{events} events to {endpoints} endpoints, {killed} kills: {done}\n")
    wrong = [f"{killed} kills of {kills}"] if killed < kills else []
    return wrong + judged(taken, wanted) + await accounted(notifier)


def judged(taken: list[Taken], wanted: set[tuple[str, int | None]]) -> list[str]:
    """What is wrong with what arrived."""
    ids, order = defaultdict[tuple[str, int], set[str]](set), defaultdict[tuple[str, str], list[int]](list)
    for path, identity, key, sequence, _ in taken:
        ids[key, sequence].add(identity)
        order[path, key].append(sequence)
    wrong = [f"lost: {key} {sequence}" for key, sequence in sorted(wanted - set(ids), key=str)]
    wrong += [f"two ids of {one}" for one, found in ids.items() if len(found) > 1]
    wrong += [f"out of order at {place}: {found}" for place, found in order.items() if found != sorted(found)]
    return wrong


async def accounted(notifier: Fleet) -> list[str]:
    found = await notifier.call("POST", "/v1/reconciliation")
    return [f"unaccounted for: {one}" for one in found["examples"]]


async def work(directory: Path, admin_url: str, bootstrap: str, events: int, endpoints: int, kills: int) -> bool:
    async with fleet(directory, admin_url, bootstrap, "", replicas=2, settings=SETTINGS) as (notifier, producer):
        wrong = await soak(
            notifier, producer, "", events=events, endpoints=endpoints, kills=kills, seconds=120 + events / 10
        )
    for line in wrong[:20]:
        sys.stdout.write(f"{line}\n")
    return not wrong


def main(events: int = 10_000, endpoints: int = 50, kills: int = 30) -> bool:
    with tempfile.TemporaryDirectory(prefix="hallmark-soak-") as name, start_infra(name, "apache") as running:
        infra = running.infra
        return run_loop(work(Path(name), infra.postgres_admin_url, infra.kafka_bootstrap, events, endpoints, kills))


if __name__ == "__main__":
    sys.exit(not main(*map(int, sys.argv[1:])))
