"""The rows of the table of features that are about documents: policies as code, dry runs, evidence to compare."""

from datetime import timedelta

import pytest
from tests.integration.approval.conftest import Direct, transition_id
from tests.integration.approval.test_features import GOOD, REVIEW, approvals, asked, document, let_in, only, vote

from approval.explain import Asked, explain
from approval.lists import EVERY, readable
from approval.simulation import simulate
from contracts.envelope import now
from contracts.model import Dataset, Evaluation
from contracts.registry import VersionEvaluated
from policy.trials import run_text

__all__ = ["only"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
STRICTER = {"id": "better", "cel": "candidate.metrics.accuracy >= 0.96", "message": "not good enough"}


async def test_beyond_gates_dry_run_against_history(only: Direct) -> None:
    await only.publish(document(gates=[GOOD], **approvals(REVIEW)))
    ids = []
    for version, accuracy in enumerate((0.95, 0.97, 0.5), start=1):
        ids.append(await asked(only, version, accuracy=accuracy))
        if accuracy > 0.9:
            await vote(only, ids[-1], "ben", "reviewers")
            await only.not_carried_out(ids[-1])
    before = [(await only.request(request_id)).status for request_id in ids]
    report = await simulate(
        only.parts.desk, document(gates=[GOOD, STRICTER], **approvals(REVIEW)), 20, readable([EVERY])
    )
    assert before == ["approved", "approved", "rejected"]
    assert (report.looked_at, report.applied_to, report.differing) == (3, 3, 1)
    would = {item.request_id: (item.decided, item.would, item.differs) for item in report.items}
    assert [would[request_id] for request_id in ids] == [
        ("approved", "rejected", True),
        ("approved", "approved", False),
        ("rejected", "rejected", False),
    ]
    assert "not good enough" in next(item.reason for item in report.items if item.differs)
    assert [(await only.request(request_id)).status for request_id in ids] == before


@pytest.mark.parametrize(("accuracy", "phase"), [(0.95, "people"), (0.5, "decided")])
async def test_beyond_policy_as_code_explain_tells_what_then_happens(only: Direct, accuracy: float, phase: str) -> None:
    await only.publish(document(gates=[GOOD], **approvals(REVIEW)))
    await only.registry.register("m", 1, accuracy=accuracy)
    about = Asked(workspace="default", model="m", version=1, to="Production", requested_by="ana", reason="test")
    told = await explain(only.parts.desk, about)
    assert await only.types("default/m") == []  # nobody was asked by asking
    found = await only.request(await asked(only))
    async with only.db.snapshot() as tx:
        sight = await only.parts.desk.sights.of(tx, found, await only.clock(tx))
    assert (told.would.phase, told.policies) == (phase, found.policies)
    assert [(gate.gate, gate.result) for gate in told.gates] == [(gate.gate, gate.result) for gate in found.gates]
    assert [(rule.id, rule.count) for rule in told.rules] == [(rule.id, rule.count) for rule in sight.needs.rules]
    assert told.would.verdict == (found.decision and found.decision.verdict)
    assert {one.who for one in told.excluded} == {"ana", "trainer"}


async def test_beyond_policy_as_code_unit_tests_say_what_the_service_does(only: Direct) -> None:
    text = document(gates=[GOOD], **approvals(REVIEW))
    await only.publish(text)
    for accuracy, expected in ((0.95, "approved"), (0.5, "rejected")):
        await only.registry.register("m", int(accuracy * 100), accuracy=accuracy)
        request = transition_id(await only.registry.request("m", int(accuracy * 100)))
        if expected == "approved":
            await vote(only, request, "ben", "reviewers")
        assert (await only.request(request)).status == expected
        trial = f"""
policies: [here.yaml]
cases:
  - name: as in the service
    model: {{name: m}}
    candidate: {{metrics: {{accuracy: {accuracy}}}, registered_by: trainer}}
    request: {{to: Production, requested_by: ana}}
    votes: [{{by: ben, groups: [reviewers]}}]
    expect: {{verdict: {expected}}}
"""
        other = {"approved": "rejected", "rejected": "approved"}[expected]
        tried = [run_text("x.test.yaml", trial.replace(expected, said), lambda _: text) for said in (expected, other)]
        assert [[one.ok for one in results] for results in tried] == [[True], [False]]


async def test_beyond_evidence_is_shown_side_by_side(only: Direct) -> None:
    """What is known of the candidate, and of the version that it would replace, from one request."""
    await only.publish(document(**approvals(REVIEW)))
    await let_in(only, 1)
    evaluation = Evaluation(dataset=Dataset(name="may"), metrics={"auc": 0.7}, evaluated_at=now() - timedelta(hours=1))
    event = VersionEvaluated(workspace="default", model="m", version=1, evaluation=evaluation)
    await only.registry.publish(event, "m", 1)
    found = await only.request(await asked(only, 2, accuracy=0.99))
    candidate, baseline = found.inputs["candidate"], found.inputs["baseline"]
    assert (candidate["version"], candidate["metrics"]["accuracy"]) == (2, 0.99)
    assert (baseline["version"], baseline["stages"]) == (1, ["Production"])
    assert [one["metrics"] for one in baseline["evaluations"]] == [{"auc": 0.7}]
