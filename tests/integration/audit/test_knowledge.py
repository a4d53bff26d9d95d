"""What was true, and what was known of it: every state of knowledge stays answerable, and a rebuild gives it again.

Two naive oracles: a fold in plain Python of the entries recorded by then, and the service's own folds from nothing over
the first entries only.
"""

import json
import random
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from audit import view_tables
from audit.rebuild import rebuild
from contracts.envelope import Envelope
from contracts.lifecycle import Stage
from contracts.registry import AliasChanged, AliasRemoved, StageChanged, VersionRevoked

from .conftest import Harness, digest, event, hours, record, registered, story
from .signed import Signed
from .test_lifecycles import configured, custom, entering, told
from .test_revocations import ORDER

HOURS = (0.5, 1.5, 2, 3.5, 4, 5, 7)
INTERVALS = (view_tables.stage_interval, view_tables.alias_interval)


@pytest.fixture
def signed(audit: Harness, tmp_path: Path) -> Signed:
    return Signed(audit, tmp_path)


def oracle(known: list[Envelope], stage: str, at: datetime) -> int | None:
    """Who was in the stage, by the events that are known: in order of their stream, up to the first that is missing."""
    by_sequence: dict[int | None, Envelope] = {}
    for envelope in known:
        by_sequence.setdefault(envelope.sequence, envelope)
    where: dict[int, tuple[str, datetime]] = {}
    sequence = 1
    while (found := by_sequence.get(sequence)) is not None and found.time <= at:
        body = _body(found)
        where[body["version"]] = (body.get("to_stage") or body["stage"], found.time)
        sequence += 1
    inside = [(since, version) for version, (held, since) in where.items() if held == stage]
    return max(inside)[1] if inside else None


def _body(envelope: Envelope) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(envelope.value)
    return body


@pytest.mark.parametrize("seed", range(3))
async def test_every_state_of_knowledge_answers_as_a_naive_fold_does(audit: Harness, seed: int) -> None:
    envelopes = story()
    random.Random(seed).shuffle(envelopes)
    for envelope in envelopes:
        await audit.ledger.append([record(envelope)])
    recorded = [row["recorded_at"] for row in await audit.entries()]
    seen = set()
    for size, at in [(0, None), *enumerate(recorded, 1)]:
        for hour in HOURS:
            then = quote(hours(hour).isoformat())
            known = f"known_at={quote(at.isoformat())}" if at is not None and size % 2 else f"known_size={size}"
            answer = await audit.get(f"/v1/models/fraud/production?at={then}&{known}")
            wanted = oracle(envelopes[:size], Stage.PRODUCTION, hours(hour))
            assert (answer["known_size"], answer["version"]) == (size, wanted), (size, hour)
            seen.add(wanted)
    assert seen == {None, 1, 2}


def mistaken() -> StageChanged:
    """v3 back into QA, which later rules do not allow."""
    return entering(3, "QA", start="Live")[0].model_copy(update={"transition_id": "mistaken"})


def everything(signed: Signed, seed: int) -> list[Envelope]:
    """Stages, aliases, and rules that come late: what they believed is taken back, and made good again."""
    model = {"workspace": "default", "model": "fraud", "requested_by": "ana", "reason": "won"}
    pointing = [
        AliasChanged(**model, alias="champion", version=n, digest=digest(n), artifact_digest=digest(n)) for n in (1, 2)
    ]
    removed = AliasRemoved(**model, alias="champion", previous=2)
    forged = event(mistaken(), 10, at=hours(6))
    protecting = configured(qa_gated=True).model_copy(update={"protected_aliases": ("champion",)})
    envelopes = [*custom(signed), forged, *told(7, 11, *pointing, removed), event(protecting, 2, at=hours(5))]
    envelopes += [envelopes[3].model_copy(update={"actor": "mallory"})]
    random.Random(seed).shuffle(envelopes)
    return envelopes


