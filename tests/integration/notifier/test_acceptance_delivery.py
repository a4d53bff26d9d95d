"""Acceptance tests of delivery by the letters of the reference: (b) and (c). (a) needs the whole process and Kafka:
`test_service.py`, killed between the receiver's answer and the commit."""

import asyncio
import statistics

from tests.support.receiver import Hit, Receiver
from tests.support.waiting import until

from notifier.settings import NotifierSettings

from .conftest import Rig

HOUR = 3600.0


async def test_b_a_receiver_that_was_down_for_three_hours_gets_each_once_in_order_per_model(
    rig: Rig, receiver: Receiver
) -> None:
    """On a fake clock, with the real schedule: 5 s, 5 min, 30 min, 2 h, ..."""
    down = True
    taken: list[tuple[str, int]] = []

    def answer(hit: Hit) -> int:
        if down:
            return 503
        taken.append((hit.document["partitionkey"], hit.document["sequence"]))
        return 200

    receiver.answer = answer
    made = await rig.webhook(f"{receiver.url}/hook")
    pauses = NotifierSettings.model_fields["retry_seconds"].default
    await rig.happens(*(rig.event(f"m{n}", version) for version in (1, 2, 3) for n in range(4)))
    async with rig.worker(pauses=pauses):
        for passed in range(18):  # three hours, ten minutes at a time
            await until(lambda: _idle(rig), 60)
            await rig.pass_time(600)
            if passed == 9:
                await rig.happens(*(rig.event(f"m{n}", 4) for n in range(4)))
        await until(lambda: _idle(rig), 60)
        assert len(receiver.hits) > 12
        assert not taken
        down = False
        while not all(d["status"] == "succeeded" for d in await rig.deliveries(made)):
            await rig.pass_time(600)
            await until(lambda: _idle(rig), 60)
        done = await rig.all_done(made, 16)
    assert {d["status"] for d in done} == {"succeeded"}
    assert len(taken) == len(set(taken)) == 16
    for n in range(4):
        assert [sequence for key, sequence in taken if key == f"default/m{n}"] == [1, 2, 3, 4]
    assert len({hit.headers["webhook-id"] for hit in receiver.hits}) == 16


async def _idle(rig: Rig) -> bool:
    """Whether nothing is under way or could go now."""
    query = """
        select not exists (
          select 1 from notifier.lane l
          join notifier.target using (subscription_id) join notifier.endpoint e using (endpoint)
          where l.leased_until > now() or (l.due_at <= now() and (e.probe_at is null or e.probe_at <= now())))
    """
    async with rig.db.snapshot() as tx:
        return bool((await tx.exec_driver_sql(query)).scalar())


async def test_c_a_backlog_of_a_dead_endpoint_changes_nothing_for_the_live_ones(rig: Rig, receiver: Receiver) -> None:
    """Fewer than ten thousand, so that it may run each time: `tests/bench/notify_soak.py` takes them all. Without and
    with a dead endpoint that has all of the backlog, the live ones wait as long."""
    silent = await asyncio.start_server(lambda reader, writer: asyncio.sleep(3600), "127.0.0.1", 0)
    live = [await rig.webhook(f"{receiver.url}/live{n}", model="live*") for n in range(5)]

    async def waits(worker_name: str) -> float:
        """The 99th percentile of seconds from taking an event in to the end of its delivery."""
        before = {d["delivery_id"] for one in live for d in await rig.deliveries(one)}
        count = len(await rig.deliveries(live[0])) + 20
        for n in range(20):
            await rig.happens(rig.event(f"live-{worker_name}-{n}", 1))
        for one in live:
            await rig.all_done(one, count)
        async with rig.db.snapshot() as tx:
            rows = await tx.exec_driver_sql(
                "select delivery_id, extract(epoch from closed_at - created_at) as seconds from notifier.delivery"
                " where status = 'succeeded'"
            )
            taken = [float(row.seconds) for row in rows if str(row.delivery_id) not in before]
        return statistics.quantiles(taken, n=100)[98]

    async with rig.worker(graceful_seconds=0):
        await waits("warm")
        alone = await waits("alone")
        port = silent.sockets[0].getsockname()[1]
        dead = await rig.webhook(f"http://127.0.0.1:{port}/dead", model="dead*")
        await rig.happens(*(rig.event(f"dead-{n % 400}", 1 + n // 400) for n in range(800)))
        beside = await waits("beside")
        assert {d["status"] for d in await rig.deliveries(dead, limit=500)} == {"pending"}
    silent.close()
    assert beside < max(3 * alone, 1.0), (alone, beside)
