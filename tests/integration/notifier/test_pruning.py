"""Tries are forgotten when they are old, but never those of a delivery that is open."""

import sqlalchemy as sa
from tests.support.receiver import Receiver

from notifier.pruning import Pruning

from .conftest import Rig


async def test_old_tries_of_ended_deliveries_are_forgotten(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda hit: 200 if hit.document["subject"].startswith("default/a/") else 500
    made = await rig.webhook(f"{receiver.url}/hook", retry_seconds=(0.02, 3600))
    await rig.happens(rig.event("a", 1), rig.event("b", 1), rig.event("a", 2))
    async with rig.worker():
        await rig.said(made, 5)
    async with rig.db.transaction() as tx:
        old = "update notifier.attempt set started_at = now() - interval '91 days' where delivery_id <> :last"
        last = (await rig.deliveries(made))[2]["delivery_id"]
        await tx.execute(sa.text(old), {"last": last})
    assert await Pruning(rig.db, 90).prune() == 1
    assert [len(await rig.tries(d)) for d in await rig.deliveries(made)] == [0, 2, 1]
    assert await Pruning(rig.db, 90).prune() == 0
