"""Who may vote, over HTTP; and what becomes of votes that race."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.approval.conftest import Direct, Harness, person, transition_id
from tests.support.waiting import until

from approval import domain
from contracts.approval import Choice, VoteRefused
from kit.problems import Problem
from policy.case import Ballot

# One loop for all: the shared service must go on running during the other tests.
pytestmark = pytest.mark.asyncio(loop_scope="module")

TWO_RULES = """
kind: PromotionPolicy
metadata: {name: two-rules}
spec:
  match: {transition: {to: Production}, when: 'model.name.startsWith("risky")'}
  approvals:
    rules:
      - {id: technical, meaning: I checked the code, from: ['group:reviewers'], count: 1}
      - {id: risk, meaning: I accept the risk, from: ['group:risk', 'group:reviewers'], count: 1}
"""


async def test_refused_votes_are_answered_and_recorded_once(approval: Harness) -> None:
    await approval.registry.register("eyes", by="carl", accuracy=0.95)
    request = await approval.opened(await approval.registry.request("eyes"))
    attempts = [
        (approval.client("ana", "ml-engineers"), "own-request"),
        (approval.client("ana", "reviewers", "admins"), "own-request"),
        (approval.client("carl", "reviewers"), "own-version"),
        (approval.client("bot", "reviewers", kind="service"), "service-account"),
        (approval.client("dora", "ml-engineers"), "not-an-approver"),
        (approval.client("rita", "risk"), "not-an-approver"),
    ]
    for client, code in attempts:
        response = await approval.vote(client, request["request_id"], "approve")
        assert (response.status_code, response.json()["type"]) == (403, f"urn:hallmark:problem:{code}")
    last = await approval.event(
        lambda e: e.key == "default/eyes" and e.type == VoteRefused.TYPE and e.payload(VoteRefused).voter == "rita"
    )
    assert (last.actor, last.payload(VoteRefused).code) == ("rita", "not-an-approver")
    refusals = [t for t in approval.said("default/eyes") if t == "vote.refused"]
    assert len(refusals) == 5  # ana twice for the same reason is one denial
    assert (await approval.ana.get(f"/v1/requests/{request['request_id']}")).json()["status"] == "open"


async def test_bad_votes(approval: Harness) -> None:
    await approval.registry.register("bad", accuracy=0.95)
    request_id = (await approval.opened(await approval.registry.request("bad")))["request_id"]
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"choice": "approve", "request_digest": f"sha256:{'0' * 64}"}, 409, "request-changed"),
        ({"choice": "reject"}, 422, "comment-required"),
        ({"choice": "reject", "comment": "  "}, 422, "comment-required"),
        ({"choice": "maybe"}, 422, "invalid-request"),
        ({"choice": "approve", "force": True}, 422, "invalid-request"),
        ({"choice": "approve", "comment": "\x00"}, 422, "invalid-request"),
        ({"choice": "approve", "request_digest": "x"}, 422, "invalid-request"),
    ]
    for body, status, code in cases:
        response = await approval.ben.post(f"/v1/requests/{request_id}/votes", json=body)
        assert (response.status_code, response.json()["type"]) == (status, f"urn:hallmark:problem:{code}"), body
    unknown = await approval.vote(approval.ben, "unknown", "approve")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "urn:hallmark:problem:request-not-found")
    stranger = await approval.client("gus", "guests").post(
        f"/v1/requests/{request_id}/votes", json={"choice": "approve"}
    )
    assert stranger.status_code == 403
    rejected = await approval.vote(approval.ben, request_id, "reject", comment="too slow")
    assert rejected.json()["status"] == "rejected"
    assert rejected.json()["decision"]["reason"] == "ben rejected: too slow"


async def test_every_rule_of_every_policy_needs_its_own_people(approval: Harness) -> None:
    await approval.publish_policy(TWO_RULES)
    await approval.registry.register("risky", accuracy=0.95)
    request_id = (await approval.opened(await approval.registry.request("risky")))["request_id"]
    for name in ("r1", "r2"):
        response = await approval.vote(approval.client(name, "reviewers"), request_id, "approve")
        assert response.json()["status"] == "open"
    changed = await approval.vote(approval.client("r1", "reviewers"), request_id, "reject", comment="no")
    assert (changed.status_code, changed.json()["type"]) == (409, "urn:hallmark:problem:already-voted")
    named = await approval.vote(approval.client("rita", "risk"), request_id, "approve", rule="production/review")
    assert named.json()["type"].endswith(":not-an-approver")
    last = await approval.vote(approval.client("rita", "risk"), request_id, "approve")
    assert last.json()["status"] == "approved"
    assert {v["voter"]: v["rule"] for v in last.json()["votes"]} == {
        "r1": "production/review",
        "r2": "two-rules/technical",
        "rita": "two-rules/risk",
    }


async def test_late_votes_and_expiry(approval: Harness) -> None:
    await approval.registry.register("late", accuracy=0.95)
    request = await approval.decided(await approval.registry.request("late", expires_in=1.0))
    assert (request["status"], request["decision"]) == ("expired", None)
    late = await approval.vote(approval.ben, request["request_id"], "approve")
    assert (late.status_code, late.json()["type"]) == (409, "urn:hallmark:problem:request-expired")
    await approval.event(lambda e: e.key == "default/late" and e.type == "hallmark.request.closed.v1")
    assert approval.said("default/late") == ["request.opened", "gates.evaluated", "request.closed"]


async def test_a_shorter_expiry_of_the_policy_is_a_signed_refusal(direct: Direct) -> None:
    await direct.publish(
        """
