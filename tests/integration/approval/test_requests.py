"""From `stage.requested` on one topic to `request.decided` on the other."""

import asyncio
from typing import Any

import pytest
from joserfc.jwk import KeySet
from tests.integration.approval.conftest import Harness, transition_id

from approval.decision import verify
from contracts.approval import RequestDecided, RequestOpened, Verdict, VoteCast
from contracts.envelope import new_id
from contracts.lifecycle import Stage, TransitionKind
from contracts.registry import StageRequested
from policy.document import digest_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_staging_is_decided_without_people(approval: Harness) -> None:
    await approval.registry.register("auto", accuracy=0.95)
    asked = await approval.registry.request("auto", from_=Stage.DEVELOPMENT, to=Stage.STAGING)
    document = await approval.decided(asked)
    assert document["status"] == "approved"
    envelope = await approval.event(lambda e: e.key == "default/auto" and e.type == RequestDecided.TYPE)
    assert (envelope.key, envelope.subject, envelope.actor) == ("default/auto", "default/auto/1", "hallmark/approval")
    assert envelope.correlationid == asked.correlationid
    jwks = (await approval.ana.get("/.well-known/jwks.json")).json()
    decision = verify(envelope.payload(RequestDecided).jws, KeySet.import_key_set(jwks))
    assert decision == envelope.payload(RequestDecided).decision
    assert decision.verdict is Verdict.APPROVED
    assert approval.said("default/auto") == ["request.opened", "gates.evaluated", "request.decided"]


async def test_production_waits_for_a_vote(approval: Harness) -> None:
    await approval.registry.register("vote", accuracy=0.95)
    asked = await approval.registry.request("vote")
    document = await approval.opened(asked)
    assert document["status"] == "open"
    assert document["gates"][0]["result"] == "pass"
    assert document["gates"][0]["message"] == "candidate.metrics.accuracy = 0.95"
    assert document["rules"][0] == {
        "id": "production/review",
        "from": ["group:reviewers"],
        "count": 1,
        "meaning": "I reviewed the evaluation and accept this version for production",
        "have": 0,
    }
    response = await approval.vote(
        approval.ben, document["request_id"], "approve", comment="looks good", request_digest=document["request_digest"]
    )
    assert response.status_code == 200, response.text
    assert response.json()["status"] == "approved"
    decided = await approval.event(lambda e: e.key == "default/vote" and e.type == RequestDecided.TYPE)
    decision = decided.payload(RequestDecided).decision
    assert [v.voter for v in decision.votes] == ["ben"]
    assert approval.said("default/vote") == ["request.opened", "gates.evaluated", "vote.cast", "request.decided"]
    vote = next(e for e in approval.heard if e.key == "default/vote" and e.type == VoteCast.TYPE)
    assert (vote.actor, decided.causationid) == ("ben", vote.id)
    opened = next(e for e in approval.heard if e.key == "default/vote" and e.type == RequestOpened.TYPE).payload(
        RequestOpened
    )
    assert digest_of(opened.inputs) == opened.inputs_digest == decision.inputs_digest
    again = await approval.vote(approval.ben, document["request_id"], "approve")
    assert (again.status_code, len(again.json()["votes"])) == (200, 1)
    late = await approval.vote(approval.client("bo", "reviewers"), document["request_id"], "approve")
    assert (late.status_code, late.json()["type"]) == (409, "urn:hallmark:problem:request-closed")


async def test_a_failed_gate_rejects_before_people_are_asked(approval: Harness) -> None:
    await approval.registry.register("gate", accuracy=0.71)
    document = await approval.decided(await approval.registry.request("gate"))
    assert document["status"] == "rejected"
    assert "candidate.metrics.accuracy = 0.71" in document["decision"]["reason"]


async def test_nobody_matches_is_a_refusal(approval: Harness) -> None:
    await approval.registry.register("nomatch", accuracy=0.95)
    document = await approval.decided(await approval.registry.request("nomatch", to=Stage.ARCHIVED))
    assert document["status"] == "rejected"
    assert document["decision"]["reason"] == "no policy allows a promotion from Staging to Archived"


async def test_rollback_only_to_what_was_there(approval: Harness) -> None:
    registry = approval.registry
    await registry.register("rollback", 1, accuracy=0.95)
    await registry.register("rollback", 2, accuracy=0.96)
    await registry.changed(await registry.request("rollback", 1))
    there = await registry.request("rollback", 1, from_=Stage.ARCHIVED, kind=TransitionKind.ROLLBACK)
    never = await registry.request("rollback", 2, from_=Stage.ARCHIVED, kind=TransitionKind.ROLLBACK)
    assert (await approval.decided(there))["status"] == "approved"
    refused = await approval.decided(never)
    assert refused["status"] == "rejected"
    assert "Only a version that has been in this stage before" in refused["decision"]["reason"]


