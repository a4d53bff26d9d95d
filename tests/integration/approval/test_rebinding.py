"""What was said of a request is void for good once it rests on something else, though that may change back."""

import pytest
from tests.integration.approval.checks import make_rig, policy, webhook
from tests.integration.approval.conftest import Direct
from tests.integration.approval.test_emergencies import LONG, WAITS, breaks
from tests.integration.approval.test_features import GOOD, REVIEW, approvals, asked, document, only, phase
from tests.support.receiver import Answer, Receiver

from contracts.registry import Tags, VersionTagged

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ["only"]
WHY = "candidate: tags"


async def changed_and_back(direct: Direct, request_id: str) -> None:
    """A tag is set and removed: the request is at last what it was at first."""
    first = (await direct.request(request_id)).request_digest
    digests = [first]
    for tags in (Tags(set={"x": "y"}), Tags(remove=("x",))):
        tagged = VersionTagged(workspace="default", model="m", version=1, tags=tags)
        await direct.registry.publish(tagged, "m", 1)
        digests.append((await direct.request(request_id)).request_digest)
    assert (digests[1] == first, digests[2] == first) == (False, True)


async def test_a_waiver_does_not_come_back(only: Direct) -> None:
    await only.publish(document(gates=[{**GOOD, "waivable_by": ["group:leads"]}], **approvals(REVIEW)))
    request_id = await asked(only, accuracy=0.5)
    lea = await only.person("lea", "leads")
    await only.parts.people.waive(request_id, lea, "here/good", "known", None)
    assert await phase(only, request_id) == "people"
    await changed_and_back(only, request_id)
    assert await phase(only, request_id) == "gates"
    void = await only.request(request_id)
    assert (void.waivers, [(past.waiver.by, past.why) for past in void.past_waivers]) == ((), [("lea", WHY)])
    # She may say it again, of the request as it is.
    again = await only.parts.people.waive(request_id, lea, "here/good", "known", None)
    assert ([waiver.by for waiver in again.waivers], len(again.past_waivers)) == (["lea"], 1)
    assert await phase(only, request_id) == "people"


async def test_an_emergency_does_not_come_back(only: Direct) -> None:
    await only.publish(document(**WAITS, **approvals(REVIEW)))
    request_id = await asked(only, **LONG)
    await breaks(only, request_id)
    await changed_and_back(only, request_id)
    void = await only.request(request_id)
    assert (void.glass, [(past.emergency.by, past.why) for past in void.past_emergencies]) == (None, [("otto", WHY)])
    await only.later(hours=1, minutes=5)
    assert (await only.parts.people.look(request_id)).status == "open"
    assert (await breaks(only, request_id)).status == "approved"


async def test_who_is_told_that_their_emergency_is_void(only: Direct) -> None:
    await only.publish(document(**WAITS, **approvals(REVIEW)))
    request_id = await asked(only, **LONG)
    await breaks(only, request_id)
    await only.registry.publish(
        VersionTagged(workspace="default", model="m", version=1, tags=Tags(set={"x": "y"})), "m", 1
    )
    rebound = (await only.request(request_id)).rebound
    assert rebound is not None
    assert rebound.voided == ("otto",)


async def test_who_is_told_that_their_waiver_is_void(only: Direct) -> None:
    gates = [{"id": one, "cel": "candidate.metrics.p95 < 1.0", "waivable_by": ["group:leads"]} for one in "ab"]
    await only.publish(document(gates=gates, **approvals(REVIEW)))
    request_id = await asked(only)
    for who, gate in (("lea", "here/a"), ("leo", "here/b")):
        await only.parts.people.waive(request_id, await only.person(who, "leads"), gate, "known", None)
    await only.publish(document(gates=gates, **approvals({**REVIEW, "meaning": "I read it"})))
    await only.sweep()
    rebound = (await only.request(request_id)).rebound
    assert rebound is not None
    assert rebound.voided == ("lea", "leo")


async def test_a_check_is_asked_anew(only: Direct, check: Receiver) -> None:
    rig = make_rig(only)
    await only.publish(policy(webhook(check.url), webhook(f"{check.url}/safety", "safety")))
    request_id = await rig.asked("m")
    digest = (await only.request(request_id)).request_digest
    assert (await rig.post_answer(request_id, digest)).status_code == 200
    await changed_and_back(only, request_id)
    found = await only.request(request_id)
    assert (found.answers, {gate.result for gate in found.gates}) == ((), {"pending"})
    calls = rig.calls()
    assert await calls.once()
    assert await calls.once()
    assert not await calls.once()
    assert (await only.request(request_id)).status == "approved"
    assert {hit.document["request_digest"] for hit in check.hits} == {digest}


async def test_a_call_of_before_says_nothing_of_now(only: Direct, check: Receiver) -> None:
    """Nor does it take the lease of the question that was put anew."""
    rig = make_rig(only)
    await only.publish(policy(webhook(check.url)))
    request_id = await rig.asked("m")
    calls = rig.calls()
    old = await calls.lease()
    await changed_and_back(only, request_id)
    new = await calls.lease()
    assert old is not None
    assert new is not None
    assert (old.attempt, old.question.body) == (new.attempt, new.question.body)
    assert old.question.message_id != new.question.message_id
    [before] = await rig.rows()
    answers: list[Answer | int] = [(200, {}, b'{"result": "fail"}'), 202, 503]
    check.answer = lambda _: answers.pop()
    while answers:
        await calls.make(old)
        assert await rig.rows() == [before]
    assert (await only.request(request_id)).answers == ()
    check.answer = lambda _: (200, {}, b'{"result": "pass"}')
    await calls.make(new)
    assert (await only.request(request_id)).status == "approved"
