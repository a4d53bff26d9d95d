"""Whose word counts: tokens old and new, the directory, addresses, delegates, and several names of one person."""

from datetime import timedelta
from typing import Any

import pytest
from tests.integration.approval.conftest import Direct
from tests.integration.approval.test_features import (
    APPROVE,
    GOOD,
    REVIEW,
    approvals,
    asked,
    delegating,
    document,
    only,
    phase,
    refused,
    status,
    vote,
)

from approval import standing, views
from contracts.approval import VoteWithdrawn
from kit.problems import Problem

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ["only"]
TWO = {**REVIEW, "count": 2}
LENT = {"delegation": {"allowed": True, "max": "14d"}}


async def told(direct: Direct, who: str, *groups: str, person: bool = True) -> None:
    await direct.parts.directory.tell(who, frozenset(groups), person=person, by="the directory")


async def code(work: Any) -> str:
    with pytest.raises(Problem) as caught:
        await work
    return caught.value.code


async def groups_of(direct: Direct, who: str) -> list[str]:
    async with direct.db.snapshot() as tx:
        return sorted((await views.members(tx, [who]))[who].groups)


# -- tokens and the directory ------------------------------------------------------------------------------------


async def test_an_old_token_does_not_undo_what_the_directory_told(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW)))
    request = await asked(only)
    old = await only.person("ben", "reviewers")
    await only.later(minutes=1)
    await told(only, "ben")
    assert await code(only.parts.people.vote(request, old, APPROVE)) == "not-an-approver"
    await only.later(minutes=1)
    assert await refused(only, request, "ben", "staff") == "not-an-approver"
    await only.later(minutes=1)
    assert await code(only.parts.people.vote(request, old, APPROVE)) == "not-an-approver"
    assert await groups_of(only, "ben") == ["staff"]


async def test_an_old_token_brings_no_recorded_vote_back(only: Direct) -> None:
    await only.publish(document(**approvals(TWO)))
    request, other = await asked(only), await asked(only)
    old = await only.person("ben", "reviewers")
    await only.parts.people.vote(request, old, APPROVE)
    await only.later(minutes=1)
    assert await refused(only, other, "ben", "staff") == "not-an-approver"
    assert await code(only.parts.people.vote(other, old, APPROVE)) == "not-an-approver"
    assert (await vote(only, request, "bo", "reviewers")).status == "open"


async def test_a_new_token_counts_though_the_one_before_said_the_same(only: Direct) -> None:
    """An even older one, used only now, is still old."""
    await only.publish(document(**approvals(REVIEW)))
    request = await asked(only)
    assert await refused(only, request, "ben", "staff") == "not-an-approver"
    await only.later(minutes=1)
    between = await only.person("ben", "reviewers")
    await only.later(minutes=1)
    assert await refused(only, request, "ben", "staff") == "not-an-approver"
    assert await code(only.parts.people.vote(request, between, APPROVE)) == "not-an-approver"


async def test_the_directory_only_takes_away(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW, **LENT)))
    request = await asked(only)
    await told(only, "rita", "reviewers")
    only_told = await only.parts.directory.grant("rita", "dora", None, await in_days(only), "", by="root")
    assert only_told.delegate == "dora"
    assert await refused(only, request, "dora", "leads", on_behalf_of="rita") == "not-an-approver"
    assert await refused(only, request, "root", "admins") == "not-an-approver"
    await told(only, "root", "admins", "reviewers")
    assert await refused(only, request, "root", "admins") == "not-an-approver"
    ben = await only.person("ben", "reviewers", "staff")
    await told(only, "ben", "reviewers", "admins")
    assert (await only.parts.people.vote(request, ben, APPROVE)).status == "approved"
    assert await groups_of(only, "ben") == ["reviewers"]


async def in_days(direct: Direct) -> Any:
    async with direct.db.snapshot() as tx:
        return await direct.clock(tx) + timedelta(days=7)


async def test_what_the_directory_takes_away_a_newer_token_gives_back(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW)))
    request = await asked(only)
    await told(only, "ben", person=False)
    assert await refused(only, request, "ben", "reviewers", authenticated_at=await ago(only)) == "service-account"
    assert (await vote(only, request, "ben", "reviewers")).status == "approved"


async def ago(direct: Direct) -> Any:
    async with direct.db.snapshot() as tx:
        return await direct.clock(tx) - timedelta(minutes=1)


async def test_a_sign_in_of_today_with_a_token_of_now_is_a_token_of_now(only: Direct) -> None:
    """Groups are known when the token is issued, not when somebody typed a password."""
    await only.publish(document(**approvals(REVIEW)))
    request = await asked(only)
    signed_in = await ago(only)
    await told(only, "ben")
    now = await only.person("ben", "reviewers")
    found = await vote(only, request, "ben", "reviewers", authenticated_at=signed_in, issued_at=now.authenticated_at)
    assert found.status == "approved"


