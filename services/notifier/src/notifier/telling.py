"""The notifier's own news (dead deliveries, endpoints that fail) as deliveries to those who asked for them, and to the
owner by another way."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope
from contracts.notifier import Channel, DeliveryDead, SubscriptionDisabled, SubscriptionFaltered
from notifier import queue, views
from notifier.channels.formats import TYPES
from notifier.domain import Subscription, matching
from notifier.filters import OWN_TYPES, asks_for_own
from notifier.matching import Seen
from notifier.queue import Wanted
from notifier.tables import SubscriptionRow, TargetRow
from notifier.views import t

OF_ENDPOINTS = (SubscriptionFaltered.TYPE, SubscriptionDisabled.TYPE)


async def tell(tx: AsyncConnection, news: Sequence[tuple[Envelope, Envelope]]) -> None:
    """Each event with the one whose delivery it is about. That a message about a dead delivery is dead tells nobody:
    it would tell for ever."""
    for envelope, about in news:
        if envelope.type not in OWN_TYPES or (envelope.type == DeliveryDead.TYPE and about.type in OWN_TYPES):
            continue
        event = Seen(envelope)
        subject = envelope.key.removeprefix("subscription:")
        place = [event.workspace] if event.workspace is not None else None
        asked = [s for s in await views.active_in(tx, place) if asks_for_own(s.types)]
        wanted = [s for s in matching(asked, event).wanted if s.subscription_id != subject]
        if envelope.type in OF_ENDPOINTS and (way := await _other_way(tx, subject)) is not None:
            wanted += [way] if way.subscription_id not in {s.subscription_id for s in wanted} else []
        if wanted:
            living = await queue.lock_living(tx, {s.subscription_id for s in wanted})
            position = (await queue.keep(tx, [event]))[envelope.id]
            theirs = [s for s in wanted if s.subscription_id in living]
            await queue.enqueue(tx, [Wanted(s, envelope, position) for s in theirs])


async def _other_way(tx: AsyncConnection, subscription_id: str) -> Subscription | None:
    """A subscription of the same owner that leads elsewhere, by preference a mailbox, and one that does not fail. Not
    one in the format of another registry, which has no message for it."""
    of, target = t(SubscriptionRow), t(TargetRow)
    mine = sa.select(of.c.owner, target.c.endpoint).join(target, target.c.subscription_id == of.c.subscription_id)
    mine_row = (await tx.execute(mine.where(of.c.subscription_id == subscription_id))).first()
    if mine_row is None:
        return None
    query = sa.select(of).join(target, target.c.subscription_id == of.c.subscription_id)
    query = query.where(
        of.c.format.not_in([format_.value for format_ in TYPES]),
        of.c.owner == mine_row.owner,
        of.c.status == "active",
        ~of.c.paused,
        target.c.endpoint != mine_row.endpoint,
    )
    best = (target.c.failing_since.is_not(None), of.c.channel != Channel.EMAIL.value, of.c.subscription_id)
    row = (await tx.execute(query.order_by(*best).limit(1))).first()
    return views.read(row) if row else None
