"""Messages about many events: each event keeps a delivery, and one send settles all."""

import asyncio
import tracemalloc
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from tests.support.receiver import Receiver
from tests.support.waiting import until

from contracts.envelope import now
from notifier import views
from notifier.bundles import flush
from notifier.domain import delivery_id
from notifier.fanning import fan_out
from notifier.reconciling import Reconciling

from .asking import As, code, made_by
from .conftest import Mailbox, Rig
from .test_quiet import closing, reminder

GROUPED = {"mode": "grouped", "by": ["model"]}
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


async def statuses(rig: Rig, made: dict[str, Any]) -> list[str]:
    return [d["status"] for d in await rig.deliveries(made)]


def groups(receiver: Receiver) -> list[dict[str, Any]]:
    return [hit.document["data"] for hit in receiver.hits if hit.document["type"] == "hallmark.group.composed.v1"]


async def settled(rig: Rig, made: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """`count` deliveries, none of them on its way."""
    async with rig.worker():
        found = await rig.all_done(made, count)
    assert not {d["status"] for d in found} & {"waiting", "grouped", "pending"}
    return found


async def test_events_of_a_model_go_out_in_one_message_after_a_while(
    rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver
) -> None:
    made = await made_by(ana, channel="webhook", address=f"{receiver.url}/hook", bundling=GROUPED)
    assert made["bundling"] == {**GROUPED, "wait_seconds": 30, "interval_seconds": 300, "repeat_seconds": 14400}
    events = [rig.event(version=2), rig.event(model="fraud"), rig.event(version=3)]
    await rig.happens(*events)
    assert await statuses(rig, made) == ["waiting"] * 3
    assert await rig.bundled() == 0  # others may join for half a minute
    assert await rig.bundled(later=MINUTE) == 2
    assert (await statuses(rig, made))[:3] == ["grouped"] * 3
    found = await settled(rig, made, 5)
    assert {d["status"] for d in found} == {"succeeded"}
    told = {group["labels"]: group for group in groups(receiver)}
    assert {labels: group["count"] for labels, group in told.items()} == {"model churn": 2, "model fraud": 1}
    assert [one["event_id"] for one in told["model churn"]["newest"]] == [events[2].id, events[0].id]
    messages = {d["delivery_id"] for d in found if d["event_type"] == "hallmark.group.composed.v1"}
    assert {d["held_by"] for d in found if d["event_type"] != "hallmark.group.composed.v1"} == messages
    members = (await ana.get("/v1/deliveries", params={"held_by": found[0]["held_by"]})).json()["items"]
    assert {d["event_id"] for d in members} == {events[0].id, events[2].id}


async def test_what_comes_later_waits_for_the_interval_and_a_quiet_group_is_forgotten(
    rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver
) -> None:
    made = await made_by(ana, channel="webhook", address=f"{receiver.url}/hook", bundling=GROUPED)
    await rig.happens(rig.event())
    await rig.bundled(later=MINUTE)
    await rig.happens(rig.event(version=3), rig.event(version=4))
    assert await rig.bundled(later=5 * MINUTE) == 0
    assert await rig.bundled(later=7 * MINUTE) == 1
    await settled(rig, made, 5)
    assert [group["count"] for group in groups(receiver)] == [1, 2]
    assert await rig.bundled(later=13 * MINUTE) == 1
    async with rig.db.snapshot() as tx:
        assert await tx.scalar(sa.text("select count(*) from notifier.bundle")) == 0
    assert len(groups(receiver)) == 2


async def test_a_request_that_is_still_open_is_told_of_again_until_it_is_closed(
    rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver
) -> None:
    by_request = {"mode": "grouped", "by": ["request"], "repeat_seconds": 3600}
    made = await made_by(
        ana,
        channel="webhook",
        address=f"{receiver.url}/hook",
        types=["hallmark.request.escalated.v1"],
        bundling=by_request,
    )
    await rig.happens(reminder(rig))
    await rig.bundled(later=MINUTE)
    for minutes in (7, 20, 40):
        await rig.bundled(later=minutes * MINUTE)
    async with rig.db.snapshot() as tx:
        assert await tx.scalar(sa.text("select count(*) from notifier.delivery")) == 2
    await rig.bundled(later=62 * MINUTE)
    await rig.bundled(later=124 * MINUTE)
    await settled(rig, made, 4)
    assert [group["repeats"] for group in groups(receiver)] == [False, True, True]
    assert len({hit.headers["webhook-id"] for hit in receiver.hits}) == 3
    await rig.happens(closing(rig))  # which it does not hear of
    await rig.bundled(later=300 * MINUTE)
    async with rig.db.snapshot() as tx:
        assert await tx.scalar(sa.text("select count(*) from notifier.bundle")) == 0
    assert len(groups(receiver)) == 3


async def test_news_of_an_open_request_does_not_wait_until_it_is_told_of_again(
    rig: Rig, ana: httpx2.AsyncClient
) -> None:
    by_request = {"mode": "grouped", "by": ["request"], "repeat_seconds": 3600}
    address, types = "http://127.0.0.1:9/hook", ["hallmark.request.escalated.v1"]
    made = await made_by(ana, channel="webhook", address=address, types=types, bundling=by_request)
    await rig.happens(reminder(rig))
    assert await rig.bundled(later=MINUTE) == 1
    assert await rig.bundled(later=7 * MINUTE) == 1  # nothing new: it is looked at again in an hour
    await rig.happens(reminder(rig))
    assert await rig.bundled(later=5 * MINUTE) == 0
    assert (await statuses(rig, made))[-1] == "waiting"
    assert await rig.bundled(later=7 * MINUTE) == 1
    assert "waiting" not in await statuses(rig, made)


async def test_a_digest_comes_at_its_hour_and_what_follows_quiet_at_once(
    rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver
) -> None:
    digest = {"mode": "digest", "at": "09:00", "zone": "Europe/Berlin", "first_at_once_seconds": 3600}
    made = await made_by(ana, channel="webhook", address=f"{receiver.url}/hook", bundling=digest)
    await rig.happens(*(rig.event(version=n) for n in (2, 3, 4)))
    assert await statuses(rig, made) == ["pending", "waiting", "waiting"]
    assert await rig.bundled(later=timedelta(days=1, hours=1)) == 1
    await settled(rig, made, 4)
    assert sorted(hit.document["type"].split(".")[1] for hit in receiver.hits) == ["group", "stage"]
    assert groups(receiver)[0]["count"] == 2
    await rig.happens(rig.event(version=5))  # within the hour: no quiet
    assert (await statuses(rig, made))[-1] == "waiting"
    async with rig.db.transaction() as tx:
        await tx.execute(sa.text("update notifier.bundle set due_at = null, event_at = now() - interval '2 hours'"))
    await rig.happens(rig.event(version=6))
    assert (await statuses(rig, made))[-1] == "pending"


async def test_a_plain_digest_is_due_at_the_readers_hour(rig: Rig, ana: httpx2.AsyncClient) -> None:
    digest = {"mode": "digest", "at": "09:00", "zone": "Europe/Berlin"}
    await made_by(ana, channel="webhook", address="http://127.0.0.1:9/hook", bundling=digest)
    await rig.happens(rig.event())
    async with rig.db.snapshot() as tx:
        due = await tx.scalar(sa.text("select due_at at time zone 'Europe/Berlin' from notifier.bundle"))
    assert (due.hour, due.minute) == (9, 0)


async def test_a_dead_message_is_the_end_of_its_events_and_a_replay_revives_them(
    rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver
) -> None:
    receiver.answer = lambda _: 503
    made = await made_by(ana, channel="webhook", address=f"{receiver.url}/hook", bundling=GROUPED)
    await rig.happens(rig.event(), rig.event(version=3))
    await rig.bundled(later=MINUTE)
    found = await settled(rig, made, 3)
    assert {d["status"] for d in found} == {"dead"}
    receiver.answer = lambda _: 200
    await ana.post(f"/v1/deliveries/{found[0]['held_by']}/replay")
    assert {d["status"] for d in await settled(rig, made, 3)} == {"succeeded"}
    assert len({hit.headers["webhook-id"] for hit in receiver.hits}) == 1
    said = [e.type for e in await rig.events(made) if ".group." in e.type]
    assert said == ["hallmark.group.composed.v1"]


async def test_removal_and_the_end_of_a_request_cancel_what_waits(rig: Rig, ana: httpx2.AsyncClient) -> None:
    made = await made_by(
        ana, channel="webhook", address="http://127.0.0.1:9/hook", types=["hallmark.request.*"], bundling=GROUPED
    )
    await rig.happens(reminder(rig), reminder(rig, "t-2"), closing(rig))
    assert await statuses(rig, made) == ["cancelled", "waiting", "waiting"]
    await rig.bundled(later=MINUTE)
    await rig.happens(reminder(rig, "t-3"))
    assert await statuses(rig, made) == ["cancelled", "grouped", "grouped", "pending", "waiting"]
    await ana.delete(f"/v1/subscriptions/{made['subscription_id']}")
    assert set(await statuses(rig, made)) == {"cancelled"}
    assert await rig.bundled(later=HOUR) == 0


async def test_a_pause_holds_messages_too(rig: Rig, ana: httpx2.AsyncClient) -> None:
    made = await made_by(ana, channel="webhook", address="http://127.0.0.1:9/hook", bundling=GROUPED)
    path = f"/v1/subscriptions/{made['subscription_id']}"
    await ana.post(f"{path}/pause")
    await rig.happens(rig.event())
    assert await rig.bundled(later=HOUR) == 0
    await ana.post(f"{path}/resume")
    assert await rig.bundled(later=HOUR) == 1


async def test_an_edit_changes_how_events_go_out(rig: Rig, ana: httpx2.AsyncClient) -> None:
    made = await made_by(ana, channel="webhook", address="http://127.0.0.1:9/hook", bundling=GROUPED)
    path = f"/v1/subscriptions/{made['subscription_id']}"
    await rig.happens(rig.event())
    alone = await ana.patch(path, json={"bundling": {"mode": "alone"}})
    assert alone.json()["bundling"] is None
    await rig.happens(rig.event(version=3))
    assert await statuses(rig, made) == ["waiting", "pending"]
    await rig.bundled(later=MINUTE)
    assert await statuses(rig, made) == ["grouped", "pending", "pending"]
    again = await ana.patch(path, json={"bundling": {"mode": "digest", "zone": "Asia/Tokyo"}})
    assert again.json()["bundling"]["zone"] == "Asia/Tokyo"
    dump = sa.text("select * from notifier.subscription order by 1")
    async with rig.db.transaction() as tx:
        before = (await tx.execute(dump)).all()
        await views.rebuild(tx, rig.log)
        assert (await tx.execute(dump)).all() == before


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"bundling": {"mode": "digest", "zone": "Europe/Nowhere"}}, "unknown-zone"),
        ({"bundling": {"mode": "digest", "at": "24:00"}}, "invalid-request"),
        ({"bundling": {"mode": "grouped", "by": ["colour"]}}, "invalid-request"),
        ({"bundling": {"mode": "grouped", "interval_seconds": 0}}, "invalid-request"),
        ({"bundling": GROUPED, "format": "mlflow"}, "format-has-no-groups"),
    ],
)
async def test_a_bad_way_is_refused(ana: httpx2.AsyncClient, body: dict[str, Any], expected: str) -> None:
    asked = {"channel": "webhook", "address": "http://127.0.0.1:9/hook", **body}
    response = await ana.post("/v1/subscriptions", json=asked)
    assert (response.status_code, code(response)) == (422, expected), response.text


