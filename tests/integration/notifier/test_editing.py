"""Subscriptions are edited, paused and resumed; each change is an event."""

import asyncio
from typing import Any

import httpx2
import pytest
from tests.support.receiver import Receiver
from tests.support.waiting import until

from notifier.queue import backlog

from .asking import As, code, made_by
from .conftest import Rig

HOOK = {"channel": "webhook", "address": "http://127.0.0.1:9/hook"}


async def patched(client: httpx2.AsyncClient, made: dict[str, Any], **body: Any) -> dict[str, Any]:
    response = await client.patch(f"/v1/subscriptions/{made['subscription_id']}", json=body)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


async def test_an_edit_counts_for_what_comes_and_is_an_event(rig: Rig, ana: httpx2.AsyncClient) -> None:
    made = await made_by(ana, **HOOK)
    first, second, third = rig.event(), rig.event(version=3), rig.event(model="fraud", version=4)
    await rig.happens(first)
    changed = await patched(ana, made, model="fraud", stages=["Production"], cel="event.version > 3")
    assert (changed["model"], changed["stages"], changed["cel"]) == ("fraud", ["Production"], "event.version > 3")
    assert changed["types"] == made["types"]
    await rig.happens(second, third)
    assert [d["event_id"] for d in await rig.deliveries(made)] == [first.id, third.id]
    assert (await patched(ana, made, cel="event.version > 3")) == changed  # the same again is no event
    cleared = await patched(ana, made, cel="", stages=[], types=[])
    assert (cleared["cel"], cleared["stages"], cleared["types"]) == (None, [], ["hallmark.stage.*"])
    types = [envelope.type.split(".")[2] for envelope in await rig.events(made)]
    assert types == ["created", "changed", "changed"]


async def test_a_new_filter_forgets_what_the_old_one_failed_at(rig: Rig, ana: httpx2.AsyncClient) -> None:
    made = await made_by(ana, **HOOK, cel='data.replaces.name == "x"')
    await rig.happens(rig.event())
    path = f"/v1/subscriptions/{made['subscription_id']}"
    assert (await ana.get(path)).json()["filter_errors"]["count"] == 1
    assert (await patched(ana, made, cel="event.version > 1"))["filter_errors"] is None


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({"cel": "event.typo == 1"}, 422, "bad-expression"),
        ({"types": ["hallmark.nothing.*"]}, 422, "unknown-type"),
        ({"audience": ["ana"]}, 422, "unknown-recipient"),
        ({"workspace": "other"}, 422, "invalid-request"),
        ({"address": "http://127.0.0.1:9/other"}, 422, "invalid-request"),
        ({"model": None}, 422, "invalid-request"),
    ],
)
async def test_a_bad_edit_changes_nothing(
    rig: Rig, ana: httpx2.AsyncClient, body: dict[str, Any], status: int, expected: str
) -> None:
    made = await made_by(ana, **HOOK)
    path = f"/v1/subscriptions/{made['subscription_id']}"
    response = await ana.patch(path, json=body)
    assert (response.status_code, code(response)) == (status, expected), response.text
    assert (await ana.get(path)).json() == made | {"secret": None}
    assert len(await rig.events(made)) == 1


async def test_only_who_may_hear_of_the_models_widens_a_filter(ana: httpx2.AsyncClient, person: As) -> None:
    fay, eve = person("fay", "fraud-team"), person("eve", "ml-engineers")
    theirs = await made_by(fay, **HOOK, model="fraud-*")
    path = f"/v1/subscriptions/{theirs['subscription_id']}"
    widened = await fay.patch(path, json={"model": "*"})
    assert (widened.status_code, code(widened)) == (403, "forbidden")
    assert code(await eve.patch(path, json={"model": "fraud-x"})) == "no-such-subscription"
    for verb in ("pause", "resume"):
        assert code(await eve.post(f"{path}/{verb}")) == "no-such-subscription"
    assert (await patched(fay, theirs, model="fraud-eu"))["model"] == "fraud-eu"
    assert (await patched(person("root", "admins"), theirs, stages=["Production"]))["stages"] == ["Production"]


async def test_a_paused_subscription_keeps_what_comes_and_sends_it_in_order_when_resumed(
    rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver
) -> None:
    made = await made_by(ana, channel="webhook", address=f"{receiver.url}/hook")
    other = await made_by(ana, channel="webhook", address=f"{receiver.url}/other")
    path = f"/v1/subscriptions/{made['subscription_id']}"
    assert (await ana.post(f"{path}/pause")).json()["status"] == "paused"
    assert (await ana.post(f"{path}/pause")).json()["status"] == "paused"
    listed = (await ana.get("/v1/subscriptions", params={"status": "paused"})).json()["items"]
    assert [s["subscription_id"] for s in listed] == [made["subscription_id"]]
    events = [rig.event(version=n) for n in (2, 3, 4)]
    await rig.happens(*events)
    async with rig.worker():
        await rig.all_done(other, 3)
        assert {hit.path for hit in receiver.hits} == {"/other"}
        assert {d["status"] for d in await rig.deliveries(made)} == {"pending"}
        assert (await ana.post(f"{path}/resume")).json()["status"] == "active"
        await rig.all_done(made, 3)
    told = [hit.document["id"] for hit in receiver.hits if hit.path == "/hook"]
    assert told == [event.id for event in events]
    types = [e.type.split(".")[2] for e in await rig.events(made) if ".subscription." in e.type]
    assert types == ["created", "paused", "resumed"]


async def test_what_a_pause_holds_is_no_backlog(rig: Rig, ana: httpx2.AsyncClient) -> None:
    made = await made_by(ana, **HOOK)
    await ana.post(f"/v1/subscriptions/{made['subscription_id']}/pause")
    await rig.happens(rig.event())
    async with rig.db.transaction() as tx:
        assert await backlog(tx) == (0, 0.0)
    await ana.post(f"/v1/subscriptions/{made['subscription_id']}/resume")
    async with rig.db.transaction() as tx:
        assert (await backlog(tx))[0] == 1


async def test_an_ended_subscription_is_not_edited(ana: httpx2.AsyncClient) -> None:
    made = await made_by(ana, **HOOK)
    path = f"/v1/subscriptions/{made['subscription_id']}"
    await ana.post(f"{path}/pause")
    await ana.delete(path)
    assert (await ana.get(path)).json()["status"] == "removed"
    for response in (
        await ana.patch(path, json={"model": "x"}),
        await ana.post(f"{path}/pause"),
        await ana.post(f"{path}/resume"),
    ):
        assert (response.status_code, code(response)) == (409, "subscription-ended")


async def test_edits_at_the_same_time_are_one_after_the_other(rig: Rig, ana: httpx2.AsyncClient) -> None:
    made = await made_by(ana, **HOOK)
    await asyncio.gather(*(patched(ana, made, model=f"m{n}") for n in range(8)))
    assert len(await rig.events(made)) == 9

    async def same() -> bool:
        last = (await rig.events(made))[-1]
        state = (await ana.get(f"/v1/subscriptions/{made['subscription_id']}")).json()
        return state["model"].encode() in last.value

    await until(same)
