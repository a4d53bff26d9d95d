"""The past as the log tells it: points in time, the timeline, and the same again after a rebuild."""

import json
import random
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest

from audit import tables, view_tables
from audit.rebuild import compared, rebuild
from audit.views import Views
from contracts.envelope import Envelope
from contracts.lifecycle import Stage, TransitionKind
from contracts.registry import RequestTransition
from contracts.topics import REGISTRY_COMMANDS

from .conftest import Harness, changed, digest, event, hours, record, registered, story

VIEWS = (*view_tables.VIEWS, tables.mechanism.progress, tables.mechanism.early)


async def production(audit: Harness, at: float, stage: str = "Production") -> Any:
    when = quote(hours(at).isoformat())
    return await audit.get(f"/v1/models/fraud/production?at={when}&stage={stage}")


async def snapshot(audit: Harness) -> list[list[dict[str, Any]]]:
    found = [await audit.rows(table) for table in VIEWS]
    for row in found[-1]:
        del row["at"]  # when an early record was put aside
    return found


async def assert_story(audit: Harness) -> None:
    nothing = await production(audit, 1.9)
    assert (nothing["version"], nothing["stage"], nothing["since"], nothing["approved_by"]) == (
        None,
        "Production",
        None,
        [],
    )
    first = await production(audit, 2)
    assert (first["version"], first["digest"], first["requested_by"]) == (1, digest(1), "ana")
    assert [a["name"] for a in first["approved_by"]] == ["ben"]
    assert [(c["gate"], c["result"]) for c in first["criteria"]] == [("accuracy", "passed")]
    assert (first["reason"], first["policy"], first["decision_id"]) == ("Production for v1", "prod@1", "d-1")
    assert first["since"] == hours(2).isoformat().replace("+00:00", "Z")
    assert first["until"] == hours(4).isoformat().replace("+00:00", "Z")
    second = await production(audit, 4)
    assert (second["version"], second["since"]) == (2, hours(4).isoformat().replace("+00:00", "Z"))
    third = await production(audit, 100)
    assert (third["version"], third["until"], third["kind"], third["requested_by"]) == (1, None, "rollback", "olga")
    assert (await production(audit, 3.9999))["version"] == 1
    assert (await production(audit, 5.9999))["version"] == 2
    assert (await production(audit, 5, "Archived"))["version"] == 1
    assert (await production(audit, 7, "Archived"))["version"] == 2
    assert (await production(audit, 3.5, "Staging"))["version"] == 2
    assert (await production(audit, 0.5, "Development"))["version"] == 1


async def test_points_in_time(audit: Harness) -> None:
    for envelope in story():
        await audit.ledger.append([record(envelope)])
    await assert_story(audit)
    now = await audit.get("/v1/models/fraud/production")
    assert now["version"] == 1
    assert (await audit.get("/v1/models/other/production"))["version"] is None


@pytest.mark.parametrize("seed", range(4))
async def test_events_that_arrive_in_any_order_give_the_same_past(audit: Harness, seed: int) -> None:
    envelopes = story()
    random.Random(seed).shuffle(envelopes)
    for envelope in envelopes:
        await audit.ledger.append([record(envelope)])
    await assert_story(audit)
    by_index = {row["index"]: row["event_id"] for row in await audit.rows(view_tables.timeline)}
    rows = await audit.rows(view_tables.stage_interval)
    # Each interval names the entry of the event that opened it, also when that came early.
    opened = {by_index[row["index"]]: (row["version"], row["stage"]) for row in rows}
    bodies = {envelope.id: read_body(envelope) for envelope in envelopes}
    assert opened == {i: (b["version"], b.get("to_stage", "Development")) for i, b in bodies.items()}
    assert await audit.rows(tables.mechanism.early) == []


def read_body(envelope: Envelope) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(envelope.value)
    return body


async def test_a_bad_event_does_not_hold_up_its_stream(audit: Harness) -> None:
    envelopes = story()
    records = [record(envelope) for envelope in envelopes]
    bad = record(envelopes[1].model_copy(update={"value": b"{}"}))
    await audit.ledger.append([records[0], bad, *records[2:]])
    assert (await production(audit, 100))["version"] == 1
    assert (await production(audit, 1.5, "Staging"))["version"] is None


async def test_a_stage_may_hold_many(audit: Harness) -> None:
    moves = [
        event(registered(1), 1, at=hours(0)),
        event(registered(2), 2, at=hours(1)),
        event(registered(3), 3, at=hours(2)),
    ]
    await audit.ledger.append([record(e) for e in moves])
    found = await production(audit, 5, "Development")
    assert (found["version"], found["others"]) == (3, [2, 1])


