"""Deliveries: order, repetition, isolation, and the end of a subscription."""

import asyncio
import json
from collections.abc import Awaitable
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from standardwebhooks import Webhook
from tests.support.receiver import Hit, Receiver
from tests.support.waiting import until

from contracts.notifier import Channel, Order
from kit.outbound import Guard
from notifier import app, leasing, views
from notifier.recording import Done, record
from notifier.retrying import Outcome, Schedule, Verdict
from notifier.tables import mechanism

from .conftest import Rig


async def test_a_failed_try_is_repeated_under_the_same_id_with_a_fresh_signature(rig: Rig, receiver: Receiver) -> None:
    answers = iter([500, 503, 200])
    receiver.answer = lambda _: next(answers)
    made = await rig.webhook(f"{receiver.url}/hook")
    async with rig.worker():
        await rig.happens(rig.event())
        (done,) = await rig.all_done(made, 1)
    assert done["status"] == "succeeded"
    assert len({hit.headers["webhook-id"] for hit in receiver.hits}) == 1
    assert len({hit.body for hit in receiver.hits}) == 1
    for hit in receiver.hits:
        Webhook(made["secret"]).verify(hit.body, hit.headers)
    tries = await rig.tries(done)
    assert [(t["attempt"], t["outcome"], t["status"]) for t in tries] == [
        (1, "retry", 500),
        (2, "retry", 503),
        (3, "succeeded", 200),
    ]
    assert [e.type.split(".")[2] for e in await rig.events(made)] == ["created", "failed", "failed", "succeeded"]


async def test_only_the_model_whose_event_fails_waits(rig: Rig, receiver: Receiver) -> None:
    """A lane is a model: its later event waits for the failed one, another model's does not."""
    open_again = asyncio.Event()
    receiver.answer = lambda hit: 200 if open_again.is_set() or b"default/other" in hit.body else 500
    made = await rig.webhook(f"{receiver.url}/hook")
    first, second, other = rig.event("churn", 1), rig.event("churn", 2), rig.event("other", 1)
    async with rig.worker(pauses=(0.05,) * 500):
        await rig.happens(first, second, other)
        await until(lambda: any(json.loads(h.body)["id"] == other.id for h in receiver.hits), 60)
        await until(lambda: sum(json.loads(h.body)["id"] == first.id for h in receiver.hits) >= 4, 60)
        assert not [h for h in receiver.hits if json.loads(h.body)["id"] == second.id]
        open_again.set()
        await rig.all_done(made, 3)
    ids = [json.loads(h.body)["id"] for h in receiver.hits]
    assert ids.index(second.id) > max(n for n, i in enumerate(ids) if i == first.id)
    assert ids.count(second.id) == ids.count(other.id) == 1


async def test_several_workers_keep_the_order_of_a_lane_and_send_each_once(rig: Rig, receiver: Receiver) -> None:
    """Every other event fails at first, so that its successors would overtake it if they could."""
    failed: set[str] = set()

    def answer(hit: Hit) -> int:
        identity, version = hit.headers["webhook-id"], json.loads(hit.body)["data"]["version"]
        if version % 2 and identity not in failed:
            failed.add(identity)
            return 500
        taken.append(json.loads(hit.body))
        return 200

    taken: list[dict[str, Any]] = []
    receiver.answer = answer
    made = await rig.webhook(f"{receiver.url}/hook")
    models = [f"m{n}" for n in range(5)]
    sent = [rig.event(model, version) for version in range(1, 9) for model in models]
    async with rig.worker(), rig.worker(), rig.worker():
        await rig.happens(*sent)
        await rig.all_done(made, len(sent))
    assert sorted(e["id"] for e in taken) == sorted(e.id for e in sent)
    assert len(failed) == 20
    assert len(receiver.hits) == 60
    for model in models:
        assert [e["sequence"] for e in taken if e["partitionkey"] == f"default/{model}"] == list(range(1, 9))