async def test_a_token_that_takes_a_group_away_is_seen_by_the_requests_that_rest_on_it(only: Direct) -> None:
    await only.publish(document(**approvals(TWO)))
    request, other = await asked(only), await asked(only)
    await vote(only, request, "ben", "reviewers")
    assert await refused(only, other, "ben", "staff") == "not-an-approver"
    await only.sweep()
    async with only.db.snapshot() as tx:
        assert (await standing.of_requests(tx, [request]))[request].waits_for == "here/review: 0 of 2"
    await only.later(minutes=1)
    assert await refused(only, request, "ben", "reviewers", choice="reject") == "already-voted"  # in the group again
    await only.sweep()
    async with only.db.snapshot() as tx:
        assert (await standing.of_requests(tx, [request]))[request].waits_for == "here/review: 1 of 2"


async def test_a_member_who_comes_back_completes_the_quorum(only: Direct) -> None:
    await only.publish(document(**approvals(TWO)))
    request = await asked(only)
    await vote(only, request, "ben", "reviewers")
    await told(only, "ben", "elsewhere")
    await only.sweep()
    assert (await vote(only, request, "bo", "reviewers")).status == "open"
    await told(only, "ben", "reviewers")
    await only.later(seconds=2)
    assert await status(only, request) == "approved"


async def test_one_who_waived_comes_back(only: Direct) -> None:
    gate = {**GOOD, "waivable_by": ["group:leads"]}
    await only.publish(document(gates=[gate], **approvals(REVIEW)))
    request = await asked(only, accuracy=0.5)
    lea = await only.person("lea", "leads")
    await only.parts.people.waive(request, lea, "here/good", "known", None)
    for groups, expected in (((), "gates"), (("leads",), "people")):
        await told(only, "lea", *groups)
        await only.sweep()
        async with only.db.snapshot() as tx:
            assert (await standing.of_requests(tx, [request]))[request].phase == expected
        assert await phase(only, request) == expected


async def test_members_are_the_same_when_their_events_are_folded_again(only: Direct) -> None:
    async def known() -> Any:
        async with only.db.snapshot() as tx:
            return await views.members(tx, ["ben", "bo"])

    await only.publish(document(**approvals(TWO)))
    request = await asked(only)
    await vote(only, request, "ben", "reviewers", email="ben@x.org")
    await told(only, "ben", "reviewers", "x")
    await told(only, "bo", "reviewers")
    before = await known()
    async with only.db.transaction() as tx:
        await views.rebuild(tx, only.parts.desk.log)
    assert await known() == before


async def test_more_groups_than_can_be_recorded_are_refused(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW)))
    request, many = await asked(only), [f"g{n}" for n in range(500)]
    assert await refused(only, request, "ben", "reviewers", *many) == "too-many-groups"
    assert (await vote(only, request, "ben", "reviewers", *many[1:])).status == "approved"


# -- who a delegate and a delegator are --------------------------------------------------------------------------


async def test_a_committer_does_not_get_in_by_a_delegate(only: Direct) -> None:
    duties = {"exclude": ["requester", "version.author", "version.committers"]}
    await only.publish(document(**approvals(REVIEW, separation_of_duties=duties, **LENT)))
    await only.registry.register("m", 1, by="carl", committers=("cora@example.org",), accuracy=0.95)
    request = await asked(only)
    assert await refused(only, request, "cora", "reviewers", email="Cora@example.org") == "own-commits"
    await delegating(only, "cora", "reviewers", to="dora")
    assert await refused(only, request, "dora", "leads", on_behalf_of="cora") == "own-commits"
    assert await refused(only, request, "cora", "reviewers") == "own-commits"  # by a token that hides the address


async def test_whom_the_access_file_lets_vote_nowhere_votes_for_nobody(only: Direct) -> None:
    await only.publish(document(**approvals(TWO, **LENT)))
    await delegating(only, "ben", "reviewers", to="dora")
    request = await asked(only)
    assert await refused(only, request, "dora", "ml-engineers", on_behalf_of="ben") == "not-an-approver"
    await only.later(seconds=1)
    await vote(only, request, "dora", "leads", on_behalf_of="ben")
    await told(only, "dora")
    assert (await vote(only, request, "bo", "reviewers")).status == "open"


async def test_a_delegation_that_ended_undoes_no_vote(only: Direct) -> None:
    await only.publish(document(**approvals(TWO, **LENT)))
    delegation = await delegating(only, "ben", "reviewers", to="dora")
    request = await asked(only)
    await vote(only, request, "dora", "leads", on_behalf_of="ben")
    await only.parts.directory.end(delegation, "ben")
    assert (await vote(only, request, "bo", "reviewers")).status == "approved"