async def test_two_that_flush_at_once_make_one_message(rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver) -> None:
    made = await made_by(ana, channel="webhook", address=f"{receiver.url}/hook", bundling=GROUPED)
    await rig.happens(rig.event(), rig.event(version=3))
    await asyncio.gather(*(rig.bundled(later=MINUTE) for _ in range(4)))
    await settled(rig, made, 3)
    assert [group["count"] for group in groups(receiver)] == [2]


async def test_a_crash_in_the_middle_of_a_flush_loses_and_doubles_nothing(
    rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver
) -> None:
    made = await made_by(ana, channel="webhook", address=f"{receiver.url}/hook", bundling=GROUPED)
    await rig.happens(rig.event())
    with pytest.raises(ZeroDivisionError):
        async with rig.db.transaction() as tx:
            assert await flush(tx, rig.log, rig.rights, made["subscription_id"], "model churn", now() + MINUTE)
            raise ZeroDivisionError
    assert await statuses(rig, made) == ["waiting"]
    await rig.bundled(later=MINUTE)
    await rig.bundled(later=MINUTE)  # again: nothing is left
    await settled(rig, made, 2)
    assert [group["count"] for group in groups(receiver)] == [1]


async def test_no_subscription_hears_of_messages(rig: Rig, ana: httpx2.AsyncClient, person: As) -> None:
    """Not even one that wants everything, if the notifier's own topic were read."""
    made = await made_by(ana, channel="webhook", address="http://127.0.0.1:9/hook", bundling=GROUPED)
    everything = await made_by(
        person("root", "admins"), channel="email", address="root@example.org", types=["hallmark.*"]
    )
    await rig.happens(rig.event())
    await rig.bundled(later=MINUTE)
    [composed] = [e for e in await rig.events(made) if ".group." in e.type]
    async with rig.db.transaction() as tx:
        await fan_out(tx, rig.log, [composed])
    assert len(await rig.deliveries(everything)) == 1