async def test_410_ends_the_subscription_and_cancels_what_waits(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda _: 410
    made = await rig.webhook(f"{receiver.url}/hook")
    await rig.happens(rig.event("churn", 1), rig.event("churn", 2))
    async with rig.worker():
        first, second = await rig.all_done(made, 2)
    assert (first["status"], second["status"]) == ("dead", "cancelled")
    await rig.happens(rig.event("churn", 3))
    assert len(await rig.deliveries(made)) == 2
    assert len(receiver.hits) == 1
    events = await rig.events(made)
    assert [e.type for e in events[1:]] == ["hallmark.delivery.dead.v1", "hallmark.subscription.disabled.v1"]


async def test_tries_end_after_the_schedule_and_a_replay_begins_it_anew(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda _: 500
    made = await rig.webhook(f"{receiver.url}/hook")
    await rig.happens(rig.event("churn", 1), rig.event("churn", 2))
    async with rig.worker(pauses=(0.02, 0.02)):
        first, second = await rig.all_done(made, 2)
        assert (first["status"], first["attempts"], second["status"]) == ("dead", 3, "dead")
        receiver.answer = lambda _: 200
        await rig.replayed(first)
        first, _ = await rig.all_done(made, 2)
    assert (first["status"], first["attempts"]) == ("succeeded", 4)
    same = [h for h in receiver.hits if h.headers["webhook-id"] == f"msg_{first['delivery_id']}"]
    assert len(same) == 4


async def test_retry_after_moves_the_next_try(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda _: (429, {"retry-after": "3600"}, b"slow down")
    made = await rig.webhook(f"{receiver.url}/hook")
    await rig.happens(rig.event())
    async with rig.worker():
        await until(lambda: len(receiver.hits) == 1, 60)
        failed = (await rig.said(made, 2))[1]
    body = json.loads(failed.value)
    wait = (datetime.fromisoformat(body["next_attempt_at"]) - failed.time).total_seconds()
    assert 3590 < wait < 3610


async def test_a_subscription_may_have_pauses_of_its_own(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda _: 500
    own = await rig.webhook(f"{receiver.url}/own", retry_seconds=(0.02,))
    usual = await rig.webhook(f"{receiver.url}/usual")
    await rig.happens(rig.event())
    async with rig.worker(pauses=(0.02, 0.02, 0.02)):
        (first,), (second,) = await rig.all_done(own, 1), await rig.all_done(usual, 1)
    assert (first["attempts"], second["attempts"]) == (2, 4)
    assert own["retry_seconds"] == [0.02]


async def test_a_receiver_may_give_up_a_message_or_all(rig: Rig, receiver: Receiver) -> None:
    asked = iter(["abort-message", "disable"])
    receiver.answer = lambda _: (500, {"webhook-delivery": next(asked), "x-trace": "t1"}, b"")
    made = await rig.webhook(f"{receiver.url}/hook")
    await rig.happens(rig.event("churn", 1), rig.event("churn", 2), rig.event("churn", 3))
    async with rig.worker():
        first, second, third = await rig.all_done(made, 3)
    assert [d["status"] for d in (first, second, third)] == ["dead", "dead", "cancelled"]
    assert len(receiver.hits) == 2
    (attempt,) = await rig.tries(first)
    assert attempt["detail"] == "HTTP 500 Internal Server Error (webhook-delivery: abort-message)"
    assert attempt["headers"]["sent"]["webhook-id"] == f"msg_{first['delivery_id']}"
    assert attempt["headers"]["sent"]["webhook-signature"] == "[redacted]"
    assert attempt["headers"]["received"]["x-trace"] == "t1"
    assert (await rig.events(made))[-1].type == "hallmark.subscription.disabled.v1"


async def test_where_the_order_does_not_matter_no_event_waits_for_another(rig: Rig, receiver: Receiver) -> None:
    first, second = rig.event("churn", 1), rig.event("churn", 2)
    receiver.answer = lambda hit: 500 if hit.document["id"] == first.id else 200
    made = await rig.webhook(f"{receiver.url}/hook", order=Order.ANY)
    async with rig.worker(pauses=(3600,)):
        await rig.happens(first, second)

        async def states() -> list[str]:
            return [d["status"] for d in await rig.deliveries(made) if d["attempts"]]

        await until(lambda: _is(states(), ["pending", "succeeded"]), 60)
    assert made["order"] == "any"


async def test_a_lane_goes_on_after_a_dead_letter_and_a_replay_takes_its_old_place(
    rig: Rig, receiver: Receiver
) -> None:
    """The replayed event is the oldest of its lane again: what came later and waits, waits for it."""
    first, second, third = (rig.event("churn", n) for n in (1, 2, 3))
    refused = {first.id}
    receiver.answer = lambda hit: 500 if hit.document["id"] in refused else 200
    made = await rig.webhook(f"{receiver.url}/hook", retry_seconds=(0.02,))
    await rig.happens(first, second)
    async with rig.worker():
        dead, done = await rig.all_done(made, 2)
    assert (dead["status"], done["status"]) == ("dead", "succeeded")
    refused.clear()
    await rig.happens(third)
    await rig.replayed(dead)
    async with rig.worker():
        await rig.all_done(made, 3)
    assert [hit.document["id"] for hit in receiver.hits] == [first.id, first.id, second.id, first.id, third.id]


async def test_outcomes_of_a_held_subscription_wait_and_hold_up_no_other(rig: Rig, receiver: Receiver) -> None:
    held, free = await rig.webhook(f"{receiver.url}/held"), await rig.webhook(f"{receiver.url}/free")
    await rig.happens(*(rig.event(f"m{n}", 1) for n in range(3)))
    async with rig.worker():
        async with rig.db.transaction() as tx:
            await rig.log.lock(tx, views.stream_of(held["subscription_id"]))
            await rig.all_done(free, 3)
            await until(lambda: len(receiver.to("/held")) == 3, 60)
            assert {d["status"] for d in await rig.deliveries(held)} == {"pending"}
        await rig.all_done(held, 3)
    assert len(receiver.hits) == 6


async def test_every_event_is_kept_also_one_that_nobody_wants(rig: Rig) -> None:
    events = [rig.event("churn", n) for n in (1, 2)]
    await rig.happens(*events, events[0])
    async with rig.db.snapshot() as tx:
        rows = (await tx.execute(sa.text("select * from notifier.source_event order by position"))).all()
    assert [views.envelope_of(row) for row in rows] == events
    assert [(row.type, row.at) for row in rows] == [(e.type, e.time) for e in events]


async def test_a_dead_endpoint_delays_nobody(rig: Rig, receiver: Receiver) -> None:
    """One endpoint accepts and never answers, with a queue of many models; another gets all of its own meanwhile."""
    silent = await asyncio.start_server(lambda reader, writer: asyncio.sleep(3600), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    dead = await rig.webhook(f"http://127.0.0.1:{port}/dead")
    live = await rig.webhook(f"{receiver.url}/live")
    await rig.happens(*(rig.event(f"m{n}", 1) for n in range(60)))
    patient = rig.settings.model_copy(update={"send_timeout_seconds": 600})
    senders = app.senders(patient, Guard(patient.webhook_allow), rig.db)
    async with rig.worker(senders=senders, concurrency=8, share=4, graceful_seconds=0):
        await rig.all_done(live, 60)  # all of it within the first try of the silent one
        waiting = await rig.deliveries(dead)
    assert {d["status"] for d in waiting} == {"pending"}
    assert sorted(d["attempts"] for d in waiting) == [0] * 56 + [1] * 4
    silent.close()


async def test_an_event_that_comes_twice_is_delivered_once(rig: Rig, receiver: Receiver) -> None:
    made = await rig.webhook(f"{receiver.url}/hook")
    event = rig.event()
    await rig.happens(event, event)
    async with rig.worker():
        await rig.happens(event)
        await rig.all_done(made, 1)
        await rig.happens(event)
        await rig.happens(rig.event("other", 1))
        await rig.all_done(made, 2)
    assert len(receiver.hits) == 2


async def test_a_redirect_is_a_failure_and_is_not_followed(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda hit: (302, {"location": "/elsewhere"}, b"") if hit.path == "/hook" else 200
    made = await rig.webhook(f"{receiver.url}/hook")
    await rig.happens(rig.event())
    async with rig.worker(pauses=(0.02,)):
        (done,) = await rig.all_done(made, 1)
    assert done["status"] == "dead"
    assert not receiver.to("/elsewhere")
    assert (await rig.tries(done))[0]["detail"] == "HTTP 302 Found (redirects are not followed)"


async def test_no_secret_comes_to_rest_in_a_try_or_an_event(rig: Rig, receiver: Receiver) -> None:
    def echo(hit: Hit) -> tuple[int, dict[str, str], bytes]:
        told = f"{made['secret']} {receiver.url}/hook?token=s3cret {hit.headers['webhook-signature']} {'x' * 9000}"
        return 500, {}, told.encode()

    receiver.answer = echo
    made = await rig.webhook(f"{receiver.url}/hook?token=s3cret")
    await rig.happens(rig.event())
    async with rig.worker(pauses=(0.02,)):
        (done,) = await rig.all_done(made, 1)
    (first, _) = await rig.tries(done)
    assert first["response"].startswith("[redacted] [redacted] [redacted] xxx")
    assert len(first["response"]) <= 2048
    assert made["address"] == f"{receiver.url}/****"
    async with rig.db.transaction() as tx:
        rows = [
            str((await tx.execute(sa.text(f"select t from notifier.{table} t"))).all())
            for table in ("event", "outbox", "subscription", "delivery", "attempt", "inbox", "secret")
        ]
    for needle in (made["secret"], made["secret"].removeprefix("whsec_"), "s3cret"):
        assert not any(needle in row for row in rows), needle


async def test_a_removed_subscription_gets_nothing_more(rig: Rig, receiver: Receiver) -> None:
    made = await rig.webhook(f"{receiver.url}/hook")
    await rig.happens(rig.event("churn", 1))
    await rig.commands.remove(made["subscription_id"], "ana")
    await rig.commands.remove(made["subscription_id"], "ana")
    await rig.happens(rig.event("churn", 2))
    (only,) = await rig.deliveries(made)
    assert only["status"] == "cancelled"
    async with rig.worker():
        other = await rig.webhook(f"{receiver.url}/other")
        await rig.happens(rig.event("churn", 3))
        await rig.all_done(other, 1)
    assert not receiver.to("/hook")
    assert [e.type for e in await rig.events(made)] == [
        "hallmark.subscription.created.v1",
        "hallmark.subscription.removed.v1",
    ]
    async with rig.db.transaction() as tx:
        gone = await tx.scalar(
            sa.text("select count(*) from notifier.secret where subscription_id = :id"), {"id": made["subscription_id"]}
        )
    assert gone == 0


async def test_a_worker_whose_lease_ran_out_changes_nothing(rig: Rig, receiver: Receiver) -> None:
    """The slow worker's outcome is noted at its own try; the delivery follows the worker that holds it now."""
    made = await rig.webhook(f"{receiver.url}/hook")
    await rig.happens(rig.event())

    async def lease() -> leasing.Lease:
        async with rig.db.transaction() as tx:
            (lease,) = await leasing.lease(tx, free=1, share=1, busy={}, seconds=60)
            await tx.execute(sa.text("update notifier.lane set leased_until = now()"))
        return lease

    slow, quick = await lease(), await lease()
    schedule = Schedule((1.0,))
    async with rig.db.transaction() as tx:
        ok = Outcome(Verdict.SUCCEEDED, "HTTP 200")
        (kept,) = await record(tx, rig.log, [Done(quick, ok, 1.0)], schedule)
        assert kept.follows
    async with rig.db.transaction() as tx:
        bad = Outcome(Verdict.RETRY, "HTTP 500")
        (late,) = await record(tx, rig.log, [Done(slow, bad, 1.0)], schedule)
        assert late.follows is None
    (done,) = await rig.deliveries(made)
    assert done["status"] == "succeeded"
    assert [t["outcome"] for t in await rig.tries(done)] == ["retry", "succeeded"]
    assert len(await rig.events(made)) == 2


async def test_an_error_of_ours_follows_the_schedule_instead_of_running_hot(rig: Rig) -> None:
    class Broken:
        calls = 0

        async def send(self, parcel: object) -> Outcome:
            self.calls += 1
            raise RuntimeError("a secret could be in this text")

    broken = Broken()
    made = await rig.webhook("http://127.0.0.1:1/hook")
    await rig.happens(rig.event())
    async with rig.worker(senders={Channel.WEBHOOK: broken}, pauses=(0.02, 0.02)):
        (done,) = await rig.all_done(made, 1)
    assert (done["status"], broken.calls) == ("dead", 3)
    assert {t["detail"] for t in await rig.tries(done)} == {"an error of the notifier: RuntimeError"}


async def test_every_outcome_has_its_event_and_every_event_its_record(rig: Rig, receiver: Receiver) -> None:
    made = await rig.webhook(f"{receiver.url}/hook")
    await rig.happens(*(rig.event(f"m{n}", 1) for n in range(10)))
    async with rig.worker():
        await rig.all_done(made, 10)
    async with rig.db.transaction() as tx:
        events = await tx.scalar(sa.select(sa.func.count()).select_from(mechanism.event))
        outbox = await tx.scalar(sa.select(sa.func.count()).select_from(mechanism.outbox))
    assert events == outbox == 11
    assert [e.sequence for e in await rig.events(made)] == list(range(1, 12))


async def _is(found: Awaitable[object], wanted: object) -> bool:
    return await found == wanted
