"""Appending: once, gapless, all or nothing, whatever comes in and whoever else writes."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from tests.support.waiting import until

from audit import app as audit_app
from audit import ledger as module
from audit import merkle, places, tables, view_tables
from audit.domain import Reading
from audit.known import leaf_of
from audit.leaf import Detached, Leaf, decode
from audit.ledger import Ledger, LostRace
from audit.page import Page
from audit.views import Item, Views
from contracts.envelope import now
from contracts.lifecycle import Stage
from contracts.topics import APPROVAL_EVENTS, REGISTRY_COMMANDS
from kit.bus import Record
from kit.db import Database
from kit.errors import is_transient

from .conftest import NOON, Harness, event, record, registered, story


async def assert_sound(audit: Harness) -> list[dict[str, Any]]:
    """The log is gapless, every hash is that of its bytes, and the head is the root over all."""
    entries = await audit.entries()
    assert [e["index"] for e in entries] == list(range(len(entries)))
    assert [merkle.leaf_hash(e["leaf"]) for e in entries] == [e["leaf_hash"] for e in entries]
    (head,) = await audit.rows(tables.tree_head)
    assert (head["size"], head["root"]) == (len(entries), merkle.root_of([e["leaf_hash"] for e in entries]))
    assert [r["index"] for r in await audit.rows(view_tables.timeline)] == list(range(len(entries)))
    return entries


async def test_an_empty_log_has_the_empty_root(audit: Harness) -> None:
    (head,) = await audit.rows(tables.tree_head)
    assert (head["size"], head["root"]) == (0, sha256(b"").digest())


async def test_an_entry_holds_the_exact_bytes(audit: Harness) -> None:
    sent = record(event(registered(1), 1), partition=4)
    headers = (*sent.headers, ("authorization", b"Bearer secret"), ("odd", b"\xff\x00"), ("null", None))
    sent = replace(sent, headers=headers)
    (outcome,) = await audit.ledger.append([sent])
    assert (outcome.index, outcome.flaw) == (0, None)
    (entry,) = await assert_sound(audit)
    leaf = decode(entry["leaf"])
    assert isinstance(leaf, Leaf)
    assert (leaf.topic, leaf.partition, leaf.offset) == (sent.topic, 4, sent.offset)
    assert (leaf.key, leaf.value, leaf.timestamp) == (sent.key, sent.value, sent.timestamp_ms)
    assert dict(leaf.headers) == {**dict(headers), "authorization": sha256(b"Bearer secret").digest()}
    assert b"secret" not in entry["leaf"]
    assert entry["recorded_at"] == leaf.recorded_at


async def test_a_batch_is_appended_in_order(audit: Harness) -> None:
    records = [record(envelope) for envelope in story()]
    outcomes = await audit.ledger.append(records)
    assert [o.index for o in outcomes] == list(range(len(records)))
    entries = await assert_sound(audit)
    assert [decode(e["leaf"]).offset for e in entries] == [r.offset for r in records]


async def books(audit: Harness) -> list[tuple[int, int, int, int, int]]:
    names = ("epoch", "lowest", "next", "entries", "since")
    return [tuple(row[name] for name in names) for row in await audit.rows(tables.kafka_offset)]


async def stays(audit: Harness) -> list[str]:
    """The stages that versions have been in, as known now."""
    return [row["stage"] for row in await audit.rows(view_tables.stage_interval) if row["known_until"] is None]


async def test_what_kafka_delivers_again_is_one_entry(audit: Harness) -> None:
    one, two, three = (record(envelope, offset=n) for n, envelope in enumerate(story()[:3]))
    assert [o.index for o in await audit.ledger.append([one])] == [0]
    assert [o.index for o in await audit.ledger.append([one, two])] == [None, 1]
    assert [o.index for o in await audit.ledger.append([two, two, one, three, three])] == [None, None, None, 2, None]
    assert [o.index for o in await audit.log().append([three])] == [None]  # another process
    assert len(await assert_sound(audit)) == 3
    assert await books(audit) == [(0, 0, 3, 3, 0)]


async def test_what_is_on_the_topic_twice_is_two_entries(audit: Harness) -> None:
    """A relay that died before it could delete: the second record is as real as the first, and told from it."""
    one, two = (record(envelope, offset=n) for n, envelope in enumerate(story()[:2]))
    await audit.ledger.append([one, replace(one, offset=1), replace(two, offset=2)])
    assert len(await assert_sound(audit)) == 3
    assert [row["copy_of"] for row in await audit.rows(view_tables.timeline)] == [None, 0, None]
    assert await stays(audit) == ["Development", "Staging"]
    assert await books(audit) == [(0, 0, 3, 3, 0)]


async def test_a_broker_that_forgot_is_told_from_a_redelivery(audit: Harness) -> None:
    envelopes = story()
    await audit.ledger.append([record(e, offset=n) for n, e in enumerate(envelopes[:4])])
    # It starts again at 0: the relay publishes all it has, then something new follows.
    again = [record(e, offset=n) for n, e in enumerate([envelopes[0], *envelopes[2:5]])]
    assert [o.index for o in await audit.ledger.append(again)] == [None, 4, 5, 6]
    assert [row["copy_of"] for row in await audit.rows(view_tables.timeline)] == [None] * 4 + [2, 3, None]
    assert await books(audit) == [(0, 0, 4, 4, 0), (1, 1, 4, 3, 4)]
    assert [o.index for o in await audit.ledger.append(again)] == [None] * 4
    assert len(await assert_sound(audit)) == 7


async def test_a_broker_that_forgets_twice_within_one_batch(audit: Harness) -> None:
    envelopes = story()
    lives = [record(e, offset=n % 2) for n, e in enumerate(envelopes[:6])]
    assert [o.index for o in await audit.ledger.append(lives)] == list(range(6))
    assert await books(audit) == [(0, 0, 2, 2, 0), (1, 0, 2, 2, 2), (2, 0, 2, 2, 4)]
    await assert_sound(audit)


async def test_a_hole_is_filled_and_what_follows_it_is_not_repeated(audit: Harness) -> None:
    """Somebody sets the group back to the hole: what comes after it is in the log, however often that is done."""
    records = [record(event(registered(1, f"m{n}"), 1), offset=n) for n in range(12)]
    holes = (3, 7)
    await audit.ledger.append([r for r in records[:10] if r.offset not in holes])
    again = [o.index for o in await audit.ledger.append(records[3:5])]
    again += [o.index for o in await audit.log().append(records[5:])]  # another process
    assert [index for index in again if index is not None] == [8, 9, 10, 11]
    assert len(await assert_sound(audit)) == 12
    # Each epoch is read up to `next`, whatever of it was in the log from before.
    assert await books(audit) == [(0, 0, 10, 8, 0), (1, 3, 12, 4, 8)]
    for log in (audit.ledger, audit.log()):
        assert {o.index for o in await log.append(records)} == {None}
    assert [o.index for o in await audit.log().append([replace(records[4], value=b"{}")])] == [12]


async def test_what_is_read_again_moves_the_offset_alone(audit: Harness) -> None:
    records = [record(event(registered(1, f"m{n}"), 1), offset=n) for n in range(6)]
    await audit.ledger.append([*records[:2], *records[3:]])
    one, two = audit.log().ledger, audit.log().ledger
    await one.append([records[2]])
    await two.append([records[3]])
    assert await books(audit) == [(0, 0, 6, 5, 0), (1, 2, 4, 1, 5)]
    assert await one.append(records[3:]) == [None] * 3  # it knows of the third only
    assert await books(audit) == [(0, 0, 6, 5, 0), (1, 2, 6, 1, 5)]
    assert await two.append([*records, record(event(registered(9), 1), offset=6)]) == [*[None] * 6, 6]
    assert len(await audit.entries()) == 7


async def test_a_record_too_large_for_a_tile_lies_in_the_store(audit: Harness) -> None:
    small, large = record(story()[0], offset=0), record(story()[1], offset=1)
    large = replace(large, headers=(*large.headers, ("much", b"x" * 70_000)))
    await audit.ledger.append([small, large])
    assert [o.index for o in await audit.ledger.append([large])] == [None]
    first, second = await assert_sound(audit)
    detached = decode(second["leaf"])
    assert isinstance(detached, Detached)
    assert len(second["leaf"]) < 1_000
    data = await audit.archive.read(f"leaf/{detached.sha256.hex()}")
    assert data is not None
    whole = decode(data)
    assert isinstance(whole, Leaf)
    assert (whole.key, whole.headers, whole.value) == (large.key, large.headers, large.value)
    assert (detached.size, detached.sha256) == (len(data), sha256(data).digest())
    assert await audit.archive.inline(second["leaf"]) == data
    assert await audit.archive.inline(first["leaf"]) == first["leaf"]
    # The views read it as any other.
    assert await stays(audit) == ["Development", "Staging"]


@pytest.mark.parametrize("extra", [-1, 0, 1])
async def test_the_largest_leaf_that_a_bundle_holds(audit: Harness, extra: int) -> None:
    sent = record(story()[0])
    empty = len(leaf_of(replace(sent, headers=(*sent.headers, ("much", b""))), NOON).encode())
    sent = replace(sent, headers=(*sent.headers, ("much", b"x" * (65_535 - empty + extra))))
    await audit.ledger.append([sent])
    (entry,) = await assert_sound(audit)
    assert (len(entry["leaf"]) == 65_535 + extra) == (extra <= 0)


async def test_bad_records_are_logged_and_their_neighbours_pass(audit: Harness) -> None:
    good, base = record(event(registered(1), 1)), record(event(registered(1, "bad"), 1))
    value = base.value or b""
    bad = [
        replace(base, headers=()),
        replace(base, headers=(("ce_id", None), ("\x00", b"\xff"))),
        replace(base, key=b"\xff"),
        replace(base, value=b"\x00 not json"),
        replace(base, value=None),
        record(event(registered(2, "bad"), 1).model_copy(update={"type": "other.v1"})),
        record(event(registered(3, "bad"), 9), topic=APPROVAL_EVENTS.name),
        replace(base, value=value.replace(b'"version":1', b'"version":1,"\\u0000x":1')),
        replace(base, headers=tuple(h for h in base.headers if h[0] != "ce_sequence")),
    ]
    outcomes = await audit.ledger.append([*bad, good, record(event(registered(2), 2))])
    assert [bool(o.flaw) for o in outcomes] == [True] * len(bad) + [False, False]
    entries = await assert_sound(audit)
    assert [bool(e["problem"]) for e in entries] == [True] * len(bad) + [False, False]
    assert {i["version"] for i in await audit.rows(view_tables.stage_interval)} == {1, 2}


async def test_commands_have_no_sequence_and_are_logged(audit: Harness) -> None:
    from contracts.registry import RequestTransition

    message = RequestTransition(model="fraud", version=1, to_stage=Stage.STAGING, reason="try")
    await audit.ledger.append([record(event(message, None), topic=REGISTRY_COMMANDS.name)])
    (row,) = await audit.rows(view_tables.timeline)
    assert (row["model"], row["version"], row["problem"]) == ("fraud", 1, None)
    assert row["summary"].startswith("A command asks to move fraud v1 to Staging: try")


async def test_many_writers_make_one_gapless_history(audit: Harness) -> None:
    """Replicas side by side; every record reaches each of them, as after a rebalance that nobody noticed."""
    url = audit.settings.database_url.get_secret_value()
    dbs = [Database(url, name=f"writer-{n}") for n in range(3)]
    chance = random.Random(7)
    by_partition = [
        [record(event(registered(n, f"model-{p}-{n}"), 1), partition=p, offset=n) for n in range(1, 31)]
        for p in range(4)
    ]

    async def write(db: Database) -> None:
        logs = [audit.log(db=db).ledger for _ in by_partition]
        await asyncio.gather(*(pour(log, records) for log, records in zip(logs, by_partition, strict=True)))

    async def pour(ledger: Ledger, records: list[Record]) -> None:
        start = 0
        while start < len(records):
            step = chance.randint(1, 7)
            with suppress(LostRace):
                await ledger.append(records[start : start + step])
                start += step

    try:
        await asyncio.gather(*(write(db) for db in dbs))
    finally:
        for db in dbs:
            await db.close()
    await audit.ledger.projector.catch_up()
    entries = await assert_sound(audit)
    values = [leaf.value for leaf in (decode(e["leaf"]) for e in entries) if isinstance(leaf, Leaf)]
    assert sorted(map(str, values)) == sorted(str(r.value) for records in by_partition for r in records)
    for partition in range(4):
        assert [e["kafka_offset"] for e in entries if e["partition"] == partition] == list(range(1, 31))


async def test_one_writer_takes_what_comes_together_into_one_transaction(audit: Harness) -> None:
    records = [record(event(registered(n, f"m{n}"), 1), partition=n % 5, offset=n) for n in range(1, 51)]
    found = await asyncio.gather(*(audit.ledger.ledger.append([r]) for r in records))
    assert [index for (index,) in found] == list(range(50))
    await audit.ledger.projector.catch_up()
    entries = await assert_sound(audit)
    assert len({e["recorded_at"] for e in entries}) > 1
    async with audit.db.snapshot() as tx:
        transactions = await tx.scalar(sa.text("select count(distinct xmin::text) from audit.entry"))
    assert transactions < 10


async def test_a_writer_that_lost_its_place_changes_nothing(audit: Harness) -> None:
    """The compare-and-set is the guarantee: this one believes in an old head, and in nothing else."""
    zombie = audit.log().ledger
    await zombie.append([record(event(registered(1), 1), offset=1)])
    await audit.ledger.append([record(event(registered(2), 2), offset=2)])
    before, written = await audit.entries(), asyncio.get_running_loop().create_future()
    await zombie._write(await zombie._prepare([record(event(registered(3), 3), offset=3)]), written)
    assert not written.done()
    assert await audit.entries() == before
    written.set_result(False)
    assert await zombie.append([record(event(registered(3), 3), offset=3)]) == [2]
    await audit.ledger.projector.catch_up()
    assert len(await assert_sound(audit)) == 3


@pytest.mark.parametrize("known", [False, True])
async def test_a_busy_writer_starves_nobody(audit: Harness, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    """Whenever the slow one has copied its rows, the busy one has moved the head, if it could. Also where the log must
    be looked into, since the slow one's record comes again."""
    busy, slow, attempt = audit.log().ledger, audit.log().ledger, Ledger._carry_out
    more, waiting = iter([record(event(registered(n + 1, f"b{n}"), 1), offset=n) for n in range(50)]), list[Any]()

    async def be_busy(_: asyncpg.Connection) -> None:
        waiting.append(asyncio.create_task(busy.append([next(more)])))
        await asyncio.wait(waiting[-1:], timeout=0.5)

    async def carry_out(self: Ledger, driver: Any, batch: Any) -> None:
        await attempt(self, Struck(driver, be_busy, "_move") if self is slow else driver, batch)

    mine = [record(event(registered(n + 1, f"s{n}"), 1), partition=1, offset=n) for n in range(2)]
    if known:
        await busy.append(mine[:1])
    monkeypatch.setattr(Ledger, "_carry_out", carry_out)
    assert await slow.append(mine) == ([None, 2] if known else [1, 2])
    await asyncio.gather(*waiting)
    assert len(waiting) == 2  # it lost once, and then had the head before it copied
    await audit.ledger.projector.catch_up()
    assert len(await assert_sound(audit)) == 4