async def test_clocks_that_disagree_never_end_an_interval_before_it_began(audit: Harness) -> None:
    back = [
        event(registered(1), 1, at=hours(2)),
        event(changed(1, Stage.DEVELOPMENT, Stage.STAGING), 2, at=hours(1)),
        event(changed(1, Stage.STAGING, Stage.ARCHIVED, TransitionKind.RETIREMENT), 3, at=hours(3)),
    ]
    await audit.ledger.append([record(e) for e in back])
    rows = [r for r in await audit.rows(view_tables.stage_interval) if r["known_until"] is None]
    assert [(r["since"], r["until"]) for r in rows] == [
        (hours(2), hours(2)),
        (hours(2), hours(3)),
        (hours(3), None),
    ]


async def test_the_timeline_is_told_page_by_page(audit: Harness) -> None:
    await audit.ledger.append([record(e) for e in story()])
    await audit.ledger.append([record(event(registered(1, "other"), 1))])
    items, after = [], ""
    while after is not None:
        page = await audit.get(f"/v1/timeline?model=fraud&limit=4{after and f'&after={after}'}")
        assert len(page["items"]) <= 4
        items += page["items"]
        after = page["next"]
    assert [item["index"] for item in items] == list(range(9))
    swap = items[6]
    assert swap["type"] == "hallmark.stage.changed.v1"
    assert (swap["subject"], swap["actor"], swap["version"]) == ("default/fraud/1", "ana", 2)
    for part in ("ana moved fraud v2 from Staging to Production", "approved by ben", "accuracy: passed", "replaces v1"):
        assert part in swap["summary"]
    assert [i["version"] for i in (await audit.get("/v1/timeline?model=fraud&version=2"))["items"]] == [2] * 4
    one = (await audit.get(f"/v1/timeline?correlationid={swap['correlationid']}"))["items"]
    assert [i["index"] for i in one] == [6]
    typed = await audit.get("/v1/timeline?type=hallmark.version.registered.v1")
    assert sorted(i["model"] for i in typed["items"]) == ["fraud", "fraud", "other"]


async def test_the_timeline_is_told_in_order_of_what_happened(audit: Harness) -> None:
    """Also when topics and streams came in another order, and with several events of one instant."""
    envelopes = story()
    await audit.ledger.append([record(e) for e in reversed(envelopes)])
    items, query = [], "model=fraud&limit=2"
    page: Any = {"next": ""}
    while page["next"] is not None:
        page = await audit.get(f"/v1/timeline?{query}" + (f"&after={page['next']}" if page["next"] else ""))
        items += page["items"]
    assert len(items) == len(envelopes) == len({item["event_id"] for item in items})
    order = [(item["at"], item["index"]) for item in items]
    assert order == sorted(order)
    assert items[0]["event_id"] == envelopes[0].id


async def test_an_instant_before_1970_is_a_place_too(audit: Harness) -> None:
    old = [event(registered(n), n, at=datetime(1, 1, 1, 0, 0, n, n, tzinfo=UTC)) for n in (1, 2)]
    await audit.ledger.append([record(e) for e in old])
    page = await audit.get("/v1/timeline?limit=1")
    rest = await audit.get(f"/v1/timeline?limit=1&after={page['next']}")
    assert [i["event_id"] for i in page["items"] + rest["items"]] == [e.id for e in old]


async def test_copies_are_flagged(audit: Harness) -> None:
    original = story()[0]
    await audit.ledger.append([record(original), record(original)])
    # The same id on another topic is another thing.
    asks = RequestTransition(model="fraud", version=1, to_stage=Stage.STAGING, reason="try")
    elsewhere = event(asks, None, event_id=original.id)
    await audit.ledger.append([record(elsewhere, topic=REGISTRY_COMMANDS.name)])
    assert [row["copy_of"] for row in await audit.rows(view_tables.timeline)] == [None, 0, None]
    assert len(await audit.rows(view_tables.stage_interval)) == 1


