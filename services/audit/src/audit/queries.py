"""Reading the views: the timeline, points in time, and histories, as documents for HTTP."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import claims, paging
from audit.forgetting import refuse_forgotten
from audit.paging import Ask, Document, Known, known_with
from audit.view_tables import alias_interval, fact, model_name, revoked, stage_interval, timeline
from contracts.registry import ModelDeleted, ModelRecreated, ModelRestored

NOW = Known()
MOST = 1000


@dataclass(frozen=True)
class Place:
    """What is asked about; None is anything. `workspace` None includes what belongs to no workspace.

    `model` is an identity where a workspace is given (see `identity`). Without one it is a name, and `models` are the
    identities that it leads to, as (workspace, model); a model registered under it in any workspace counts as well,
    unless `renamed`.
    """

    workspace: str | None = None
    model: str | None = None
    version: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    models: tuple[tuple[str, str], ...] = ()
    renamed: bool = False

    def on(self, table: Any, at: str = "at") -> list[sa.ColumnElement[bool]]:
        """The conditions on the rows of a table, which has the columns workspace, model, version and `at`."""
        c = table.c
        found: list[sa.ColumnElement[bool]] = []
        if self.workspace is not None:
            found.append(c.workspace == self.workspace)
        if self.model is not None:
            named = sa.false() if self.renamed else c.model == self.model
            if self.models:
                named |= sa.tuple_(c.workspace, c.model).in_(self.models)
            found.append(named)
        if self.version is not None:
            found.append(c.version == self.version)
        if self.since is not None:
            found.append(c[at] >= self.since)
        if self.until is not None:
            found.append(c[at] < self.until)
        return found


ANYWHERE = Place()


@dataclass(frozen=True)
class Filter:
    """What a timeline is narrowed to; None is anything. Types and subjects may be patterns with * and ?.

    `copies`: also entries whose event was in the log before. `start`: from this index on.
    """

    place: Place = ANYWHERE
    types: tuple[str, ...] = ()
    actor: str | None = None
    subject: str | None = None
    outcome: str | None = None
    correlationid: str | None = None
    problem: bool | None = None
    copies: bool = False
    start: int = 0

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        t = timeline.c
        found = self.place.on(timeline)
        if self.types:
            found.append(sa.or_(*(_like(t.type, pattern) for pattern in self.types)))
        if self.subject is not None:
            found.append(_like(t.subject, self.subject))
        if self.outcome is not None:  # in the text of the statement: the index leaves out what is ok
            found.append(t.outcome == sa.literal(self.outcome, sa.Text, literal_execute=True))
        for name in ("actor", "correlationid"):
            if (value := getattr(self, name)) is not None:
                found.append(t[name] == value)
        if self.problem is not None:
            found.append(t.problem.is_not(None) if self.problem else t.problem.is_(None))
        if self.start:
            found.append(t.index >= self.start)
        if not self.copies:
            found.append(t.copy_of.is_(None))
        return found


def _like(column: sa.ColumnElement[Any], pattern: str) -> sa.ColumnElement[bool]:
    if not {"*", "?"} & set(pattern):
        return column == pattern
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return column.like(escaped.replace("*", "%").replace("?", "_"), escape="\\")


async def timeline_page(tx: AsyncConnection, wanted: Filter, ask: Ask) -> Document:
    """Entries in order of what happened and then of the log.

    Raises:
        Problem: 422, the cursor is none of ours; or pruned entries would be missing.
    """
    t = timeline.c
    begun = await paging.begin(tx, ask, (datetime, int))
    refuse_forgotten(wanted, begun.pruned_until)
    columns = [column for column in t if column.key != "content"]
    query = sa.select(*columns).where(t.index < begun.size, *wanted.conditions())
    return await paging.read(tx, query, (t.at, t.index), ("at", "index"), begun, ask.limit)


async def identity(tx: AsyncConnection, workspace: str, name: str) -> str:
    """The name under which the model was registered that has, or had, this one; itself when nobody had it.

    Names never change hands in the registry. Should the log say otherwise, the registered one and then the first wins.
    """
    n = model_name.c
    found = sa.select(n.model).where(n.workspace == workspace, n.name == name)
    return str(await tx.scalar(found.order_by((n.model == name).desc(), n.index, n.model).limit(1)) or name)


async def identities(tx: AsyncConnection, name: str) -> list[tuple[str, str]]:
    """The models of all workspaces that have or had the name, but those registered under it: (workspace, identity)."""
    n = model_name.c
    found = await tx.execute(sa.select(n.workspace, n.model).where(n.name == name, n.model != name).distinct())
    return sorted((row.workspace, row.model) for row in found)


async def occupant(
    tx: AsyncConnection,
    workspace: str,
    model: str,
    stage: str,
    at: datetime,
    known: Known = NOW,
    version: int | None = None,
) -> Document:
    """What was in a stage at an instant, or whether `version` was. The newest comes first, and is the one answer of
    old; `occupants` are all, up to `MOST`.

    A version that was revoked afterwards was there all the same: `revoked` says since when nobody may use it.
    """
    size = await known.within(tx, await paging.told(tx))
    stage = (await claims.history(tx, workspace)).spelling(stage, at)
    t = stage_interval.c
    of = [t.workspace == workspace, t.model == model, t.stage == stage]
    rows = await _present(tx, stage_interval, at, size, *of, *([] if version is None else [t.version == version]))
    truncated, rows = len(rows) > MOST, rows[:MOST]
    place = {"workspace": workspace, "model": model, "stage": stage, "at": at}
    first = rows[0] if rows else _nothing(stage_interval)
    everybody = [{name: value for name, value in row.items() if name not in place} for row in rows]
    return {
        **first,
        **place,
        "others": [row["version"] for row in rows[1:]],
        "occupants": everybody,
        "truncated": truncated,
        "deleted": await deleted(tx, workspace, model, at, size),
        "known_size": size,
    }


async def pointed(
    tx: AsyncConnection, workspace: str, model: str, alias: str, at: datetime, known: Known = NOW
) -> Document:
    """Where an alias pointed at an instant, and who let it."""
    size = await known.within(tx, await paging.told(tx))
    t = alias_interval.c
    rows = await _present(tx, alias_interval, at, size, t.workspace == workspace, t.model == model, t.alias == alias)
    place = {"workspace": workspace, "model": model, "alias": alias, "at": at}
    gone = await deleted(tx, workspace, model, at, size)
    return {**(rows[0] if rows else _nothing(alias_interval)), **place, "deleted": gone, "known_size": size}


async def deleted(tx: AsyncConnection, workspace: str, model: str, at: datetime, size: int) -> Document | None:
    """The entry by which the model was deleted at that instant, as a tree of `size` entries knew it."""
    f, t = fact.c, timeline.c
    query = (
        sa.select(f.type, f.at, t.actor.label("by"), f.data["reason"].astext.label("reason"), f.index)
        .join_from(fact, timeline, t.index == f.index)
        .where(
            *(f.workspace == workspace, f.model == model, f.version.is_(None)),
            *(f.type.in_([ModelDeleted.TYPE, ModelRestored.TYPE, ModelRecreated.TYPE]), f.at <= at, f.index < size),
            *(t.problem.is_(None), t.copy_of.is_(None)),
        )
        .order_by(t.sequence.desc(), f.index.desc())
    )
    row = (await tx.execute(query.limit(1))).mappings().first()
    if row is None or row["type"] != ModelDeleted.TYPE:
        return None
    return {name: row[name] for name in ("at", "by", "reason", "index")}


async def stage_history(tx: AsyncConnection, place: Place, stage: str | None, known: Known, ask: Ask) -> Document:
    """The stays of a model's versions in stages, in order of their beginning."""
    more = [] if stage is None else [sa.func.lower(stage_interval.c.stage) == stage.lower()]
    return await _history(tx, stage_interval, [*_during(place, stage_interval), *more], known, ask)


