"""Rollbacks, revocations, and what is missing or wrong in the log."""

from itertools import islice

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import paging
from audit.completeness import MOST
from audit.gaps import Gaps
from audit.paging import Ask, Document, known_with
from audit.queries import Place
from audit.view_tables import alias_interval, fact, revoked, stage_interval, timeline
from contracts.approval import RevocationOrdered
from contracts.lifecycle import TransitionKind

ROLLED = (
    "index", "at", "workspace", "model", "version", "stage", "requested_by", "reason", "approved_by", "policy",
    "decision_id", "transition_id", "digest", "replaced",
)  # fmt: skip


async def rollbacks(tx: AsyncConnection, place: Place, ask: Ask) -> Document:
    """Returns of a stage to a version that had been in it, and of an alias to one that it had pointed at, in order of
    the log. The `stage` of an alias is `@alias`."""
    begun = await paging.begin(tx, ask, (int,))
    s, a, before = stage_interval.c, alias_interval.c, alias_interval.alias()
    after = begun.place[0] if begun.place else -1
    stages = (
        sa.select(
            *(s.index, s.since, s.workspace, s.model, s.version, s.stage, s.requested_by, s.reason),
            *(s.approved_by, s.policy, s.decision_id, s.transition_id, s.digest),
            fact.c.data["replaces"].astext.cast(sa.Integer),
        )
        .join_from(stage_interval, fact, fact.c.index == s.index, isouter=True)
        .where(s.kind == TransitionKind.ROLLBACK.value, known_with(stage_interval, begun.size), s.index > after)
        .where(*place.on(stage_interval, "since"))
    )
    returned = sa.exists().where(
        *(before.c[name] == a[name] for name in ("workspace", "model", "alias", "version")),
        before.c.since < a.since,
        known_with(before, begun.size),
    )
    aliases = sa.select(
        *(a.index, a.since, a.workspace, a.model, a.version, sa.func.concat("@", a.alias), a.requested_by, a.reason),
        *(a.approved_by, a.policy, a.decision_id, a.transition_id, a.digest, a.previous),
    ).where(a.version.is_distinct_from(a.previous), returned, known_with(alias_interval, begun.size), a.index > after)
    both = sa.union_all(stages, aliases.where(*place.on(alias_interval, "since"))).subquery()
    query = sa.select(*(column.label(name) for name, column in zip(ROLLED, both.c, strict=True)))
    return await paging.read(tx, query, (both.c[0],), ("index",), begun, ask.limit)


async def revocations(tx: AsyncConnection, place: Place, ask: Ask) -> Document:
    """Believed words that nobody may use a version, in order of the log, with the believed order of each."""
    begun = await paging.begin(tx, ask, (int,))
    r, o, t = revoked.c, fact.c, timeline.c
    order = (
        sa.select(sa.func.min(o.index))
        .where(
            o.type == RevocationOrdered.TYPE,
            o.workspace == r.workspace,
            o.model == r.model,
            o.version == r.version,
            o.index < begun.size,
            sa.exists().where(t.index == o.index, t.problem.is_(None), t.copy_of.is_(None)),
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


async def offsets(walker: Gaps) -> list[Document]:
    """Offsets that the log has not, and of which the broker did not say that it has no record, as of now, at most
    100 ranges of each partition and epoch. `/v1/log/completeness` asks the broker for the rest."""
    found = []
    for book in await walker.books():
        place = {"topic": book.topic, "partition": book.partition, "epoch": book.epoch}
        holes = islice(await walker.of(book), MOST)
        found += [{**place, "first_missing": first, "last_missing": until - 1} for first, until in holes]
    return found