async def test_a_copy_cannot_take_the_place_of_a_later_event(audit: Harness) -> None:
    """Same id, another sequence: it does not move the stream, and nobody takes it for a copy."""
    envelopes = story()
    forged = envelopes[2].model_copy(update={"sequence": 2, "id": envelopes[0].id})
    await audit.ledger.append([record(envelopes[0]), record(forged), *[record(e) for e in envelopes[1:]]])
    rows = await audit.rows(view_tables.timeline)
    assert rows[1]["copy_of"] is None
    assert (rows[1]["problem"], rows[1]["outcome"]) == (
        "id-used-twice: the entry 0 has the same id and says something else",
        "failed",
    )
    assert rows[1]["summary"].startswith("ana moved fraud v1 from Staging to Production: ")
    assert [row["code"] for row in await audit.rows(tables.finding)] == ["id-used-twice"]
    assert (await production(audit, 1.5))["version"] is None
    assert (await production(audit, 2))["version"] == 1


async def test_views_rebuilt_from_the_log_come_out_identical(audit: Harness) -> None:
    envelopes = story()
    random.Random(3).shuffle(envelopes)
    late, *rest = envelopes
    bad = record(event(registered(9), 1, key="default/x"), value=b"junk")
    token = (("authorization", b"Bearer x"),)
    asks = event(RequestTransition(model="fraud", version=1, to_stage=Stage.STAGING, reason="try"), None)
    command = record(asks, topic=REGISTRY_COMMANDS.name, headers=(*asks.headers(), *token))
    await audit.ledger.append(
        [*[record(e) for e in rest], bad, command, record(rest[0].model_copy(update={"actor": "x"}))]
    )
    before = await snapshot(audit)
    assert before[0]
    assert before[1]
    assert before[-1]
    async with audit.db.transaction() as tx:
        assert await rebuild(tx, Views()) == len(before[0])
    assert await snapshot(audit) == before
    # And the fold goes on where it was.
    await audit.ledger.append([record(late)])
    await assert_story(audit)
    before = await snapshot(audit)
    assert (await compared(audit.db, Views(), lambda _: None)).differing == ()
    await audit.execute(
        "delete from audit.timeline where index = 3",
        "update audit.stage_interval set version = 7, reason = 'mine'",
        "update audit.timeline set actor = 'mallory' where index = 0",
    )
    edited = await snapshot(audit)
    found = await compared(audit.db, Views(), lambda _: None, keep=False)
    assert found.differing == ("timeline", "stage_interval")
    assert [row.partition(":")[0] for row in found.rows[:2]] == ["timeline 0", "timeline 3"]
    assert "actor was 'mallory', is " in found.rows[0]
    assert found.rows[1].endswith(": was missing")
    assert all("version was 7, is " in row and "reason was 'mine'" in row for row in found.rows[2:])
    assert len(found.rows) > 2
    assert await snapshot(audit) == edited
    for differing in ("timeline", "stage_interval"), ():
        folded = list[int]()
        found = await compared(audit.db, Views(), folded.append)
        assert (found.entries, found.differing, folded[-1]) == (len(before[0]), differing, len(before[0]))
        assert await snapshot(audit) == before


BAD = {
    "models/fraud/production": [
        "at=yesterday",
        "at=2026-11-20T12:00:00",
        "at=9999-12-31T23:59:59-14:00",
        "at=0001-01-01T00:00:00%2B14:00",
        "stage=No%20where",
        "stage=@champion",
        "workspace=NO",
    ],
    "models/a%00b/production": [""],
    "models/a:b/production": [""],
    "models/fraud/aliases/champion": ["at=yesterday", "workspace=NO"],
    "models/fraud/aliases/a%00b": [""],
    "models/fraud/aliases/1st": [""],
    "timeline": [
        "model=%00",
        "model=a/b",
        "actor=%00",
        "actor=",
        "type=%0a",
        "correlationid=%00",
        "version=0",
        "version=99999999999",
        "limit=0",
        "limit=501",
        "after=-1",
        "after=%00",
        "after=x.1",
        "after=1.9999999999999999999",
        "after=999999999999999999.1",
        "after=-999999999999999999.1",
        "workspace=**",
        "workspace=a%0a",
    ],
}


async def test_bad_questions_are_refused(audit: Harness) -> None:
    asked = [f"/v1/{path}?{query}" for path, queries in BAD.items() for query in queries]
    assert {url: await audit.status(url, "auditors") for url in asked} == dict.fromkeys(asked, 422)


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-11-20T12:00:00.123456789Z"])
async def test_the_ends_of_time_are_instants_too(audit: Harness, at: str) -> None:
    assert (await audit.get(f"/v1/models/fraud/production?at={at}"))["version"] is None


async def test_text_that_is_no_utf_8_finds_nothing(audit: Harness) -> None:
    assert (await audit.get("/v1/timeline?actor=%ff%fe"))["items"] == []
