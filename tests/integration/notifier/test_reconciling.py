"""The proof that nothing was lost finds what was, and raises no false alarm."""

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from tests.support.receiver import Receiver
from tests.support.waiting import until

from contracts.notifier import Grouped, SubscriptionRemoved
from kit.events import Cause, New
from notifier import queue, views
from notifier.editing import Editing
from notifier.fanning import fan_out
from notifier.matching import Seen
from notifier.reconciling import Reconciling, Result

from .conftest import Rig


async def reconciled(rig: Rig) -> Result:
    return await Reconciling(rig.db, rig.log, every_seconds=3600, days=7).reconcile()


async def test_what_is_delivered_dead_waiting_or_cancelled_is_accounted_for(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda hit: 200 if hit.path == "/good" else (500, {"webhook-delivery": "abort-message"}, b"")
    good, bad = await rig.webhook(f"{receiver.url}/good"), await rig.webhook(f"{receiver.url}/bad")
    await rig.happens(*(rig.event(f"m{n}", 1) for n in range(3)))
    async with rig.worker():
        await rig.all_done(good, 3)
        await rig.all_done(bad, 3)
    await rig.happens(rig.event("m0", 2))  # waits: no worker runs
    found = await reconciled(rig)
    assert (found.events, found.checked, found.unaccounted) == (4, 8, 0)
    async with rig.db.snapshot() as tx:
        (said,) = [e async for e in rig.log.read(tx, stream="reconciliation")]
    assert said.type == "hallmark.deliveries.reconciled.v1"
    assert json.loads(said.value) == {"since": None, "events": 4, "checked": 8, "unaccounted": 0}


async def test_it_finds_a_delivery_that_somebody_deleted(rig: Rig) -> None:
    made = await rig.webhook("http://127.0.0.1:9/hook")
    lost, kept = rig.event("churn", 1), rig.event("churn", 2)
    await rig.happens(lost, kept)
    async with rig.db.transaction() as tx:
        await tx.execute(sa.text("delete from notifier.delivery where event_id = :id"), {"id": lost.id})
    found = await reconciled(rig)
    assert found.unaccounted == 1
    assert found.examples == [
        {"subscription_id": made["subscription_id"], "event_id": lost.id, "why": "there is no delivery"}
    ]


async def test_it_finds_an_event_that_was_never_matched(rig: Rig) -> None:
    await rig.webhook("http://127.0.0.1:9/hook")
    async with rig.db.transaction() as tx:
        await queue.keep(tx, [Seen(rig.event())], await views.settle_matching(tx, rig.log))
    assert (await reconciled(rig)).unaccounted == 1


async def test_it_finds_a_delivery_that_no_timer_will_send(rig: Rig) -> None:
    await rig.webhook("http://127.0.0.1:9/hook")
    await rig.happens(rig.event("a", 1), rig.event("b", 1), rig.event("c", 1))
    async with rig.db.transaction() as tx:
        await tx.execute(sa.text("delete from notifier.lane where lane = 'default/a'"))
        stuck = "update notifier.lane set leased_until = now() - interval '11 minutes' where lane = 'default/b'"
        await tx.execute(sa.text(stuck))
        busy = "update notifier.lane set leased_until = now() - interval '1 minute' where lane = 'default/c'"
        await tx.execute(sa.text(busy))
    found = await reconciled(rig)
    assert [one["why"] for one in found.examples] == [
        "it waits in no lane",
        "its lease ran out and nobody took it up",
    ]
    assert [one["why"] for one in (await reconciled(rig)).examples] == ["its lease ran out and nobody took it up"]


async def test_what_lost_its_message_is_told_of_and_goes_out_after_all(rig: Rig, receiver: Receiver) -> None:
    """Waiting without a bundle, or with one for a year that a wrong clock made; in a message that is gone, or over."""
    grouped = Grouped(mode="grouped", by=("model",))
    made = await rig.webhook(f"{receiver.url}/hook", bundling=grouped)
    await rig.happens(*(rig.event(model, 1) for model in ("gone", "late", "lost", "over")))
    async with rig.db.transaction() as tx:
        for change in (
            "delete from notifier.bundle where labels = 'model gone'",
            "update notifier.bundle set due_at = now() + interval '1 year' where labels = 'model late'",
        ):
            await tx.execute(sa.text(change))
    assert await rig.bundled(later=timedelta(minutes=1)) == 2
    async with rig.worker():
        await until(lambda: len(receiver.hits) == 2, 60)
        await until(lambda: settled(rig, made), 60)
    async with rig.db.transaction() as tx:
        back = (
            "update notifier.delivery set status = 'grouped', closed_at = null, held_by = :by where subject like :what"
        )
        over = "select held_by from notifier.delivery where subject like '%/over/%'"
        await tx.execute(sa.text(back), {"what": "%/over/%", "by": await tx.scalar(sa.text(over))})
        await tx.execute(sa.text(back), {"what": "%/lost/%", "by": str(uuid4())})
    found = await reconciled(rig)
    assert sorted(one["why"] for one in found.examples) == [
        *["it waits for a message that nobody will make"] * 2,
        *["the message it is in has ended"] * 2,
    ]
    assert (await reconciled(rig)).unaccounted == 0
    assert await rig.bundled() == 2
    async with rig.worker():
        await until(lambda: len(receiver.hits) == 5, 60)
        await until(lambda: settled(rig, made), 60)
    assert {d["status"] for d in await rig.deliveries(made)} == {"succeeded"}


async def settled(rig: Rig, made: dict[str, Any]) -> bool:
    return all(d["status"] in ("succeeded", "waiting") for d in await rig.deliveries(made))


async def test_subscriptions_are_judged_by_what_they_were_when_the_event_was_matched(rig: Rig) -> None:
    """Made, edited and removed right before and after the events: each is judged, and nothing is a false alarm."""
    await rig.happens(rig.event("churn", 1))  # nobody is there
    made = await rig.webhook("http://127.0.0.1:9/hook", model="churn")
    await rig.happens(rig.event("churn", 2))
    gone = await rig.webhook("http://127.0.0.1:9/gone")
    await Editing(rig.db, rig.log).edit(made["subscription_id"], "ana", {"model": "other"})
    await rig.happens(rig.event("churn", 3))  # the second one hears it, the first no more
    await rig.commands.remove(gone["subscription_id"], "ana")
    await rig.happens(rig.event("churn", 4), rig.event("other", 1))
    found = await reconciled(rig)
    assert (found.events, found.checked, found.unaccounted) == (5, 3, 0), found.examples


async def test_no_subscription_changes_while_events_are_matched_with_it(rig: Rig) -> None:
    made = await rig.webhook("http://127.0.0.1:9/hook", model="churn")
    editing = Editing(rig.db, rig.log)
    async with rig.db.transaction() as tx:
        await fan_out(tx, rig.log, [rig.event("churn", 1)])
        change = asyncio.create_task(editing.edit(made["subscription_id"], "ana", {"model": "other"}))
        await until(lambda: waits_for_matching(rig), 30)
        assert not change.done()
    await change
    async with rig.db.transaction() as tx:
        stream = views.stream_of(made["subscription_id"])
        new = New(SubscriptionRemoved(subscription_id=made["subscription_id"], removed_by="ana"), "default/churn")
        last = await rig.log.lock(tx, stream)
        await views.append(tx, rig.log, made["subscription_id"], last, new, Cause(actor="ana"))
        await queue.close_down(tx, made["subscription_id"])
        late = asyncio.create_task(rig.happens(rig.event("other", 1)))
        await until(lambda: waits_for_matching(rig), 30)
        assert not late.done()
    await late
    found = await reconciled(rig)
    assert (found.events, found.checked, found.unaccounted) == (2, 1, 0), found.examples
    assert len(await rig.deliveries(made)) == 1


async def waits_for_matching(rig: Rig) -> bool:
    query = sa.text("select count(*) from pg_locks where locktype = 'advisory' and not granted")
    async with rig.db.snapshot() as tx:
        return bool(await tx.scalar(query))


async def test_many_events_are_looked_at_in_pages(rig: Rig) -> None:
    await rig.webhook("http://127.0.0.1:9/hook", model="m1")
    async with rig.db.transaction() as tx:
        known = await views.settle_matching(tx, rig.log)
        await queue.keep(tx, [Seen(rig.event(f"m{n % 11}", 1 + n // 11)) for n in range(1100)], known)
    found = await reconciled(rig)
    assert (found.events, found.checked, found.unaccounted, len(found.examples)) == (1100, 100, 100, 100)
