"""What the log keeps, what no hold lets go, and what stays provable of what went."""

import asyncio
import io
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import sqlalchemy as sa
from minio import Minio
from minio.error import S3Error
from tests.support.waiting import until

from audit import app as audit_app
from audit import merkle, tables, view_tables
from audit.guards import EVENT_TRIGGERS, Guards
from audit.note import open_note
from audit.out.archive import DayArchive
from audit.out.manifest import verify_manifest
from audit.out.query import Entries, Query
from audit.page import Page
from audit.rebuild import rebuild
from audit.retention.command import prune
from audit.retention.legal import LegalHolds
from audit.search import SearchProjection
from audit.settings import AuditSettings
from audit.tlog.archive import Contradiction
from audit.tlog.publisher import Publisher
from audit.tlog.signing import signer_of
from audit.tlog.tiles import Tile, entries_of
from audit.verify import verify_export
from audit.views import Views
from contracts.audit import LogPruned, RetentionPublished
from contracts.lifecycle import Stage
from contracts.topics import AUDIT_EVENTS
from embedded import s3
from embedded.fixtures import S3
from kit.bus import Record
from kit.db import Signal
from kit.events import EventLog
from kit.problems import Problem

from .conftest import ACCESS, Harness, changed, event, record, registered

JANUARY, FEBRUARY = datetime(2020, 1, 20, 12, tzinfo=UTC), datetime(2020, 2, 20, 12, tzinfo=UTC)
EVERYTHING = [{"topic": "*", "type": "*", "days": 184}]
FLOORS = [
    *EVERYTHING,
    *(
        {"topic": "*", "type": f"hallmark.{name}.v1", "days": 3653}
        for name in (
            *("model.registered", "model.updated", "version.registered", "version.verified"),
            *("version.evaluated", "version.noted", "version.scanned", "evidence.attached"),
            "version.described",
        )
    ),
]
# A log that began long ago, as a superuser can make it believe.
OLD_LOG = (
    "alter table audit.tree_head disable trigger tree_head_guard_rows",
    "update audit.tree_head set at = '2019-01-01'",
    "alter table audit.tree_head enable always trigger tree_head_guard_rows",
)
COUNT = 300  # a month's entries: more than a bundle, and not a number of bundles


@pytest.fixture
def settings(settings: AuditSettings, infra_s3: S3) -> AuditSettings:
    """With a bucket that can lock, and somebody who may configure."""
    settings.access_file.write_text(ACCESS + "  - {group: admins, role: admin}\n")
    return settings.model_copy(update={"s3_bucket": f"t-{uuid4().hex[:12]}"})


@dataclass
class Old:
    """A log with 300 entries of January 2020 (stage changes of `fraud`), 300 of February (registrations of `churn`)
    and 300 of today, published."""

    audit: Harness
    client: Minio
    records: list[Record]

    async def put(self, path: str, body: Any, method: str = "PUT", group: str = "admins") -> tuple[int, Any]:
        async with self.audit.client("root", group) as client:
            response = await client.request(method, path, json=body)
        return response.status_code, response.json()

    async def policy(self, rules: Any, reason: str | None = "no high-risk systems here") -> None:
        status, body = await self.put("/v1/retention/policy", {"rules": rules, "reason": reason})
        assert status == 200, body

    async def hold(self, **scope: Any) -> str:
        status, body = await self.put("/v1/retention/holds", {"reason": "case 4711", **scope}, "POST")
        assert status == 201, body
        return str(body["id"])

    async def plan(self) -> list[str]:
        return (await prune(self.audit.settings, yes=False)).splitlines()

    async def prune(self) -> str:
        return await prune(self.audit.settings, yes=True, by="root")

    async def entries(self) -> list[int]:
        """Indexes that are whole in the database."""
        return [row["index"] for row in await self.audit.entries()]

    def held(self, key: str) -> bool:
        return bool(self.client.is_object_legal_hold_enabled(self.audit.settings.s3_bucket, key))


