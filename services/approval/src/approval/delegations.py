"""Delegations: listed in pages, and for whom somebody may vote by them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from approval import views
from approval.tables import DelegationRow, of

_delegation = of(DelegationRow)


async def listed(tx: AsyncConnection, subject: str | None, *, after: str | None, limit: int) -> Sequence[Any] | None:
    """Delegations to and by somebody (None: everybody's), ended ones too, the latest first: those `after` one; None:
    there is no such one."""
    query = sa.select(_delegation).order_by(_delegation.c.granted_at.desc(), _delegation.c.delegation_id.desc())
    if subject is not None:
        query = query.where(sa.or_(_delegation.c.delegate == subject, _delegation.c.delegator == subject))
    if after is not None:
        known = await views.delegation(tx, after)
        if known is None:
            return None
        here = sa.tuple_(_delegation.c.granted_at, _delegation.c.delegation_id)
        query = query.where(here < sa.tuple_(sa.literal(known.granted_at), sa.literal(after)))
    return (await tx.execute(query.limit(limit))).all()


async def delegators(tx: AsyncConnection, delegate: str, at: datetime, limit: int) -> dict[str, timedelta]:
    """For whom somebody may vote then, by delegations in force, the latest first; and how long the shortest lasts."""
    query = (
        sa.select(_delegation.c.delegator, sa.func.min(_delegation.c.ends - _delegation.c.starts).label("lasts"))
        .where(
            _delegation.c.delegate == delegate,
            _delegation.c.starts <= at,
            _delegation.c.ends > at,
            _delegation.c.ended_at.is_(None),
        )
        .group_by(_delegation.c.delegator)
        .order_by(sa.func.max(_delegation.c.granted_at).desc(), _delegation.c.delegator)
        .limit(limit)
    )
    return {row.delegator: row.lasts for row in await tx.execute(query)}
