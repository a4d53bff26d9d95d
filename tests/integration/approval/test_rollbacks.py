"""Ways back on a real database: which of them people have approved beforehand, and what that spares."""

from datetime import timedelta
from typing import Any

import pytest
from tests.integration.approval.conftest import Direct, transition_id
from tests.integration.approval.test_emergencies import breaks, reviews
from tests.integration.approval.test_features import (
    GLASS,
    REVIEW,
    RISK,
    approvals,
    document,
    let_in,
    only,
    phase,
    status,
    vote,
)

from approval.domain import Request
from approval.explain import Asked, explain
from contracts.lifecycle import REGISTRY, Stage, TransitionKind

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ["only"]
ANY: dict[str, Any] = {"match": {"transition": {"kind": "any", "to": "Production"}, "models": ["m"]}}
TICKET: dict[str, Any] = {"fields": {"change_ticket": {"required": True}}}


async def back(direct: Direct, version: int, *, by: str = "mallory", **given: Any) -> Request:
    """Somebody asks for the way back to the version."""
    asked_for: dict[str, Any] = {"from_": Stage.ARCHIVED, "kind": TransitionKind.ROLLBACK}
    envelope = await direct.registry.request("m", version, by=by, **asked_for, **given)
    found = await direct.request(transition_id(envelope))
    if found.status == "approved":
        await direct.registry.changed(envelope)
    return found


async def policies(direct: Direct, **spec: Any) -> None:
    """Two people of risk have to agree to a rollback."""
    match = {"transition": {"kind": "rollback", "to": "Production"}}
    await direct.publish(document("back", match=match, **approvals({**RISK, "count": 2})))
    await direct.publish(document(**spec))


async def test_who_goes_back_approves_no_other_way_back(only: Direct) -> None:
    await policies(only, **approvals(REVIEW))
    await let_in(only, 7)
    await let_in(only, 2)
    await let_in(only, 3, fields={"rollback_to": "2"})
    waiting = await back(only, 7)
    first = await back(only, 2, fields={"rollback_to": "7"})
    assert first.decision is not None
    assert (first.decision.verdict, first.decision.votes, first.decision.rollback_to) == ("approved", (), 7)
    second = await back(only, 7)
    for request in (second.request_id, waiting.request_id):
        assert (await status(only, request), await phase(only, request)) == ("open", "people")


async def test_a_rollback_that_people_approved_names_the_next(only: Direct) -> None:
    await policies(only, **approvals(REVIEW))
    for version in (1, 2, 3):
        await let_in(only, version)
    envelope = await only.registry.request(
        "m", 2, from_=Stage.ARCHIVED, kind=TransitionKind.ROLLBACK, fields={"rollback_to": "1"}
    )
    await vote(only, transition_id(envelope), "rita", "risk")
    assert (await vote(only, transition_id(envelope), "ron", "risk")).status == "approved"
    await only.registry.changed(envelope)
    assert (await back(only, 1)).status == "approved"


async def test_whoever_breaks_the_glass_approves_no_way_back(only: Direct) -> None:
    await policies(only, break_glass=GLASS, **approvals(REVIEW))
    await let_in(only, 7)
    await let_in(only, 2)
    await only.registry.register("m", 3, accuracy=0.95)
    envelope = await only.registry.request("m", 3, by="otto", fields={"rollback_to": "7"})
    assert (await breaks(only, transition_id(envelope))).status == "approved"
    await only.registry.changed(envelope)
    unseen = await back(only, 7, by="otto")
    assert (unseen.status, await phase(only, unseen.request_id)) == ("open", "people")
    await reviews(only, transition_id(envelope), "rita", justified=False)
    assert await status(only, (await back(only, 7, by="otto")).request_id) == "open"


async def test_what_nobody_was_asked_about_approves_no_way_back(only: Direct) -> None:
    rule = {**REVIEW, "when": 'request.change_class != "standard"'}
    await policies(only, **approvals(rule))
    await let_in(only, 1)
    await only.registry.register("m", 2, accuracy=0.95)
    fields = {"change_class": "standard", "rollback_to": "1"}
    envelope = await only.registry.request("m", 2, by="mallory", fields=fields)
    assert await status(only, transition_id(envelope)) == "approved"
    await only.registry.changed(envelope)
    found = await back(only, 1)
    assert (found.status, await phase(only, found.request_id)) == ("open", "people")


async def test_the_way_back_that_people_approved_needs_no_form(only: Direct) -> None:
    await only.publish(document(request=TICKET, **ANY, **approvals(REVIEW)))
    await let_in(only, 1, fields={"change_ticket": "C1"})
    await let_in(only, 2, fields={"change_ticket": "C2", "rollback_to": "1"})
    found = await back(only, 1, by=REGISTRY)
    assert found.decision is not None
    assert (found.status, found.decision.reason[:19]) == ("approved", "approved beforehand")


async def test_the_way_back_that_people_approved_is_open_in_a_freeze(only: Direct) -> None:
    async with only.db.snapshot() as tx:
        at = await only.clock(tx)
    since, until = (f"{at + timedelta(hours=hours):%Y-%m-%dT%H:%M:%S}" for hours in (1, 200))
    freeze = {"name": "a freeze", "tz": "UTC", "from": since, "to": until}
    await only.publish(document(schedule={"freezes": [freeze]}, **ANY, **approvals(REVIEW)))
    for version in (1, 2, 3):
        await let_in(only, version, fields={"rollback_to": "2"} if version == 3 else {})
    await only.later(hours=2)
    way = {"workspace": "default", "model": "m", "to": "Production", "from_stage": "Archived", "kind": "rollback"}
    approved, other = [
        await explain(only.parts.desk, Asked(**way, version=version, requested_by="olga")) for version in (2, 1)
    ]
    assert (approved.would.verdict, approved.freezes) == ("approved", [])
    assert [one["name"] for one in other.freezes] == ["a freeze"]
    asks_people = await back(only, 1)
    assert await phase(only, asks_people.request_id) == "people"
    assert (await back(only, 2)).status == "approved"


async def test_the_registry_has_no_form_to_fill_in(only: Direct) -> None:
    """People are asked when a revoked version has no way back that they approved."""
    await only.publish(document(request=TICKET, **ANY, **approvals(REVIEW)))
    for version in (1, 2):
        await let_in(only, version, fields={"change_ticket": "C1"})
    own = await back(only, 1, by=REGISTRY)
    assert (own.status, await phase(only, own.request_id)) == ("open", "people")
    assert (await vote(only, own.request_id, "ben", "reviewers")).status == "approved"
    somebodys = await back(only, 1, by="olga")
    assert somebodys.decision is not None
    assert "the field change_ticket is missing" in somebodys.decision.reason
