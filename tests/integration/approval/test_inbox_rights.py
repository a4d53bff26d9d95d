"""Lists by rights: what the access file lets one read, and in the inbox, what it lets one vote on."""

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import product

import pytest
import pytest_asyncio
import sqlalchemy as sa
from tests.integration.approval.conftest import Direct
from tests.integration.approval.crowd import Inbox
from tests.integration.approval.test_features import REVIEW, approvals, asked, delegating, document, only

from approval import lists
from approval.lists import Voice, inbox, readable
from contracts.access import Action, Role
from kit.auth import Access, Grant, Principal

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ["only"]
EVERYWHERE = ("*", "*")  # the place of a change of a policy


@pytest_asyncio.fixture(loop_scope="module")
async def places(only: Direct) -> AsyncIterator[list[tuple[str, str]]]:
    """One open request for each workspace and model."""
    request = await asked(only)
    found = [
        *product(("default", "bank", "bank-1", "[a]", "*"), ("m", "fraud", "fraud-eu", "score", "m.x", "[m]", "*"))
    ]
    copy = sa.text("""
        insert into approval.request
            (request_id, workspace, model, version, kind, status, requested_by, opened_at, state)
        select :id, :workspace, :model, version, kind, 'open', requested_by, opened_at, state
        from approval.request where request_id = :request
    """)
    async with only.db.transaction() as tx:
        await tx.execute(sa.text("delete from approval.asked"))
        for n, (workspace, model) in enumerate(found):
            await tx.execute(copy, {"id": f"{n:03}", "workspace": workspace, "model": model, "request": request})
        await tx.execute(sa.text("delete from approval.request where length(request_id) > 3"))
        await tx.execute(
            sa.text("""
                insert into approval.asked
                    (group_name, status, opened_at, request_id, workspace, model, without, delegation)
                select 'reviewers', status, opened_at, request_id, workspace, model, '{}', interval '1 day'
                from approval.request
            """)
        )
    yield found


GRANTS: list[list[dict[str, str]]] = [
    [],
    [{}],
    [{"workspace": "bank"}],
    [{"workspace": "bank*"}],
    [{"workspace": "bank-?", "model": "fraud*"}, {"workspace": "bank"}],
    [{"model": "fraud"}, {"model": "s*"}, {"workspace": "default", "model": "m.x"}],
    [{"workspace": "[a]", "model": "m"}, {"workspace": "[[]a]", "model": "[[]m]"}],
    [{"workspace": "b[!x]nk", "model": "?"}, {"workspace": "bank", "model": "m"}],
]


@pytest.mark.parametrize("given", GRANTS)
async def test_lists_show_what_the_access_file_lets_one_read(
    only: Direct, places: list[tuple[str, str]], given: list[dict[str, str]]
) -> None:
    access = Access([Grant(group="reviewers", role=Role.VIEWER, **one) for one in given])
    caller = Principal("ben", frozenset({"reviewers"}), "person", 0, "token")
    grants = access.grants(caller, Action.READ)
    async with only.db.snapshot() as tx:
        for workspace, model in product((None, "default", "bank", "[a]", "*"), (None, "m", "fraud", "*")):
            wanted = {
                (w, m)
                for w, m in places
                if (w == "*" or access.allows(caller, Action.READ, w, m))
                and workspace in (None, w)
                and model in (None, m)
            }
            sections = readable(grants, workspace, model)
            for page in (
                await lists.requests(tx, sections, limit=100),
                await lists.requests(tx, sections, asked_by="ana", limit=100),
                await lists.requests(tx, sections, status="open", limit=100),
            ):
                assert {places[int(one)] for one in page.request_ids} == wanted
                assert len(page.request_ids) == len(wanted)
            assert (await inbox(tx, sections, [], limit=100)).places == ()


@pytest.mark.parametrize("lent", GRANTS)
@pytest.mark.parametrize("given", GRANTS)
async def test_the_inbox_shows_where_the_access_file_lets_one_vote(
    only: Direct, places: list[tuple[str, str]], given: list[dict[str, str]], lent: list[dict[str, str]]
) -> None:
    """Alone, and for somebody of other rights: a delegate votes where both may."""
    caller = Principal("ben", frozenset({"reviewers"}), "person", 0, "token")
    mine, theirs = (Access([Grant(group="reviewers", role=Role.APPROVER, **one) for one in of]) for of in (given, lent))
    votes, lent_votes = (access.grants(caller, Action.VOTE) for access in (mine, theirs))
    alone = [Voice("ben", caller.groups, votes=votes)]
    delegate = [
        Voice("ben", frozenset(), votes=votes),
        Voice("lea", caller.groups, lasts=timedelta(0), votes=lent_votes),
    ]

    def may(access: Access, place: tuple[str, str]) -> bool:
        return access.allows(caller, Action.VOTE, *(EVERYWHERE if place[0] == "*" else place))

    async with only.db.snapshot() as tx:
        for workspace, grants in product((None, "bank", "*"), (votes, [lists.EVERY])):
            sections = readable(grants, workspace)
            wanted = {place for place in places if may(mine, place) and workspace in (None, place[0])}
            both = {place for place in wanted if may(theirs, place)}
            for voices, expected in ((alone, wanted), (delegate, both)):
                page = await inbox(tx, sections, voices, limit=100)
                assert {places[int(one)] for one in page.request_ids} == expected
                assert len(page.request_ids) == len(expected)


async def test_what_one_may_not_vote_on_waits_for_others(only: Direct) -> None:
    """Whoever is in a group that a rule asks, without a role that votes; delegates and delegators alike."""
    await only.publish(
        document(
            **approvals({**REVIEW, "from": ["group:ml-engineers", "group:reviewers"]}, delegation={"allowed": True})
        )
    )
    request = await asked(only)
    await delegating(only, "mia", "ml-engineers", to="ben")
    await delegating(only, "bo", "reviewers", to="mel")
    await delegating(only, "bo", "reviewers", to="rita")
    crowd = Inbox(only, 0)
    for who, group, may in (
        ("gus", "ml-engineers", False),  # asked, has no vote
        ("mel", "ml-engineers", False),  # nor for those who have one
        ("ben", "risk", False),  # for somebody who has none
        ("rita", "risk", True),  # for somebody who has one
        ("bea", "reviewers", True),
    ):
        async with crowd.client(who, group) as client:
            items, _ = await crowd.answer(client, view="needs-me")
            you = (await client.get(f"/v1/requests/{request}")).json()["you"]
        assert (who, bool(items), you["may_vote"]) == (who, may, may)