@pytest.fixture
async def old(audit: Harness, infra_s3: S3, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Old]:
    await audit.archive.ready()
    await audit.execute(
        *(f"alter event trigger {name} disable" for name in EVENT_TRIGGERS),
        *OLD_LOG,
        *(f"alter event trigger {name} enable always" for name in EVENT_TRIGGERS),
    )
    january = [record(event(changed(n, Stage.DEVELOPMENT, Stage.STAGING), n, at=JANUARY)) for n in range(1, COUNT + 1)]
    february = [record(event(registered(n, "churn"), n, at=FEBRUARY)) for n in range(1, COUNT + 1)]
    today = [record(event(registered(n, "other"), n)) for n in range(1, COUNT + 1)]
    for at, records in ((JANUARY, january), (FEBRUARY, february), (None, today)):
        with monkeypatch.context() as patch:
            if at is not None:
                patch.setattr("audit.ledger.now", lambda at=at: at)
            await audit.ledger.ledger.append(records)  # the views have no part in this, and take their time
    await audit.execute("update audit.follower set next = (select size from audit.tree_head)")
    # `current`: as the publisher does it.
    await audit.get(f"/v1/log/inclusion?index={COUNT}")
    client = s3.client(infra_s3.endpoint, infra_s3.access_key, infra_s3.secret_key)
    yield Old(audit, client, [*january, *february, *today])
    with suppress(S3Error):
        client.remove_bucket(audit.settings.s3_bucket)


async def test_nothing_goes_without_a_policy(old: Old) -> None:
    plan = await old.plan()
    assert len(plan) == 3
    assert "nothing goes without a retention policy" in plan[0]
    assert "dropped" not in (await old.prune()).replace("0 months were dropped", "")
    assert len(await old.entries()) == 3 * COUNT


async def test_old_months_go_and_all_stays_provable(old: Old) -> None:
    audit = old.audit
    vkey = (await audit.get("/keys")).splitlines()[0]
    proof = await audit.get("/v1/log/inclusion?index=7")
    before = [await audit.get(f"/v1/log/entries?start={start}&limit=3") for start in (0, 7, 299, 599)]
    await old.policy(EVERYTHING)
    plan = await old.plan()
    assert [line.split("  ")[2].split(":")[0] for line in plan] == ["may go", "may go", "stays"]
    assert len(await old.entries()) == 3 * COUNT, "a plan changes nothing"
    assert (await audit.get("/v1/log/minimum-index")) == "0\n"
    assert "2 months were dropped" in await old.prune()

    assert await old.entries() == list(range(2 * COUNT, 3 * COUNT))
    assert (await audit.get("/v1/log/minimum-index")) == f"{2 * COUNT}\n"
    assert await Guards(audit.db).missing() == []
    # Old proofs hold, and new ones are made: for what went, across the border, and for what stayed.
    assert await audit.get("/v1/log/inclusion?index=7") == proof
    for index in (0, 7, 255, 256, 299, 300, 599, 600, 899):
        found = await audit.get(f"/v1/log/inclusion?index={index}")
        signed = open_note(found["checkpoint"], vkey)
        (entry,) = (await audit.get(f"/v1/log/entries?start={index}&limit=1"))["items"]
        leaf, path = merkle.leaf_hash(b64decode(entry["leaf"])), [b64decode(node) for node in found["proof"]]
        assert merkle.verify_inclusion(leaf, index, signed.size, path, signed.root)
    grown = await audit.get("/v1/log/consistency?from=77&to=700")
    first, second = (b64decode(grown[name]) for name in ("from_root", "to_root"))
    path = [b64decode(node) for node in grown["proof"]]
    assert merkle.verify_consistency(77, 700, first, second, path)
    # Reading, the export, and the service's own check go through the border, too.
    assert [await audit.get(f"/v1/log/entries?start={start}&limit=3") for start in (0, 7, 299, 599)] == before
    export = (await audit.get("/v1/log/export")).encode().splitlines(keepends=True)
    assert verify_export(export, vkey).ok
    assert (await audit.get("/v1/log/verify"))["ok"] is True
    complete = await audit.get("/v1/log/completeness")
    assert all(item["missing"] == 0 for item in complete["items"])