def known_with(rows: list[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    return [r for r in rows if r["known_from"] < size and (r["known_until"] is None or r["known_until"] >= size)]


def content(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the knowledge time: that of a row may be later in the one history than in the other."""
    names = ("known_from", "known_until")
    return sorted(({k: v for k, v in row.items() if k not in names} for row in rows), key=lambda row: row["index"])


@pytest.mark.parametrize("seed", range(6))
async def test_each_size_knows_what_a_fold_of_its_entries_alone_gives(signed: Signed, seed: int) -> None:
    envelopes = everything(signed, seed)
    for envelope in envelopes:
        await signed.tell(envelope)
    whole = {table.name: await signed.audit.rows(table) for table in INTERVALS}
    for size in range(len(envelopes) + 1):
        async with signed.audit.db.transaction() as tx:
            await rebuild(tx, signed.views, size=size)
        for table in INTERVALS:
            alone = [row for row in await signed.audit.rows(table) if row["known_until"] is None]
            assert content(known_with(whole[table.name], size)) == content(alone), (table.name, size)
    assert {table.name: await signed.audit.rows(table) for table in INTERVALS} == whole


async def test_late_rules_take_nothing_back_from_what_was_known(signed: Signed) -> None:
    rules, *rest = custom(signed)
    await signed.tell(rules, *rest)
    before = len(rest) + 1
    await signed.tell(event(configured(qa_gated=True), 2, at=hours(1.5)))
    now = await signed.audit.get("/v1/models/fraud/production?stage=QA&at=2026-11-20T14:30:00Z")
    then = await signed.audit.get(f"/v1/models/fraud/production?stage=QA&at=2026-11-20T14:30:00Z&known_size={before}")
    assert (now["version"], then["version"], then["others"]) == (None, 3, [2])
    assert then["known_from"] < before <= now["known_size"] - 1
    revised = [row["revised"] for row in await signed.audit.rows(view_tables.timeline) if row["revised"] is not None]
    assert set(revised) == {before}
    await signed.assert_rebuilt_alike()


async def test_a_row_that_comes_out_the_same_stays_known_since_it_was(signed: Signed) -> None:
    """A fold again must not make old knowledge look new."""
    back = event(mistaken(), 10, at=hours(6))
    await signed.tell(*custom(signed), back)
    before = await signed.intervals()
    await signed.tell(event(configured(qa_gated=True), 2, at=hours(5)))
    after = await signed.intervals()
    taken = [row for row in before if row["known_until"] is None and row["known_from"] == 10]
    assert [(row["stage"], row["until"] is None) for row in taken] == [("Live", False), ("QA", True)]
    assert [row for row in after if row["known_until"] == 11] == [row | {"known_until": 11} for row in taken]
    assert [row["stage"] for row in after if row["known_from"] == 11] == ["Live"]
    untouched = [row for row in before if row not in taken]
    assert [row for row in after if row["known_from"] != 11 and row["known_until"] != 11] == untouched


async def test_a_revocation_is_told_from_when_it_was_known(audit: Harness) -> None:
    told = [event(registered(2, stage="Production"), 1), event(VersionRevoked(**ORDER, revocation="a.b.c"), 2)]
    for envelope in told:
        await audit.ledger.append([record(envelope)])
    assert (await audit.get("/v1/models/fraud/production?known_size=1"))["revoked"] is None
    assert (await audit.get("/v1/models/fraud/production?known_size=2"))["revoked"]["index"] == 1


async def test_history_gives_stages_as_ranges(audit: Harness) -> None:
    for envelope in story():
        await audit.ledger.append([record(envelope)])
    items: list[Any] = []
    page: Any = {"next": ""}
    while page["next"] is not None:
        more = f"&after={page['next']}" if page["next"] else ""
        page = await audit.get(f"/v1/models/fraud/history?stage=production&limit=1{more}")
        assert page["size"] == page["known_size"] == 9
        items += page["items"]
    assert [(i["version"], i["since"][11:13], i["until"] and i["until"][11:13], i["kind"]) for i in items] == [
        (1, "14", "16", "promotion"),
        (2, "16", "18", "promotion"),
        (1, "18", None, "rollback"),
    ]
    assert [(i["requested_by"], [a["name"] for a in i["approved_by"]]) for i in items] == [
        ("ana", ["ben"]),
        ("ana", ["ben"]),
        ("olga", []),
    ]
    assert [(i["index"], i["closed_by"]) for i in items] == [(2, 5), (6, 7), (8, None)]
    known = await audit.get("/v1/models/fraud/history?stage=production&known_size=5")
    assert [(i["version"], i["until"]) for i in known["items"]] == [(1, None)]
    one = await audit.get("/v1/models/fraud/history?version=2")
    assert [i["stage"] for i in one["items"]] == ["Development", "Staging", "Production", "Archived"]
    between = quote(hours(4.5).isoformat())
    until = quote(hours(5).isoformat())
    touching = await audit.get(f"/v1/models/fraud/history?stage=production&since={between}&until={until}")
    assert [i["version"] for i in touching["items"]] == [2]


async def test_history_of_an_alias(audit: Harness) -> None:
    model = {"workspace": "default", "model": "fraud", "requested_by": "ana", "reason": "won", "alias": "champion"}
    events = [
        AliasChanged(**model, version=1, digest=digest(1), artifact_digest=digest(1)),
        AliasChanged(**model, version=2, digest=digest(2), artifact_digest=digest(2), previous=1),
        AliasRemoved(**model, previous=2),
    ]
    for n, message in enumerate(events, 1):
        await audit.ledger.append([record(event(message, n, at=hours(n)))])
    page = await audit.get("/v1/models/fraud/aliases/champion/history")
    assert [(i["version"], i["closed_by"]) for i in page["items"]] == [(1, 1), (2, 2), (None, None)]
    then = quote(hours(3.5).isoformat())
    assert (await audit.get(f"/v1/models/fraud/aliases/champion?at={then}"))["version"] is None
    assert (await audit.get(f"/v1/models/fraud/aliases/champion?at={then}&known_size=2"))["version"] == 2


@pytest.mark.parametrize(
    "query", ["known_at=yesterday", "known_size=-1", "known_size=x", "known_size=1&known_at=2026-11-20T12:00:00Z"]
)
async def test_knowledge_of_no_time_is_refused(audit: Harness, query: str) -> None:
    assert await audit.status(f"/v1/models/fraud/production?{query}", "auditors") == 422
