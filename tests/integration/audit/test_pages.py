"""Pages: of entries that are folded, and of answers that see one tree whatever arrives meanwhile."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from audit import intervals, tables, view_tables
from audit.domain import read
from audit.leaf import Leaf
from audit.views import Item, Views
from contracts.notifier import DeliveryFailed, DeliverySucceeded
from contracts.registry import ModelRegistered, VersionNoted
from contracts.topics import NOTIFIER_EVENTS, REGISTRY_EVENTS

from .conftest import NOON, Harness, event, hours, record, registered, story
from .signed import Signed
from .test_knowledge import everything

SEEN = (*view_tables.VIEWS, tables.mechanism.progress, tables.mechanism.early)


@pytest.fixture
def signed(audit: Harness, tmp_path: Path) -> Signed:
    return Signed(audit, tmp_path)


async def items_of(audit: Harness, views: Views) -> list[Item]:
    doubted = {row["index"] for row in await audit.rows(tables.finding)}
    items = []
    for row in await audit.entries():
        leaf = await views.leaf(row["leaf"])
        reading = await views.check(read(leaf.topic, leaf.key, leaf.headers, leaf.value))
        items.append(Item(row["index"], leaf, reading, row["index"] in doubted))
    return items


async def folded(audit: Harness, views: Views, pages: Sequence[Sequence[Item]]) -> dict[str, Any]:
    """Every row of every view after folding these pages, each in a transaction, from nothing."""
    async with audit.db.transaction() as tx:
        for table in SEEN:
            await tx.execute(sa.delete(table))
    for page in pages:
        async with audit.db.transaction() as tx:
            await views.project_page(tx, page)
    rows = {table.name: await audit.rows(table) for table in SEEN}
    for row in rows["early"]:
        row.pop("at")
    return rows


@pytest.mark.parametrize("seed", range(6))
async def test_pages_of_any_size_give_what_one_by_one_gives(signed: Signed, seed: int) -> None:
    chance = random.Random(seed)
    plain = [registered(n, "other") for n in range(1, 6)]
    envelopes = [*everything(signed, seed), *(event(m, n, at=hours(n)) for n, m in enumerate(plain, 1))]
    chance.shuffle(envelopes)
    await signed.ledger.append([record(e) for e in envelopes])
    items = await items_of(signed.audit, signed.views)
    single = await folded(signed.audit, signed.views, [[item] for item in items])
    assert single["stage_interval"]
    assert await folded(signed.audit, signed.views, [items]) == single
    cuts = sorted(chance.sample(range(1, len(items)), 4))
    pages = [items[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(items)], strict=True)]
    assert await folded(signed.audit, signed.views, pages) == single


async def test_an_entry_that_cannot_be_folded_keeps_no_other_away(
    audit: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = intervals.enter

    async def broken(page: Any, index: int, move: Any) -> None:
        if index in (3, 7):
            raise ZeroDivisionError("a bug")
        await real(page, index, move)

    monkeypatch.setattr(intervals, "enter", broken)
    outcomes = await audit.ledger.append([record(registered_event(n)) for n in range(1, 13)])
    assert [o.flaw for o in outcomes] == ["view-failed" if o.index in (3, 7) else None for o in outcomes]
    assert [r["index"] for r in await audit.rows(view_tables.timeline)] == [n for n in range(12) if n not in (3, 7)]
    assert len(await audit.rows(view_tables.stage_interval)) == 10


def registered_event(n: int) -> Any:
    return event(registered(1, f"m{n}"), 1)


async def walk(audit: Harness, path: str, grow: Any = None) -> tuple[list[Any], set[int]]:
    """All items of a paged answer, with the sizes its pages told; `grow` runs after each page."""
    items, sizes, after = [], set(), ""
    while after is not None:
        page = await audit.get(f"{path}{'&' if '?' in path else '?'}limit=2" + (f"&after={after}" if after else ""))
        assert len(page["items"]) <= 2
        items += page["items"]
        sizes.add(page["size"])
        after = page["next"]
        if grow:
            await grow()
    return items, sizes


@pytest.mark.parametrize(
    "path", ["/v1/timeline?workspace=*", "/v1/models/fraud/history", "/v1/reports/lead-times?stage=Development"]
)
async def test_all_pages_of_an_answer_see_one_tree(audit: Harness, path: str) -> None:
    await audit.ledger.append([record(e) for e in story()])
    whole, _ = await walk(audit, path)
    assert len(whole) > 1
    new = iter(range(10, 10_000))

    async def grow() -> None:
        """What happened earlier, and belongs on pages that were not read yet as well as on those that were."""
        n = next(new)
        await audit.ledger.append([record(event(registered(n), n, at=hours(n / 3 - 3)))])

    items, sizes = await walk(audit, path, grow)
    assert (items, sizes) == (whole, {9})
    again, sizes = await walk(audit, path)
    assert len(again) > len(whole)
    assert min(sizes) > 9


async def test_a_cursor_of_another_answer_is_refused(audit: Harness) -> None:
    await audit.ledger.append([record(e) for e in story()])
    cursor = (await audit.get("/v1/timeline?limit=1"))["next"]
    assert await audit.status(f"/v1/reports/approvals/people?after={cursor}", "auditors") == 422
    assert await audit.status(f"/v1/timeline?after={cursor}x", "auditors") == 422
    assert await audit.status(f"/v1/timeline?after={cursor}", "auditors") == 200


async def test_filters_of_the_timeline(audit: Harness) -> None:
    await audit.ledger.append([record(e) for e in story()])
    failed = DeliveryFailed(
        delivery_id="d", subscription_id="s", event_id="e", event_type="t", attempt=1, latency_ms=1, detail="500",
        next_attempt_at=hours(9),
    )  # fmt: skip
    more = event(failed, 1, key="subscription:s", subject="s", at=hours(8), actor="notifier")
    bad = record(event(ModelRegistered(workspace="default", model="x"), 1, key="default/x", at=hours(9)), value=b"junk")
    await audit.ledger.append([record(more, topic=NOTIFIER_EVENTS.name), bad])

    async def found(query: str) -> list[int]:
        return [item["index"] for item in (await audit.get(f"/v1/timeline?workspace=*&{query}"))["items"]]

    assert await found("type=hallmark.version.*") == [0, 3]
    assert await found("type=hallmark.version.*&type=hallmark.delivery.failed.v1") == [0, 3, 9]
    assert await found("type=hallmark.?ersion.registered.v_") == []
    assert await found("type=%25") == []
    assert await found("outcome=failed") == [9, 10]
    assert await found("problem=true") == [10]
    assert len(await found("problem=false")) == 10
    assert await found("since=2026-11-20T16:00:00Z&until=2026-11-20T18:00:00Z") == [5, 6]
    assert await found("subject=default/*") == [*range(9), 10]
    assert await found("subject=s") == [9]
    assert await found("actor=notifier") == [9]
    assert await found("outcome=refused") == []


@pytest.mark.parametrize(("kind", "most"), [("plain", 4), ("noted", 8), ("registered", 10)])
async def test_a_page_costs_few_statements(audit: Harness, kind: str, most: int) -> None:
    """However many entries it has: with 500, a statement each would be 500."""
    messages: dict[str, Any] = {
        "plain": lambda n: DeliverySucceeded(
            delivery_id=f"d{n}", subscription_id="s", event_id="e", event_type="t", attempt=1, latency_ms=1
        ),
        "noted": lambda n: VersionNoted(workspace="default", model=f"m{n % 9}", version=1, text="x"),
        "registered": lambda n: registered(n // 9 + 1, f"m{n % 9}"),
    }
    topic = NOTIFIER_EVENTS.name if kind == "plain" else REGISTRY_EVENTS.name
    more: dict[str, Any] = {"key": "subscription:s"} if kind == "plain" else {}
    items = []
    for n in range(500):
        envelope = event(messages[kind](n), n // 9 + 1, **more)
        given = record(envelope, topic=topic)
        leaf = Leaf(topic, 0, n, 0, NOON, given.key, given.headers, given.value)
        items.append(Item(n, leaf, read(topic, given.key, given.headers, given.value)))
    statements: list[str] = []
    sa.event.listen(audit.db.engine.sync_engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    async with audit.db.transaction() as tx:
        await audit.ledger.views.project_page(tx, items)
    assert len(statements) <= most, statements
    assert len(await audit.rows(view_tables.timeline)) == 500
