"""Requests that wait for evidence, and for what a CI job attests."""

from collections.abc import Iterator

import pytest
from tests.integration.approval.checks import Rig, digest_of, make_rig, policy
from tests.integration.approval.conftest import Direct, person
from tests.integration.approval.exhibits import attach, file_of, stored, upload

from approval import standing
from contracts.approval import Choice
from embedded.fixtures import S3
from policy.people import Ballot

CARD = b"# Model card"
ATTESTED = "{id: tests, attestation: {type: integration-tests, from: ['group:ci', 'user:qa-bot']}%s}"


@pytest.fixture(scope="module")
def store(infra_s3: S3) -> Iterator[dict[str, str]]:
    with stored(infra_s3) as options:
        yield options


@pytest.fixture
def rig(direct: Direct, store: dict[str, str]) -> Rig:
    return make_rig(direct, **store)


async def test_a_request_is_held_at_the_gates_until_its_evidence_is_there(rig: Rig) -> None:
    await rig.direct.publish(policy(request="evidence: [model_card, dpia]"))
    request_id = await rig.asked("new")
    assert (await rig.direct.request(request_id)).status == "open"
    assert "evidence is missing: model_card, dpia" in await waits_for(rig, request_id)
    await upload(rig.ana, CARD)
    assert (await attach(rig.ana, model="new", **file_of(CARD))).status_code == 201
    held = await rig.direct.request(request_id)
    assert held.status == "open"
    assert held.inputs["candidate"]["evidence"]["model_card"]["digest"] == digest_of(CARD)
    assert "evidence is missing: dpia" in await waits_for(rig, request_id)
    assert (await attach(rig.ana, model="new", type="dpia", url="https://wiki.example/dpia")).status_code == 201
    assert (await rig.direct.request(request_id)).status == "approved"


async def test_a_ci_job_attests_from_start_to_decision(rig: Rig) -> None:
    await rig.direct.publish(policy(ATTESTED % ""))
    request_id = await rig.asked("new")
    waiting = await rig.direct.request(request_id)
    assert [(gate.gate, gate.result) for gate in waiting.gates] == [("checked/tests", "pending")]
    # The word of somebody else does not count, nor does another type.
    assert (await attach(rig.ana, model="new", type="integration-tests", title="x", result="pass")).status_code == 201
    assert (await attach(rig.ci, model="new", type="unit-tests", title="x", result="pass")).status_code == 201
    assert (await rig.direct.request(request_id)).status == "open"
    report = b"<junit tests='812' failures='0'/>"
    await upload(rig.ci, report, media_type="application/xml")
    attested = await attach(
        rig.ci, model="new", type="integration-tests", title="CI run 4711", result="pass", **file_of(report)
    )
    assert attested.status_code == 201, attested.text
    assert (attested.json()["service"], attested.json()["groups"]) == (True, ["ci", "ml-engineers"])
    decided = await rig.direct.request(request_id)
    assert decided.status == "approved"
    [gate] = [gate for gate in decided.gates if gate.gate == "checked/tests"]
    assert gate.result == "pass"
    assert gate.message == f"ci-bot: CI run 4711 (sha256 {digest_of(report)[7:19]})"
    assert decided.inputs["candidate"]["attestations"][-1]["digest"] == digest_of(report)


async def test_what_a_ci_job_found_wanting_ends_the_request(rig: Rig) -> None:
    await rig.direct.publish(policy(ATTESTED % ""))
    request_id = await rig.asked("new")
    qa = rig.client("qa-bot", "ml-engineers", kind="service")
    await attach(qa, model="new", type="integration-tests", title="QA", result="fail")
    decided = await rig.direct.request(request_id)
    assert decided.status == "rejected"
    assert decided.decision is not None
    assert "QA" in decided.decision.reason


async def test_an_attestation_may_come_before_the_request_and_too_late(rig: Rig) -> None:
    await rig.direct.publish(policy(ATTESTED % ", timeout: 2h"))
    await rig.direct.registry.register("early", accuracy=0.9)
    await attach(rig.ci, model="early", type="integration-tests", title="CI", result="pass")
    assert (await rig.direct.request(await rig.asked_again("early"))).status == "approved"
    request_id = await rig.asked("late")
    await rig.direct.later(hours=2, seconds=1)
    late = await rig.direct.request(request_id)
    assert late.status == "rejected"
    assert (await attach(rig.ci, model="late", type="integration-tests", title="CI", result="pass")).status_code == 201


async def test_new_evidence_asks_people_again(rig: Rig) -> None:
    """Votes bind to the evidence they were cast on."""
    rules = "{id: review, meaning: I looked, from: ['group:reviewers'], count: 2}"
    await rig.direct.publish(f"{policy()}  approvals: {{rules: [{rules}]}}\n")
    request_id = await rig.asked("new")
    await rig.direct.parts.people.vote(request_id, person("ben", "reviewers"), Ballot(Choice.APPROVE))
    await attach(rig.ana, model="new", type="note", url="https://wiki.example/incident")
    request = await rig.direct.request(request_id)
    assert (request.status, request.votes) == ("open", ())
    assert [(past.vote.voter, past.why) for past in request.past_votes] == [("ben", "candidate: evidence")]
    again = await attach(rig.ana, model="new", type="note", url="https://wiki.example/incident")
    assert again.status_code == 200
    assert (await rig.direct.request(request_id)).request_digest == request.request_digest


async def waits_for(rig: Rig, request_id: str) -> str:
    async with rig.direct.db.snapshot() as tx:
        row = (await standing.of_requests(tx, [request_id]))[request_id]
    assert row.phase == "gates"
    return str(row.waits_for)
