"""Silences, rules and cancelled reminders: over HTTP, in the queue, and as folds."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from tests.support.receiver import Hit, Receiver
from tests.support.waiting import until

from contracts.approval import RequestClosed, RequestEscalated
from contracts.envelope import Envelope
from contracts.payload import Message
from notifier import views

from .asking import As, code, made_by
from .conftest import Rig

HOOK = {"channel": "webhook", "address": "http://127.0.0.1:9/hook"}
SOON = timedelta(hours=2)


def later(span: timedelta = SOON) -> str:
    return (datetime.now(UTC) + span).isoformat()


async def silenced(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/silences", json={"ends_at": later(), "comment": "retraining", **body})
    assert response.status_code == 201, response.text
    document: dict[str, Any] = response.json()
    return document


async def statuses(rig: Rig, made: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(d["status"], d["held_by"]) for d in await rig.deliveries(made)]


def about_request(rig: Rig, message: Message, model: str = "churn") -> Envelope:
    key = f"requests/{model}"
    rig.sequences[key] = rig.sequences.get(key, 0) + 1
    return Envelope.of(
        message, source="hallmark/approval", subject=f"default/{model}/2", key=key, sequence=rig.sequences[key]
    )


def reminder(rig: Rig, request_id: str = "t-1", step: str = "remind") -> Envelope:
    return about_request(rig, RequestEscalated(request_id=request_id, step=step, action="remind", to=("group:risk",)))


def closing(rig: Rig, request_id: str = "t-1") -> Envelope:
    return about_request(rig, RequestClosed(request_id=request_id, code="expired", detail="nobody looked"))


async def test_what_is_silenced_has_a_delivery_that_says_so_and_is_not_sent(
    rig: Rig, ana: httpx2.AsyncClient, person: As, receiver: Receiver
) -> None:
    hers = await made_by(ana, channel="webhook", address=f"{receiver.url}/hers")
    eve = await made_by(person("eve", "ml-engineers"), channel="webhook", address=f"{receiver.url}/eve")
    quiet = await silenced(ana, model="ch*")
    assert (quiet["state"], quiet["owner"], quiet["author"]) == ("active", "ana", "ana")
    await rig.happens(rig.event(), rig.event(model="fraud"))
    async with rig.worker():
        done = await rig.all_done(eve, 2)
        await rig.all_done(hers, 2)
    assert [d["status"] for d in done] == ["succeeded", "succeeded"]
    assert await statuses(rig, hers) == [("silenced", quiet["silence_id"]), ("succeeded", None)]
    assert [hit.document["subject"] for hit in receiver.hits if hit.path == "/hers"] == ["default/fraud/2"]
    listed = (await ana.get("/v1/deliveries", params={"status": "silenced"})).json()["items"]
    assert [d["closed_at"] is not None for d in listed] == [True]
    async with rig.worker():  # who wants it after all has it sent
        await ana.post(f"/v1/deliveries/{listed[0]['delivery_id']}/replay")
        await rig.all_done(hers, 2)
    assert await statuses(rig, hers) == [("succeeded", None), ("succeeded", None)]


async def test_a_silence_ends_when_somebody_ends_it(rig: Rig, ana: httpx2.AsyncClient) -> None:
    made, quiet = await made_by(ana, **HOOK), await silenced(ana)
    path = f"/v1/silences/{quiet['silence_id']}"
    await rig.happens(rig.event())
    ended = (await ana.post(f"{path}/expire")).json()
    assert (ended["state"], ended["expired_by"]) == ("expired", "ana")
    assert (await ana.post(f"{path}/expire")).json() == ended
    await rig.happens(rig.event(version=3))
    assert [status for status, _ in await statuses(rig, made)] == ["silenced", "pending"]
    assert (await ana.get("/v1/silences")).json()["items"] == []
    assert [s["silence_id"] for s in (await ana.get("/v1/silences?ended=true")).json()["items"]] == [
        quiet["silence_id"]
    ]
    async with rig.db.snapshot() as tx:
        events = [e async for e in rig.log.read(tx, stream=f"silence:{quiet['silence_id']}")]
    assert [e.type for e in events] == ["hallmark.silence.created.v1", "hallmark.silence.expired.v1"]


async def test_a_silence_of_tomorrow_keeps_nothing_back_today(rig: Rig, ana: httpx2.AsyncClient) -> None:
    made = await made_by(ana, **HOOK)
    tomorrow = await silenced(ana, starts_at=later(timedelta(days=1)), ends_at=later(timedelta(days=2)))
    assert tomorrow["state"] == "pending"
    await rig.happens(rig.event())
    assert await statuses(rig, made) == [("pending", None)]


async def test_only_operators_and_admins_silence_everybody(rig: Rig, ana: httpx2.AsyncClient, person: As) -> None:
    root, eve = person("root", "admins"), person("eve", "ml-engineers")
    refused = await ana.post("/v1/silences", json={"ends_at": later(), "comment": "x", "everybody": True})
    assert (refused.status_code, code(refused)) == (403, "forbidden")
    hers, eves = await made_by(ana, **HOOK), await made_by(eve, **HOOK)
    quiet = await silenced(root, everybody=True)
    await rig.happens(rig.event())
    for made in (hers, eves):
        assert await statuses(rig, made) == [("silenced", quiet["silence_id"])]
    path = f"/v1/silences/{quiet['silence_id']}"
    assert (await ana.get(path)).json()["silence_id"] == quiet["silence_id"]
    assert code(await ana.post(f"{path}/expire")) == "forbidden"
    own = await silenced(ana)
    assert code(await eve.get(f"/v1/silences/{own['silence_id']}")) == "no-such-silence"
    assert code(await eve.post(f"/v1/silences/{own['silence_id']}/expire")) == "no-such-silence"
    assert [s["silence_id"] for s in (await eve.get("/v1/silences")).json()["items"]] == [quiet["silence_id"]]
    assert len((await root.get("/v1/silences")).json()["items"]) == 2


@pytest.mark.parametrize(
    ("body", "expected", "says"),
    [
        ({"ends_at": "2020-01-01T00:00:00Z"}, "silence-over", "after"),
        ({"ends_at": "2020-01-01T00:00:00"}, "invalid-request", "ends_at"),
        ({"comment": ""}, "invalid-request", "comment"),
        ({"types": ["hallmark.nothing.*"]}, "unknown-type", "known are"),
        ({"types": []}, "invalid-request", "types"),
        ({"cel": "event.typo == 1"}, "bad-expression", "event.typo"),
    ],
)
async def test_a_bad_silence_is_refused(
    rig: Rig, ana: httpx2.AsyncClient, body: dict[str, Any], expected: str, says: str
) -> None:
    response = await ana.post("/v1/silences", json={"ends_at": later(), "comment": "x", **body})
    assert (response.status_code, code(response)) == (422, expected), response.text
    assert says in response.json()["detail"]
    async with rig.db.snapshot() as tx:
        assert await tx.scalar(sa.text("select count(*) from notifier.event")) == 0


RULE = {
    "source_types": ["hallmark.request.escalated.v1"],
    "until_types": ["hallmark.request.closed.v1"],
    "target_types": ["hallmark.stage.*"],
    "comment": "first things first",
}


async def test_an_alarm_hushes_routine_of_the_same_model_until_it_ends(
    rig: Rig, ana: httpx2.AsyncClient, person: As
) -> None:
    root = person("root", "admins")
    refused = await ana.post("/v1/inhibitions", json=RULE)
    assert (refused.status_code, code(refused)) == (403, "forbidden")
    rule = (await root.post("/v1/inhibitions", json=RULE)).json()
    assert (rule["equal"], rule["seconds"]) == (["model"], 4 * 3600)
    made = await made_by(ana, **HOOK, types=["hallmark.*"])
    await rig.happens(rig.event(), reminder(rig), reminder(rig, step="again"), rig.event(version=3))
    await rig.happens(rig.event(model="fraud"), closing(rig), rig.event(version=4))
    found = [
        (d["event_type"].split(".")[2], d["subject"].split("/")[1], d["status"]) for d in await rig.deliveries(made)
    ]
    assert found == [
        ("changed", "churn", "pending"),
        ("escalated", "churn", "cancelled"),
        ("escalated", "churn", "cancelled"),
        ("changed", "churn", "inhibited"),
        ("changed", "fraud", "pending"),
        ("closed", "churn", "pending"),
        ("changed", "churn", "pending"),
    ]
    assert (await rig.deliveries(made))[3]["held_by"] == rule["inhibition_id"]
    assert [r["inhibition_id"] for r in (await ana.get("/v1/inhibitions")).json()["items"]] == [rule["inhibition_id"]]
    path = f"/v1/inhibitions/{rule['inhibition_id']}"
    assert code(await ana.delete(path)) == "forbidden"
    assert (await root.delete(path)).status_code == (await root.delete(path)).status_code == 204
    await rig.happens(reminder(rig, "t-2"), rig.event(version=5))
    assert (await rig.deliveries(made))[-1]["status"] == "pending"
    assert (await ana.get("/v1/inhibitions")).json()["items"] == []


async def test_an_alarm_ends_by_itself(rig: Rig, ana: httpx2.AsyncClient, person: As) -> None:
    await person("root", "admins").post("/v1/inhibitions", json={**RULE, "seconds": 60, "until_types": []})
    made = await made_by(ana, **HOOK)
    await rig.happens(reminder(rig), rig.event())
    async with rig.db.transaction() as tx:
        await tx.execute(sa.text("update notifier.alarm set until = now() - interval '1 second'"))
    await rig.happens(rig.event(version=3))
    assert [status for status, _ in await statuses(rig, made)] == ["inhibited", "pending"]


async def test_closing_a_request_cancels_its_reminders_even_between_two_tries(
    rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver
) -> None:
    receiver.answer = lambda _: 503
    made = await made_by(ana, channel="webhook", address=f"{receiver.url}/hook", types=["hallmark.request.*"])
    async with rig.worker(pauses=(3600.0,)):
        await rig.happens(reminder(rig), reminder(rig, "t-2"))

        async def tried() -> bool:
            return [t["status"] for t in await rig.tries((await rig.deliveries(made))[0])] == [503]

        await until(tried)
        end = closing(rig)
        receiver.answer = lambda _: 200
        await rig.happens(end)

        async def cancelled() -> bool:
            return (await statuses(rig, made))[0] == ("cancelled", end.id)

        await until(cancelled)
        # What stood behind it in its lane goes on: another request's reminder, and the end itself.
        await rig.all_done(made, 3)
    assert [status for status, _ in await statuses(rig, made)] == ["cancelled", "succeeded", "succeeded"]
    assert [hit.document["type"].split(".")[2] for hit in receiver.hits] == ["escalated", "escalated", "closed"]


async def test_a_reminder_that_is_cancelled_during_a_try_that_fails_is_not_tried_again(
    rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver
) -> None:
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()

    def answer(hit: Hit) -> int:
        if "escalated" not in hit.document["type"]:
            return 200
        loop.call_soon_threadsafe(arrived.set)
        receiver.released.wait(30)
        return 503

    receiver.answer = answer
    made = await made_by(ana, channel="webhook", address=f"{receiver.url}/hook", types=["hallmark.request.*"])
    async with rig.worker(pauses=(0.01, 0.01, 0.01)):
        await rig.happens(reminder(rig))
        await asyncio.wait_for(arrived.wait(), 30)
        end = closing(rig)
        await rig.happens(end)
        receiver.released.set()
        await rig.all_done(made, 2)

        async def recorded() -> bool:
            return [t["status"] for t in await rig.tries((await rig.deliveries(made))[0])] == [503]

        await until(recorded)
    assert await statuses(rig, made) == [("cancelled", end.id), ("succeeded", None)]
    assert len(receiver.hits) == 2
    assert not any(e.type == "hallmark.delivery.dead.v1" for e in await rig.events(made))


async def test_silences_and_rules_are_folds(rig: Rig, ana: httpx2.AsyncClient, person: As) -> None:
    root = person("root", "admins")
    quiet = await silenced(ana, model="ch*", stages=["Production"], cel="event.version > 2")
    await silenced(root, everybody=True)
    await ana.post(f"/v1/silences/{quiet['silence_id']}/expire")
    kept = (await root.post("/v1/inhibitions", json=RULE)).json()
    gone = (await root.post("/v1/inhibitions", json=RULE)).json()
    await root.delete(f"/v1/inhibitions/{gone['inhibition_id']}")
    dumps = [sa.text(f"select * from notifier.{name} order by 1") for name in ("silence", "inhibition")]
    async with rig.db.transaction() as tx:
        before = [(await tx.execute(dump)).all() for dump in dumps]
        assert await views.rebuild(tx, rig.log) == 6
        after = [(await tx.execute(dump)).all() for dump in dumps]
    assert [len(rows) for rows in before] == [2, 2]
    assert after == before
    assert kept["inhibition_id"] != gone["inhibition_id"]
