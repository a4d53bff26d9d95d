"""How a policy would have decided past requests: by all that was there then, and of all that the caller may read."""

from typing import Any

import pytest
from tests.integration.approval.conftest import Direct, transition_id
from tests.integration.approval.test_features import GOOD, REVIEW, approvals, asked, document, only, vote

from approval.evidence import Attachments, Piece, Version
from approval.lists import EVERY, readable
from approval.simulation import simulate
from kit.auth import Principal

__all__ = ["only"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
CARD = {"id": "card", "cel": "has(candidate.evidence.model_card)"}
ALL = readable([EVERY])


async def attach(direct: Direct, kind: str, **given: Any) -> None:
    empty = {"digest": None, "size": None, "media_type": None, "url": None, "result": None, "detail": ""}
    ana = Principal("ana", frozenset({"ml-engineers"}), "person", 0, "token")
    attachments = Attachments(direct.parts.desk, direct.parts.commands, None)
    await attachments.attach(Version("default", "m", 1), Piece(type=kind, title="a", **{**empty, **given}), ana)


async def approved(direct: Direct) -> str:
    """A request that is approved, and not carried out."""
    envelope = await direct.registry.request("m")
    request = transition_id(envelope)
    assert (await vote(direct, request, "ben", "reviewers")).status == "approved"
    await direct.registry.refused(envelope, "test")
    return request


async def would(direct: Direct, text: str) -> list[str]:
    return [item.would for item in (await simulate(direct.parts.desk, text, 50, ALL)).items]


@pytest.mark.parametrize("change", [{"gates": [CARD]}, {"request": {"evidence": ["model_card"]}}])
async def test_evidence_counts_that_no_policy_looked_at_then(only: Direct, change: dict[str, Any]) -> None:
    await only.publish(document(**approvals(REVIEW)))
    text = document(**approvals(REVIEW), **change)
    await only.registry.register("m", 1, accuracy=0.95)
    await approved(only)
    await attach(only, "model_card", url="https://example.org/card")
    await approved(only)
    without = "rejected" if "gates" in change else "waiting"
    assert await would(only, text) == ["approved", without]
    await only.publish(text)
    await approved(only)


@pytest.mark.parametrize(
    ("change", "expected"), [({"gates": [CARD]}, "rejected"), ({"request": {"evidence": ["model_card"]}}, "approved")]
)
async def test_evidence_that_came_later_helps_where_the_request_would_have_waited(
    only: Direct, change: dict[str, Any], expected: str
) -> None:
    await only.publish(document(**approvals(REVIEW)))
    await only.registry.register("m", 1, accuracy=0.95)
    request = await asked(only)
    await attach(only, "model_card", url="https://example.org/card")
    await vote(only, request, "ben", "reviewers")
    text = document(**approvals(REVIEW), **change)
    assert await would(only, text) == [expected]


async def test_the_last_ones_are_those_of_the_caller(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW)))
    await only.registry.register("m", 1, accuracy=0.95)
    first = await approved(only)
    await only.registry.register("theirs", 1, accuracy=0.95)
    for _ in range(3):
        await only.registry.request("theirs")  # no policy is about it: rejected
    mine = readable([("default", "m")])
    report = await simulate(only.parts.desk, document(gates=[GOOD], **approvals(REVIEW)), 3, mine)
    assert ([item.request_id for item in report.items], report.looked_at) == ([first], 1)


async def test_a_policy_about_policies_is_tried_on_changes_of_policies(only: Direct) -> None:
    await only.publish(document(**approvals(REVIEW)))
    rule = {**REVIEW, "from": ["group:admins"], "count": 2}
    text = document("changes", match={"transition": {"kind": "policy"}}, **approvals(rule))
    report = await simulate(only.parts.desk, text, 50, ALL)
    found = [(item.workspace, item.model, item.version, item.decided, item.would) for item in report.items]
    assert ("*", "here", 1, "approved", "waiting") in found
    assert report.looked_at == report.applied_to == len(found)