async def test_what_waits_is_accounted_for_while_a_timer_or_a_message_will_send_it(
    rig: Rig, ana: httpx2.AsyncClient
) -> None:
    made = await made_by(ana, channel="webhook", address="http://127.0.0.1:9/hook", bundling=GROUPED)
    await rig.happens(rig.event(), rig.event(model="fraud"))
    reconciling = Reconciling(rig.db, rig.log, every_seconds=3600, days=7)
    assert (await reconciling.reconcile()).unaccounted == 0
    await rig.bundled(later=MINUTE)
    assert (await reconciling.reconcile()).unaccounted == 0
    async with rig.db.transaction() as tx:  # as no code of ours does
        await tx.execute(sa.text("update notifier.delivery set open = false, status = 'succeeded' where open"))
    found = await reconciling.reconcile()
    assert {one["why"] for one in found.examples} == {"the message it is in has ended"}
    assert found.unaccounted == 2
    await rig.happens(rig.event(model="new"))
    async with rig.db.transaction() as tx:
        await tx.execute(sa.text("delete from notifier.bundle"))
    assert (await reconciling.reconcile()).unaccounted == 1  # the two were put right
    assert (await reconciling.reconcile()).unaccounted == 0
    assert made["status"] == "active"


COPIES = (
    """
    insert into notifier.source_event (event_id, type, workspace, at, headers, stream, value)
    select 'copy-' || n, type, workspace, at, headers, stream, value
    from notifier.source_event, generate_series(1, 9989) n
    """,
    """
    insert into notifier.delivery (delivery_id, subscription_id, event_id, event_type, subject, lane, event_position,
      status, open, attempts, tries, due_at, held_by)
    select gen_random_uuid(), d.subscription_id, s.event_id, d.event_type, d.subject, d.lane, s.position,
      d.status, d.open, d.attempts, d.tries, d.due_at, d.held_by
    from notifier.delivery d, notifier.source_event s where s.event_id like 'copy-%'
    """,
)


