"""Appending: once, gapless, all or nothing, whatever comes in and whoever else writes."""

import asyncio
import random
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import app as audit_app
from audit import merkle, tables
from audit.domain import Reading
from audit.leaf import Leaf
from audit.ledger import Head, Ledger, LostRace
from audit.views import Views
from contracts.lifecycle import Stage
from contracts.topics import APPROVAL_EVENTS, REGISTRY_COMMANDS
from kit.db import Database
from kit.errors import is_transient

from .conftest import Harness, event, record, registered, story


async def assert_sound(audit: Harness) -> list[dict[str, Any]]:
    """The log is gapless, every hash is that of its bytes, and the head is the root over all."""
    entries = await audit.entries()
    assert [e["index"] for e in entries] == list(range(len(entries)))
    assert [merkle.leaf_hash(e["leaf"]) for e in entries] == [e["leaf_hash"] for e in entries]
    (head,) = await audit.rows(tables.tree_head)
    assert (head["size"], head["root"]) == (len(entries), merkle.root_of([e["leaf_hash"] for e in entries]))
    assert [r["index"] for r in await audit.rows(tables.timeline)] == list(range(len(entries)))
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
    leaf = Leaf.decode(entry["leaf"])
    assert (leaf.topic, leaf.partition, leaf.offset) == (sent.topic, 4, sent.offset)
    assert (leaf.key, leaf.value, leaf.timestamp) == (sent.key, sent.value, sent.timestamp_ms)
    assert dict(leaf.headers) == {**dict(headers), "authorization": sha256(b"Bearer secret").digest()}
    assert b"secret" not in entry["leaf"]
    assert (entry["dedupe"], entry["recorded_at"]) == (leaf.dedupe(), leaf.recorded_at)


async def test_a_batch_is_appended_in_order(audit: Harness) -> None:
    records = [record(envelope) for envelope in story()]
    outcomes = await audit.ledger.append(records)
    assert [o.index for o in outcomes] == list(range(len(records)))
    entries = await assert_sound(audit)
    assert [Leaf.decode(e["leaf"]).offset for e in entries] == [r.offset for r in records]


async def test_what_comes_twice_is_one_entry(audit: Harness) -> None:
    one, two, three = (record(envelope, offset=n) for n, envelope in enumerate(story()[:3]))
    await audit.ledger.append([one])
    await audit.ledger.append([replace(one, offset=1)])  # the relay sent it twice
    await audit.ledger.append([replace(two, offset=2), replace(two, offset=3)])  # within one batch
    await audit.ledger.append([replace(one, offset=0)])  # Kafka delivered it again
    await audit.ledger.append([replace(three, offset=4)])
    assert len(await assert_sound(audit)) == 3
    (books,) = await audit.rows(tables.kafka_offset)
    assert (books["lowest"], books["highest"]) == (0, 4)
    assert (books["entries"], books["duplicates"], books["redelivered"], books["rewound"]) == (3, 2, 1, 0)
    complete = await audit.get("/v1/log/completeness")
    assert complete["complete"] is True
    assert complete["items"][0]["missing"] == 0


async def test_a_broker_that_forgot_is_told_from_a_redelivery(audit: Harness) -> None:
    envelopes = story()
    await audit.ledger.append([record(e, offset=n) for n, e in enumerate(envelopes[:4])])
    # It starts again at 0: the relay publishes all it has, then something new follows.
    await audit.ledger.append([record(e, offset=n) for n, e in enumerate([*envelopes[1:4], envelopes[4]])])
    entries = await assert_sound(audit)
    assert len(entries) == 5
    (books,) = await audit.rows(tables.kafka_offset)
    assert (books["entries"], books["redelivered"], books["rewound"]) == (4, 3, 1)
    assert (await audit.get("/v1/log/completeness"))["complete"] is True


async def test_a_missing_offset_is_reported(audit: Harness) -> None:
    await audit.ledger.append([record(e, offset=o) for e, o in zip(story(), (0, 1, 3), strict=False)])
    found = await audit.get("/v1/log/completeness")
    assert (found["complete"], found["items"][0]["missing"]) == (False, 1)


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
    assert {i["version"] for i in await audit.rows(tables.stage_interval)} == {1, 2}
    # A repetition is no new entry, but its flaw is told again: the first may have died before it was parked.
    (again,) = await audit.ledger.append([bad[0]])
    assert (again.index, bool(again.flaw)) == (None, True)


async def test_commands_have_no_sequence_and_are_logged(audit: Harness) -> None:
    from contracts.registry import RequestTransition

    message = RequestTransition(model="fraud", version=1, to_stage=Stage.STAGING, reason="try")
    await audit.ledger.append([record(event(message, None), topic=REGISTRY_COMMANDS.name)])
    (row,) = await audit.rows(tables.timeline)
    assert (row["model"], row["version"], row["problem"]) == ("fraud", 1, None)
    assert row["summary"].startswith("A command asks to move fraud v1 to Staging: try")