async def test_a_large_record_goes_to_the_store_while_nobody_waits(
    audit: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others were faster, so it is dated anew, and is another object: before the head is taken."""
    large = replace(record(story()[0], partition=1, offset=0), headers=(("much", b"x" * 70_000),))
    busy, slow, attempt, keep = audit.log().ledger, audit.log().ledger, Ledger._carry_out, audit.archive.keep_leaf
    begun, kept = 0, list[str]()

    async def carry_out(self: Ledger, driver: Any, batch: Any) -> None:
        nonlocal begun
        begun += self is slow
        if self is slow and begun == 1:
            await busy.append([record(story()[1], offset=0)])
        await attempt(self, driver, batch)

    async def free(digest: bytes, data: bytes) -> None:
        kept.append(digest.hex())
        await audit.execute("select 1 from audit.tree_head where id = 1 for update nowait")
        await keep(digest, data)

    monkeypatch.setattr(Ledger, "_carry_out", carry_out)
    monkeypatch.setattr(audit.archive, "keep_leaf", free)
    assert (await slow.append([large]), begun) == ([1], 2)
    assert len(kept) == 2
    found = decode((await audit.entries())[1]["leaf"])
    assert isinstance(found, Detached)
    assert found.sha256.hex() == kept[1]


async def test_an_old_offset_loses_the_race_too(audit: Harness) -> None:
    """Two writers of one partition: the head alone would not tell that the record is in."""
    one, two = audit.log().ledger, audit.log().ledger
    sent = [record(event(registered(n, f"m{n}"), 1), offset=n) for n in range(1, 5)]
    await one.append(sent[:2])
    await two.append(sent[:3])  # learns of the first two
    assert await one.append(sent[2:]) == [None, 3]
    await audit.ledger.projector.catch_up()
    assert len(await assert_sound(audit)) == 4


async def test_a_writer_that_stops_in_the_middle_is_cut_off(audit: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A paused writer holds the head; the database ends its session, and what it wakes up to do fails."""
    monkeypatch.setattr("audit.ledger.LIMIT", "200ms")
    inside, wake = asyncio.Event(), asyncio.Event()

    async def pausing(*given: Any) -> Any:
        moved = await places.move(*given)
        if not inside.is_set():  # the first writer only
            inside.set()
            await wake.wait()
        return moved

    paused = audit.log().ledger
    monkeypatch.setattr("audit.ledger.move", pausing)
    mine = record(event(registered(1), 1))
    attempt = asyncio.create_task(paused.append([mine]))
    await inside.wait()
    monkeypatch.setattr("audit.ledger.LIMIT", "30s")  # the others keep their time, however busy the machine is
    await audit.ledger.append([record(event(registered(2, "other"), 1))])
    wake.set()
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await attempt
    assert len(await assert_sound(audit)) == 1
    monkeypatch.undo()
    await paused.append([mine])
    await audit.ledger.projector.catch_up()
    assert len(await assert_sound(audit)) == 2


@pytest.mark.parametrize("step", ["_move", "_ensure_month", "copy", "commit"])
async def test_all_or_nothing(audit: Harness, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """PostgreSQL is killed under the writer at any step; tried again, all is in, once."""
    ledger = audit.ledger.ledger
    await ledger.append([record(story()[0], offset=0)])
    attempt = Ledger._carry_out
    killed = 0

    async def hit(driver: asyncpg.Connection) -> None:
        nonlocal killed
        killed += 1
        await audit.execute(f"select pg_terminate_backend({driver.get_server_pid()})")

    async def trying(self: Ledger, driver: Any, batch: Any) -> None:
        await attempt(self, driver if killed else Struck(driver, hit, step), batch)

    monkeypatch.setattr(Ledger, "_carry_out", trying)
    rest = [record(e, offset=n) for n, e in enumerate(story()[1:], 1)]
    with pytest.raises(Exception) as broken:  # noqa: PT011
        await ledger.append(rest)
    assert is_transient(broken.value)
    assert killed == 1
    assert len(await audit.rows(tables.entry)) == 1
    await ledger.append(rest)
    await audit.ledger.projector.catch_up()
    assert len(await assert_sound(audit)) == 9
    assert await books(audit) == [(0, 0, 9, 9, 0)]


@pytest.mark.parametrize("trouble", ["lost", "failed"])
async def test_what_stands_on_a_batch_that_is_not_written_is_planned_anew(
    audit: Harness, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """The second transaction copies its rows while the first is on its way; then another writer is faster than both, or
    the first one's session ends. Order stays as it was, however often they begin again."""
    ledger, other, attempt = audit.ledger.ledger, audit.log().ledger, Ledger._carry_out
    begun = 0

    async def carry_out(self: Ledger, driver: Any, batch: Any) -> None:
        nonlocal begun
        begun += 1
        if self is ledger and begun == 1:
            await until(lambda: self._newest is not batch.written)
            if trouble == "lost":
                await other.append([record(event(registered(9, "other"), 1), partition=2, offset=0)])
            else:
                driver.terminate()
        await attempt(self, driver, batch)

    monkeypatch.setattr(Ledger, "_carry_out", carry_out)
    # One partition, which no two consumers have: only the order in which they came says which is first.
    first = [record(story()[0], partition=1, offset=0)] if trouble == "lost" else [record(story()[0], offset=0)]
    second = [record(story()[1], partition=1, offset=1)]
    found: Any = await asyncio.gather(ledger.append(first), ledger.append(second), return_exceptions=True)
    if trouble == "lost":
        assert list(found) == [[1], [2]]
    else:
        assert is_transient(found[0])
        assert found[1] == [0]
        assert await ledger.append(first) == [1]
    assert begun > 2
    await audit.ledger.projector.catch_up()
    await assert_sound(audit)
    assert {epoch for epoch, *_ in await books(audit)} == {0}


class Struck:
    """A connection whose server is struck just before a step."""

    def __init__(self, driver: asyncpg.Connection, hit: Callable[[asyncpg.Connection], Awaitable[None]], step: str):
        self._driver, self._hit, self._step = driver, hit, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    async def _maybe(self, step: str) -> None:
        if step == self._step:
            await self._hit(self._driver)

    async def execute(self, statement: str, *given: Any) -> Any:
        await self._maybe("_ensure_month" if "ensure_partition" in statement or "begin" in statement else statement)
        return await self._driver.execute(statement, *given)

    async def fetchrow(self, *given: Any) -> Any:
        await self._maybe("_move")
        return await self._driver.fetchrow(*given)

    async def copy_records_to_table(self, *given: Any, **more: Any) -> Any:
        await self._maybe("copy")
        return await self._driver.copy_records_to_table(*given, **more)


async def test_an_answer_that_is_lost_makes_no_second_entry(audit: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit is through, the writer does not know."""
    attempt = Ledger._carry_out

    async def losing(self: Ledger, driver: Any, batch: Any) -> None:
        await attempt(self, driver, replace(batch, written=asyncio.get_running_loop().create_future()))
        raise ConnectionResetError("the answer was lost")

    records = [record(e, offset=n) for n, e in enumerate(story())]
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "_carry_out", losing)
        with pytest.raises(ConnectionResetError):
            await audit.ledger.ledger.append(records)
    assert [o.index for o in await audit.ledger.append(records)] == [None] * len(records)
    assert len(await assert_sound(audit)) == len(records)


async def test_a_broken_view_keeps_nothing_out_of_the_log(audit: Harness) -> None:
    class Broken(Views):
        async def _one(self, page: Page, item: Item) -> Reading:
            if item.index == 1:
                raise ZeroDivisionError("a bug")
            return await super()._one(page, item)

    log = audit.log(Broken())
    outcomes = await log.append([record(e) for e in story()[:3]])
    assert [o.flaw for o in outcomes] == [None, "view-failed", None]
    entries = await audit.entries()
    assert [e["problem"] for e in entries] == [None, "view-failed: ZeroDivisionError('a bug')", None]
    assert [r["index"] for r in await audit.rows(view_tables.timeline)] == [0, 2]


async def test_time_never_runs_backwards_in_the_log(audit: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    await audit.ledger.append([record(story()[0])])
    monkeypatch.setattr("audit.ledger.now", lambda: now() - timedelta(hours=1))
    await audit.ledger.append([record(story()[1])])
    first, second = (e["recorded_at"] for e in await audit.entries())
    assert second >= first


@pytest.mark.parametrize("hours", [-2, 2])
async def test_the_time_of_the_log_is_the_databases(
    audit: Harness, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Whatever the clock of a writer says when it starts; one that is set forward later is found out."""
    for name in ("audit.ledger.now", "audit.clock.now"):
        monkeypatch.setattr(name, lambda: now() + timedelta(hours=hours))
    ledger = audit.ledger.ledger
    await ledger.append([record(story()[0], offset=0)])
    for name in ("audit.ledger.now", "audit.clock.now"):
        monkeypatch.setattr(name, lambda: now() + timedelta(hours=hours + 1))
    with pytest.raises(module.ClockAhead) as refused:
        await ledger.append([record(story()[1], offset=1)])
    assert is_transient(refused.value)
    await ledger.append([record(story()[1], offset=1)])
    assert [abs(e["recorded_at"] - now()) < timedelta(minutes=1) for e in await audit.entries()] == [True, True]


async def test_a_log_that_is_ahead_goes_on_at_its_time(audit: Harness) -> None:
    await audit.tamper("update audit.tree_head set at = now() + interval '1 hour'")
    await audit.ledger.append([record(story()[0], offset=0)])
    (entry,) = await audit.entries()
    assert entry["recorded_at"] - now() > timedelta(minutes=59)
    assert 3_500 < module.AHEAD._value.get() < 3_600


async def test_a_large_record_that_is_tried_again_leaves_one_object(
    audit: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the store is locked there: a database that is away must not fill it."""
    large = replace(record(story()[0], offset=1), headers=(("much", b"x" * 70_000),))
    ledger, write = audit.ledger.ledger, Ledger._write

    async def away(self: Ledger, items: list[Any], written: Any, *, hold: bool) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(Ledger, "_write", away)
    for batch in ([large], [record(story()[1], offset=0), large], [large]):
        with pytest.raises(ConnectionError):
            await ledger.append(batch)
    monkeypatch.setattr(Ledger, "_write", write)
    assert await ledger.append([record(story()[1], offset=0), large]) == [0, 1]
    (key,) = [item.key async for item in audit.archive.store.objects("leaf/")]
    entry = (await audit.entries())[1]
    found = decode(entry["leaf"])
    assert isinstance(found, Detached)
    assert (key, found.recorded_at) == (f"leaf/{found.sha256.hex()}", entry["recorded_at"])
    assert ledger._dated == {}


ATTACKS = [
    "update audit.{table} set {column} = {column}",
    "delete from audit.{table}",
    "truncate audit.{table}",
    "truncate audit.{table} cascade",
]
COLUMN = {"entry": "leaf", "node": "hash", "finding": "code", "checkpoint": "note", "event": "data"}


@pytest.mark.parametrize("role", ["service", "owner", "owner as replica"])
async def test_what_was_written_stays(audit: Harness, role: str) -> None:
    await audit.ledger.append([record(event(registered(n, f"m{n}"), 1), offset=n) for n in range(1, 257)])
    await audit.ledger.append([record(story()[0], value=b"bad")])
    await audit.get("/v1/log/entries")
    await audit.get("/checkpoint")
    before = [await audit.rows(tables.Table.metadata.tables[f"audit.{table}"]) for table in COLUMN]
    assert all(before)
    url = audit.settings.database_url.get_secret_value() if role == "service" else audit.admin_url
    connection = await asyncpg.connect(url)
    try:
        if role == "owner as replica":
            await connection.execute("set session_replication_role = replica")
        expected = asyncpg.InsufficientPrivilegeError if role == "service" else asyncpg.RestrictViolationError
        for table, column in COLUMN.items():
            for attack in ATTACKS:
                with pytest.raises(expected):
                    await connection.execute(attack.format(table=table, column=column))
    finally:
        await connection.close()
    assert [await audit.rows(tables.Table.metadata.tables[f"audit.{table}"]) for table in COLUMN] == before


SHRINKING = [
    "update audit.tree_head set size = size - 1",
    "update audit.tree_head set root = root",
    "update audit.tree_head set id = 1",
    "delete from audit.tree_head",
    "truncate audit.tree_head",
]


@pytest.mark.parametrize("replica", [False, True])
async def test_the_tree_only_grows(audit: Harness, replica: bool) -> None:
    await audit.ledger.append([record(story()[0])])
    connection = await asyncpg.connect(audit.admin_url)
    try:
        if replica:
            await connection.execute("set session_replication_role = replica")
        for attack in SHRINKING:
            with pytest.raises(asyncpg.RestrictViolationError):
                await connection.execute(attack)
    finally:
        await connection.close()


async def test_the_migrations_make_the_declared_tables(audit: Harness) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(audit_app.__file__).parent / "migrations"))
    config.attributes["url"] = audit.admin_url
    await asyncio.to_thread(command.check, config)