async def test_f_10000_events_are_one_message_in_each_channel(
    rig: Rig, ana: httpx2.AsyncClient, receiver: Receiver, mailbox: Mailbox
) -> None:
    """Acceptance test (f). Every event keeps its delivery; memory does not grow with their number.

    The first and the last ten are taken in one by one; the others are copies of the first, as rows.
    """
    everything = {"mode": "grouped", "by": []}
    hook = await made_by(ana, channel="webhook", address=f"{receiver.url}/hook", bundling=everything)
    slack = await made_by(ana, channel="slack", address=f"{receiver.url}/slack", bundling=everything)
    post = await made_by(ana, channel="email", address="ana@example.org", bundling=everything)
    await rig.happens(rig.event())
    async with rig.db.transaction() as tx:
        for statement in COPIES:
            await tx.execute(sa.text(statement))
    await rig.happens(*(rig.event(model=f"m{n}", version=n + 1) for n in range(10)))
    tracemalloc.start()
    assert await rig.bundled(later=MINUTE) == 3
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000, f"{peak} bytes for three messages"
    async with rig.worker():

        async def done() -> bool:
            return len(receiver.hits) == 2 and len(mailbox.mails) == 1

        await until(done, 60)
        query = sa.text("select subscription_id, status, count(*) from notifier.delivery group by 1, 2")

        async def accounted() -> bool:
            async with rig.db.snapshot() as tx:
                found = {(row[0], row[1]): row[2] for row in await tx.execute(query)}
            return found == {(made["subscription_id"], "succeeded"): 10_001 for made in (hook, slack, post)}

        await until(accounted, 60)
    by_path = {hit.path: hit for hit in receiver.hits}
    data = by_path["/hook"].document["data"]
    assert (data["count"], len(data["newest"])) == (10_000, 10)
    assert data["kinds"] == {"hallmark.stage.changed.v1": 10_000}
    assert data["newest"][0]["headline"].startswith("m9: v10 is now in Production")
    text = str(by_path["/slack"].document)
    assert "10000 events" in text
    assert len(text) < 4_000
    [sent] = mailbox.mails
    assert sent["Subject"] == "10000 events"
    body = sent.get_body(("plain",))
    assert body is not None
    assert "and 9990 more" in body.get_content()
    [composed] = [e for e in await rig.events(hook) if ".group." in e.type]
    identity = str(delivery_id(hook["subscription_id"], composed.id))
    assert by_path["/hook"].headers["webhook-id"] == f"msg_{identity}"
    assert len(by_path["/hook"].body) < 10_000
