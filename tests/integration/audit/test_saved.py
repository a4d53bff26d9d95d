"""Saved searches: whose rights they have, where they go on, whom they tell."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.waiting import until

from audit.access import AccessLog
from audit.params import Reader
from audit.saved.searches import Searches
from audit.search import SearchProjection
from audit.settings import AuditSettings
from audit.tables import mechanism, saved_search
from audit.view_tables import timeline
from contracts.audience import recipients_of
from contracts.audit import CheckpointPublished, SearchAlerted, SearchRan
from contracts.envelope import Envelope, now
from contracts.notifier import DeliverySucceeded
from contracts.topics import AUDIT_EVENTS, NOTIFIER_EVENTS
from kit.db import Database
from kit.events import EventLog
from kit.web import Guard

from .conftest import ACCESS, Harness, event, hours, record, registered, story

MOVES = {"filters": {"type": ["hallmark.stage.*"]}}
MINUTE = timedelta(seconds=60)


@pytest.fixture
def settings(settings: AuditSettings) -> AuditSettings:
    settings.access_file.write_text(ACCESS + "  - {group: admins, role: admin}\n")
    return settings


@pytest.fixture
def searches(audit: Harness) -> Searches:
    return replica(audit)


def replica(audit: Harness, db: Database | None = None, page: int = 1_000_000) -> Searches:
    """The part that runs searches, as a process that has just started has it."""
    db, guard = db or audit.db, Guard(audit.settings)
    events = EventLog(mechanism, topic=AUDIT_EVENTS.name, source="hallmark/audit")
    access = AccessLog(db, events, guard, audit.settings.checkpoint_origin)
    return Searches(db, events, access, lambda owner: Reader(db, guard, access, owner, None), page=page)


@pytest.fixture
async def other(audit: Harness) -> AsyncIterator[Database]:
    db = Database(audit.settings.database_url.get_secret_value(), name="other")
    yield db
    await db.close()


async def ask(audit: Harness, method: str, path: str, body: Any = None, who: tuple[str, ...] = ("aud",)) -> Any:
    """(status, body) of what somebody of some groups asks."""
    async with audit.client(*who) as client:
        response = await client.request(method, f"/v1/searches{path}", json=body)
    return response.status_code, response.json() if response.content else None


def code(answer: tuple[int, Any]) -> tuple[int, str]:
    return answer[0], answer[1]["type"].rpartition(":")[2]


async def saved(audit: Harness, name: str, body: Any, who: tuple[str, ...] = ("aud",)) -> Any:
    status, found = await ask(audit, "PUT", f"/{name}", body, who)
    assert status == 201, found
    return found


async def told(audit: Harness, *kinds: str) -> list[Envelope]:
    """What the service said of searches, the first event first."""
    log = EventLog(mechanism, topic=AUDIT_EVENTS.name, source="hallmark/audit")
    async with audit.db.snapshot() as tx:
        found = [envelope async for envelope in log.read(tx)]
    return [e for e in found if e.type.startswith("hallmark.search.") and (not kinds or e.type in kinds)]


async def runs(audit: Harness) -> list[tuple[int, int, int]]:
    found = [envelope.payload(SearchRan) for envelope in await told(audit, SearchRan.TYPE)]
    return [(ran.first, ran.until, ran.matches) for ran in found]


async def heard(audit: Harness, *more: Envelope) -> None:
    """The log takes what the service said of searches since it last did, as it does from Kafka."""
    known = {row["event_id"] for row in await audit.rows(timeline)}
    new = [envelope for envelope in await told(audit) if envelope.id not in known]
    await audit.ledger.append([record(e, topic=AUDIT_EVENTS.name) for e in new])
    await audit.ledger.append([record(e, topic=NOTIFIER_EVENTS.name) for e in more])


async def test_saved_listed_looked_at_and_removed(audit: Harness) -> None:
    await audit.ledger.append([record(e) for e in story()])
    body = {**MOVES, "every": "PT15M", "alert_above": 3}
    made = await saved(audit, "moves", body)
    assert (made["owner"], made["every"], made["alert_above"], made["next"]) == ("aud", 900, 3, 9)
    assert made["filters"] == {"workspace": "default", "type": ["hallmark.stage.*"]}
    assert await ask(audit, "PUT", "/moves", {**body, "every": 900}) == (200, made)
    assert code(await ask(audit, "PUT", "/moves", MOVES)) == (409, "search-exists")
    renewed = await ask(audit, "PUT", "/moves", body, ("aud", "admins", "auditors"))
    made["groups"] = ["admins", "auditors"]
    assert renewed == (200, made)
    await saved(audit, "all", {})
    page = (await ask(audit, "GET", "?limit=1"))[1]
    assert ([one["name"] for one in page["items"]], page["next"]) == (["all"], "all")
    page = (await ask(audit, "GET", "?limit=1&after=all"))[1]
    assert (page["items"], page["next"]) == ([made], None)
    assert (await ask(audit, "GET", "/moves"))[1] == made
    assert await ask(audit, "DELETE", "/moves") == (204, None)
    assert (await ask(audit, "DELETE", "/moves"))[0] == 404
    assert code(await ask(audit, "GET", "/moves")) == (404, "no-such-search")
    said = [(e.type.split(".")[2], json.loads(e.value)["name"], e.actor, e.sequence) for e in await told(audit)]
    assert said == [
        ("saved", "moves", "aud", 1),
        ("saved", "moves", "aud", 2),
        ("saved", "all", "aud", 1),
        ("removed", "moves", "aud", 3),
    ]
    first, again, *_ = [json.loads(envelope.value) for envelope in await told(audit)]
    assert again == first | {"groups": ["admins", "auditors"]}
    assert first["query"] == "type=hallmark.stage.*&workspace=default"
    assert (first["start"], first["groups"]) == (9, ["auditors"])


BAD: list[Any] = [
    {"every": 59},
    {"every": "soon"},
    {"alert_above": -1},
    {"start": -1},
    {"start": 2**63},
    {"q": "x"},
    {"filters": {"type": ["x"] * 21}},
    {"filters": {"tpye": ["x"]}},
    {"filters": {"outcome": "odd"}},
    {"filters": {"since": "2026-11-20T12:00:00"}},
    {"filters": {"actor": "a\x00b"}},
    {"filters": {"type": ["x" * 500] * 20}},
    {"rights": "all"},
    [],
]


async def test_bad_input_changes_nothing(audit: Harness) -> None:
    async with audit.client() as client:
        for body in BAD:
            response = await client.put("/v1/searches/bad", json=body)
            assert response.status_code == 422, body
            assert response.headers["content-type"] == "application/problem+json"
        assert (await client.put("/v1/searches/Not_a_Name", json={})).status_code == 422
    assert await audit.rows(saved_search) == []
    assert await told(audit) == []


async def test_rights_are_those_of_the_timeline(audit: Harness) -> None:
    await audit.ledger.append([record(e) for e in story()])
    everywhere = {"filters": {"workspace": "*"}, "start": 0}
    for groups, body, status in (
        (("nobody",), {}, 403),
        (("local-auditors",), everywhere, 403),
        (("local-auditors",), {"filters": {"workspace": "other"}}, 403),
        (("fraud-auditors",), everywhere, 403),
        (("fraud-auditors",), {"filters": {"workspace": "*", "model": "fraud"}, "start": 0}, 201),
        (("auditors",), everywhere, 201),
    ):
        name = "of-" + groups[0]
        assert (await ask(audit, "PUT", f"/{name}", body, (groups[0], *groups)))[0] == status, groups
    assert len(await audit.rows(saved_search)) == 2
    # Nobody sees, runs or removes those of others, but who configures everything: they see and remove.
    for method, path in (
        ("GET", ""),
        ("GET", "/of-auditors"),
        ("POST", "/of-auditors/run"),
        ("DELETE", "/of-auditors"),
    ):
        mine = await ask(audit, method, path, None, ("eve", "auditors"))
        assert mine == (200, {"items": [], "next": None}) if not path else mine[0] == 404
        if method != "POST":
            assert (await ask(audit, method, f"{path}?owner=auditors", None, ("eve", "auditors")))[0] == 403
    root = ("root", "admins")
    assert [one["name"] for one in (await ask(audit, "GET", "?owner=auditors", None, root))[1]["items"]] == [
        "of-auditors"
    ]
    assert (await ask(audit, "DELETE", "/of-auditors?owner=auditors", None, root))[0] == 204
    assert (await told(audit))[-1].actor == "root"


async def test_a_run_by_hand_looks_at_what_is_new(audit: Harness) -> None:
    await audit.ledger.append([record(e) for e in story()])
    await saved(audit, "moves", {**MOVES, "start": 0, "alert_above": 6})
    await saved(audit, "new", MOVES)
    _, ran = await ask(audit, "POST", "/moves/run")
    assert ran == {"first": 0, "until": 9, "matches": 7, "indexes": [1, 2, 4, 5, 6, 7, 8], "alerted": True}
    _, ran = await ask(audit, "POST", "/moves/run")
    assert ran == {"first": 9, "until": 9, "matches": 0, "indexes": [], "alerted": False}
    assert (await ask(audit, "POST", "/new/run"))[1]["matches"] == 0
    assert (await ask(audit, "GET", "/moves"))[1]["matches"] == 0
    last = [envelope.actor for envelope in await told(audit, SearchRan.TYPE)]
    assert last == ["aud", "aud", "aud"]
    # The caller's rights count, not those of old.
    assert (await ask(audit, "POST", "/moves/run", None, ("aud", "nobody")))[0] == 403
    assert len(await runs(audit)) == 3


async def test_text_is_looked_for_as_far_as_search_has_come(audit: Harness) -> None:
    await saved(audit, "olga", {"q": "olga", "start": 0})
    await audit.ledger.append([record(e) for e in story()])
    assert (await ask(audit, "POST", "/olga/run"))[1]["until"] == 0
    await SearchProjection(audit.db).step()
    assert (await ask(audit, "POST", "/olga/run"))[1]["indexes"] == [8]
    assert (await told(audit))[0].value.decode().count("q=olga") == 1


async def test_a_schedule_goes_on_where_it_was_whoever_runs_it(audit: Harness, searches: Searches) -> None:
    await audit.ledger.append([record(e) for e in story()])
    made = await saved(audit, "moves", {**MOVES, "every": 60, "start": 0})
    due = datetime.fromisoformat(made["due_at"])
    assert not await searches.step(due - MINUTE / 2)
    assert await searches.step(due)
    assert not await searches.step(due + MINUTE / 2)
    assert await runs(audit) == [(0, 9, 7)]
    # Nothing new: it is quiet.
    assert await searches.step(due + MINUTE)
    assert await runs(audit) == [(0, 9, 7)]
    await audit.ledger.append([record(event(registered(n), n, at=hours(n))) for n in range(10, 13)])
    # Another process, long after: once, and the next time is of the same grid.
    late = due + 90.5 * MINUTE
    assert await replica(audit).step(late)
    assert not await replica(audit).step(late)
    assert await runs(audit) == [(0, 9, 7), (9, 12, 0)]
    [row] = await audit.rows(saved_search)
    assert (row["next"], row["due_at"], row["matches"]) == (12, due + 91 * MINUTE, 0)


async def test_two_replicas_look_at_every_entry_once(audit: Harness, other: Database) -> None:
    made = [await saved(audit, f"all-{n}", {"every": 60, "start": 0}) for n in range(3)]
    at = datetime.fromisoformat(made[-1]["due_at"])
    both = replica(audit, page=4), replica(audit, other, page=4)

    async def work(one: Searches, at: datetime) -> None:
        while await one.step(at):
            pass

    for turn in range(3):
        await audit.ledger.append([record(event(registered(n), n)) for n in range(turn * 7 + 1, turn * 7 + 8)])
        await asyncio.gather(*(work(one, at + turn * MINUTE) for one in both))
    for one in made:
        found = [e.payload(SearchRan) for e in await told(audit, SearchRan.TYPE)]
        mine = [ran for ran in found if ran.name == one["name"]]
        assert [index for ran in mine for index in ran.indexes] == list(range(21))
        assert [ran.first for ran in mine] == [0, *(ran.until for ran in mine[:-1])]


async def test_an_alert_is_for_its_owner_and_starts_no_other(audit: Harness, searches: Searches) -> None:
    """A search for everything: what its run and its alert bring into the log is nothing new."""
    await saved(audit, "other", {"filters": {"workspace": "*"}, "every": 60, "alert_above": 0})
    made = await saved(audit, "all", {"filters": {"workspace": "*"}, "every": 60, "alert_above": 0})
    await heard(audit)
    at = datetime.fromisoformat(made["due_at"])
    delivered: set[str] = set()
    for _ in range(5):
        while await searches.step(at):
            pass
        alerts = [e for e in await told(audit, SearchAlerted.TYPE) if e.id not in delivered]
        delivered |= {e.id for e in alerts}
        sent = {"delivery_id": "d", "subscription_id": "s", "attempt": 1, "latency_ms": 1.0}
        deliveries = [
            Envelope.of(
                DeliverySucceeded(**sent, event_id=e.id, event_type=e.type),
                source="hallmark/notifier",
                subject=e.subject,
                key=f"subscription:{e.id}",
                sequence=1,
                causationid=e.id,
                actor="service:notifier",
            )
            for e in alerts
        ]
        await heard(audit, *deliveries)
        point = CheckpointPublished(origin="o", size=len(delivered) + 1, root="r", note="n")
        signed = event(point, len(delivered) + 1, key="checkpoint:o", subject="checkpoint:o")
        await audit.ledger.append([record(signed, topic=AUDIT_EVENTS.name)])
        at += MINUTE
    found = await told(audit, SearchAlerted.TYPE)
    assert sorted(e.payload(SearchAlerted).name for e in found) == ["all", "other"]
    assert [recipients_of(e) for e in found] == [{"user:aud"}] * 2
    assert len(await runs(audit)) == 2
    # Who claims to be such an event elsewhere hides nothing.
    forged = record(found[0], topic=NOTIFIER_EVENTS.name)
    await audit.ledger.append([forged])
    await searches.step(at)
    assert (await runs(audit))[-1][2] == 1


async def test_who_may_not_read_any_more_is_told_so_and_reads_nothing(audit: Harness) -> None:
    made = await saved(audit, "all", {"every": 60, "start": 0}, ("loc", "local-auditors"))
    await audit.ledger.append([record(e) for e in story()])
    at = datetime.fromisoformat(made["due_at"])
    audit.settings.access_file.write_text("roles:\n  - {group: admins, role: admin}\n")
    assert await replica(audit).step(at)
    [denied] = [e.payload(SearchRan) for e in await told(audit, SearchRan.TYPE)]
    assert (denied.outcome, denied.matches, denied.first, denied.until) == ("denied", 0, 0, 0)
    assert not await replica(audit).step(at)
    audit.settings.access_file.write_text(ACCESS)
    assert await replica(audit).step(at + MINUTE)
    assert (await runs(audit))[-1] == (0, 9, 9)


async def test_one_that_cannot_run_is_in_nobodys_way(audit: Harness, searches: Searches) -> None:
    await audit.ledger.append([record(e) for e in story()])
    await saved(audit, "broken", {"every": 60, "start": 0})
    await saved(audit, "fine", {"every": 60, "start": 0})
    async with audit.db.transaction() as tx:
        mine = sa.update(saved_search).where(saved_search.c.name == "broken")
        await tx.execute(mine.values(filters={"of": "a newer release"}))
    at = now()
    assert await searches.step(at)
    assert await searches.step(at)
    assert not await searches.step(at)
    ran = {e.payload(SearchRan).name: e.payload(SearchRan) for e in await told(audit, SearchRan.TYPE)}
    assert {name: (of.outcome, of.until) for name, of in ran.items()} == {
        "broken": ("failed", 0),
        "fine": ("allowed", 9),
    }
    rows = {row["name"]: (row["next"], row["outcome"], row["matches"]) for row in await audit.rows(saved_search)}
    assert rows == {"broken": (0, "failed", None), "fine": (9, "allowed", 9)}
    assert code(await ask(audit, "POST", "/broken/run")) == (409, "search-failed")
    last = (await told(audit, SearchRan.TYPE))[-1]
    assert (last.actor, last.payload(SearchRan).outcome) == ("aud", "failed")


async def test_the_job_waits_for_a_database_that_is_away(audit: Harness, other: Database) -> None:
    await audit.ledger.append([record(e) for e in story()])
    running = asyncio.create_task(replica(audit, other).run())
    try:
        await saved(audit, "first", {"every": 60, "start": 0})
        await until(lambda: _count(audit, 1))
        name = audit.admin_url.rsplit("/", 1)[1]
        await audit.execute(
            f"select pg_terminate_backend(pid) from pg_stat_activity "
            f"where datname = '{name}' and application_name = 'other'"
        )
        await saved(audit, "second", {"every": 60, "start": 0})
        await until(lambda: _count(audit, 2))
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _count(audit: Harness, wanted: int) -> bool:
    return len(await runs(audit)) == wanted


async def test_no_more_than_so_many(audit: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.saved.searches.MOST_SAVED", 2)
    for n in range(2):
        await saved(audit, f"s{n}", {})
    assert code(await ask(audit, "PUT", "/more", {})) == (422, "too-many-searches")
    assert (await ask(audit, "PUT", "/s0", {}))[0] == 200
    assert len(await audit.rows(saved_search)) == 2