async def test_the_drop_is_an_event(old: Old) -> None:
    await old.policy(EVERYTHING)
    bucket, key = old.audit.settings.s3_bucket, Tile(-1, 1).path

    def locked_days() -> int:
        found = old.client.get_object_retention(bucket, key)
        assert found is not None
        return (found.retain_until_date.replace(tzinfo=UTC) - datetime.now(UTC)).days

    old.audit.settings = old.audit.settings.model_copy(update={"archive_lock_days": 400})
    await old.plan()
    assert locked_days() < 200
    await old.prune()
    # What is left of the entries is in the store: it is locked anew.
    assert locked_days() >= 399
    rows = [row for row in await old.audit.rows(tables.mechanism.event) if row["type"] == LogPruned.TYPE]
    found = [LogPruned.model_validate_json(row["data"]) for row in rows]
    assert [(m.partition, m.first, m.until, m.minimum_index, m.size, m.pruned_by) for m in found] == [
        ("entry_2020_01", 0, COUNT, COUNT, 3 * COUNT, "root"),
        ("entry_2020_02", COUNT, 2 * COUNT, 2 * COUNT, 3 * COUNT, "root"),
    ]
    booked = await old.audit.rows(tables.pruned)
    assert [(row["partition"], row["first"], row["until"]) for row in booked] == [
        ("entry_2020_01", 0, COUNT),
        ("entry_2020_02", COUNT, 2 * COUNT),
    ]
    assert await old.prune() == "0 months were dropped; the object store has their entries\n"


async def test_what_comes_again_after_it_was_pruned_is_no_new_entry(old: Old) -> None:
    await old.policy(EVERYTHING)
    await old.prune()
    outcomes = await old.audit.log().ledger.append(old.records[5:9])
    assert outcomes == [None] * 4
    # The same place with other bytes: the broker forgot its log.
    (forged,) = await old.audit.log().ledger.append([replace(old.records[5], value=b"{}")])
    assert forged == 3 * COUNT


async def test_what_was_pruned_is_gone_from_the_views_too(old: Old) -> None:
    """And a rebuild, which reads it in the object store, leaves it out again."""
    audit, search = old.audit, SearchProjection(old.audit.db)
    views = Views(archive=audit.archive)

    async def told() -> dict[str, list[dict[str, Any]]]:
        while await search.step():
            pass
        return {table.name: await audit.rows(table) for table in (*view_tables.VIEWS, view_tables.search_entry)}

    async def build() -> None:
        async with audit.db.transaction() as tx:
            assert await rebuild(tx, views) == 3 * COUNT

    def content(found: dict[str, list[dict[str, Any]]], first: int, until: int) -> str:
        names = ("timeline", "fact", "search_entry")
        return repr([row for name in names for row in found[name] if first <= row["index"] < until])

    await build()
    before = await told()
    for said in ("'ana'", "Staging for v7", "default/fraud/1"):
        assert said in content(before, 0, 2 * COUNT)
    await old.policy(EVERYTHING)
    await old.prune()
    after = await told()
    for said in ("'ana'", "Staging for v7", "default/fraud/1", "for v"):
        assert said not in content(after, 0, 2 * COUNT)
    assert content(after, 2 * COUNT, 3 * COUNT) == content(before, 2 * COUNT, 3 * COUNT)
    kept = ("index", "at", "topic", "event_id", "type", "stream", "sequence", "model", "version", "outcome", "copy_of")
    for was, row in zip(before["timeline"], after["timeline"], strict=True):
        assert [row[name] for name in kept] == [was[name] for name in kept]
    assert {row["summary"] for row in after["timeline"][: 2 * COUNT]} == {"pruned"}
    # What holds since then is still told.
    assert after["stage_interval"] == before["stage_interval"]
    await build()
    assert await told() == after
    await assert_nobody_is_misled(audit)
    # Rules that come late may turn a verdict of then; what was said stays gone.
    await audit.execute("update audit.claim set judged = true, good = false where index = 7")
    async with audit.db.transaction() as tx:
        page = Page(tx)
        page.now = 3 * COUNT
        await views._again(page, "default/fraud")
        await page.flush()
    (row,) = [row for row in await audit.rows(view_tables.timeline) if row["index"] == 7]
    assert (row["summary"], row["problem"], row["outcome"]) == ("pruned", "decision-not-verified", "refused")
    assert (row["actor"], row["revised"]) == (None, 3 * COUNT)


