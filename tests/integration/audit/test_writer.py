"""Writers in processes of their own: a leader that is stopped in the middle, a database that is killed before the
commit. One gapless history comes of it, with every record once."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.support.appending import made

from audit import merkle, tables
from audit.ledger import Ledger
from embedded import postgres
from embedded.fixtures import server_directory
from embedded.ports import free_port
from kit.db import Database
from kit.errors import is_transient

from .conftest import Harness, migrate_audit, service_url
from .test_ledger import Struck
from .test_publisher import environment

COUNT = 40


@contextmanager
def leading(audit: Harness, where: str) -> Iterator["subprocess.Popen[str]"]:
    """A writer of partition 0, whose session the database ends when it idles for 700 ms."""
    extra = {"COUNT": str(COUNT), "PARTITION": "0", "LIMIT": "700ms", "WHERE": where}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.appending"],
        env=environment(audit.settings) | extra,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return (await asyncio.to_thread(process.stdout.readline)).strip()


def go_on(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")


async def assert_whole(entries: list[dict[str, Any]], head: dict[str, Any], partitions: int) -> None:
    hashes = [entry["leaf_hash"] for entry in entries]
    assert [entry["index"] for entry in entries] == list(range(len(entries)))
    assert [merkle.leaf_hash(entry["leaf"]) for entry in entries] == hashes
    assert (head["size"], head["root"]) == (len(entries), merkle.root_of(hashes))
    for partition in range(partitions):
        assert [e["kafka_offset"] for e in entries if e["partition"] == partition] == list(range(COUNT))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("where", ["idle", "copy", "load"])
async def test_a_leader_that_is_stopped_is_fenced(audit: Harness, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """SIGSTOP after it moved the head, before it committed: a second writer waits until the database ends the leader's
    session, and goes on. Or in the middle of COPY, where no time limit ends it: at its first try it holds nobody up, at
    its second the other writer ends it. Or with the head in its hands between a statement's parse and its run, where no
    limit ends it either. The leader wakes up, fails, looks again, and finds its place."""
    monkeypatch.setattr("audit.ledger.LIMIT", "1s")
    monkeypatch.setattr("audit.months.STALLED", timedelta(seconds=1))
    others, failed = made(COUNT, 1), 0
    with leading(audit, where) as leader:
        for start in range(0, COUNT, 10):
            while (word := await said(leader)).startswith("again"):
                failed += 1
            assert word == "inside"
            os.kill(leader.pid, signal.SIGSTOP)
            assert None not in await audit.ledger.ledger.append(others[start : start + 10])
            os.kill(leader.pid, signal.SIGCONT)
            go_on(leader)
        while (word := await said(leader)) != "done":
            if word == "inside":
                go_on(leader)
            else:
                failed += 1
    assert failed == (COUNT // 20 if where == "copy" else COUNT // 10)
    (head,) = await audit.rows(tables.tree_head)
    await assert_whole(await audit.rows(tables.entry), head, 2)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("step", ["copy", "commit"])
async def test_a_database_that_is_killed_before_the_commit_loses_nothing(
    audit: Harness, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """SIGKILL of PostgreSQL itself, with fsync on: between the compare-and-set, COPY and commit."""
    with server_directory() as directory:
        port = free_port()
        server = postgres.postgres(directory / "data", port, "test", Path(directory / "log"), fsync=True)
        await asyncio.to_thread(server.start)
        try:
            admin = postgres.admin_url(port, "test")
            await asyncio.to_thread(migrate_audit, admin)
            db = Database(service_url(admin), name="test")
            ledger = Ledger(db, audit.archive)
            records = made(COUNT, 0)
            await ledger.append(records[:10])
            attempt, killed = Ledger._carry_out, 0

            async def kill(_: asyncpg.Connection) -> None:
                nonlocal killed
                killed += 1
                await asyncio.to_thread(server.kill)

            async def trying(self: Ledger, driver: Any, batch: Any) -> None:
                await attempt(self, Struck(driver, kill, step) if not killed else driver, batch)

            monkeypatch.setattr(Ledger, "_carry_out", trying)
            with pytest.raises(Exception) as away:  # noqa: PT011
                await ledger.append(records[10:])
            assert is_transient(away.value)
            await asyncio.to_thread(server.start)
            # What Kafka delivers again, and what is new.
            assert await ledger.append(records) == [*[None] * 10, *range(10, COUNT)]
            async with db.snapshot() as tx:
                entries = [dict(row) for row in (await tx.execute(tables.entry.select())).mappings()]
                head = dict((await tx.execute(tables.tree_head.select())).mappings().one())
            await assert_whole(sorted(entries, key=lambda entry: int(entry["index"])), head, 1)
            assert killed == 1
            await db.close()
        finally:
            await asyncio.to_thread(server.stop)