async def test_many_writers_make_one_gapless_history(audit: Harness) -> None:
    records = [record(event(registered(n, f"model-{n}"), 1), partition=n % 3) for n in range(1, 61)]
    dbs = [Database(audit.settings.database_url.get_secret_value(), name=f"writer-{n}") for n in range(3)]
    chance = random.Random(7)

    async def write(db: Database) -> None:
        ledger = Ledger(db, Views())
        mine = chance.sample(records, len(records))
        for start in range(0, len(mine), 7):
            await ledger.append(mine[start : start + 7])

    try:
        await asyncio.gather(*(write(db) for db in dbs), *(write(db) for db in dbs))
    finally:
        for db in dbs:
            await db.close()
    entries = await assert_sound(audit)
    assert len(entries) == len(records)
    assert {Leaf.decode(e["leaf"]).value for e in entries} == {r.value for r in records}


async def test_a_writer_that_lost_its_place_changes_nothing(audit: Harness) -> None:
    """The compare-and-set is the guarantee also where the row lock is not."""

    class Zombie(Ledger):
        async def _lock_head(self, tx: AsyncConnection) -> Head:
            head = await super()._lock_head(tx)
            return replace(head, size=head.size - 1, frontier=b"")

    await audit.ledger.append([record(event(registered(1), 1))])
    before = await audit.entries()
    with pytest.raises(LostRace) as lost:
        await Zombie(audit.db, Views()).append([record(event(registered(2), 2))])
    assert is_transient(lost.value)
    assert await audit.entries() == before
    assert len(await assert_sound(audit)) == 1


async def test_a_writer_that_stops_in_the_middle_is_cut_off(audit: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A paused process holds the head; the database ends its session, and what it wakes up to do fails."""
    monkeypatch.setattr("audit.ledger.IDLE_LIMIT", "200ms")
    inside, wake = asyncio.Event(), asyncio.Event()

    class Paused(Views):
        async def project(
            self, tx: AsyncConnection, index: int, leaf: Leaf, reading: Reading, *, doubted: bool = False
        ) -> Reading:
            inside.set()
            await wake.wait()
            return await super().project(tx, index, leaf, reading)

    paused = Ledger(audit.db, Paused())
    mine = record(event(registered(1), 1))
    attempt = asyncio.create_task(paused.append([mine]))
    await inside.wait()
    monkeypatch.undo()  # the others keep their time, however busy the machine is
    await audit.ledger.append([record(event(registered(2, "other"), 1))])
    wake.set()
    with pytest.raises(DBAPIError) as cut:
        await attempt
    assert is_transient(cut.value)
    assert len(await assert_sound(audit)) == 1
    await paused.append([mine])
    assert len(await assert_sound(audit)) == 2


async def test_all_or_nothing(audit: Harness) -> None:
    class Failing(Views):
        async def project(
            self, tx: AsyncConnection, index: int, leaf: Leaf, reading: Reading, *, doubted: bool = False
        ) -> Reading:
            judged = await super().project(tx, index, leaf, reading)
            if index == 2:
                raise ConnectionError("gone in the middle")
            return judged

    ledger = Ledger(audit.db, Failing())
    with pytest.raises(ConnectionError):
        await ledger.append([record(e) for e in story()])
    assert await assert_sound(audit) == []
    for table in (tables.kafka_offset, tables.timeline, tables.stage_interval, tables.mechanism.progress):
        assert await audit.rows(table) == []


async def test_a_broken_view_keeps_nothing_out_of_the_log(audit: Harness) -> None:
    class Broken(Views):
        async def project(
            self, tx: AsyncConnection, index: int, leaf: Leaf, reading: Reading, *, doubted: bool = False
        ) -> Reading:
            if index == 1:
                raise ZeroDivisionError("a bug")
            return await super().project(tx, index, leaf, reading)

    ledger = Ledger(audit.db, Broken())
    outcomes = await ledger.append([record(e) for e in story()[:3]])
    assert [o.flaw for o in outcomes] == [None] * 3
    entries = await audit.entries()
    assert [e["problem"] for e in entries] == [None, "view-failed: ZeroDivisionError('a bug')", None]
    assert [r["index"] for r in await audit.rows(tables.timeline)] == [0, 2]


async def test_time_never_runs_backwards_in_the_log(audit: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    from contracts.envelope import now

    await audit.ledger.append([record(story()[0])])
    monkeypatch.setattr("audit.ledger.now", lambda: now() - timedelta(hours=1))
    await audit.ledger.append([record(story()[1])])
    first, second = (e["recorded_at"] for e in await audit.entries())
    assert second >= first


ATTACKS = [
    "update audit.{table} set {column} = {column}",
    "delete from audit.{table}",
    "truncate audit.{table}",
    "truncate audit.{table} cascade",
]
COLUMN = {"entry": "leaf", "checkpoint": "note", "event": "data"}


@pytest.mark.parametrize("role", ["service", "owner", "owner as replica"])
async def test_what_was_written_stays(audit: Harness, role: str) -> None:
    await audit.ledger.append([record(story()[0])])
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