async def assert_nobody_is_misled(audit: Harness) -> None:
    """What was pruned is in the answer, or the answer says that it may be missing, or there is none."""
    key, kept = str(await audit.get("/keys")).splitlines()[0], 2 * COUNT
    async with audit.client() as client:

        async def exported(query: str) -> dict[str, Any]:
            response = await client.get(f"/v1/export?{query}")
            assert response.status_code == 200, response.text
            return verify_manifest(io.BytesIO(response.content), key)

        for narrow in ("actor=ana", "subject=default/fraud/*", "correlationid=c"):
            for path in (f"/v1/export?{narrow}", f"/v1/export?{narrow}&start={kept - 1}", f"/v1/timeline?{narrow}"):
                response = await client.get(path)
                assert (response.status_code, response.json()["type"].rpartition(":")[2]) == (422, "pruned"), path
                assert f"start={kept}" in response.json()["detail"]
            told = await exported(f"{narrow}&start={kept}")
            assert (told["query"]["start"], told["pruned_until"]) == (kept, kept)
            page = await audit.get(f"/v1/timeline?{narrow}&start={kept}")
            assert (page["pruned_until"], bool(page["items"])) == (kept, narrow == "actor=ana")
        for query, count in (("", 3 * COUNT), ("model=fraud&workspace=default", COUNT)):
            told = await exported(f"{query}&end={3 * COUNT}")
            assert (told["indexes"]["count"], told["pruned_until"]) == (count, kept)
    for name in ("approvals?person=ana", "approvals/people", "four-eyes", "break-glass", "lead-times", "gaps"):
        assert (await audit.get(f"/v1/reports/{name}"))["pruned_until"] == kept, name
    explained = await audit.get("/v1/explain?model=churn&version=1")
    assert (explained["registration"], explained["pruned_until"]) == ([], kept)


async def test_an_export_during_which_entries_go_breaks_off(old: Old) -> None:
    audit = old.audit
    async with audit.db.transaction() as tx:
        await rebuild(tx, Views(archive=audit.archive))
    entries = Entries(audit.db, audit.archive.inline, audit.archive.entry)
    assert await entries.pruned_until() == 0
    batches = entries.batches(Query(0, 2 * COUNT, actor="ana"), page=5)
    assert [row.stored.index for row in await anext(batches)] == [0, 1, 2, 3, 4]
    await old.policy(EVERYTHING)
    await old.prune()
    with pytest.raises(Problem, match=f"entries below {2 * COUNT} were pruned"):
        await anext(batches)


async def test_types_that_are_kept_longer_keep_their_month(old: Old) -> None:
    """January holds no technical documentation, February does. A day that was archived is still signed when the
    database has no more of it."""
    events = EventLog(tables.mechanism, topic=AUDIT_EVENTS.name, source="hallmark/audit")
    signer = signer_of(old.audit.settings)
    publisher = Publisher(old.audit.db, events, old.audit.archive, signer, every_seconds=1, publish_seconds=1)
    days = DayArchive(old.audit.db, old.audit.archive, publisher, signer)
    assert await days.step() == COUNT
    await old.policy(FLOORS, reason=None)
    plan = await old.plan()
    assert plan[0].endswith("may go")
    assert "must be kept for 3653 days (*, hallmark.version.registered.v1)" in plan[1]
    assert "1 months were dropped" in await old.prune()
    assert min(await old.entries()) == COUNT
    assert await days.step() == COUNT
    assert await old.audit.archive.read("archive/day=2020-01-20/_manifest.json") is not None


HOLDS: dict[str, tuple[dict[str, Any], int]] = {
    "everything": ({}, 0),
    "its workspace": ({"workspace": "default"}, 0),
    "its model": ({"workspace": "default", "model": "fraud"}, 0),
    "the model of February": ({"workspace": "default", "model": "churn"}, 1),
    "its time": ({"since": "2020-01-20T00:00:00Z", "until": "2020-01-21T00:00:00Z"}, 0),
    "another time": ({"since": "2020-01-21T00:00:00Z", "until": "2020-02-01T00:00:00Z"}, 2),
    "another workspace": ({"workspace": "another-place"}, 2),
    "another model": ({"workspace": "default", "model": "never-heard-of"}, 2),
    "since February": ({"since": "2020-02-01T00:00:00Z"}, 1),
}


