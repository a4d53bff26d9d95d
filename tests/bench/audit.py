"""How fast the log takes records, as a ratio to plain COPY of the same rows into the same table, in one run.

    python -m tests.bench.audit            (or `make bench-audit`)

PostgreSQL as the embedded mode runs it, with fsync. Pairs are interleaved: COPY, log, COPY, log, ... The median of the
ratios is what counts; rates depend on the machine and on what else it does. Both sides write batches of the same size.
The log's side is the ledger: leaves, hashes, tree head, offsets, committed. Views, tiles and signatures follow behind
it (`audit_soak` runs them all). Ends with status 1 below 0.65, in batches of one (`--batch 1 --count 3000`) below 0.40.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from audit.known import leaf_of
from audit.ledger import Ledger
from audit.merkle import leaf_hash
from audit.places import COLUMNS
from contracts.envelope import Envelope, now
from contracts.notifier import DeliverySucceeded
from contracts.topics import NOTIFIER_EVENTS
from embedded import postgres
from embedded.ports import free_port
from kit.bus import Record
from kit.db import Database
from kit.loop import run_loop
from kit.main import spare_garbage_collection
from kit.migrations import migrate

MUST, MUST_OF_ONE = 0.65, 0.40
BODY = DeliverySucceeded(
    delivery_id="d" * 36,
    subscription_id="s" * 36,
    event_id="e" * 36,
    event_type="hallmark.stage.changed.v1",
    attempt=1,
    latency_ms=12.5,
    detail="x" * 250,
)


def records(count: int) -> list[Record]:
    """As the notifier writes them: about 600 bytes of value and twelve headers."""
    found = []
    for n in range(count):
        sent = Envelope.of(
            BODY,
            source="hallmark/notifier",
            subject="default/fraud/1",
            key=f"default/m{n % 100}",
            sequence=n + 1,
            actor="service:notifier",
        )
        found.append(
            Record(
                NOTIFIER_EVENTS.name,
                n % 6,
                n // 6,
                1_763_640_000_000,
                sent.key.encode(),
                tuple(sent.headers()),
                sent.value,
            )
        )
    return found


class Bench:
    def __init__(self, url: str, admin: str, batch: int) -> None:
        self.url, self.admin, self.batch = url, admin, batch
        self._next = 0
        self._plain = 0

    def take(self, sent: Sequence[Record], count: int) -> list[Record]:
        """`count` of the same records at offsets that nobody has seen."""
        start, self._next = self._next, self._next + count
        return [
            Record(r.topic, r.partition, start + n, r.timestamp_ms, r.key, r.headers, r.value)
            for n, r in zip(range(count), cycle(sent), strict=False)
        ]

    async def copy(self, sent: Sequence[Record], count: int) -> float:
        """Rows a second of plain COPY, into a table made as `entry` is, by one connection. The rows of a batch are made
        just before it, off the clock: as fresh in the processor's cache as the log's are."""
        at, seconds, source = now(), 0.0, cycle(sent)
        connection = await asyncpg.connect(self.admin)
        try:
            for start in range(self._plain, self._plain + count, self.batch):
                rows = []
                for n, r in zip(range(start, min(start + self.batch, self._plain + count)), source, strict=False):
                    data = leaf_of(r, at).encode()
                    rows.append((n, at, r.topic, r.partition, n, data, leaf_hash(data)))
                begun = time.perf_counter()
                await connection.copy_records_to_table("plain", columns=COLUMNS, records=rows)
                seconds += time.perf_counter() - begun
        finally:
            await connection.close()
        self._plain += count
        return count / seconds

    async def log(self, ledger: Ledger, sent: Sequence[Record], count: int) -> float:
        """Records a second into the log: leaves, hashes, tree, offsets, committed. Two callers, as consumers are."""
        given = self.take(sent, count)
        batches = [given[start : start + self.batch] for start in range(0, len(given), self.batch)]
        begun = time.perf_counter()

        async def pour() -> None:
            while batches:
                await ledger.append(batches.pop(0))

        await asyncio.gather(pour(), pour())
        return len(given) / (time.perf_counter() - begun)


async def main(pairs: int, count: int, batch: int) -> bool:
    with tempfile.TemporaryDirectory(prefix="hallmark-bench-") as name:
        directory = Path(name)
        port = free_port()
        server = postgres.postgres(directory / "data", port, "bench", directory / "log", fsync=True)
        server.start()
        try:
            admin = postgres.admin_url(port, "bench")
            url = urlsplit(admin)._replace(netloc=f"hallmark_audit:bench@{urlsplit(admin).hostname}:{port}").geturl()
            await asyncio.to_thread(
                migrate,
                "audit",
                Path(sys.modules["audit"].__path__[0]) / "migrations",
                database_url=url,
                admin_database_url=admin,
            )
            return await run(Bench(url, admin, batch), pairs, count)
        finally:
            server.stop()


async def run(bench: Bench, pairs: int, count: int) -> bool:
    connection = await asyncpg.connect(bench.admin)
    await connection.execute("create table plain (like audit.entry including all) partition by range (recorded_at)")
    await connection.execute("create table plain_all partition of plain for values from (minvalue) to (maxvalue)")
    await connection.close()
    db = Database(bench.url, name="bench")
    ledger = Ledger(db, None)  # type: ignore[arg-type]  # no leaf is large enough for the store
    # Few enough to stay in the processor's cache, where those are that a consumer has just decoded.
    sent = records(5 * bench.batch)
    spare_garbage_collection()
    await bench.copy(sent, count // 5)
    await bench.log(ledger, sent, count // 5)
    ratios = []
    for n in range(pairs):
        plain, log = await bench.copy(sent, count), await bench.log(ledger, sent, count)
        ratios.append(log / plain)
        print(
            f"pair {n + 1}: COPY {plain:9,.0f} rows/s   log {log:9,.0f} records/s   ratio {ratios[-1]:.2f}", flush=True
        )
    await db.close()
    median = statistics.median(ratios)
    must, goal = (MUST, ", goal 0.80") if bench.batch > 1 else (MUST_OF_ONE, "")
    print(f"batch {bench.batch}, {count} records a run: median ratio {median:.2f} (must {must:.2f}{goal})")
    return median >= must


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--count", type=int, default=60_000)
    parser.add_argument("--batch", type=int, default=1_000)
    given: Any = parser.parse_args()
    sys.exit(not run_loop(main(given.pairs, given.count, given.batch)))
