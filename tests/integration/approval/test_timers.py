"""What time does to open requests: when they are looked at, and what escalations let people do."""

import asyncio

import pytest
from tests.integration.approval.conftest import Direct
from tests.integration.approval.test_features import (
    GOOD,
    REVIEW,
    approvals,
    asked,
    document,
    let_in,
    only,
    phase,
    refused,
    status,
    vote,
)

from approval import standing, views
from contracts.approval import RequestDecided
from contracts.lifecycle import Stage
from kit.keys import ensure_key
from policy.judge import judge

__all__ = ["only"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
LADDER = {"after": "1h", "do": "add_approvers", "rule": "review", "to": ["group:risk"]}
DAYS = 80 * 3600


async def due_in(direct: Direct, request_id: str) -> float:
    """Seconds until the request is looked at again."""
    async with direct.db.snapshot() as tx:
        row, at = (await standing.of_requests(tx, [request_id]))[request_id], await direct.clock(tx)
    return float((row.due_at - at).total_seconds())


async def test_a_rejection_that_outlives_its_time_leaves_the_sweeper_idle(only: Direct) -> None:
    await only.publish(document(**approvals({**REVIEW, "count": 2}, valid_for="1h", deny={"count": 2})))
    request = await asked(only, expires_in=DAYS)
    await vote(only, request, "ben", "reviewers", choice="reject")
    async with asyncio.timeout(30):
        await only.later(hours=2)
    assert await status(only, request) == "open"
    assert await only.parts.sweeper.once() == 0
    assert (await vote(only, request, "bo", "reviewers", choice="reject")).status == "rejected"


async def test_whom_an_escalation_added_goes_with_the_escalation(only: Direct) -> None:
    await only.publish(document(escalation=[LADDER], **approvals(REVIEW)))
    request = await asked(only, expires_in=DAYS)
    await only.later(hours=2)
    assert (await only.request(request)).added == {"here/review": frozenset({"risk"})}
    await only.publish(document(**approvals(REVIEW)))
    await only.sweep()
    assert (await only.request(request)).added == {}
    assert await refused(only, request, "rita", "risk") == "not-an-approver"
    found = await vote(only, request, "ben", "reviewers")
    assert found.decision is not None
    assert found.decision.added_approvers == {}


async def test_a_step_that_stays_is_not_done_again(only: Direct) -> None:
    await only.publish(document(escalation=[LADDER], **approvals(REVIEW)))
    request = await asked(only, expires_in=DAYS)
    await only.later(hours=2)
    ladder = [{"after": "90m", "do": "remind"}, LADDER]
    await only.publish(document(escalation=ladder, **approvals({**REVIEW, "meaning": "I read it"})))
    await only.sweep()
    found = await only.request(request)
    assert [one.action for one in found.escalated] == ["add_approvers", "remind"]
    decided = await vote(only, request, "rita", "risk")
    assert decided.decision is not None
    assert decided.decision.added_approvers == {"here/review": ("risk",)}
    async with only.db.snapshot() as tx:
        bound = await views.bound_policies(tx, decided.policies)
    key = ensure_key(only.settings.access_file.parent, "decision")
    documents = {ref.digest: policy.text for ref, policy in bound}
    assert decided.jws is not None
    told = RequestDecided(decision=decided.decision, jws=decided.jws, inputs=decided.inputs, documents=documents)
    judged = judge(told, {"keys": [{**key.as_dict(private=False), "kid": key.kid}]})
    assert judged.ok, judged.failed
    assert {check.name for check in judged.checks if check.result == "not checkable"} == {"other policies", "people"}


async def test_a_step_that_another_revision_changes_is_still_to_be_done(only: Direct) -> None:
    await only.publish(document(escalation=[{"after": "1h", "do": "remind"}], **approvals(REVIEW)))
    request = await asked(only, expires_in=DAYS)
    await only.later(hours=2)
    await only.publish(document(escalation=[{**LADDER, "after": "3h"}], **approvals(REVIEW)))
    await only.sweep()
    assert [one.action for one in (await only.request(request)).escalated] == ["remind"]
    await only.later(hours=2)
    assert [one.action for one in (await only.request(request)).escalated] == ["remind", "add_approvers"]
    assert (await vote(only, request, "rita", "risk")).status == "approved"


async def test_nobody_is_reminded_of_what_is_approved(only: Direct) -> None:
    ladder = [{"after": "1h", "do": "remind"}, {"after": "2h", "do": "notify", "to": ["group:leads"]}]
    await only.publish(document(escalation=ladder, schedule={"min_wait": "5h"}, **approvals(REVIEW)))
    request = await asked(only, expires_in=DAYS)
    await vote(only, request, "ben", "reviewers")
    await only.later(hours=3)
    assert await phase(only, request) == "schedule"
    assert (await only.request(request)).escalated == ()
    await only.later(hours=3)
    assert await status(only, request) == "approved"


async def test_who_may_waive_a_gate_is_reminded_of_it(only: Direct) -> None:
    gate = {"id": "latency", "cel": "candidate.metrics.p95 < 100.0", "waivable_by": ["group:leads"]}
    ladder = [{"after": "1h", "do": "remind"}]
    await only.publish(document(gates=[gate], escalation=ladder, **approvals(REVIEW)))
    request = await asked(only, expires_in=DAYS)
    await only.later(hours=2)
    assert [one.to for one in (await only.request(request)).escalated] == [("group:leads",)]


async def test_a_gate_that_names_now_is_looked_at_again(only: Direct) -> None:
    gate = {"id": "fresh", "cel": 'now - candidate.registered_at < duration("2h")'}
    await only.publish(document(gates=[GOOD, gate], **approvals(REVIEW)))
    request = await asked(only, expires_in=DAYS)
    assert 0 < await due_in(only, request) <= 60
    await only.later(hours=1)
    assert await status(only, request) == "open"
    await only.later(hours=2)
    assert await status(only, request) == "rejected"


async def test_a_rule_that_names_now_is_looked_at_again(only: Direct) -> None:
    rule = {**REVIEW, "when": 'now - candidate.registered_at < duration("2h")'}
    await only.publish(document(**approvals(rule)))
    request = await asked(only, expires_in=DAYS)
    await only.later(hours=3)
    assert await status(only, request) == "approved"


async def test_without_now_nothing_is_looked_at_before_its_time(only: Direct) -> None:
    await only.publish(document(gates=[GOOD], **approvals(REVIEW)))
    assert await due_in(only, await asked(only, expires_in=DAYS)) > 79 * 3600


async def test_no_later_policy_lets_a_request_live_longer(only: Direct) -> None:
    await only.publish(document(request={"expires_after": "30m"}, **approvals(REVIEW)))
    request = await asked(only, expires_in=DAYS)
    first = (await only.request(request)).expires_at
    for after in ({"expires_after": "5h"}, {}):
        await only.publish(document(request=after, **approvals(REVIEW)))
        await only.sweep()
        assert (await only.request(request)).expires_at == first
    await only.later(minutes=31)
    assert await status(only, request) == "expired"


LASTING = {"validity": {"reapprove_every": "90d"}, **approvals(REVIEW)}


async def lapses(direct: Direct, *requests: str) -> list[str | None]:
    found = [(await direct.request(request)).lapsed for request in requests]
    return [lapsed.on_lapse if lapsed else None for lapsed in found]


async def test_no_alarm_for_an_approval_whose_version_has_left(only: Direct) -> None:
    await only.publish(document(**LASTING))
    request = await let_in(only, 1)
    await only.registry.changed(await only.registry.request("m", 1, from_=Stage.PRODUCTION, to=Stage.ARCHIVED))
    await only.later(days=91)
    assert await lapses(only, request) == ["moot"]


async def test_no_alarm_for_an_approval_that_was_given_again(only: Direct) -> None:
    """Nor is the version compared with itself then: it was better than none."""
    better = {"id": "better", "cel": "candidate.metrics.accuracy > baseline.metrics.accuracy"}
    await only.publish(document(gates=[{**better, "on_no_baseline": "pass"}], **LASTING))
    first = await let_in(only, 1)
    await only.later(days=60)
    again = await let_in(only, 1, from_=Stage.PRODUCTION)
    assert (await only.request(again)).inputs["baseline"] is None
    await only.later(days=31)
    assert await lapses(only, first, again) == ["moot", None]
    await only.later(days=60)
    assert await lapses(only, first, again) == ["moot", "alert"]