kind: PromotionPolicy
metadata: {name: hasty}
spec:
  match: {transition: {to: Production}}
  request: {expires_after: 1s}
  approvals: {rules: [{id: one, meaning: ok, from: ['group:reviewers'], count: 1}]}
"""
    )
    await direct.registry.register("m", accuracy=0.95)
    request_id = transition_id(await direct.registry.request("m"))
    assert (await direct.request(request_id)).status == "open"
    direct.clock.ahead += timedelta(seconds=2)
    with pytest.raises(Problem) as problem:
        await direct.parts.people.vote(request_id, person("ben", "reviewers"), Ballot(Choice.APPROVE))
    assert problem.value.code == "request-expired"
    request = await direct.request(request_id)
    assert request.status == "expired"
    assert request.decision is not None
    assert request.decision.verdict == "rejected"
    with pytest.raises(Problem, match="expired"):
        await direct.parts.people.vote(request_id, person("ben", "reviewers"), Ballot(Choice.APPROVE))
    assert await direct.types("default/m") == ["request.opened", "gates.evaluated", "request.decided"]


async def test_a_rejection_beats_a_simultaneous_approval(direct: Direct) -> None:
    await direct.parts.revisions.bootstrap()
    await direct.registry.register("m", accuracy=0.95)
    for turn in range(50):
        request_id = transition_id(await direct.registry.request("m"))
        ballots = [("ben", Ballot(Choice.APPROVE)), ("bo", Ballot(Choice.REJECT, "no"))]
        votes = [
            direct.parts.people.vote(request_id, person(name, "reviewers"), ballot)
            for name, ballot in (ballots if turn % 2 else reversed(ballots))
        ]
        outcomes = await asyncio.gather(*votes, return_exceptions=True)
        request = await direct.request(request_id)
        assert request.status == "rejected", outcomes
        late = [o for o in outcomes if isinstance(o, Exception)]
        assert all(isinstance(o, Problem) and o.code == "request-closed" for o in late), outcomes


async def test_one_person_clicking_often_is_one_vote(direct: Direct) -> None:
    await direct.parts.revisions.bootstrap()
    await direct.registry.register("m", accuracy=0.95)
    request_id = transition_id(await direct.registry.request("m"))
    clicks = (
        direct.parts.people.vote(request_id, person("ben", "reviewers"), Ballot(Choice.APPROVE)) for _ in range(10)
    )
    for request in await asyncio.gather(*clicks):
        assert len(request.votes) == 1
    expected = ["request.opened", "gates.evaluated", "vote.cast", "request.decided"]
    assert await direct.types("default/m") == expected
    assert (await direct.request(request_id)).status == "approved"


async def test_a_death_between_the_last_vote_and_the_decision(direct: Direct) -> None:
    await direct.parts.revisions.bootstrap()
    await direct.registry.register("m", accuracy=0.95)
    request_id = transition_id(await direct.registry.request("m"))
    slow = direct.again(settle_seconds=60.0)
    voting = asyncio.create_task(slow.people.vote(request_id, person("ben", "reviewers"), Ballot(Choice.APPROVE)))

    async def voted() -> bool:
        return bool((await direct.request(request_id)).votes)

    await until(voted)
    voting.cancel()
    assert (await direct.request(request_id)).status == domain.OPEN
    assert await slow.sweeper.once() == 0  # for it, the votes have not settled yet
    await direct.later(minutes=2)
    assert (await direct.request(request_id)).status == "approved"


@pytest.mark.parametrize("request_id", ["%00", "a%00b", "a%20b", "%ff", "x" * 101])
async def test_a_malformed_request_id_is_refused(approval: Harness, request_id: str) -> None:
    assert (await approval.ana.get(f"/v1/requests/{request_id}")).status_code == 422
    assert (await approval.vote(approval.ben, request_id, "approve")).status_code == 422


@pytest.mark.parametrize(
    "query",
    ["wait=nan", "wait=inf", "wait=31", "wait=-1"],
)
async def test_a_wait_that_is_no_wait_is_refused(approval: Harness, query: str) -> None:
    assert (await approval.ana.get(f"/v1/requests/t1?{query}")).status_code == 422


@pytest.mark.parametrize(
    "query",
    ["after=%00", "model=%00", "workspace=%00", "status=x", "limit=0", "limit=99999999999999999999"],
)
async def test_a_bad_filter_is_refused(approval: Harness, query: str) -> None:
    assert (await approval.ana.get(f"/v1/requests?{query}")).status_code == 422
