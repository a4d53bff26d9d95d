"""Reading the views: documents for HTTP."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import claims
from audit.tables import alias_interval, model_name, revoked, stage_interval, timeline
from kit.problems import Problem

Document = dict[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Filter:
    """What a timeline is narrowed to; None is anything. `workspace` None includes what belongs to no workspace.

    `model` is an identity where a workspace is given (see `identity`), else any name that a model has or had.
    """

    workspace: str | None = None
    model: str | None = None
    version: int | None = None
    type: str | None = None
    actor: str | None = None
    correlationid: str | None = None


async def timeline_page(tx: AsyncConnection, wanted: Filter, *, limit: int, after: str | None) -> Document:
    """Entries beyond the cursor `after`, in order of what happened and then of the log.

    Raises:
        Problem: 422, the cursor is none of ours.
    """
    place = sa.tuple_(timeline.c.at, timeline.c.index)
    query = sa.select(timeline).order_by(*place).limit(limit + 1)
    if after is not None:
        query = query.where(place > sa.tuple_(*map(sa.literal, _place_of(after))))
    for name, value in vars(wanted).items():
        if value is None:
            continue
        condition = timeline.c[name] == value
        if name == "model" and wanted.workspace is None:
            n = model_name.c
            named = sa.select(n.workspace, n.model).where(n.name == value)
            condition |= sa.tuple_(timeline.c.workspace, timeline.c.model).in_(named)
        query = query.where(condition)
    rows = (await tx.execute(query)).mappings().all()
    items = [dict(row) for row in rows[:limit]]
    return {"items": items, "next": _cursor_of(items[-1]) if len(rows) > limit else None}


def _cursor_of(row: Document) -> str:
    return f"{(row['at'] - EPOCH) // MICROSECOND}.{row['index']}"


def _place_of(cursor: str) -> tuple[datetime, int]:
    micros, _, index = cursor.partition(".")
    try:
        at, number = EPOCH + int(micros) * MICROSECOND, int(index)
    except (ValueError, OverflowError) as error:
        raise Problem(422, "invalid-request", "'after' is not the 'next' of a page") from error
    if not 0 <= number < 2**63:
        raise Problem(422, "invalid-request", "'after' is not the 'next' of a page")
    return at, number


async def identity(tx: AsyncConnection, workspace: str, name: str) -> str:
    """The name under which the model was registered that has, or had, this one; itself when nobody had it.

    Names never change hands in the registry. Should the log say otherwise, the registered one and then the first wins.
    """
    n = model_name.c
    found = sa.select(n.model).where(n.workspace == workspace, n.name == name)
    return str(await tx.scalar(found.order_by((n.model == name).desc(), n.index, n.model).limit(1)) or name)


async def occupant(tx: AsyncConnection, workspace: str, model: str, stage: str, at: datetime) -> Document:
    """What was in a stage at an instant. The newest comes first, and is the one answer of old; `occupants` are all.

    A version that was revoked afterwards was there all the same: `revoked` says since when nobody may use it.
    """
    stage = (await claims.history(tx, workspace)).spelling(stage, at)
    t = stage_interval.c
    rows = await _present(tx, stage_interval, at, t.workspace == workspace, t.model == model, t.stage == stage)
    place = {"workspace": workspace, "model": model, "stage": stage, "at": at}
    first = rows[0] if rows else _nothing(stage_interval)
    everybody = [{name: value for name, value in row.items() if name not in place} for row in rows]
    return {**first, **place, "others": [row["version"] for row in rows[1:]], "occupants": everybody}


async def pointed(tx: AsyncConnection, workspace: str, model: str, alias: str, at: datetime) -> Document:
    """Where an alias pointed at an instant, and who let it."""
    t = alias_interval.c
    rows = await _present(tx, alias_interval, at, t.workspace == workspace, t.model == model, t.alias == alias)
    place = {"workspace": workspace, "model": model, "alias": alias, "at": at}
    return {**(rows[0] if rows else _nothing(alias_interval)), **place}


def _nothing(table: sa.Table) -> Document:
    return {**dict.fromkeys(table.c.keys()), "approved_by": [], "criteria": [], "revoked": None}


async def _present(tx: AsyncConnection, table: sa.Table, at: datetime, *of: sa.ColumnElement[bool]) -> list[Document]:
    """The intervals that hold the instant, the newest first, with what is known of their versions by now."""
    t, r = table.c, revoked.c
    same = sa.and_(r.workspace == t.workspace, r.model == t.model, r.version == t.version)
    told = {"at": r.at, "by": r.revoked_by, "reason": r.reason, "fallback": r.fallback, "index": r.index}
    query = (
        sa.select(table, *told.values())
        .join_from(table, revoked, same, isouter=True)
        .where(*of, t.since <= at, sa.or_(t.until.is_(None), t.until > at))
    )
    found = await tx.execute(query.order_by(t.since.desc(), t.index.desc()).limit(1000))
    return [
        {column.key: row[column] for column in t}
        | {"revoked": {name: row[column] for name, column in told.items()} if row[r.index] is not None else None}
        for row in found.mappings()
    ]
