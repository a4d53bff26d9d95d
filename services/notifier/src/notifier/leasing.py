"""Which deliveries go next: workers lease what is due, each for a while.

Several may lease at once. A lane is one stream for one subscription: only its oldest open delivery may go, so that a
receiver sees a model's events in order and only that model waits.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope
from notifier import endpoints, views
from notifier.breaker import Rate
from notifier.domain import Subscription
from notifier.queue import LANES
from notifier.tables import SecretRow, SubscriptionRow
from notifier.views import t

# Per subscription, so that one with a long queue takes no more than its share of the page: however much waits there,
# no more than `share` lanes of it are looked at (and those that are under way).
DUE = sa.text(
    """
    select l.subscription_id, l.lane, e.endpoint, e.probe_at is not null as probe, s.channel
    from notifier.subscription s
    left join notifier.target g using (subscription_id)
    left join notifier.endpoint e using (endpoint)
    left join unnest(:channels, :rates, :bursts) r (channel, rate, burst) on r.channel = s.channel
    left join unnest(:busy_ids, :busy_counts) busy (subscription_id, count) using (subscription_id)
    cross join lateral (
      select q.subscription_id, q.lane, q.due_at from notifier.lane q
      where q.subscription_id = s.subscription_id and q.due_at <= now()
        and (q.leased_until is null or q.leased_until <= now())
      order by q.due_at limit greatest(least(
        :share - coalesce(busy.count, 0),
        case when e.probe_at is not null then 1 end,
        floor(least(r.burst, e.tokens + r.rate * extract(epoch from now() - e.refilled_at)))::int
      ), 0)
      for update skip locked
    ) l
    where s.status = 'active' and not s.paused
      and (e.probe_at is null or e.probe_at <= now()) and (e.paused_until is null or e.paused_until <= now())
    order by l.due_at limit :free
    """
).bindparams(
    sa.bindparam("busy_ids", type_=ARRAY(sa.Text)),
    sa.bindparam("channels", type_=ARRAY(sa.Text)),
    sa.bindparam("rates", type_=ARRAY(sa.Float)),
    sa.bindparam("bursts", type_=ARRAY(sa.Float)),
    sa.bindparam("busy_counts", type_=ARRAY(sa.Integer)),
    sa.bindparam("share", type_=sa.Integer),
)
# The oldest open delivery of each lane; what the senders need is read along.
TAKE = sa.text(
    """
    with taken as (
      update notifier.lane l set leased_until = now() + make_interval(secs => :seconds)
      from unnest(:ids, :lanes) u (subscription_id, lane)
      where l.subscription_id = u.subscription_id and l.lane = u.lane
      returning l.subscription_id, l.lane
    ), begun as (
      update notifier.delivery d set attempts = d.attempts + 1, tries = d.tries + 1
      from taken cross join lateral (
        select h.delivery_id from notifier.delivery h
        where h.open and h.subscription_id = taken.subscription_id and h.lane = taken.lane
        order by h.event_position limit 1
      ) head
      where d.delivery_id = head.delivery_id
      returning d.*
    ), noted as (
      insert into notifier.attempt (delivery_id, attempt, started_at) select delivery_id, attempts, now() from begun
    )
    select b.delivery_id, b.subscription_id, b.lane, b.attempts, b.tries, e.stream, e.headers, e.value
    from begun b join notifier.source_event e using (event_id)
    """
).bindparams(*LANES, sa.bindparam("seconds", type_=sa.Float))


@dataclass(frozen=True)
class Lease:
    """A delivery that this worker may send now. `attempt` is the fence: a later lease has a higher one."""

    delivery_id: UUID
    lane: str
    subscription: Subscription
    envelope: Envelope
    attempt: int
    tries: int
    probe: bool
    secrets: Mapping[str, bytes] = field(repr=False)


async def lease(
    tx: AsyncConnection,
    *,
    free: int,
    share: int,
    busy: Mapping[str, int],
    seconds: float,
    rates: Mapping[str, Rate] = MappingProxyType({}),
) -> list[Lease]:
    """Takes due deliveries for `seconds` and writes down that a try begins.

    `free` is how many at most, `share` how many per subscription, `busy` how many this worker has under way, `rates`
    how fast an endpoint of a channel is sent to.
    """
    values: dict[str, Any] = {"busy_ids": list(busy), "busy_counts": list(busy.values()), "share": share, "free": free}
    values |= {"channels": list(rates), "rates": [rate.per_second for rate in rates.values()]}
    values |= {"bursts": [rate.burst for rate in rates.values()]}
    due = await _granted(tx, (await tx.execute(DUE, values)).all(), rates, seconds)
    if not due:
        return []
    lanes = {"ids": [row.subscription_id for row in due], "lanes": [row.lane for row in due], "seconds": seconds}
    probes = {(row.subscription_id, row.lane) for row in due if row.probe}
    return await _load(tx, (await tx.execute(TAKE, lanes)).all(), probes)


async def _granted(tx: AsyncConnection, due: Sequence[Any], rates: Mapping[str, Rate], seconds: float) -> list[Any]:
    """Without those for which another worker was quicker to take the token, or the probe."""
    wanted, own = Counter[str](), dict[str, Rate]()
    for row in due:
        if row.endpoint is not None and (row.probe or row.channel in rates):
            wanted[row.endpoint] += 1
            own |= {row.endpoint: rates[row.channel]} if row.channel in rates else {}
    left = await endpoints.grant(tx, wanted, own, seconds) if wanted else {}
    kept = []
    for row in due:
        if row.endpoint in left:
            if left[row.endpoint] <= 0:
                continue
            left[row.endpoint] -= 1
        kept.append(row)
    return kept


async def _load(tx: AsyncConnection, taken: Sequence[Any], probes: Collection[tuple[str, str]]) -> list[Lease]:
    """What the senders need of the rows just leased."""
    of, secret = t(SubscriptionRow), t(SecretRow)
    wanted = {row.subscription_id for row in taken}
    subscriptions = {
        row.subscription_id: views.read(row)
        for row in await tx.execute(sa.select(of).where(of.c.subscription_id.in_(wanted)))
    }
    secrets: dict[str, dict[str, bytes]] = {subscription_id: {} for subscription_id in wanted}
    counting = sa.or_(secret.c.until.is_(None), secret.c.until > sa.func.now())
    for row in await tx.execute(sa.select(secret).where(secret.c.subscription_id.in_(wanted), counting)):
        secrets[row.subscription_id][row.name] = row.value
    return [
        Lease(
            delivery_id=row.delivery_id,
            lane=row.lane,
            subscription=subscriptions[row.subscription_id],
            envelope=views.envelope_of(row),
            attempt=row.attempts,
            tries=row.tries,
            probe=(row.subscription_id, row.lane) in probes,
            secrets=secrets[row.subscription_id],
        )
        for row in taken
    ]
