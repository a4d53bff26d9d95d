"""What is put right once a reconciliation has told of it: deliveries that no timer would ever send get one again."""

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.db import Database
from notifier import queue

log = structlog.get_logger()
# No bundle waits as long: somebody's clock was wrong when it was made.
NEVER = "interval '9 days'"
LANELESS = sa.text(
    """
    select distinct d.subscription_id, d.lane from notifier.delivery d
    left join notifier.lane l on l.subscription_id = d.subscription_id and l.lane = d.lane
    where d.open and l.lane is null
    """
)
BUNDLES = sa.text(
    f"""
    insert into notifier.bundle (subscription_id, labels, due_at, event_at)
    select distinct d.subscription_id, d.held_by, now(), now()
    from notifier.delivery d
    join notifier.subscription s on s.subscription_id = d.subscription_id and s.status = 'active'
    left join notifier.bundle b on b.subscription_id = d.subscription_id and b.labels = d.held_by
    where d.status = 'waiting' and (b.due_at is null or b.due_at > now() + {NEVER})
    order by 1, 2
    on conflict (subscription_id, labels) do update set due_at = excluded.due_at
      where bundle.due_at is null or bundle.due_at > now() + {NEVER}
    """  # noqa: S608
)
# What came of the message came of those it told of.
TOLD = sa.text(
    """
    update notifier.delivery d set status = m.status, closed_at = now()
    from notifier.delivery m
    where d.status = 'grouped' and m.delivery_id = d.held_by::uuid and not m.open
    """
)
UNTOLD = sa.text(
    """
    select d.delivery_id from notifier.delivery d
    join notifier.subscription s on s.subscription_id = d.subscription_id and s.status = 'active'
    where d.status = 'grouped'
      and not exists (select 1 from notifier.delivery m where m.delivery_id = d.held_by::uuid)
    """
)


async def mend(db: Database) -> int:
    """Gives how many lanes, messages and deliveries were put right. What waits in no lane gets one, what waits for a
    message that nobody makes goes out in one now, and what was in a message that is gone goes out alone."""
    count = 0
    async with db.transaction() as tx:
        count += await _lanes(tx)
    for statement in (BUNDLES, TOLD):
        async with db.transaction() as tx:
            count += (await tx.execute(statement)).rowcount
    async with db.transaction() as tx:
        untold = list((await tx.scalars(UNTOLD)).all())
        if untold:
            await queue.reopen(tx, untold)
        count += len(untold)
    if count:
        log.warning("put deliveries right that no timer would have sent", count=count)
    return count


async def _lanes(tx: AsyncConnection) -> int:
    lanes = sorted((row.subscription_id, row.lane) for row in await tx.execute(LANELESS))
    if lanes:
        await queue.open_lanes(tx, lanes)
        await queue.lock_lanes(tx, lanes)
        await queue.settle_lanes(tx, lanes, ends=False)
    return len(lanes)
