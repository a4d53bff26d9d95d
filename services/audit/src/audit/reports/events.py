"""Rollbacks, revocations, and what is missing or wrong in the log."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import paging
from audit.paging import Ask, Document, known_with
from audit.queries import Place
from audit.tables import fact, revoked, stage_interval, timeline
from contracts.approval import RevocationOrdered
from contracts.lifecycle import TransitionKind


async def rollbacks(tx: AsyncConnection, place: Place, ask: Ask) -> Document:
    """Returns of a stage to a version that had been in it, in order of the log."""
    begun = await paging.begin(tx, ask, (int,))
    s = stage_interval.c
    query = (
        sa.select(
            *(s[n] for n in ("index", "workspace", "model", "version", "stage", "requested_by", "reason")),
            s.since.label("at"),
            *(s[n] for n in ("approved_by", "policy", "decision_id", "transition_id", "digest")),
            fact.c.data["replaces"].astext.cast(sa.Integer).label("replaced"),
        )
        .join_from(stage_interval, fact, fact.c.index == s.index, isouter=True)
        .where(
            s.kind == TransitionKind.ROLLBACK.value,
            known_with(stage_interval, begun.size),
            *place.on(stage_interval, "since"),
        )
    )
    return await paging.read(tx, query, (s.index,), ("index",), begun, ask.limit)


async def revocations(tx: AsyncConnection, place: Place, ask: Ask) -> Document:
    """Believed words that nobody may use a version, in order of the log, with the order that each rests on."""
    begun = await paging.begin(tx, ask, (int,))
    r, o = revoked.c, fact.c
    order = (
        sa.select(sa.func.min(o.index))
        .where(
            o.type == RevocationOrdered.TYPE,
            o.workspace == r.workspace,
            o.model == r.model,
            o.version == r.version,
            o.index < begun.size,
        )
        .scalar_subquery()
    )
    query = sa.select(
        *(r[n] for n in ("index", "at", "workspace", "model", "version", "revoked_by", "reason", "fallback")),
        order.label("ordered_index"),
    ).where(r.index < begun.size, *place.on(revoked))
    return await paging.read(tx, query, (r.index,), ("index",), begun, ask.limit)


async def gaps(tx: AsyncConnection, ask: Ask) -> Document:
    """Ranges of sequence numbers that streams skip, and how many entries have which problem."""
    begun = await paging.begin(tx, ask, (str, str, int))
    t = timeline.c
    stream = (t.topic, t.stream)
    before = sa.func.lag(t.sequence).over(partition_by=stream, order_by=(t.sequence, t.index))
    seen = sa.select(*stream, t.sequence, t.index, sa.func.coalesce(before, 0).label("before")).where(
        t.index < begun.size, t.sequence.is_not(None)
    )
    if begun.place:  # whole streams only: a range begins after the number before it
        seen = seen.where(sa.tuple_(*stream) >= sa.tuple_(*map(sa.literal, begun.place[:2])))
    s = seen.subquery().c
    query = sa.select(
        s.topic,
        s.stream,
        (s.before + 1).label("first_missing"),
        (s.sequence - 1).label("last_missing"),
        s.sequence.label("following"),
        s.index.label("following_index"),
    ).where(s.sequence > s.before + 1)
    place = (s.topic, s.stream, s.sequence)
    page = await paging.read(tx, query, place, ("topic", "stream", "following"), begun, ask.limit)
    code = sa.func.split_part(t.problem, ":", 1).label("code")
    problems = (
        sa.select(
            code,
            sa.func.count().label("entries"),
            sa.func.min(t.index).label("first_index"),
            sa.func.max(t.index).label("last_index"),
        )
        .where(t.problem.is_not(None), t.index < begun.size)
        .group_by(code)
        .order_by(code)
    )
    return {**page, "problems": [dict(row) for row in (await tx.execute(problems)).mappings()]}
