"""Millions of events through the log, its views and its publisher, with the memory of the process on the way.

python -m tests.bench.audit_soak [COUNT]     (2,000,000 when absent)

PostgreSQL and the object store are real; ingest, projection and publishing share one process and its loop, as in the
service. The events are those of a busy registry (`audit_events`): promotions, votes, decisions, deliveries; every view
gets its own. Prints a line for each twentieth: records a second so far, how far views and checkpoint are behind, memory
(RSS). Ends with status 1 when memory in the last fifth is more than 1.25 times that of the second fifth, the log is not
whole, a view is empty or something was wrong with a record.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.bench.audit_events import Registry

from audit.ledger import Ledger
from audit.note import Signer
from audit.projector import Projector
from audit.tables import finding, follower, mechanism, tree_head
from audit.tlog.archive import Archive
from audit.tlog.check import Check
from audit.tlog.publisher import Publisher
from audit.tlog.signing import LocalSigner
from audit.view_tables import alias_interval, fact, stage_interval, timeline
from audit.views import Views
from contracts.topics import AUDIT_EVENTS
from embedded import postgres, s3
from embedded.ports import free_port
from kit.blobs import BlobStore
from kit.db import Database
from kit.events import EventLog
from kit.loop import run_loop
from kit.main import spare_garbage_collection
from kit.migrations import migrate

BATCH = 1_000
AHEAD = 100_000  # ingest waits when the views are so far behind: the broker keeps what was not taken


async def soak(db: Database, archive: Archive, count: int) -> bool:
    ledger = Ledger(db, archive)
    projector = Projector(db, Views(archive=archive), ledger.appended)
    events = EventLog(mechanism, topic=AUDIT_EVENTS.name, source="hallmark/audit")
    signer = LocalSigner([Signer("example.org/soak", Ed25519PrivateKey.generate())], "example.org/soak")
    publisher = Publisher(db, events, archive, signer, every_seconds=1, publish_seconds=30)
    background = [asyncio.create_task(work()) for work in (projector.run, publisher.run)]
    records, memory, begun, printed = Registry().records(), list[float](), time.monotonic(), 0
    spare_garbage_collection()
    done = 0
    try:
        while done < count:
            page = list(islice(records, BATCH * 6))
            await ledger.append(page)
            done += len(page)
            while (behind := done - await views(db)) > AHEAD:
                await projector.projected.wait(1)
            if done * 20 // count > printed:
                printed = done * 20 // count
                memory.append(psutil.Process().memory_info().rss / 2**20)
                newest = await publisher.newest()
                out = newest.checkpoint.size if newest else 0
                rate = done / (time.monotonic() - begun)
                print(
                    f"{done:>9,}  {rate:7,.0f}/s  views -{behind:,}  checkpoint -{done - out:,}  {memory[-1]:,.0f} MiB",
                    flush=True,
                )
        while await views(db) < done:
            await projector.projected.wait(1)
        print(f"all read after {time.monotonic() - begun:.0f} s", flush=True)
        published = await publisher.current()
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
    verdict = await Check(db, archive).everything(published)
    async with db.snapshot() as tx:
        size = await tx.scalar(sa.select(tree_head.c.size))
        views_ = (timeline, fact, stage_interval, alias_interval, finding)
        rows = {table.name: await tx.scalar(sa.select(sa.func.count()).select_from(table)) for table in views_}
    print("rows:", ", ".join(f"{name} {count:,}" for name, count in rows.items()), flush=True)
    folded = rows.pop("finding") == 0 and all(rows.values())
    fifth = max(len(memory) // 5, 1)
    early, late = statistics.median(memory[fifth : 2 * fifth]), statistics.median(memory[-fifth:])
    print(f"{size:,} entries, whole: {verdict['ok']}; memory {early:,.0f} MiB early, {late:,.0f} MiB late", flush=True)
    return bool(verdict["ok"]) and size == done and folded and late <= 1.25 * early


async def views(db: Database) -> int:
    async with db.snapshot() as tx:
        return int(await tx.scalar(sa.select(follower.c.next).where(follower.c.name == "views")) or 0)


def main(count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="hallmark-soak-") as name:
        directory, port = Path(name), free_port()
        ports: dict[str, int] = {}
        for each in s3.PORTS:
            ports[each] = free_port(ports.values())
        server = postgres.postgres(directory / "postgres", port, "soak", directory / "postgres.log", fsync=True)
        store = s3.s3(directory / "s3", ports, "soak", directory / "s3.log")
        server.start()
        store.start()
        try:
            admin = postgres.admin_url(port, "soak")
            url = urlsplit(admin)._replace(netloc=f"hallmark_audit:soak@{urlsplit(admin).hostname}:{port}").geturl()
            scripts = Path(sys.modules["audit"].__path__[0]) / "migrations"
            migrate("audit", scripts, database_url=url, admin_database_url=admin)
            access: dict[str, Any] = {"access_key": s3.ACCESS_KEY, "secret_key": "soak", "region": s3.REGION}
            at = s3.endpoint(ports)
            archive = Archive(BlobStore(endpoint=at, public_endpoint=at, bucket="soak", **access))
            ok = run_loop(soak(Database(url, name="soak"), archive, count))
        finally:
            store.stop()
            server.stop()
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main(int(sys.argv[1].replace(",", "").replace("_", "")) if len(sys.argv) > 1 else 2_000_000)
