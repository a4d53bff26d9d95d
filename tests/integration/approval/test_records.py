"""What was decided among people who change groups and have several names is true to whoever judges the record again."""

from typing import Any

import pytest
from tests.integration.approval.conftest import Direct
from tests.integration.approval.test_features import GOOD, REVIEW, approvals, asked, document, only, status, vote

from approval.domain import Request
from approval.keyring import Keyring, published
from contracts.approval import RequestDecided
from policy.judge import judge

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ["only"]
TWO = {**REVIEW, "count": 2}


async def true(direct: Direct, request_id: str) -> Request:
    """The request, whose record must hold."""
    async with direct.db.snapshot() as tx:
        events = [e.payload(RequestDecided) async for e in direct.parts.desk.log.read(tx, type_=RequestDecided.TYPE)]
    [record] = [one for one in events if one.decision.transition_id == request_id]
    found = judge(record, published(Keyring(direct.settings.decision_key)))
    assert found.ok, [(check.name, check.text) for check in found.failed]
    return await direct.request(request_id)


def voters(request: Request) -> list[str]:
    assert request.decision is not None
    return [one.voter for one in request.decision.votes]


async def denied_by(direct: Direct, name: str, group: str, count: int) -> None:
    deny = {"count": count, "from": [f"group:{group}"]}
    await direct.publish(document(name, **approvals(TWO, deny=deny)))


async def moves(direct: Direct, who: str, *groups: str) -> None:
    """Shows another token, at some other place."""
    await direct.later(seconds=5)
    async with direct.db.transaction() as tx:
        await direct.parts.directory.seen(tx, await direct.person(who, *groups), await direct.clock(tx))
    await direct.sweep()


async def test_a_rejection_counts_as_what_it_was_cast(only: Direct) -> None:
    """Rita rejects for her group, and moves to another that may reject too."""
    await denied_by(only, "here", "risk", 2)
    await denied_by(only, "there", "security", 1)
    request = await asked(only)
    await vote(only, request, "rita", "risk", choice="reject")
    await moves(only, "rita", "security")
    assert await status(only, request) == "open"
    assert (await vote(only, request, "otto", "risk", choice="reject")).status == "rejected"
    assert voters(await true(only, request)) == ["rita", "otto"]


async def test_a_rejection_of_somebody_who_may_reject_no_more_counts_nowhere(only: Direct) -> None:
    await denied_by(only, "here", "risk", 2)
    request = await asked(only)
    await vote(only, request, "rita", "risk", choice="reject")
    await moves(only, "rita", "security")
    await vote(only, request, "otto", "risk", choice="reject")
    for who in ("ben", "bo"):
        await vote(only, request, who, "reviewers")
    assert voters(await true(only, request)) == ["otto", "ben", "bo"]


async def under_two_names(direct: Direct, request: str, group: str, **given: Any) -> None:
    """Ann votes twice; that it is she is known only later."""
    await vote(direct, request, "ann", group, **given)
    await vote(direct, request, "ann-admin", group, email="ann@x.org", **given)
    await direct.later(seconds=5)
    await vote(direct, await asked(direct, 2), "ann", group, email="ann@x.org", **given)


async def test_one_who_approved_under_two_names_is_on_record_once(only: Direct) -> None:
    await only.publish(document(**approvals({**REVIEW, "count": 3})))
    request = await asked(only)
    await under_two_names(only, request, "reviewers")
    for who in ("bo", "bea"):
        await vote(only, request, who, "reviewers")
    found = await true(only, request)
    assert (found.status, voters(found)) == ("approved", ["ann", "bo", "bea"])
    assert found.decision is not None
    assert found.decision.reason == "approved by ann, bea, bo"


@pytest.mark.parametrize("then", ["approved", "rejected"])
async def test_one_who_rejected_under_two_names_is_on_record_once(only: Direct, then: str) -> None:
    await only.publish(document(**approvals(TWO, deny={"count": 3, "from": ["group:risk"]})))
    request = await asked(only)
    await under_two_names(only, request, "risk", choice="reject")
    await vote(only, request, "otto", "risk", choice="reject")
    for who in ("ben", "bo") if then == "approved" else ("olga",):
        group, choice = ("reviewers", "approve") if then == "approved" else ("risk", "reject")
        await vote(only, request, who, group, choice=choice)
    found = await true(only, request)
    assert found.status == then
    assert voters(found) == ["ann", "otto", *(("ben", "bo") if then == "approved" else ("olga",))]


async def test_a_waiver_of_somebody_who_may_waive_no_more_is_on_no_record(only: Direct) -> None:
    await only.publish(document(gates=[{**GOOD, "waivable_by": ["group:leads"]}], **approvals(REVIEW)))
    request = await asked(only, accuracy=0.5)
    for who in ("lea", "lou"):
        await only.parts.people.waive(request, await only.person(who, "leads"), "here/good", "known", None)
        if who == "lea":
            await only.parts.directory.tell("lea", frozenset(), person=True, by="the directory")
    await vote(only, request, "ben", "reviewers")
    found = await true(only, request)
    assert found.decision is not None
    assert [waiver.by for waiver in found.decision.waived] == ["lou"]
