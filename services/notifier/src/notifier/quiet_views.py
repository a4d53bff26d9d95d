"""The views of silences and inhibition rules (folds, law 2), the alarms that are on, and what can be asked of them."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope
from notifier.matching import Seen
from notifier.quiet import Inhibition, Silence, evolve_inhibition, evolve_silence
from notifier.tables import AlarmRow, InhibitionRow, SilenceRow, table_of
from policy.expressions import ExpressionError

Document = dict[str, Any]
SILENCES, INHIBITIONS = "silence:", "inhibition:"


async def project(tx: AsyncConnection, envelope: Envelope) -> None:
    """Folds one event of a silence or a rule; others are passed over."""
    if envelope.key.startswith(SILENCES):
        silenced = evolve_silence(await silence(tx, envelope.key.removeprefix(SILENCES)), envelope)
        await _put(tx, SilenceRow, silenced) if silenced else None
    elif envelope.key.startswith(INHIBITIONS):
        rule = evolve_inhibition(await inhibition(tx, envelope.key.removeprefix(INHIBITIONS)), envelope)
        await _put(tx, InhibitionRow, rule) if rule else None


async def _put(tx: AsyncConnection, row: Any, state: Silence | Inhibition) -> None:
    told = ((name, getattr(state, name)) for name in row.model_fields)
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in told}
    table = table_of(row)
    [key] = [column.name for column in table.primary_key]
    statement = insert(table).values(values)
    same = {name: statement.excluded[name] for name in values if name != key}
    await tx.execute(statement.on_conflict_do_update(index_elements=[key], set_=same))


def _told(row: Any) -> Document:
    """The columns of a row; lists are tuples, as the domain has them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row._mapping.items()}


async def silence(tx: AsyncConnection, silence_id: str) -> Silence | None:
    table = table_of(SilenceRow)
    row = (await tx.execute(sa.select(table).where(table.c.silence_id == silence_id))).first()
    return Silence(**_told(row)) if row else None


async def inhibition(tx: AsyncConnection, inhibition_id: str) -> Inhibition | None:
    table = table_of(InhibitionRow)
    row = (await tx.execute(sa.select(table).where(table.c.inhibition_id == inhibition_id))).first()
    return Inhibition(**_told(row)) if row else None


async def silences_now(tx: AsyncConnection, workspaces: Collection[str] | None, at: datetime) -> list[Silence]:
    """Those of the workspaces, or of each, that are active, the oldest first."""
    table = table_of(SilenceRow)
    query = sa.select(table).where(table.c.starts_at <= at, table.c.ends_at > at)
    query = query if workspaces is None else query.where(table.c.workspace.in_(workspaces))
    return [Silence(**_told(row)) for row in await tx.execute(query.order_by(table.c.silence_id))]


async def silences(
    tx: AsyncConnection, workspace: str, *, reader: str | None, at: datetime, all_: bool, limit: int, after: str | None
) -> Document:
    """A page, newest first: everybody's, and those of the `reader` (None: of each). Without `all_` not those that have
    ended."""
    table = table_of(SilenceRow)
    query = sa.select(table).where(table.c.workspace == workspace)
    query = query if all_ else query.where(table.c.ends_at > at)
    query = query.where(sa.or_(table.c.owner.is_(None), table.c.owner == reader)) if reader is not None else query
    query = query.where(table.c.silence_id < after) if after is not None else query
    rows = (await tx.execute(query.order_by(table.c.silence_id.desc()).limit(limit + 1))).all()
    items = [silence_document(Silence(**_told(row)), at) for row in rows[:limit]]
    return {"items": items, "next": items[-1]["silence_id"] if len(rows) > limit else None}


async def inhibitions(
    tx: AsyncConnection, workspaces: Collection[str] | None, *, all_: bool = False
) -> list[Inhibition]:
    """The rules of the workspaces, or of each, the oldest first; with `all_` also those that were removed."""
    table = table_of(InhibitionRow)
    query = sa.select(table) if workspaces is None else sa.select(table).where(table.c.workspace.in_(workspaces))
    query = query if all_ else query.where(table.c.removed_by.is_(None))
    return [Inhibition(**_told(row)) for row in await tx.execute(query.order_by(table.c.inhibition_id))]


async def sound(
    tx: AsyncConnection, event: Seen, rules: Sequence[Inhibition], at: datetime
) -> tuple[list[Inhibition], list[tuple[str, str]]]:
    """Switches alarms on and off by an event of their workspace, and gives the rules whose alarm was on before it for
    its labels; and the ids of those whose expression had no answer, with why."""
    table, failed = table_of(AlarmRow), list[tuple[str, str]]()
    rules = [rule for rule in rules if event.workspace in (rule.workspace, None)]
    if not rules:
        return [], []
    pairs = {(rule.inhibition_id, rule.labels(event)): rule for rule in rules}
    known = sa.tuple_(table.c.inhibition_id, table.c.labels).in_(list(pairs))
    query = sa.select(table).where(known, table.c.until > at)
    on = [pairs[row.inhibition_id, row.labels] for row in await tx.execute(query)]
    for (inhibition_id, labels), rule in pairs.items():
        mine = sa.and_(table.c.inhibition_id == inhibition_id, table.c.labels == labels)
        try:
            raises = rule.raises(event)
        except ExpressionError as error:
            failed.append((inhibition_id, str(error)))
            continue
        if raises:
            row = {"inhibition_id": inhibition_id, "labels": labels, "event_id": event.envelope.id}
            statement = insert(table).values({**row, "until": at + timedelta(seconds=rule.seconds)})
            same = {name: statement.excluded[name] for name in ("event_id", "until")}
            await tx.execute(statement.on_conflict_do_update(index_elements=["inhibition_id", "labels"], set_=same))
        elif rule.ends(event):
            await tx.execute(sa.delete(table).where(mine))
    # What sounds the alarm is no routine, even if it is sounded a second time.
    return [rule for rule in on if not _raises(rule, event)], failed


def _raises(rule: Inhibition, event: Seen) -> bool:
    try:
        return rule.raises(event)
    except ExpressionError:
        return False


def silence_document(state: Silence, at: datetime) -> Document:
    return {
        **{name: getattr(state, name) for name in SilenceRow.model_fields},
        "state": state.state(at),
    }


def inhibition_document(state: Inhibition) -> Document:
    return {name: getattr(state, name) for name in InhibitionRow.model_fields}