@pytest.mark.parametrize("name", HOLDS)
async def test_a_hold_keeps(old: Old, name: str) -> None:
    scope, dropped = HOLDS[name]
    await old.policy(EVERYTHING)
    hold = await old.hold(**scope)
    if dropped < 2:
        assert f"is protected by the legal hold {hold}" in (await old.plan())[dropped]
    # The store's holds follow; what has not been looked at does not go either.
    await LegalHolds(old.audit.db, old.audit.archive, Signal()).step()
    assert f"{dropped} months were dropped" in await old.prune()
    if dropped < 2:
        status, _ = await old.put(f"/v1/retention/holds/{hold}/release", {"reason": "settled"}, "POST")
        assert status == 200
        await LegalHolds(old.audit.db, old.audit.archive, Signal()).step()
        assert f"{2 - dropped} months were dropped" in await old.prune()


async def test_a_hold_lies_on_the_objects_of_the_store(old: Old) -> None:
    legal = LegalHolds(old.audit.db, old.audit.archive, Signal())
    churn = await old.hold(workspace="default", model="churn")
    both = await old.hold(since="2020-02-01T00:00:00Z", until="2020-03-01T00:00:00Z")
    fraud = await old.hold(workspace="default", model="fraud")
    for _ in range(2):
        await legal.step()
        assert [old.held(Tile(-1, n).path) for n in range(3)] == [True, True, True]
    for hold, expected in ((fraud, [False, True, True]), (churn, [False, True, True]), (both, [False] * 3)):
        await old.put(f"/v1/retention/holds/{hold}/release", {"reason": "settled"}, "POST")
        await legal.step()
        assert [old.held(Tile(-1, n).path) for n in range(3)] == expected
    # Another process was in the middle of it when the hold was released.
    (late,) = [row for row in await old.audit.rows(tables.hold) if row["id"] == fraud]
    await legal._follow(late, 256)
    await old.audit.execute(f"delete from audit.follower where name = 'hold:{fraud}'")
    assert old.held(Tile(-1, 0).path)
    await legal.step()
    assert not old.held(Tile(-1, 0).path)
    assert await old.audit.rows(tables.held_object) == []


async def test_who_only_asks_keeps_no_hold_waiting(old: Old) -> None:
    await old.policy(EVERYTHING)
    other = await asyncpg.connect(old.audit.admin_url)
    try:
        async with other.transaction():
            # The plan has judged January, and waits for February.
            await other.execute("lock table audit_part.entry_2020_02 in access exclusive mode")
            plan = asyncio.create_task(old.plan())
            waiting = (
                "select count(*) from pg_locks where not granted and relation = 'audit_part.entry_2020_02'::regclass"
            )

            async def waits() -> bool:
                return bool(await other.fetchval(waiting))

            await until(waits, 30)
            async with asyncio.timeout(20):
                await old.hold(workspace="another-place")
            assert not plan.done()
    finally:
        await other.close()
    assert len(await plan) == 3


