"""Whoever reads leaves a record before the answer, cheaply, also when they were denied."""

import asyncio
import json
import time
from hashlib import sha256
from typing import Any

import pytest
import sqlalchemy as sa

from audit import tables
from audit.access import FEED, MORE, TILES, AccessLog
from contracts.topics import AUDIT_EVENTS
from kit.auth import Principal
from kit.events import EventLog
from kit.problems import Problem
from kit.web import Guard

from .conftest import Harness, record, story

ROUTES = (
    "/v1/timeline", "/v1/models/fraud/production", "/v1/models/fraud/history", "/v1/models/fraud/aliases/champion",
    "/v1/models/fraud/aliases/champion/history", "/v1/reports/lead-times", "/v1/reports/lead-times/models",
    "/v1/reports/rollbacks", "/v1/reports/revocations", "/v1/reports/approvals", "/v1/reports/approvals/people",
    "/v1/reports/four-eyes", "/v1/reports/break-glass", "/v1/reports/gaps", "/v1/search?q=fraud",
    "/v1/explain?model=fraud", "/v1/changes?since=2026-11-20T00:00:00Z",
)  # fmt: skip


async def records(audit: Harness) -> list[tuple[str, str, str]]:
    rows = await audit.rows(tables.mechanism.event)
    told = [json.loads(row["data"]) for row in rows if row["type"] == "hallmark.access.recorded.v1"]
    return [(each["principal"], each["query"], each["outcome"]) for each in told]


async def test_every_question_leaves_a_record(audit: Harness) -> None:
    await audit.ledger.append([record(e) for e in story()])
    for path in ROUTES:
        before = len(await records(audit))
        await audit.get(path)
        assert await audit.status(path, "strangers") == 403
        told = (await records(audit))[before:]
        assert told == [("aud", f"GET {path}", "allowed"), ("eve", f"GET {path}", "denied")]


def test_no_question_is_forgotten_here(audit: Harness) -> None:
    asked = {path.partition("?")[0].replace("fraud", "{model}").replace("champion", "{alias}") for path in ROUTES}
    views = {"views", "reports"}
    told = {path for path, of in audit.app.openapi()["paths"].items() if views & set(of.get("get", {}).get("tags", []))}
    assert told == asked


def log_of(audit: Harness) -> AccessLog:
    events = EventLog(tables.mechanism, topic=AUDIT_EVENTS.name, source="hallmark/audit")
    return AccessLog(audit.db, events, Guard(audit.settings), "o")


def caller(name: str) -> Principal:
    return Principal(name, frozenset({"auditors"}), "person", 0, "token")


async def test_many_readers_at_once_lose_no_record(audit: Harness) -> None:
    """Two processes, many readers of each: one gapless stream, in a few transactions."""
    logs = [log_of(audit), log_of(audit)]
    await asyncio.gather(*(logs[n % 2].admit(caller(f"p{n % 7}"), f"q{n}") for n in range(300)))
    rows = await audit.rows(tables.mechanism.event)
    assert [row["sequence"] for row in sorted(rows, key=lambda r: r["position"])] == list(range(1, 301))
    assert {query for _, query, _ in await records(audit)} == {f"q{n}" for n in range(300)}
    assert len(await audit.rows(tables.mechanism.outbox)) == 300
    async with audit.db.snapshot() as tx:
        transactions = await tx.scalar(sa.text("select count(distinct xmin::text) from audit.event"))
    assert transactions is not None
    assert transactions < 30


async def test_a_reader_who_goes_away_takes_no_record_along(audit: Harness) -> None:
    access = log_of(audit)
    tasks = [asyncio.create_task(access.admit(caller("p"), f"q{n}")) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[:10]:
        task.cancel()
    done: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in done] == [True] * 10 + [False] * 10
    assert {f"q{n}" for n in range(10, 20)} <= {query for _, query, _ in await records(audit)}


async def test_what_cannot_be_recorded_is_not_answered(audit: Harness) -> None:
    await audit.tamper("alter table audit.event rename to hidden")
    access = log_of(audit)
    refused: list[Any] = await asyncio.gather(
        *(access.admit(caller("p"), "q") for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(each, Exception) for each in refused)
    await audit.execute("alter table audit.hidden rename to event")
    await access.admit(caller("p"), "later")
    assert await records(audit) == [("p", "later", "allowed")]


async def test_a_query_that_no_record_could_tell_is_refused(audit: Harness) -> None:
    long = "/v1/timeline?not-asked=" + "b" * 9_000
    assert await audit.status(long, "auditors") == 414
    assert await audit.status(long, "strangers") == 403
    for _, query, outcome in await records(audit):
        assert outcome == "denied"
        told = sha256(f"GET {long}".encode()).hexdigest()
        assert query == f"GET {long}"[:8_000] + f"... ({len(long) + 4} characters, sha256 {told})"
    await audit.get("/v1/timeline?actor=" + "a" * 400)
    assert (await records(audit))[-1] == ("aud", "GET /v1/timeline?actor=" + "a" * 400, "allowed")


async def test_reads_that_are_told_together_are_all_told(audit: Harness) -> None:
    """The first as it is, before its answer; what else was read within the minute when it is over."""
    access = log_of(audit)
    for after in (-1, 499, 999):
        await access.admit_sparsely(caller("siem"), FEED, f"GET /v1/siem?after={after}", (after + 1, after + 501))
    await access.admit_sparsely(caller("copier"), TILES, "GET /tile/entries/000", (0, 256))
    assert await records(audit) == [
        ("siem", f"GET /v1/siem?after=-1{MORE}", "allowed"),
        ("copier", f"GET /tile/entries/000{MORE}", "allowed"),
    ]
    await access.close(until=time.monotonic())
    assert len(await records(audit)) == 2, "the minute is not over"
    await access.close()
    assert (await records(audit))[2:] == [
        ("siem", "GET /v1/siem: 2 more reads of entries 500 to 1499 within a minute", "allowed")
    ]


async def test_what_was_read_is_told_when_the_service_stops(audit: Harness) -> None:
    access = log_of(audit)
    running = asyncio.create_task(access.run())
    await asyncio.sleep(0)
    for number in range(3):
        span = (number * 256, (number + 1) * 256)
        await access.admit_sparsely(caller("copier"), TILES, f"GET /tile/entries/{number:03}", span)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await records(audit))[1:] == [
        ("copier", "GET /tile/...: 2 more reads of entries 256 to 767 within a minute", "allowed")
    ]


async def test_whoever_loses_the_right_within_the_minute_is_recorded(audit: Harness) -> None:
    access = log_of(audit)
    await access.admit_sparsely(caller("eve"), FEED, "GET /v1/siem", (0, 500))
    stranger = Principal("eve", frozenset(), "person", 0, "token")
    with pytest.raises(Problem):
        await access.admit_sparsely(stranger, FEED, "GET /v1/siem?after=499", (500, 1_000))
    assert (await records(audit))[1:] == [("eve", "GET /v1/siem?after=499", "denied")]
