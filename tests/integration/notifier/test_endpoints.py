"""Endpoints that are ill, that ask for peace, that may be sent to so fast only; and what their owners hear."""

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import sqlalchemy as sa
from tests.support.receiver import Receiver
from tests.support.waiting import until

from contracts.notifier import Channel
from kit.problems import Problem
from notifier import endpoints, views
from notifier.breaker import Rate
from notifier.editing import Editing

from .conftest import Mailbox, Rig

DAY = 24 * 3600.0


async def broken(rig: Rig, receiver: Receiver, models: int = 30) -> dict[str, Any]:
    """A subscription whose endpoint has answered 500 until it was left in peace; of each model one event waits."""
    receiver.answer = lambda _: 500
    made = await rig.webhook(f"{receiver.url}/hook")
    await rig.happens(*(rig.event(f"m{n}", 1) for n in range(models)))
    async with rig.worker(pauses=(3600.0,) * 9, concurrency=4):
        await until(lambda: _held(rig, made), 60)
    return made


async def _held(rig: Rig, made: dict[str, Any]) -> str | None:
    async with rig.db.snapshot() as tx:
        health = await endpoints.health(tx, made["subscription_id"])
    return health["held_until"]  # type: ignore[no-any-return]


async def _attempts(rig: Rig, made: dict[str, Any]) -> list[int]:
    return sorted(d["attempts"] for d in await rig.deliveries(made))


async def test_an_ill_endpoint_is_left_in_peace_and_what_waits_uses_up_no_try(rig: Rig, receiver: Receiver) -> None:
    made = await broken(rig, receiver)
    before = await _attempts(rig, made)
    assert 10 <= sum(before) < 30
    other = await rig.webhook(f"{receiver.url}/other")
    receiver.answer = lambda hit: 500 if hit.path == "/hook" else 200
    await rig.happens(rig.event("m0", 2), rig.event("late", 1))
    async with rig.worker():
        await rig.all_done(other, 2)
    assert sorted([*before, 0, 0]) == await _attempts(rig, made)
    async with rig.db.snapshot() as tx:
        assert await endpoints.held(tx) == 1


async def test_one_probe_goes_and_when_it_is_answered_all_that_waits_goes(rig: Rig, receiver: Receiver) -> None:
    made = await broken(rig, receiver)
    tries = len(receiver.hits)
    await rig.pass_time(31)
    async with rig.worker(pauses=(3600.0,) * 9), rig.worker(pauses=(3600.0,) * 9):
        await until(lambda: len(receiver.hits) == tries + 1, 60)
        other = await rig.webhook(f"{receiver.url}/other")
        receiver.answer = lambda hit: 500 if hit.path == "/hook" else 200
        await rig.happens(rig.event("m0", 2))
        await rig.all_done(other, 1)
        assert len(receiver.to("/hook")) == tries + 1  # one probe, of both workers
        receiver.answer = lambda _: 200
        await rig.pass_time(61)
        done = await rig.all_done(made, 31)
    assert {d["status"] for d in done} == {"succeeded"}
    assert await _held(rig, made) is None
    sequences = [hit.document["sequence"] for hit in receiver.to("/hook") if hit.document["subject"] == "default/m0/2"]
    assert sequences == [2]


