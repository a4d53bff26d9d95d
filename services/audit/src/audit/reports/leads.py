"""How long versions take from their registration to a stage."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import paging
from audit.domain import REGISTRATION
from audit.paging import Ask, Document, known_with
from audit.queries import Place
from audit.view_tables import stage_interval

PERCENTILES = (50, 90, 99)


async def lead_times(tx: AsyncConnection, place: Place, stage: str, ask: Ask) -> Document:
    """Versions in order of when they first reached the stage, and the percentiles of all of them in seconds."""
    begun = await paging.begin(tx, ask, (datetime, int))
    lead = _leads(place, stage, begun.size)
    place_of = (lead.c.at, lead.c.index)
    page = await paging.read(tx, sa.select(lead), place_of, ("at", "index"), begun, ask.limit)
    return {**page, "overall": dict((await tx.execute(sa.select(*_statistics(lead)))).mappings().one())}


async def lead_times_of_models(tx: AsyncConnection, place: Place, stage: str, ask: Ask) -> Document:
    """The percentiles per model, in order of their names."""
    begun = await paging.begin(tx, ask, (str, str))
    lead = _leads(place, stage, begun.size)
    names = (lead.c.workspace, lead.c.model)
    query = sa.select(*names, *_statistics(lead)).group_by(*names)
    return await paging.read(tx, query, names, ("workspace", "model"), begun, ask.limit)


def _leads(place: Place, stage: str, size: int) -> sa.Subquery:
    begun, reached = stage_interval.alias(), stage_interval.alias()
    key = ("workspace", "model", "version")
    first = (
        sa.select(reached)
        .ext(distinct_on(*(reached.c[name] for name in key)))
        .where(known_with(reached, size), sa.func.lower(reached.c.stage) == stage.lower())
        .order_by(*(reached.c[name] for name in key), reached.c.since, reached.c.index)
        .subquery()
    )
    lead = (
        sa.select(
            *(first.c[name] for name in key),
            begun.c.since.label("registered_at"),
            begun.c.index.label("registered_index"),
            first.c.since.label("at"),
            first.c.index,
            sa.extract("epoch", first.c.since - begun.c.since).cast(sa.Float).label("seconds"),
        )
        .join_from(first, begun, sa.and_(*(first.c[name] == begun.c[name] for name in key)))
        .where(begun.c.kind == REGISTRATION, known_with(begun, size))
        .subquery()
    )
    return sa.select(lead).where(*place.on(lead)).subquery()


def _statistics(lead: sa.Subquery) -> list[sa.ColumnElement[Any]]:
    seconds = lead.c.seconds
    return [
        sa.func.count().label("versions"),
        sa.func.min(seconds).label("least"),
        sa.func.max(seconds).label("most"),
        sa.func.avg(seconds).label("mean"),
        *(sa.func.percentile_cont(n / 100).within_group(seconds).label(f"p{n}") for n in PERCENTILES),
    ]
