"""Requests that wait for evidence, and for what a CI job attests."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.approval.checks import Rig, digest_of, make_rig, policy
from tests.integration.approval.conftest import Direct, person
from tests.integration.approval.exhibits import attach, file_of, stored, upload

from approval import standing
from contracts.approval import Choice
from embedded.fixtures import S3
from policy.case import Ballot

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
    await upload(rig.ci, CARD)
    await attach(rig.ci, model="early", type="integration-tests", title="CI", result="pass", **file_of(CARD))
    assert (await rig.direct.request(await rig.asked_again("early"))).status == "approved"
    request_id = await rig.asked("late")
    await rig.direct.later(hours=2, seconds=1)
    late = await rig.direct.request(request_id)
    assert late.status == "rejected"
    assert (await attach(rig.ci, model="late", type="integration-tests", title="CI", result="pass")).status_code == 201


REVIEWED = "  approvals: {rules: [{id: review, meaning: I looked, from: ['group:reviewers'], count: 2}]}\n"


@pytest.mark.parametrize(
    "asked", [policy(request="evidence: [note]"), policy("{id: note, cel: '!has(candidate.evidence.x)'}")]
)
async def test_new_evidence_asks_people_again(rig: Rig, asked: str) -> None:
    """Votes bind to the evidence that the policies look at."""
    await rig.direct.publish(f"{asked}{REVIEWED}")
    request_id = await rig.asked("new")
    await attach(rig.ana, model="new", type="note", url="https://wiki.example/first")
    await rig.direct.parts.people.vote(request_id, person("ben", "reviewers"), Ballot(Choice.APPROVE))
    await attach(rig.ana, model="new", type="note", url="https://wiki.example/incident")
    request = await rig.direct.request(request_id)
    assert (request.status, request.votes) == ("open", ())
    assert [(past.vote.voter, past.why) for past in request.past_votes] == [("ben", "candidate: evidence")]
    again = await attach(rig.ana, model="new", type="note", url="https://wiki.example/incident")
    assert again.status_code == 200
    assert (await rig.direct.request(request_id)).request_digest == request.request_digest


async def test_evidence_that_nobody_asks_for_voids_nothing(rig: Rig) -> None:
    """Else whoever may attach something keeps a request open for ever; a check does with each of its answers."""
    await rig.direct.publish(f"{policy(ATTESTED % '', request='evidence: [model_card]')}{REVIEWED}")
    request_id = await rig.asked("new")
    report = b"<junit tests='812' failures='0'/>"
    await upload(rig.ci, report, media_type="application/xml")
    await attach(rig.ci, model="new", type="integration-tests", title="CI", result="pass", **file_of(report))
    await attach(rig.ana, model="new", type="model_card", url="https://wiki.example/card")
    await rig.direct.parts.people.vote(request_id, person("ben", "reviewers"), Ballot(Choice.APPROVE))
    before = await rig.direct.request(request_id)
    await attach(rig.ci, model="new", type="fairness-report", **file_of(report))
    await attach(rig.ana, model="new", type="note", url="https://wiki.example/incident")
    request = await rig.direct.request(request_id)
    assert request.request_digest == before.request_digest
    assert [vote.voter for vote in request.votes] == ["ben"]
    candidate = request.inputs["candidate"]
    assert sorted(candidate["evidence"]) == ["integration-tests", "model_card"]
    assert [one["type"] for one in candidate["attestations"]] == ["integration-tests"]


PROVENANCE = """{id: signed, cel: 'candidate.attestations.exists(a, a.type == "slsa-provenance" && a.verified)'}"""


async def test_nobody_attests_what_they_ask_for_themselves(rig: Rig) -> None:
    """The worked policy of the design asks for `verified`: by a service, with a file, and of neither side."""
    await rig.direct.publish(policy(f"{PROVENANCE[:-1]}, waivable_by: ['group:leads']}}"))
    request_id = await rig.asked("new")
    report = b'{"predicateType": "https://slsa.dev/provenance/v1"}'
    attest: dict[str, Any] = {"model": "new", "type": "slsa-provenance", "title": "x", "result": "pass"}
    opened = await rig.direct.request(request_id)
    author = rig.client(opened.inputs["candidate"]["registered_by"], "ml-engineers", "ci", kind="service")
    requester = rig.client(opened.opened.requested_by, "ml-engineers", "ci", kind="service")
    for client, more in (
        (rig.ana, file_of(report)),
        (rig.client("ben", "ml-engineers", "reviewers"), file_of(report)),
        (rig.ci, {}),
        (author, file_of(report)),
        (requester, file_of(report)),
    ):
        await upload(client, report)
        posted = await attach(client, **attest, **more)
        assert posted.status_code in (200, 201), posted.text
        held = await rig.direct.request(request_id)
        assert held.status == "open"
        assert not any(one["verified"] for one in held.inputs["candidate"]["attestations"])
    assert (await attach(rig.ci, **attest, **file_of(report))).status_code == 201
    assert (await rig.direct.request(request_id)).status == "approved"


async def test_a_piece_that_speaks_against_the_version_is_not_what_was_asked_for(rig: Rig) -> None:
    await rig.direct.publish(policy(request="evidence: [pentest]"))
    request_id = await rig.asked("new")
    await attach(rig.ci, model="new", type="pentest", title="run 1", result="pass")  # a word alone
    assert "evidence is missing: pentest" in await waits_for(rig, request_id)
    await attach(rig.ci, model="new", type="pentest", title="run 2", result="fail", url="https://ci.example/2")
    assert "evidence is missing: pentest" in await waits_for(rig, request_id)
    await attach(rig.ci, model="new", type="pentest", title="run 3", result="pass", url="https://ci.example/3")
    assert (await rig.direct.request(request_id)).status == "approved"


async def waits_for(rig: Rig, request_id: str) -> str:
    async with rig.direct.db.snapshot() as tx:
        row = (await standing.of_requests(tx, [request_id]))[request_id]
    assert row.phase == "gates"
    return str(row.waits_for)
