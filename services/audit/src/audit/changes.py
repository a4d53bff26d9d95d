"""What is different between two instants: who was in which stage, where aliases pointed, and which entry made it so."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import paging
from audit.paging import Ask, Document, Known, known_with
from audit.queries import Place
from audit.view_tables import alias_interval, stage_interval

KEY = ("workspace", "model", "alias", "place")
HELD = (
    "version", "since", "requested_by", "reason", "approved_by", "policy", "decision_id", "transition_id", "digest",
    "artifact_digest", "index",
)  # fmt: skip


async def changes(
    tx: AsyncConnection, place: Place, since: datetime, until: datetime, target: str | None, known: Known, ask: Ask
) -> Document:
    """Versions that are somewhere else at `until` than at `since`, and aliases that point elsewhere, as one tree knew
    both instants; in order of workspace and model, versions before aliases.

    `target`: only what was or is in that stage, or the `@alias`. What came and went in between is no change.
    """
    begun = await paging.begin(tx, ask, (str, str, str, str))
    size = await known.within(tx, begun.size)
    of = replace(place, since=None, until=None)
    held = sa.union_all(
        *(
            _held(table, of, at, size, side)
            for table in (stage_interval, alias_interval)
            for side, at in (("before", since), ("after", until))
        )
    ).subquery()
    h = held.c

    def of_side(column: sa.ColumnElement[Any], side: str) -> sa.ColumnElement[Any]:
        return sa.func.max(column).filter(h.side == side)

    sides = [sa.func.jsonb_agg(h.told).filter(h.side == side).op("->")(0).label(side) for side in ("before", "after")]
    query = (
        sa.select(*(h[name] for name in KEY), *sides)
        .group_by(*(h[name] for name in KEY))
        .having(of_side(h.index, "before").is_distinct_from(of_side(h.index, "after")), sa.func.bool_or(h.held))
    )
    if target is not None:
        query = query.having(sa.func.bool_or(sa.func.lower(h.target) == target.lower()))
    found = query.subquery()
    place_of = [found.c[name] for name in KEY]
    page = await paging.read(tx, sa.select(found), place_of, KEY, begun, ask.limit, _shape)
    return {**page, "since": since, "until": until, "known_size": size}


def _held(table: sa.Table, place: Place, at: datetime, size: int, side: str) -> sa.Select[Any]:
    """What held at an instant. `place` of a version is its number, so that they come in order."""
    c = table.c
    stages = table is stage_interval
    target = c.stage if stages else sa.func.concat("@", c.alias)
    told: list[Any] = []
    for name in HELD:
        told += [sa.literal_column(f"'{name}'"), c[name]]
    return sa.select(
        sa.literal_column(f"'{side}'").label("side"),
        c.workspace,
        c.model,
        (sa.literal_column("''") if stages else c.alias).label("alias"),
        (sa.func.lpad(sa.cast(c.version, sa.Text), 10, "0") if stages else sa.literal_column("''")).label("place"),
        target.label("target"),
        c.version.is_not(None).label("held"),
        c.index,
        sa.func.jsonb_build_object(sa.literal_column("'target'"), target, *told).label("told"),
    ).where(
        known_with(table, size),
        c.since <= at,
        sa.or_(c.until.is_(None), c.until > at),
        *place.on(table, "since"),
    )


def _shape(row: Document) -> Document:
    """`index` is the entry that made it as it is: of an alias that is gone, its removal."""
    sides = (row["before"], row["after"])
    index = sides[1]["index"] if sides[1] else None
    before, after = (side if side and side["version"] is not None else None for side in sides)
    told = {"workspace": row["workspace"], "model": row["model"], "alias": row["alias"] or None}
    held = after or before
    version = held["version"] if held and not row["alias"] else None
    return {**told, "version": version, "before": before, "after": after, "index": index}