async def test_messages_that_are_refused_do_not_make_an_endpoint_ill(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda _: 400
    made = await rig.webhook(f"{receiver.url}/hook")
    await rig.happens(*(rig.event(f"m{n}", 1) for n in range(30)))
    async with rig.worker(pauses=(3600.0,)):
        await until(lambda: len(receiver.hits) == 30, 60)
        await until(lambda: _equal(_attempts(rig, made), [1] * 30), 60)
    assert await _held(rig, made) is None


async def _equal(found: Awaitable[object], wanted: object) -> bool:
    return await found == wanted


async def test_an_endpoint_that_asks_for_peace_gets_it(rig: Rig, receiver: Receiver) -> None:
    """Other models too: the answer 429 is about the endpoint."""
    receiver.answer = lambda _: (429, {"retry-after": "600"}, b"")
    made = await rig.webhook(f"{receiver.url}/hook")
    await rig.happens(rig.event("a", 1))
    async with rig.worker():
        await rig.said(made, 2)
        receiver.answer = lambda _: 200
        other = await rig.webhook(f"{receiver.url}/other")
        await rig.happens(rig.event("b", 1))
        await rig.all_done(other, 1)
        assert await _attempts(rig, made) == [0, 1]
        await rig.pass_time(601)
        await rig.all_done(made, 2)
    assert await _attempts(rig, made) == [1, 2]


async def test_an_endpoint_is_sent_to_no_faster_than_its_rate_by_all_workers_and_subscriptions(
    rig: Rig, receiver: Receiver
) -> None:
    """Two subscriptions lead to one channel of Slack; what waits for a token uses up no try."""
    made = [await rig.commands.subscribe("ana", Channel.SLACK, f"{receiver.url}/slack") for _ in range(2)]
    other = await rig.webhook(f"{receiver.url}/free")
    await rig.happens(*(rig.event(f"m{n}", 1) for n in range(6)))
    loop = asyncio.get_running_loop()
    rates = {"slack": Rate(5.0)}
    async with rig.worker(rates=rates), rig.worker(rates=rates), rig.worker(rates=rates):
        begun = loop.time()
        await rig.all_done(other, 6)
        for one in made:
            assert {d["attempts"] for d in await rig.all_done(one, 6)} == {1}
        took = loop.time() - begun
    assert len(receiver.to("/slack")) == 12
    # 1 token at first, then 5 a second: the twelfth comes after 2.2 s; clocks of two hosts play no part.
    assert took > 2.0


async def test_after_days_of_failures_the_owner_hears_of_it_elsewhere_and_then_it_is_disabled(
    rig: Rig, receiver: Receiver, mailbox: Mailbox
) -> None:
    mail = await rig.commands.subscribe("ana", Channel.EMAIL, "ana@example.org", model="nothing", proved=True)
    await rig.commands.subscribe("ben", Channel.EMAIL, "ben@example.org", model="nothing", proved=True)
    receiver.answer = lambda _: 400
    made = await rig.webhook(f"{receiver.url}/hook", model="churn")
    await rig.happens(rig.event("churn", 1), rig.event("churn", 2))
    async with rig.worker(pauses=(0.02,) * 9 + (0.8 * DAY,) * 20):
        await rig.said(made, 11)
        for mails, days in enumerate((2.6, 1.0, 1.0, 1.0), start=1):
            await rig.pass_time(days * DAY)
            await rig.all_done(mail, mails)
        await rig.all_done(made, 2)
    events = [e for e in await rig.events(made) if e.type.startswith("hallmark.subscription.")]
    told = [(e.type.split(".")[2], json.loads(e.value).get("percent")) for e in events]
    assert told == [("created", None), ("faltered", 50), ("faltered", 70), ("faltered", 90), ("disabled", None)]
    assert [m["To"] for m in mailbox.mails] == ["ana@example.org"] * 4
    assert "only failed since" in mailbox.mails[0]["Subject"]
    assert "was disabled" in mailbox.mails[3]["Subject"]
    assert [d["status"] for d in await rig.deliveries(made)] == ["cancelled", "cancelled"]
    assert len(await rig.deliveries(mail)) == 4


async def test_a_disabled_subscription_can_be_enabled_and_a_removed_one_cannot(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda _: 410
    made = await rig.webhook(f"{receiver.url}/hook")
    editing = Editing(rig.db, rig.log)
    await rig.happens(rig.event("churn", 1))
    async with rig.worker():
        await rig.all_done(made, 1)
        receiver.answer = lambda _: 200
        again = await editing.enable(made["subscription_id"], "ana")
        assert (again["status"], again["reason"], again["ended_at"]) == ("active", None, None)
        await editing.enable(made["subscription_id"], "ana")
        await rig.happens(rig.event("churn", 2))
        await rig.all_done(made, 2)
    assert [e.type.split(".")[2] for e in await rig.events(made)] == [
        "created",
        "dead",
        "disabled",
        "enabled",
        "succeeded",
    ]
    async with rig.db.transaction() as tx:
        before = await views.subscription(tx, made["subscription_id"])
        await views.rebuild(tx, rig.log)
        assert await views.subscription(tx, made["subscription_id"]) == before
    await rig.commands.remove(made["subscription_id"], "ana")
    try:
        await editing.enable(made["subscription_id"], "ana")
    except Problem as problem:
        assert (problem.status, problem.code) == (409, "subscription-ended")
    else:
        raise AssertionError("it was removed")
    async with rig.db.snapshot() as tx:
        assert await tx.scalar(sa.text("select count(*) from notifier.endpoint")) == 0


async def test_a_dead_delivery_is_told_to_who_asked_for_it_and_ends_there(rig: Rig, receiver: Receiver) -> None:
    """The page about a dead delivery cannot be delivered either, nor can the page about that: nobody is told again."""
    receiver.answer = lambda _: (500, {"webhook-delivery": "abort-message"}, b"")
    dead = await rig.webhook(f"{receiver.url}/dead")
    everything = await rig.webhook(f"{receiver.url}/all", types=("hallmark.*",))
    page = await rig.webhook(f"{receiver.url}/page", types=("hallmark.delivery.dead.*",))
    second = await rig.webhook(f"{receiver.url}/second", types=("hallmark.delivery.*",))
    event = rig.event()
    async with rig.worker():
        await rig.happens(event)
        for one, count in ((dead, 1), (everything, 1), (page, 2), (second, 2)):
            await rig.all_done(one, count)
        await rig.happens(rig.event("later", 1))
        for one, count in ((dead, 2), (everything, 2), (page, 4), (second, 4)):
            await rig.all_done(one, count)
    said = receiver.to("/page")[0].document
    assert said["type"] == "hallmark.delivery.dead.v1"
    assert said["data"]["event_id"] == event.id
    assert said["subject"] == event.subject
