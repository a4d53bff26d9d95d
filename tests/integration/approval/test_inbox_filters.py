"""Lists by rights, filters and delegations: what is left out costs no more with 10,000 open requests, and nothing that
is wanted is left out."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.integration.approval.conftest import Direct
from tests.integration.approval.crowd import EARLY, GROUPS, MANY, Inbox, Work, waiting_for
from tests.integration.approval.test_features import REVIEW, RISK, approvals, asked, delegating, document, only, vote
from tests.integration.approval.test_inbox import Pair, assert_flat, inboxes

from approval import lists
from approval.lists import LOOKED_AT, Page, Voice, inbox, readable

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ["inboxes", "only"]
Items = list[dict[str, Any]]
ELSEWHERE = ("elsewhere", "*")


async def work_of(inboxes: Pair, groups: Iterable[str], *grants: lists.Pattern, **given: Any) -> list[Work]:
    voices = [Voice("ben", frozenset(groups))]

    async def act(tx: AsyncConnection) -> Page:
        return await inbox(tx, readable(grants), voices, limit=20, **given)

    return [await one.work(act) for one in inboxes]


# -- flat --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["needs-me", "all"])
@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"model": "rare"}, 1),
        ({"model": "rare", "workspace": "default"}, 1),
        ({"model": "none"}, 0),
        ({"workspace": "elsewhere"}, 0),
        ({"workspace": "elsewhere", "model": "many"}, 0),
        ({"model": "many", "status": "open"}, 5),
    ],
)
async def test_a_filter_costs_no_more_with_many_requests(
    inboxes: Pair, view: str, query: dict[str, Any], count: int
) -> None:
    found = []
    for one in inboxes:
        async with one.client("ben", *GROUPS) as ben:
            items, _ = await one.answer(ben, view=view, limit=5, **query)
            assert len([item for item in items if item["kind"] != "policy"]) == count
            found.append(await one.answer_work(ben, view=view, limit=5, **query))
    assert (found[1].rows, found[1].sequential) == (found[0].rows, frozenset())


@pytest.mark.parametrize("status", ["approved", "rejected", "expired", "cancelled", "denied"])
async def test_nothing_that_is_over_waits_for_anybody(inboxes: Pair, status: str) -> None:
    _, many = inboxes
    async with many.client("ben", *GROUPS) as ben:
        assert (await many.answer(ben, view="needs-me", status=status))[0] == []
        assert (await many.answer_work(ben, view="needs-me", status=status)).rows == 0


@pytest.mark.parametrize("view", ["needs-me", "all", "asked"])
async def test_what_is_in_another_workspace_than_the_caller_may_read_costs_nothing(inboxes: Pair, view: str) -> None:
    """Guests may read in `elsewhere` only, and are asked by the name of their group."""
    _, many = inboxes
    async with many.client("gus", "guests", *()) as gus:
        assert (await many.answer(gus, view=view, workspace="default"))[0] == []
        work = await many.answer_work(gus, view=view, workspace="default")
        assert work.rows == 0


async def test_groups_of_the_same_name_that_may_read_elsewhere_cost_nothing(inboxes: Pair) -> None:
    _, many = await work_of(inboxes, GROUPS, ELSEWHERE, ("other", "fraud-*"))
    assert (many.rows, many.sequential) == (0, frozenset())


async def test_models_that_may_be_read_by_name_cost_as_much_as_there_are(inboxes: Pair) -> None:
    _, many = await work_of(inboxes, ["reviewers"], ("*", "rare"), ("default", "none"))
    assert 0 < many.rows <= 2


# -- bounded -----------------------------------------------------------------------------------------------------------


async def walked(
    one: Inbox, groups: Iterable[str], subject: str, *grants: lists.Pattern, limit: int = 500
) -> list[Page]:
    pages: list[Page] = []
    async with one.direct.db.snapshot() as tx:
        while not pages or pages[-1].next:
            after = pages[-1].next if pages else None
            pages.append(
                await inbox(tx, readable(grants), [Voice(subject, frozenset(groups))], after=after, limit=limit)
            )
    return pages


@pytest.mark.parametrize(
    ("subject", "grants", "found"),
    [
        ("trainer", [lists.EVERY], []),  # made all versions
        ("bo", [lists.EVERY], ["rare"]),  # has voted on all but one
        ("ben", [("*", "r?r*")], ["rare"]),
        ("ben", [("[a-d]*", "none-*")], []),
    ],
)
async def test_a_page_looks_at_so_many_rows_at_most_and_says_where_to_go_on(
    inboxes: Pair, subject: str, grants: list[lists.Pattern], found: list[str]
) -> None:
    _, many = inboxes

    async def page(tx: AsyncConnection) -> Page:
        return await inbox(tx, readable(grants), [Voice(subject, frozenset({"reviewers"}))], limit=50)

    assert (await many.work(page)).rows <= LOOKED_AT + 1
    pages = await walked(many, ["reviewers"], subject, *grants)
    assert len(pages) == MANY // LOOKED_AT + 1
    wanted = [many.rare] if found else []
    assert [request_id for page in pages for request_id in page.request_ids] == wanted


async def test_the_client_is_told_where_to_go_on_after_an_empty_page(inboxes: Pair) -> None:
    _, many = inboxes
    after, seen, count = None, [], 0
    async with many.client("bo", "reviewers") as bo:
        while after is not None or not count:
            query = {"view": "needs-me", **({"after": after} if after else {})}
            answer = (await bo.get("/v1/requests", params=query)).json()
            seen += [item["request_id"] for item in answer["items"]]
            after, count = answer["next"], count + 1
    assert seen == [many.rare]
    assert count == MANY // LOOKED_AT + 1


@pytest.mark.parametrize("looked_at", [1, 2, 7, 1_000])
@pytest.mark.parametrize("limit", [1, 3, 500])
async def test_no_page_leaves_anything_out_or_shows_it_twice(
    inboxes: Pair, monkeypatch: pytest.MonkeyPatch, looked_at: int, limit: int
) -> None:
    """Of several groups and sections, one of which is at its end or full before another."""
    few, _ = inboxes
    monkeypatch.setattr(lists, "LOOKED_AT", looked_at)
    groups = [*GROUPS, "security", "nobody"]
    for subject in ("ben", EARLY, "bo"):
        for grants in ([lists.EVERY], [("default", "r*"), ("*", "many"), ("*", "*y")]):
            pages = await walked(few, groups, subject, *grants, limit=limit)
            found = [place for page in pages for place in page.places]
            query = sa.text(
                "select distinct opened_at, request_id from approval.asked"
                " where not without && array[:who] order by opened_at, request_id"
            )
            async with few.direct.db.snapshot() as tx:
                wanted = [(row.opened_at, row.request_id) for row in await tx.execute(query, {"who": subject})]
            assert found == wanted
            assert all(len(page.places) <= limit for page in pages)


# -- delegates ---------------------------------------------------------------------------------------------------------


async def waiting(direct: Direct, subject: str, *delegators: tuple[str, str, int]) -> list[str]:
    """The inbox of somebody in no group; each delegator with a group and the days of the delegation."""
    voices = [Voice(who, frozenset({group}), lasts=timedelta(days=days)) for who, group, days in delegators]
    async with direct.db.snapshot() as tx:
        page = await inbox(tx, readable([lists.EVERY]), [Voice(subject, frozenset()), *voices], limit=50)
    return page.request_ids


async def test_a_delegate_finds_what_they_can_vote_on(only: Direct) -> None:
    await only.publish(document(**approvals({**REVIEW, "count": 2}, RISK, delegation={"allowed": True, "max": "14d"})))
    request, own = await asked(only), await asked(only, by="ben")
    ben, rita = ("ben", "reviewers", 7), ("rita", "risk", 7)
    assert await waiting(only, "dora", ben) == [request]  # the other one ben must not vote on
    assert await waiting(only, "dora", ben, rita) == [request, own]
    assert await waiting(only, "dora", ("ben", "reviewers", 15)) == []  # longer than the policy takes
    assert await waiting(only, "ana", ben) == []  # asked for it herself
    await vote(only, request, "ben", "reviewers")
    assert await waiting(only, "dora", ben) == []
    assert await waiting(only, "dora", ("bo", "reviewers", 7)) == [request, own]
    await only.publish(document(**approvals({**REVIEW, "count": 2}, RISK)))
    await only.sweep()
    assert await waiting(only, "dora", ("bo", "reviewers", 7)) == []  # no policy takes delegates any more


async def test_of_several_delegations_the_shortest_counts(only: Direct) -> None:
    """Else a long one, which the policy does not take, would hide what a short one lets the delegate do."""
    await only.publish(document(**approvals(REVIEW, delegation={"allowed": True, "max": "14d"})))
    request = await asked(only)
    await delegating(only, "ben", "reviewers", to="dora", days=30)
    async with Inbox(only, 1).client("dora", "leads") as dora:
        inbox = {"view": "needs-me"}
        assert (await dora.get("/v1/requests", params=inbox)).json()["items"] == []
        await delegating(only, "ben", "reviewers", to="dora", days=7)
        [item] = (await dora.get("/v1/requests", params=inbox)).json()["items"]
    assert item["request_id"] == request
    assert (await vote(only, request, "dora", "leads", on_behalf_of="ben")).status == "approved"


async def named(direct: Direct, groups: list[str]) -> list[str]:
    """The inbox of somebody of these groups who has not voted."""
    async with direct.db.snapshot() as tx:
        return [request_id for _, request_id in await waiting_for(tx, groups, "bo", limit=50)]


async def test_the_group_of_a_complete_rule_is_asked_no_more(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW, RISK)))
    request = await asked(only)
    assert (await named(only, ["reviewers"]), await named(only, ["risk"])) == ([request], [request])
    await vote(only, request, "ben", "reviewers")
    assert (await named(only, ["reviewers"]), await named(only, ["risk"])) == ([], [request])


async def test_the_flat_inbox_is_that_of_a_delegate_too(inboxes: Pair) -> None:
    found = []
    for one in inboxes:
        await delegating(one.direct, "lee", *GROUPS, to="dee")
        async with one.client("dee", "admins") as dee:
            items, _ = await one.answer(dee, view="needs-me", limit=5)
            assert len(items) == 5
            found.append(await one.answer_work(dee, view="needs-me", limit=5))
    assert_flat(*found)
