"""The inbox with 10,000 open requests: it touches as many rows as with 100, and makes as many queries."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa
from tests.integration.approval.crowd import BIG, BUSY, EARLY, FEW, GROUPS, MANY, Inbox, Row, Work, filled
from tests.integration.approval.test_features import delegating
from tests.support.databases import migrated_database

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def inboxes(infra_postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Inbox, Inbox]]:
    """With a few open requests, and with many."""
    async with AsyncExitStack() as stack:
        found = []
        for count in (FEW, MANY):
            owner = stack.enter_context(migrated_database(infra_postgres, "approval"))
            inbox = await filled(owner, tmp_path_factory.mktemp("inbox"), count)
            stack.push_async_callback(inbox.direct.db.close)
            found.append(inbox)
        yield found[0], found[1]


Pair = tuple[Inbox, Inbox]


def assert_flat(few: Work, many: Work) -> None:
    assert few.rows > 0
    assert (many.rows, many.sequential) == (few.rows, frozenset())
    assert many.buffers <= 2 * few.buffers  # a larger index has a level more


@pytest.mark.parametrize(
    ("groups", "subject", "further"),
    [
        (("reviewers",), "ben", False),
        (("reviewers",), "ben", True),
        (GROUPS, "ben", False),
        (GROUPS, "ben", True),
        (("security",), "ben", False),  # asked by the youngest request only
        (("reviewers", "security", "nobody"), "ben", True),
        (("reviewers",), BUSY, True),
        (("reviewers",), EARLY, False),
        (("reviewers",), EARLY, True),
    ],
)
async def test_the_inbox_touches_as_much_with_many_requests_as_with_few(
    inboxes: Pair, groups: tuple[str, ...], subject: str, further: bool
) -> None:
    found = []
    for inbox in inboxes:
        async with inbox.direct.db.snapshot() as tx:
            page = await inbox.page(tx, groups, subject)
        assert page
        after = page[4] if further else None
        found.append(await inbox.work(partial(inbox.page, groups=groups, subject=subject, after=after)))
    assert_flat(*found)


async def test_no_table_is_read_from_end_to_end_by_the_plan_that_the_server_keeps(inboxes: Pair) -> None:
    """For a statement that comes often, PostgreSQL may keep one plan for whatever parameters."""
    _, many = inboxes
    counters = sa.text("select relname, seq_tup_read, idx_scan from pg_stat_xact_user_tables where relname = any(:big)")
    async with many.direct.db.snapshot() as tx:
        await tx.execute(sa.text("set local plan_cache_mode = force_generic_plan"))
        before = {name: numbers for name, *numbers in await tx.execute(counters, {"big": sorted(BIG)})}
        for groups in (("reviewers",), GROUPS):
            page = await many.page(tx, groups)
            await many.page(tx, groups, after=page[-1])
        after = {name: numbers for name, *numbers in await tx.execute(counters, {"big": sorted(BIG)})}
    assert after["asked"][0] == before["asked"][0]
    assert after["asked"][1] > before["asked"][1]


async def test_pages_cover_the_inbox_once_and_in_order(inboxes: Pair) -> None:
    _, many = inboxes
    seen: list[Row] = []
    async with many.direct.db.snapshot() as tx:
        while page := await many.page(tx, (*GROUPS, "security"), after=seen[-1] if seen else None):
            seen += page
        query = "select distinct opened_at, request_id from approval.asked order by opened_at, request_id"
        wanted = [(row.opened_at, row.request_id) for row in await tx.execute(sa.text(query))]
    assert seen == wanted
    assert len(seen) == MANY + 2


@pytest.mark.parametrize(
    ("query", "who"), [({"view": "needs-me"}, "ben"), ({"view": "all"}, "ben"), ({"view": "asked"}, BUSY)]
)
async def test_an_answer_takes_as_many_statements_for_any_page_of_any_number_of_requests(
    inboxes: Pair, query: dict[str, Any], who: str
) -> None:
    first, further = set(), set()
    for inbox in inboxes:
        async with inbox.client(who, *GROUPS) as client:
            for limit in (2, 5, 50):
                items, heard = await inbox.answer(client, limit=limit, **query)
                assert len(items) == min(limit, inbox.count // 10 if who == BUSY else limit)
                first.add(len(heard))
                _, heard = await inbox.answer(client, limit=limit, after=items[0]["request_id"], **query)
                further.add(len(heard))
    assert (len(first), len(further)) == (1, 1)


async def test_delegations_cost_no_statement_each(inboxes: Pair) -> None:
    few, _ = inboxes
    counts = []
    for delegators in (("lea",), ("rob", "rea", "ray")):
        delegate = f"deputy-of-{len(delegators)}"
        for who in delegators:
            await delegating(few.direct, who, *GROUPS, to=delegate)
        items, heard = await few.answer(few.client(delegate, "admins"), view="needs-me")
        assert len(items) == 50
        counts.append(len(heard))
    assert counts[0] == counts[1]


async def test_the_whole_answer_touches_as_much_with_many_requests_as_with_few(inboxes: Pair) -> None:
    few, many = [await inbox.answer_work(inbox.client("ben", *GROUPS), view="needs-me") for inbox in inboxes]
    assert_flat(few, many)


@pytest.mark.parametrize("query", [{"view": "all"}, {"view": "all", "status": "open"}, {"view": "asked"}])
@pytest.mark.parametrize("further", [False, True])
async def test_lists_touch_no_more_with_many_requests_than_they_read_at_once(
    inboxes: Pair, query: dict[str, Any], further: bool
) -> None:
    few, many = inboxes
    found = []
    for inbox in (few, many):
        client = inbox.client(BUSY, *GROUPS)
        items, _ = await inbox.answer(client, limit=5, **query)
        after = {"after": items[1]["request_id"]} if further else {}
        found.append(await inbox.answer_work(client, limit=5, **query, **after))
    assert found[0].rows > 0
    assert (found[1].rows <= found[0].rows, found[1].sequential) == (True, frozenset())


@pytest.mark.parametrize("query", [{"model": "rare"}, {"workspace": "elsewhere"}, {"status": "approved"}])
async def test_what_a_filter_leaves_out_costs_no_statements(inboxes: Pair, query: dict[str, Any]) -> None:
    few, many = [(await i.answer(i.client("ben", *GROUPS), view="needs-me", limit=5, **query))[1] for i in inboxes]
    assert len(few) == len(many)


async def test_what_the_caller_may_not_read_costs_no_statements(inboxes: Pair) -> None:
    few, many = [(await i.answer(i.client("gus", "guests"), view="all", limit=5))[1] for i in inboxes]
    assert len(few) == len(many)
