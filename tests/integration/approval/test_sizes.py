"""Versions, models and requests that are large: what cannot be judged is an error that people see, never silence."""

import json
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.approval.conftest import Direct, transition_id
from tests.integration.approval.test_features import REVIEW, RISK, approvals, asked, document, only, phase, status, vote

from approval.keyring import Keyring, published
from contracts.approval import RequestDecided
from contracts.lifecycle import Stage, TransitionKind
from contracts.model import Dataset, Evaluation
from contracts.registry import ModelRegistered, Tags, VersionEvaluated, VersionTagged
from kit import events
from policy.judge import judge

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ["only"]
SLICES = {"id": "slices", "cel": "candidate.slices.all(s, s.metrics.auc >= 0.5)", "waivable_by": ["group:leads"]}
LONG = "x" * 9_000


async def evaluate(direct: Direct, name: str, auc: float, *, version: int = 1, size: int = 300, ago: int = 0) -> None:
    """Somebody measures, with as many other metrics as make about so many bytes."""
    async with direct.db.snapshot() as tx:
        at = await direct.clock(tx) - timedelta(minutes=ago)
    metrics = {"auc": auc, **{f"{n:06d}" + "x" * 190: 1.0 for n in range(size // 200)}}
    evaluation = Evaluation(dataset=Dataset(name=name), metrics=metrics, evaluated_at=at)
    event = VersionEvaluated(workspace="default", model="m", version=version, evaluation=evaluation)
    await direct.registry.publish(event, "m", version)


async def tag(direct: Direct, version: int, count: int) -> None:
    tags = Tags(set={f"tag-{n}": LONG for n in range(count)})
    await direct.registry.publish(
        VersionTagged(workspace="default", model="m", version=version, tags=tags), "m", version
    )


async def said(direct: Direct, request: str) -> dict[str, str]:
    return {gate.gate: gate.result for gate in (await direct.request(request)).gates}


async def verified(direct: Direct, request: str) -> list[tuple[str, str]]:
    """What the offline judge has against the record of the decision."""
    async with direct.db.snapshot() as tx:
        found = [e.payload(RequestDecided) async for e in direct.parts.desk.log.read(tx, type_=RequestDecided.TYPE)]
    [record] = [one for one in found if one.decision.transition_id == request]
    checks = judge(json.loads(record.model_dump_json()), published(Keyring(direct.settings.decision_key))).checks
    return [(check.name, check.text) for check in checks if check.result == "failed"]


@pytest.mark.parametrize("sizes", [[1_900_000], [45_000] * 4, [45_000] * 60])
async def test_a_bad_evaluation_is_heard_however_much_came_before_it(only: Direct, sizes: list[int]) -> None:
    await only.publish(document(gates=[SLICES], **approvals(REVIEW)))
    await only.registry.register("m", 1, accuracy=0.95)
    for n, size in enumerate(sizes):
        await evaluate(only, f"mine-{n}", 0.9, size=size)
    request = await asked(only)
    await evaluate(only, "ci", 0.1, size=32_000)
    assert (await said(only, request))["here/slices"] == "error"
    assert (await vote(only, request, "ben", "reviewers")).status == "open"
    assert await phase(only, request) == "gates"
    lea = await only.person("lea", "leads")
    await only.parts.people.waive(request, lea, "here/slices", "I looked at all of them", None)
    assert (await vote(only, request, "ben", "reviewers")).status == "approved"
    assert await verified(only, request) == []


async def test_evaluations_that_are_superseded_make_room(only: Direct) -> None:
    each = {"id": "each", "cel": "candidate.evaluations.all(e, e.metrics.auc >= 0.5)", "level": "warn"}
    await only.publish(document(gates=[SLICES, each], **approvals(REVIEW)))
    await only.registry.register("m", 1, accuracy=0.95)
    await evaluate(only, "old", 0.1, size=45_000, ago=20)
    for n in range(10):
        await evaluate(only, "nightly", 0.9, size=45_000, ago=10 - n)
    request = await asked(only)
    assert await said(only, request) == {
        "candidate/left-out": "error",
        "here/slices": "fail",  # what was found on the old data set is as good as ever
        "here/each": "error",  # some of them are gone
    }
    await evaluate(only, "old", 0.9)
    assert (await said(only, request))["here/slices"] == "pass"


async def test_what_is_yet_to_come_supersedes_nothing(only: Direct) -> None:
    await only.publish(document(gates=[SLICES], **approvals(REVIEW)))
    await only.registry.register("m", 1, accuracy=0.95)
    await evaluate(only, "ci", 0.1, size=45_000)
    await evaluate(only, "ci", 0.9, size=45_000, ago=-60)
    for n in range(5):
        await evaluate(only, f"mine-{n}", 0.9, size=45_000, ago=-60)
    assert (await said(only, await asked(only)))["here/slices"] != "pass"


async def test_a_large_occupant_keeps_nobody_from_asking(only: Direct) -> None:
    better = {"id": "better", "cel": "candidate.metrics.accuracy >= baseline.metrics.accuracy"}
    tags = {"id": "tags", "cel": "'reviewed' in baseline.tags", "level": "warn"}
    await only.publish(document(gates=[better, tags], **approvals(REVIEW)))
    await only.registry.register("m", 1, accuracy=0.9)
    await only.registry.register("m", 2, accuracy=0.95)
    await only.registry.changed(await only.registry.request("m", 1))
    for n in range(40):
        await evaluate(only, f"mine-{n}", 0.9, size=45_000)
    await tag(only, 1, 200)
    way: dict[str, Any] = {"from_": Stage.ARCHIVED, "kind": TransitionKind.ROLLBACK}
    for request in (await asked(only, 2), transition_id(await only.registry.request("m", 2, **way))):
        found = await only.request(request)
        assert found.inputs["baseline"]["left_out"] == ["evaluated_at", "evaluations", "slices", "tags"]
    request = await asked(only, 2)
    assert await said(only, request) == {"baseline/left-out": "error", "here/better": "pass", "here/tags": "error"}
    assert (await vote(only, request, "ben", "reviewers")).status == "approved"
    assert await verified(only, request) == []


async def test_two_versions_as_large_as_they_get_are_decided(only: Direct) -> None:
    good = {"id": "good", "cel": "candidate.metrics.accuracy >= 0.9", "level": "warn"}
    await only.publish(document(gates=[good], **approvals(REVIEW)))
    pad: dict[str, Any] = {f"{n:06d}" + "x" * 230: 1.0 for n in range(2_000)}
    for version in (1, 2):
        await only.registry.register("m", version, accuracy=0.95, **pad)
        for n in range(4):
            await evaluate(only, f"mine-{n}", 0.9, version=version, size=45_000)
        await tag(only, version, 30)
    await only.registry.changed(await only.registry.request("m", 1))
    request = await asked(only, 2)
    assert (await only.request(request)).inputs["candidate"]["left_out"] == ["metrics"]
    assert (await said(only, request))["here/good"] == "error"
    assert (await vote(only, request, "ben", "reviewers", comment=LONG)).status == "approved"
    assert await verified(only, request) == []


async def test_a_policy_for_tags_of_a_model_that_are_too_many_applies(only: Direct) -> None:
    model = ModelRegistered(workspace="default", model="m", owner="ana", tags={f"tag-{n}": LONG for n in range(20)})
    await only.registry.publish(model, "m")
    await only.publish(document(**approvals(REVIEW)))
    pii = {"match": {"transition": {"to": "Production"}, "models": ["m"], "tags": {"tag-1": "no", "pii": "yes"}}}
    await only.publish(document("pii", **pii, **approvals(RISK)))
    request = await asked(only)
    assert await said(only, request) == {"pii/tags": "error", "model/left-out": "error"}
    assert (await vote(only, request, "ben", "reviewers")).status == "open"
    assert (await vote(only, request, "rita", "risk")).status == "approved"
    assert await verified(only, request) == []


async def test_a_request_with_large_fields_is_refused(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW)))
    request = await asked(only, fields={f"field-{n}": "\x01" * 1_000 for n in range(50)})
    found = await only.request(request)
    assert (found.status, found.decision and found.decision.reason) == (
        "rejected",
        "the fields of the request are too large",
    )


async def test_what_no_event_can_tell_is_refused_and_said(only: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    await only.publish(document(**approvals({**REVIEW, "count": 2})))
    request = await asked(only)
    await vote(only, request, "ben", "reviewers", comment=LONG)
    monkeypatch.setattr(events, "MAX_EVENT_BYTES", 30_000)
    found = await vote(only, request, "bo", "reviewers", comment=LONG)
    assert found.status == "rejected"
    assert found.decision is not None
    assert "too much is to be judged: an event would have" in found.decision.reason
    assert await status(only, request) == "rejected"