async def test_holds_of_two_processes_free_nothing_that_is_held(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    """One frees an object while the other begins to hold it."""
    audit, key = old.audit, Tile(-1, 0).path
    first, second = (LegalHolds(audit.db, audit_app.archive_of(audit.settings), Signal()) for _ in range(2))
    over = await old.hold(workspace="default", model="fraud")
    await first.step()
    await old.put(f"/v1/retention/holds/{over}/release", {"reason": "settled"}, "POST")
    inside, go_on, hold = asyncio.Event(), asyncio.Event(), first._archive.hold

    async def pausing(name: str, *, on: bool) -> bool:
        if not on and name == key:
            inside.set()
            await go_on.wait()
        return await hold(name, on=on)

    monkeypatch.setattr(first._archive, "hold", pausing)
    freeing = asyncio.create_task(first.step())
    await inside.wait()
    await old.hold(workspace="default", model="fraud")
    holding = asyncio.create_task(second.step())

    async def waits() -> bool:
        async with audit.db.snapshot() as tx:
            asked = sa.text(
                "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = "
                "(select oid from pg_database where datname = current_database())"
            )
            return holding.done() or bool(await tx.scalar(asked))

    await until(waits, 30)
    go_on.set()
    await asyncio.gather(freeing, holding)
    assert old.held(key)


async def test_a_damaged_entry_stops_no_hold(old: Old) -> None:
    """What cannot be read is held as it is; the rest has its turn."""
    audit = old.audit
    large = replace(record(event(registered(1, "huge"), 1)), headers=(("much", b"x" * 70_000),))
    await audit.ledger.ledger.append([large, *(record(event(registered(1, f"m{n}"), 1)) for n in range(200))])
    await audit.get(f"/v1/log/inclusion?index={3 * COUNT + 200}")
    (lost,) = [item.key async for item in audit.archive.store.objects("leaf/")]
    old.client.remove_object(audit.settings.s3_bucket, lost)
    await old.policy(EVERYTHING)
    await old.prune()
    old.client.remove_object(audit.settings.s3_bucket, Tile(-1, 0).path)  # of pruned entries nobody has the bytes
    await old.hold(workspace="default", model="other")
    await LegalHolds(audit.db, audit.archive, Signal()).step()
    held = {row["key"] for row in await audit.rows(tables.held_object)}
    assert {Tile(-1, n).path for n in (2, 3)} <= held
    assert Tile(-1, 1).path not in held
    assert old.held(Tile(-1, 3).path)


async def test_the_database_itself_refuses(old: Old) -> None:
    """Whoever calls `drop_partition`, or drops a month in another way."""
    audit = old.audit
    size = 3 * COUNT
    connection = await asyncpg.connect(audit.admin_url)

    async def attempt(*statements: str) -> str:
        transaction = connection.transaction()
        await transaction.start()
        try:
            for statement in statements:
                await connection.execute(statement)
        except asyncpg.RestrictViolationError as error:
            return str(error)
        finally:
            await transaction.rollback()
        return "done"

    drop, raised = (
        f"select audit.drop_partition('entry_2020_01', {size})",
        "insert into audit.minimum_index (index) values (600)",
    )
    try:
        assert "minimum index 0" in await attempt(drop)
        assert "without a retention policy" in await attempt(raised, drop)
        await old.policy(EVERYTHING)
        assert await attempt(raised, drop) == "done"
        assert "minimum index 0" in await attempt(drop)
        assert "no checkpoint" in await attempt(raised, drop.replace("900", "899"))
        assert "an older month" in await attempt(raised, drop.replace("2020_01", "2020_02"))
        assert "is not over" in await attempt(raised, drop.replace("2020_01", f"{datetime.now(UTC):%Y_%m}"))
        assert "there is no month" in await attempt(drop.replace("2020_01", "1999_01"))
        assert "is not over" in await attempt(drop.replace("entry_2020_01", "entry_default"))
        booked = f"insert into audit.pruned (partition, checkpoint_size) values ('entry_2020_01', {size})"
        assert "is gone" in await attempt("drop table audit_part.entry_2020_01")
        assert "only grows" in await attempt(raised, raised)
        assert "beyond every checkpoint" in await attempt(raised.replace("600", "901"))
        # Booked, but not in the same transaction: the hold that came in between counts.
        assert await attempt(raised, booked, "drop table audit_part.entry_2020_01") == "done"
        await connection.execute(raised)
        await connection.execute(booked)
        await old.hold()
        assert "is gone" in await attempt("drop table audit_part.entry_2020_01")
        assert await attempt("update audit.hold set until = now()") != "done"
        assert await attempt("delete from audit.hold") != "done"
    finally:
        await connection.close()
    assert len(await old.entries()) == size
    assert (await audit.get("/v1/log/verify"))["ok"] is True


LOST = {
    "a bundle is gone": (Tile(-1, 0).path, None, "does not have"),
    "a bundle was changed": (Tile(-1, 1).path, b"\x00\x01x", "is not what its tile commits to"),
    "a tile was changed": (Tile(0, 1).path, b"x" * 8192, "is not what its tile commits to"),
}


@pytest.mark.parametrize("name", LOST)
async def test_nothing_goes_that_the_store_does_not_have(old: Old, name: str) -> None:
    key, forged, problem = LOST[name]
    await old.policy(EVERYTHING)
    if forged is None:
        old.client.remove_object(old.audit.settings.s3_bucket, key)
    else:
        await old.audit.archive.store.put(key, forged, {})
    assert problem in (await old.plan())[0]
    assert "0 months" in await old.prune()


async def test_a_pruned_entry_that_the_store_loses_is_named(old: Old) -> None:
    await old.policy(EVERYTHING)
    await old.prune()
    old.client.remove_object(old.audit.settings.s3_bucket, Tile(-1, 1).path)
    verdict = await old.audit.get("/v1/log/verify")
    assert (verdict["ok"], verdict["first_bad"]["index"]) == (False, 256)


async def test_bytes_that_the_store_changed_are_given_to_nobody(old: Old) -> None:
    """They were logged as something else: the log keeps their hash."""
    await old.policy(EVERYTHING)
    await old.prune()
    path = Tile(-1, 0).path
    good = await old.audit.archive.read(path) or b""
    forged = good.replace(b"default/fraud/1", b"default/fraud/9", 1)
    assert len(forged) == len(good) != 0
    assert forged != good
    await old.audit.archive.store.put(path, forged, {})
    archive = audit_app.archive_of(old.audit.settings)
    bad = next(n for n, (a, b) in enumerate(zip(entries_of(good), entries_of(forged), strict=True)) if a != b)
    async with old.audit.client() as client:
        response = await client.get(f"/v1/log/entries?start={bad}&limit=1")
    assert (response.status_code, response.json()["type"].rpartition(":")[2]) == (500, "split-log")
    entries = Entries(old.audit.db, archive.inline, archive.entry)
    rows = [row async for page in entries.batches(Query(bad, bad + 2)) for row in page]
    assert [row.stored.leaf for row in rows] == [b"", entries_of(good)[bad + 1]]
    assert rows[0].fields["problem"].startswith("leaf-lost: ")
    views = Views(archive=archive)
    (row,) = [row for row in await old.audit.rows(tables.pruned_entry) if row["index"] == bad]
    with pytest.raises(Contradiction):
        await views.entry(bad, None, row["leaf_hash"])


async def test_nothing_goes_that_somebody_still_has_to_read(old: Old) -> None:
    await old.policy(EVERYTHING)
    await old.audit.execute("insert into audit.follower values ('slow', 299)")
    assert "slow has read only up to entry 299" in (await old.plan())[0]
    assert "0 months" in await old.prune()
    await old.audit.execute("update audit.follower set name = 'siem:splunk' where name = 'slow'")
    assert (await old.plan())[0].endswith("may go"), "a feed that nobody sends any more keeps nothing"
    old.audit.settings = old.audit.settings.model_copy(update={"siem_url": "http://localhost", "siem_name": "splunk"})
    assert "siem:splunk has read only up to entry 299" in (await old.plan())[0]


BAD: dict[str, tuple[Any, str]] = {
    "below the floor for logs": ([{"topic": "*", "type": "*", "days": 183}], "below-floor"),
    "below the floor for documentation": (EVERYTHING, "below-floor"),
    "nothing for the rest": (FLOORS[1:], "invalid-policy"),
    "a topic that is none": ([*FLOORS, {"topic": "x", "type": "*", "days": 200}], "invalid-policy"),
    "a type that is none": ([*FLOORS, {"topic": "*", "type": "x", "days": 200}], "invalid-policy"),
    "no days": ([*FLOORS, {"topic": "*", "type": "*", "days": 0}], "invalid-request"),
    "no rules": ([], "invalid-request"),
}


async def test_a_policy_that_is_none_changes_nothing(audit: Harness) -> None:
    old = Old(audit, None, [])  # type: ignore[arg-type]
    for name, (rules, code) in BAD.items():
        status, body = await old.put("/v1/retention/policy", {"rules": rules})
        assert (status, body["type"].rpartition(":")[2]) == (422, code), (name, body)
    assert await audit.rows(tables.retention_policy) == []
    assert await audit.status("/v1/retention/policy", "auditors") == 404


async def test_a_policy_is_an_event_with_its_reason(audit: Harness) -> None:
    old = Old(audit, None, [])  # type: ignore[arg-type]
    await old.policy(FLOORS, reason=None)
    await old.policy(EVERYTHING, reason="all models are toys")
    found = await audit.get("/v1/retention/policy")
    assert (found["sequence"], found["rules"], found["reason"]) == (2, EVERYTHING, "all models are toys")
    rows = [
        json.loads(r["data"]) for r in await audit.rows(tables.mechanism.event) if r["type"] == RetentionPublished.TYPE
    ]
    assert [row["reason"] for row in rows] == [None, "all models are toys"]
    assert {row["published_by"] for row in rows} == {"root"}


@pytest.mark.parametrize("group", ["auditors", "ml-engineers"])
async def test_only_an_admin_decides(audit: Harness, group: str) -> None:
    old = Old(audit, None, [])  # type: ignore[arg-type]
    for path, body, method in (
        ("/v1/retention/policy", {"rules": FLOORS}, "PUT"),
        ("/v1/retention/holds", {"reason": "x"}, "POST"),
        (f"/v1/retention/holds/{'0' * 32}/release", {"reason": "x"}, "POST"),
    ):
        assert (await old.put(path, body, method, group))[0] == 403
    assert await audit.rows(tables.hold) == []


async def test_holds_are_listed_and_released_once(audit: Harness) -> None:
    old = Old(audit, None, [])  # type: ignore[arg-type]
    hold = await old.hold(workspace="default", model="fraud")
    release = f"/v1/retention/holds/{hold}/release"
    assert (await old.put(release, {"reason": "over"}, "POST"))[1]["release_reason"] == "over"
    assert (await old.put(release, {"reason": "over"}, "POST"))[0] == 409
    assert (await old.put(release.replace(hold, "0" * 32), {"reason": "over"}, "POST"))[0] == 404
    (found,) = (await audit.get("/v1/retention/holds"))["items"]
    assert (found["placed_by"], found["released_by"], found["reason"]) == ("root", "root", "case 4711")
    for scope in ({"model": "fraud"}, {"since": "2020-02-01T00:00:00Z", "until": "2020-02-01T00:00:00Z"}):
        assert (await old.put("/v1/retention/holds", {"reason": "x", **scope}, "POST"))[0] == 422


async def test_a_hold_covers_every_name_that_a_model_had(audit: Harness) -> None:
    async with audit.db.transaction() as tx:
        for name in ("fraud", "Betrug größer"):
            await tx.execute(
                sa.insert(view_tables.model_name).values(workspace="default", name=name, model="fraud", index=0)
            )
    old = Old(audit, None, [])  # type: ignore[arg-type]
    await old.hold(workspace="default", model="Betrug größer")
    (row,) = await audit.rows(tables.hold)
    assert {b"fraud", "Betrug größer".encode(), rb"Betrug gr\u00f6\u00dfer"} == set(row["marks"])


async def test_pruned_bundles_are_for_auditors_only(old: Old) -> None:
    public = audit_app.build(old.audit.settings.model_copy(update={"log_public": True}))
    await old.policy(EVERYTHING)
    await old.prune()
    harness = replace(old.audit, made=public)
    async with harness.client() as client:
        answers = {
            path: (
                (await client.get(path)).status_code,
                (await client.get(path, headers={"authorization": ""})).status_code,
            )
            for path in ("/tile/entries/000", "/tile/entries/002", "/tile/0/000")
        }
        client.headers.pop("authorization")
        anonymous = {path: (await client.get(path)).status_code for path in answers}
    assert {path: status for path, (status, _) in answers.items()} == dict.fromkeys(answers, 200)
    assert anonymous == {"/tile/entries/000": 410, "/tile/entries/002": 200, "/tile/0/000": 200}


def test_months_of_the_tests_are_old_enough() -> None:
    assert datetime.now(UTC) - FEBRUARY > timedelta(days=365)
