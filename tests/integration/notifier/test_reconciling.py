"""The proof that nothing was lost finds what was, and raises no false alarm."""

import json

import sqlalchemy as sa
from tests.support.receiver import Receiver

from contracts.notifier import SubscriptionChanged
from notifier import queue
from notifier.editing import Editing
from notifier.matching import Seen
from notifier.reconciling import Reconciling, Result

from .conftest import Rig


async def reconciled(rig: Rig) -> Result:
    return await Reconciling(rig.db, rig.log, every_seconds=3600, days=7).reconcile()


async def an_hour_later(rig: Rig) -> None:
    """What was taken in was so an hour after the subscriptions were made."""
    async with rig.db.transaction() as tx:
        await tx.execute(sa.text("update notifier.source_event set taken_at = taken_at + interval '1 hour'"))


async def test_what_is_delivered_dead_waiting_or_cancelled_is_accounted_for(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda hit: 200 if hit.path == "/good" else (500, {"webhook-delivery": "abort-message"}, b"")
    good, bad = await rig.webhook(f"{receiver.url}/good"), await rig.webhook(f"{receiver.url}/bad")
    await rig.happens(*(rig.event(f"m{n}", 1) for n in range(3)))
    async with rig.worker():
        await rig.all_done(good, 3)
        await rig.all_done(bad, 3)
    await rig.happens(rig.event("m0", 2))  # waits: no worker runs
    await an_hour_later(rig)
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
    await an_hour_later(rig)
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
        await queue.keep(tx, [Seen(rig.event())])
    await an_hour_later(rig)
    assert (await reconciled(rig)).unaccounted == 1


async def test_it_finds_a_delivery_that_no_timer_will_send(rig: Rig) -> None:
    await rig.webhook("http://127.0.0.1:9/hook")
    await rig.happens(rig.event("a", 1), rig.event("b", 1), rig.event("c", 1))
    await an_hour_later(rig)
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


async def test_subscriptions_are_judged_by_what_they_were_when_the_event_came(rig: Rig) -> None:
    """Made, edited and removed around the events: nothing of that is a false alarm."""
    before = rig.event("churn", 1)
    await rig.happens(before)  # nobody is there
    made = await rig.webhook("http://127.0.0.1:9/hook", model="churn")
    await rig.happens(rig.event("churn", 2))  # in the same minute
    await rig.webhook("http://127.0.0.1:9/gone")
    editing = Editing(rig.db, rig.log)
    await editing.edit(made["subscription_id"], "ana", {"model": "other"})
    assert any(e.type == SubscriptionChanged.TYPE for e in await rig.events(made))
    await rig.happens(rig.event("churn", 3))  # the second one hears it, the first no more
    await an_hour_later(rig)
    late = rig.event("other", 1)
    async with rig.db.transaction() as tx:  # when nobody is known to have been there
        await queue.keep(tx, [Seen(late)])
        old = "update notifier.source_event set taken_at = '2020-01-01' where event_id in (:before, :late)"
        await tx.execute(sa.text(old), {"before": before.id, "late": late.id})
        await tx.execute(sa.text("update notifier.source_event set taken_at = now() where position = 2"))
    found = await reconciled(rig)
    assert found.unaccounted == 0, found.examples
    assert found.checked == 1


async def test_many_events_are_looked_at_in_pages(rig: Rig) -> None:
    await rig.webhook("http://127.0.0.1:9/hook", model="m1")
    async with rig.db.transaction() as tx:
        await queue.keep(tx, [Seen(rig.event(f"m{n % 11}", 1 + n // 11)) for n in range(1100)])
    await an_hour_later(rig)
    found = await reconciled(rig)
    assert (found.events, found.checked, found.unaccounted, len(found.examples)) == (1100, 100, 100, 100)
