"""Filters by stage and expression, and their dry run on past events."""

from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from contracts.approval import DelegationGranted
from contracts.envelope import Envelope
from notifier import views

from .asking import As, code, made_by
from .conftest import Rig

HOOK = {"channel": "webhook", "address": "http://127.0.0.1:9/hook"}


async def previewed(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/subscriptions/preview", json=body)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


async def test_only_what_the_stage_and_the_expression_let_through_is_delivered(
    rig: Rig, ana: httpx2.AsyncClient
) -> None:
    staged = await made_by(ana, **HOOK, stages=["Archived"])
    judged = await made_by(ana, **HOOK, cel='data.reason.contains("recall") && event.version > 2')
    assert (staged["stages"], judged["cel"]) == (["Archived"], 'data.reason.contains("recall") && event.version > 2')
    [created] = await rig.events(judged)
    assert b"recall" in created.value
    events = [rig.event(version=2), rig.event(version=3), rig.event(version=4, to_stage="Archived", reason="old")]
    await rig.happens(*events)
    assert [d["event_id"] for d in await rig.deliveries(staged)] == [events[2].id]
    assert [d["event_id"] for d in await rig.deliveries(judged)] == [events[1].id]


async def test_an_expression_that_fails_is_told_to_its_owner_and_stops_nobody(
    rig: Rig, ana: httpx2.AsyncClient
) -> None:
    broken = await made_by(ana, **HOOK, cel='data.replaces.name == "x"')
    other = await made_by(ana, **HOOK)
    assert broken["filter_errors"] is None
    events = [rig.event(version=n) for n in (2, 3)]
    await rig.happens(*events)
    assert await rig.deliveries(broken) == []
    assert len(await rig.deliveries(other)) == 2
    path = f"/v1/subscriptions/{broken['subscription_id']}"
    told = (await ana.get(path)).json()["filter_errors"]
    assert (told["count"], told["event_id"]) == (2, events[1].id)
    assert told["detail"]
    listed = {s["subscription_id"]: s["filter_errors"] for s in (await ana.get("/v1/subscriptions")).json()["items"]}
    assert listed == {broken["subscription_id"]: told, other["subscription_id"]: None}


@pytest.mark.parametrize(
    ("body", "expected", "says"),
    [
        ({"cel": "event.typo == 1"}, "bad-expression", "event.typo"),
        ({"cel": "event.version"}, "bad-expression", "boolean"),
        ({"cel": ""}, "invalid-request", "cel"),
        ({"stages": ["not a stage"]}, "invalid-request", "stages"),
        ({"types": ["hallmark.nothing.*"]}, "unknown-type", "known are"),
        ({"last": 501}, "invalid-request", "last"),
    ],
)
async def test_a_wrong_filter_is_refused_when_it_is_saved_and_when_it_is_tried(
    ana: httpx2.AsyncClient, body: dict[str, Any], expected: str, says: str
) -> None:
    for path, more in (("", HOOK), ("/preview", {})):
        if "last" in body and more:
            continue
        response = await ana.post(f"/v1/subscriptions{path}", json={**more, **body})
        assert (response.status_code, code(response)) == (422, expected), response.text
        assert says in response.json()["detail"]
    assert (await ana.get("/v1/subscriptions")).json()["items"] == []


async def test_a_dry_run_tells_what_would_have_come(rig: Rig, ana: httpx2.AsyncClient) -> None:
    """Also of events from before anybody subscribed, and it makes nothing."""
    events = [rig.event(model=f"m{n % 3}", version=n + 1) for n in range(60)]
    await rig.happens(*events)
    found = await previewed(ana, model="m1", cel="event.version > 30")
    wanted = [e for n, e in enumerate(events) if n % 3 == 1 and n + 1 > 30]
    assert (found["looked_at"], found["matched"], found["failed"]) == (60, len(wanted), 0)
    assert [line["event_id"] for line in found["newest"]] == [e.id for e in wanted[::-1]][:10]
    assert found["newest"][0]["headline"].startswith("m1: v59 is now in Production")
    assert found["since"] == events[0].time.isoformat()
    few = await previewed(ana, cel="event.version > 30", last=20)
    assert (few["looked_at"], few["matched"]) == (20, 20)
    broken = await previewed(ana, cel="data.nothing == 1")
    assert (broken["matched"], broken["failed"]) == (0, 60)
    assert "has(data.NAME)" in broken["error"]
    async with rig.db.snapshot() as tx:
        assert await tx.scalar(sa.text("select count(*) from notifier.event")) == 0


async def test_a_dry_run_shows_nothing_that_its_caller_may_not_read(rig: Rig, person: As) -> None:
    granted = DelegationGranted.model_validate(
        {
            "delegation_id": "g",
            "delegator": "cy",
            "delegate": "dan",
            "starts": rig.event().time,
            "ends": rig.event().time,
        }
    )
    told = Envelope.of(granted, source="hallmark/approval", subject="delegation:cy", key="delegation:cy", sequence=1)
    theirs = [rig.event(model="fraud-eu"), rig.event(model="churn")]
    await rig.happens(*theirs, told)
    fay, ana, cy = person("fay", "fraud-team"), person("ana", "ml-engineers"), person("cy", "ml-engineers")
    for model in ("*", "churn"):
        response = await fay.post("/v1/subscriptions/preview", json={"model": model, "types": ["hallmark.*"]})
        assert (response.status_code, code(response)) == (403, "forbidden")
    found = await previewed(fay, model="fraud-*", types=["hallmark.*"])
    assert (found["looked_at"], [line["event_id"] for line in found["newest"]]) == (1, [theirs[0].id])
    assert (await previewed(ana, types=["hallmark.*"]))["looked_at"] == 2
    assert (await previewed(cy, types=["hallmark.*"]))["matched"] == 3
    assert (await person("").post("/v1/subscriptions/preview", json={})).status_code == 401
    nobody = await person("eve").post("/v1/subscriptions/preview", json={})
    assert (nobody.status_code, code(nobody)) == (403, "forbidden")


async def test_every_event_is_kept_once(rig: Rig) -> None:
    event = rig.event()
    await rig.happens(event, event, rig.event(version=3))
    async with rig.db.snapshot() as tx:
        kept = await views.past_events(tx, "default", before=None, limit=10)
    assert len(kept) == 2
    assert kept[1][1] == event