async def test_one_person_under_two_names_is_no_quorum(only: Direct) -> None:
    await only.publish(document(**approvals(TWO)))
    request = await asked(only)
    await vote(only, request, "ben", "reviewers", email="ben@x.org")
    for name in ("BEN", "benjamin"):
        found = await vote(only, request, name, "reviewers", email="Ben@x.org")
        assert (found.status, len(found.votes)) == ("open", 1)
    assert await refused(only, request, "BEN", "reviewers", choice="reject") == "already-voted"


@pytest.mark.parametrize("whose", ["requester", "author", "editor"])
async def test_whose_request_it_is_votes_under_no_second_name(only: Direct, whose: str) -> None:
    duties = {"exclude": ["requester", "version.author", "policy.last_editor"]}
    await only.publish(document(**approvals(REVIEW, separation_of_duties=duties)))
    await only.registry.register("m", 1, by="carl", accuracy=0.95)
    who = {"requester": "ana", "author": "carl", "editor": "root"}[whose]
    await refused(only, await asked(only), who, "staff", email="one@x.org")
    request = await asked(only)
    expected = {"requester": "own-request", "author": "own-version", "editor": "own-policy"}[whose]
    assert await refused(only, request, "admin", "reviewers", email="One@x.org") == expected
    assert (await vote(only, request, "ben", "reviewers", email="ben@x.org")).status == "approved"


async def test_a_vote_counts_no_more_when_it_turns_out_to_be_the_requesters(only: Direct) -> None:
    await only.publish(document(**approvals(TWO)))
    request = await asked(only)
    await vote(only, request, "admin", "reviewers", email="one@x.org")
    await refused(only, await asked(only), "ana", "staff", email="one@x.org")
    await only.sweep()
    async with only.db.snapshot() as tx:
        assert (await standing.of_requests(tx, [request]))[request].waits_for == "here/review: 0 of 2"
    assert (await vote(only, request, "ben", "reviewers")).status == "open"
    assert (await vote(only, request, "bo", "reviewers")).status == "approved"


async def test_nobody_waives_under_a_second_name_what_they_ask_for(only: Direct) -> None:
    await only.publish(document(gates=[{**GOOD, "waivable_by": ["group:leads"]}], **approvals(REVIEW)))
    request = await asked(only, accuracy=0.5)
    await refused(only, request, "ana", "staff", email="one@x.org")
    waived = only.parts.people.waive
    admin = await only.person("admin", "leads", email="one@x.org")
    assert await code(waived(request, admin, "here/good", "known", None)) == "own-request"
    await waived(request, await only.person("lea", "leads"), "here/good", "known", None)
    assert await phase(only, request) == "people"


# -- taking a vote back ------------------------------------------------------------------------------------------


async def test_a_delegator_takes_back_what_was_voted_for_them(only: Direct) -> None:
    await only.publish(document(**approvals(TWO, **LENT)))
    delegation = await delegating(only, "ben", "reviewers", to="dora")
    request, ben = await asked(only), await only.person("ben", "reviewers")
    await vote(only, request, "dora", "leads", on_behalf_of="ben")
    await only.parts.directory.end(delegation, "ben")
    assert await refused(only, request, "ben", "reviewers", choice="reject") == "already-voted"
    assert await code(only.parts.people.withdraw(request, await only.person("bo", "reviewers"), "")) == "no-vote"
    for _ in range(2):
        found = await only.parts.people.withdraw(request, ben, "not mine")
        assert (found.votes, [past.why for past in found.past_votes]) == ((), ["withdrawn by ben: not mine"])
    assert await code(only.parts.people.withdraw(request, await only.person("dora", "leads"), "")) == "no-vote"
    async with only.db.snapshot() as tx:
        events = [e async for e in only.parts.desk.log.read(tx, type_=VoteWithdrawn.TYPE)]
    [back] = [event.payload(VoteWithdrawn) for event in events]
    assert (back.voter, back.on_behalf_of, back.by) == ("dora", "ben", "ben")
    assert (await vote(only, request, "ben", "reviewers", choice="reject")).status == "rejected"


async def test_a_withdrawal_takes_one_vote_of_several(only: Direct) -> None:
    """Dora's own votes are not those that she casts for others."""
    await only.publish(document(**approvals({**REVIEW, "count": 3}, **LENT)))
    await delegating(only, "ben", "reviewers", to="dora")
    request = await asked(only)
    await vote(only, request, "dora", "leads", on_behalf_of="ben")
    await vote(only, request, "bo", "reviewers")
    found = await only.parts.people.withdraw(request, await only.person("dora", "leads"), "")
    assert [(v.voter, v.on_behalf_of) for v in found.votes] == [("bo", None)]
    assert [past.withdrawn_by for past in found.past_votes] == ["dora"]