async def alias_history(tx: AsyncConnection, place: Place, alias: str, known: Known, ask: Ask) -> Document:
    """Where an alias pointed, in order of when it began to."""
    c = alias_interval.c
    return await _history(tx, alias_interval, [*_during(place, alias_interval), c.alias == alias], known, ask)


def _during(place: Place, table: sa.Table) -> list[sa.ColumnElement[bool]]:
    """Rows whose interval touches the time that is asked about."""
    c, of = table.c, Place(place.workspace, place.model, place.version)
    found = of.on(table)
    if place.since is not None:
        found.append(sa.or_(c.until.is_(None), c.until > place.since))
    if place.until is not None:
        found.append(c.since < place.until)
    return found


async def _history(
    tx: AsyncConnection, table: sa.Table, conditions: list[sa.ColumnElement[bool]], known: Known, ask: Ask
) -> Document:
    c = table.c
    begun = await paging.begin(tx, ask, (datetime, int))
    size = await known.within(tx, begun.size)
    query = _with_revoked(table, size).where(known_with(table, size), *conditions)
    page = await paging.read(tx, query, (c.since, c.index), ("since", "index"), begun, ask.limit, _shape(table))
    return {**page, "known_size": size}


def _nothing(table: sa.Table) -> Document:
    return {**dict.fromkeys(_columns(table)), "approved_by": [], "criteria": [], "revoked": None}


def _columns(table: sa.Table) -> list[str]:
    return [column.key for column in table.c if column.key != "known_until"]


async def _present(
    tx: AsyncConnection, table: sa.Table, at: datetime, size: int, *of: sa.ColumnElement[bool]
) -> list[Document]:
    """The intervals that hold the instant, the newest first, as a tree of `size` entries knew them."""
    t = table.c
    query = _with_revoked(table, size).where(
        *of, known_with(table, size), t.since <= at, sa.or_(t.until.is_(None), t.until > at)
    )
    found = await tx.execute(query.order_by(t.since.desc(), t.index.desc()).limit(MOST + 1))
    shape = _shape(table)
    return [shape(dict(row)) for row in found.mappings()]


_TOLD = {"at": "at", "by": "revoked_by", "reason": "reason", "fallback": "fallback", "index": "index"}


def _with_revoked(table: sa.Table, size: int) -> sa.Select[Any]:
    """The rows of a table, each with the word by which its version was revoked, if there was one among the entries."""
    t, r = table.c, revoked.c
    same = (r.workspace == t.workspace, r.model == t.model, r.version == t.version, r.index < size)
    word = (
        sa.select(*(r[column].label(f"revoked_{name}") for name, column in _TOLD.items()))
        .where(*same)
        .order_by(r.sequence, r.index)
        .limit(1)
        .lateral()
    )
    return sa.select(*(t[name] for name in _columns(table)), *word.c).join_from(table, word, sa.true(), isouter=True)


def _shape(table: sa.Table) -> Any:
    names = _columns(table)

    def shape(row: Document) -> Document:
        word = {name: row[f"revoked_{name}"] for name in _TOLD}
        return {name: row[name] for name in names} | {"revoked": word if word["index"] is not None else None}

    return shape
