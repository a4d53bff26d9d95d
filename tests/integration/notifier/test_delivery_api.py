"""HTTP for many deliveries at once: who may, and what it answers."""

import httpx2
from tests.support.receiver import Receiver

from .asking import As, code, made_by
from .conftest import Rig


async def test_a_person_replays_their_own_and_nobody_elses(
    rig: Rig, person: As, ana: httpx2.AsyncClient, receiver: Receiver
) -> None:
    await rig.happens(*(rig.event(f"m{n}", 1) for n in range(3)))
    made = await made_by(ana, channel="webhook", address=f"{receiver.url}/hook")
    path = f"/v1/subscriptions/{made['subscription_id']}/replay"
    dry = await ana.post(path, json={"which": "missing", "dry_run": True})
    assert dry.json() == {"looked_at": 3, "deliveries": 3, "next": None}
    stranger = await person("eve", "ml-engineers").post(path, json={"which": "missing"})
    assert (stranger.status_code, code(stranger)) == (404, "no-such-subscription")
    lost = await person("ana").post(path, json={"which": "missing"})
    assert lost.status_code == 403  # hers, but she may not read there any more
    assert (await ana.post(path, json={"which": "everything"})).status_code == 422
    assert (await ana.post(path, json={"which": "all", "since": "2026-11-21T10:00:00"})).status_code == 422
    assert await rig.deliveries(made) == []
    assert (await person("root", "admins").post(path, json={"which": "missing"})).json()["deliveries"] == 3
    async with rig.worker():
        await rig.all_done(made, 3)


async def test_administrators_have_it_proved_that_nothing_is_lost(person: As, ana: httpx2.AsyncClient) -> None:
    refused = await ana.post("/v1/reconciliation", json={})
    assert (refused.status_code, code(refused)) == (403, "forbidden")
    found = await person("root", "admins").post("/v1/reconciliation", json={})
    assert found.json() == {"events": 0, "checked": 0, "unaccounted": 0, "examples": []}


async def test_only_who_manages_models_hears_of_everybodys_deliveries(person: As, ana: httpx2.AsyncClient) -> None:
    asked = {"channel": "webhook", "address": "http://127.0.0.1:9/hook", "types": ["hallmark.delivery.dead.*"]}
    refused = await ana.post("/v1/subscriptions", json=asked)
    assert (refused.status_code, code(refused)) == (403, "forbidden")
    made = await made_by(ana, channel="webhook", address="http://127.0.0.1:9/hook")
    edit = await ana.patch(f"/v1/subscriptions/{made['subscription_id']}", json={"types": asked["types"]})
    assert edit.status_code == 403
    assert (await person("root", "admins").post("/v1/subscriptions", json=asked)).status_code == 201


async def test_a_subscription_says_how_its_endpoint_fares(person: As, ana: httpx2.AsyncClient) -> None:
    made = await made_by(ana, channel="webhook", address="http://127.0.0.1:9/hook")
    path = f"/v1/subscriptions/{made['subscription_id']}"
    assert (await ana.get(f"{path}/health")).json() == {"failing_since": None, "failures": 0, "held_until": None}
    assert (await person("eve", "ml-engineers").get(f"{path}/health")).status_code == 404
    assert (await ana.post(f"{path}/enable")).json()["status"] == "active"
    assert (await person("eve", "ml-engineers").post(f"{path}/enable")).status_code == 404