async def test_the_occupant_is_the_baseline(approval: Harness) -> None:
    await approval.publish_policy(
        """
kind: PromotionPolicy
metadata: {name: no-regression}
spec:
  match: {transition: {to: Production}, when: 'model.name == "baseline"'}
  gates:
    - {id: better, cel: 'candidate.metrics.accuracy >= baseline.metrics.accuracy', on_no_baseline: pass}
"""
    )
    registry = approval.registry
    await registry.register("baseline", 1, accuracy=0.95)
    await registry.register("baseline", 2, accuracy=0.93)
    first = await registry.request("baseline", 1)
    document = await approval.opened(first)
    assert {g["gate"]: g["result"] for g in document["gates"]} == {
        "no-regression/better": "pass",
        "production/accuracy": "pass",
    }
    assert document["inputs"]["baseline"] is None
    assert (await approval.vote(approval.ben, document["request_id"], "approve")).status_code == 200
    await registry.changed(first)
    worse = await approval.decided(await registry.request("baseline", 2))
    assert worse["inputs"]["baseline"]["version"] == 1
    assert worse["status"] == "rejected"
    assert "candidate.metrics.accuracy = 0.93, baseline.metrics.accuracy = 0.95" in worse["decision"]["reason"]


async def test_redelivery_opens_one_request(approval: Harness) -> None:
    await approval.registry.register("redelivery", accuracy=0.95)
    asked = await approval.registry.request("redelivery")
    await asyncio.gather(*(approval.registry.send(asked) for _ in range(5)))
    other = await approval.registry.request("redelivery")
    await approval.opened(other)
    items = (await approval.ana.get("/v1/requests", params={"model": "redelivery"})).json()["items"]
    assert len(items) == 2
    await approval.event(lambda e: e.key == "default/redelivery" and e.sequence == 4)
    assert approval.said("default/redelivery") == ["request.opened", "gates.evaluated"] * 2


async def test_the_registry_closes_a_request(approval: Harness) -> None:
    await approval.registry.register("closed", accuracy=0.95)
    asked = await approval.registry.request("closed")
    await approval.registry.refused(asked, "withdrawn")
    document = await approval.decided(asked)
    assert (document["status"], document["decision"]) == ("cancelled", None)
    vote = await approval.vote(approval.ben, document["request_id"], "approve")
    assert vote.json()["type"].endswith(":request-closed")


async def test_poison_is_parked_and_the_next_event_passes(approval: Harness) -> None:
    registry, stream = approval.registry, "default/poison"
    await registry.register("poison", accuracy=0.95)
    broken = registry.envelope(registry.versions["poison", 1], stream)
    await approval.send_raw(stream.encode(), [*broken.headers()], b"{not json")
    first = await registry.request("poison")
    asked = first.payload(StageRequested)
    forgeries: list[dict[str, Any]] = [
        {"version": 7},
        {"digest": f"sha256:{'0' * 64}"},
        {"model": "other"},
    ]
    for change in forgeries:
        forged = asked.model_copy(update={**change, "transition_id": str(new_id())})
        await registry.send(registry.envelope(forged, stream))
    await registry.register("poison", accuracy=0.99)  # version 1 again, with other content
    await approval.send_raw(stream.encode(), [("ce_specversion", b"1.0"), ("ce_id", b"\xff"), ("x", None)], None)
    last = await registry.publish(asked.model_copy(update={"transition_id": str(new_id())}), "poison", 1)
    assert (await approval.opened(last))["status"] == "open"
    assert (await approval.opened(first))["status"] == "open"
    assert await approval.parked(stream, 6) == [
        "bad-event",
        "unknown-version",
        "digest-mismatch",
        "wrong-key",
        "version-changed",
        "bad-event",
    ]
    items = (await approval.ana.get("/v1/requests", params={"model": "poison"})).json()["items"]
    assert [item["request_id"] for item in items] == [transition_id(last), transition_id(first)]


async def test_lists_show_what_the_caller_may_read(approval: Harness) -> None:
    registry = approval.registry
    for version in (1, 2, 3):
        await registry.register("listed", version, accuracy=0.95 if version < 3 else 0.1)
        asked = await registry.request("listed", version)
    await approval.decided(asked)
    page = (await approval.ana.get("/v1/requests", params={"model": "listed", "limit": 2})).json()
    assert [item["version"] for item in page["items"]] == [3, 2]
    rest = (await approval.ana.get("/v1/requests", params={"model": "listed", "after": page["next"]})).json()
    assert ([item["version"] for item in rest["items"]], rest["next"]) == ([1], None)
    rejected = await approval.ana.get("/v1/requests", params={"model": "listed", "status": "rejected"})
    assert [item["version"] for item in rejected.json()["items"]] == [3]
    guest = approval.client("gus", "guests")
    assert (await guest.get("/v1/requests", params={"workspace": "default"})).json()["items"] == []
    response = await guest.get(f"/v1/requests/{transition_id(asked)}")
    assert (response.status_code, response.json()["type"]) == (403, "urn:hallmark:problem:forbidden")
    assert (await approval.ana.get("/v1/requests/none")).status_code == 404
    assert (await approval.ana.get("/v1/requests", params={"status": "lost"})).status_code == 422
