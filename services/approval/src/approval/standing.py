"""Where open requests stand: what they wait for, whom they ask, and when to look at them again.

Computed from the views whenever a request is looked at; nothing here is the only place of any fact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from approval.tables import AskedRow, CallRow, RequestRow, StandingRow, of

_standing, _asked, _call, _request = of(StandingRow), of(AskedRow), of(CallRow), of(RequestRow)


@dataclass(frozen=True)
class Standing:
    """`due_at`: when time alone may change something. `asked`: the groups it waits for; `barred` must not vote, `heard`
    have; by a `delegation` of that length at most others may act for them. `acted`: whose it is, and whose votes or
    waivers are on it, whether or not they count. `calls`: webhook gates that have not answered, for the
    request as it is bound now."""

    phase: str
    waits_for: str
    due_at: datetime | None
    asked: frozenset[str] = frozenset()
    barred: frozenset[str] = frozenset()
    heard: frozenset[str] = frozenset()
    acted: frozenset[str] = frozenset()
    delegation: timedelta | None = None
    calls: frozenset[str] = frozenset()


async def store(
    tx: AsyncConnection, request_id: str, request_digest: str, bound_at: datetime, now: datetime, found: Standing
) -> None:
    values = {
        "phase": found.phase,
        "waits_for": found.waits_for[:2_000],
        "due_at": found.due_at,
        "acted": sorted(found.acted),
    }
    statement = insert(_standing).values(request_id=request_id, **values)
    await tx.execute(statement.on_conflict_do_update(index_elements=["request_id"], set_=values))
    await _ask(tx, request_id, found)
    gone = sa.or_(_call.c.gate.not_in(sorted(found.calls)), _call.c.bound_at != bound_at)
    await tx.execute(sa.delete(_call).where(_call.c.request_id == request_id, gone))
    asked = {"request_id": request_id, "request_digest": request_digest, "bound_at": bound_at}
    calls = [{**asked, "gate": gate, "next_at": now, "attempts": 0} for gate in sorted(found.calls)]
    if calls:
        await tx.execute(insert(_call).on_conflict_do_nothing(), calls)


async def _ask(tx: AsyncConnection, request_id: str, found: Standing) -> None:
    this = _request.c.request_id == request_id
    status = sa.select(_request.c.status).where(this).scalar_subquery()
    gone = sa.or_(_asked.c.group_name.not_in(sorted(found.asked)), _asked.c.status != status)
    await tx.execute(sa.delete(_asked).where(_asked.c.request_id == request_id, gone))
    if not found.asked:
        return
    news = {"without": sorted(found.barred | found.heard), "delegation": found.delegation}
    columns = [_request.c[name] for name in ("status", "opened_at", "request_id", "workspace", "model")]
    rows = sa.select(
        sa.func.unnest(sa.cast(sorted(found.asked), ARRAY(sa.Text()))),
        *columns,
        *(sa.literal(value, _asked.c[name].type) for name, value in news.items()),
    ).where(this)
    statement = insert(_asked).from_select(["group_name", *(column.name for column in columns), *news], rows)
    keys = [column.name for column in _asked.primary_key]
    await tx.execute(statement.on_conflict_do_update(index_elements=keys, set_=news))


async def of_requests(tx: AsyncConnection, request_ids: Sequence[str]) -> dict[str, Any]:
    if not request_ids:
        return {}
    rows = await tx.execute(sa.select(_standing).where(_standing.c.request_id.in_(request_ids)))
    return {row.request_id: row for row in rows}


async def due(tx: AsyncConnection, at: datetime, limit: int) -> list[str]:
    """Requests that time may have changed, the longest overdue first."""
    query = sa.select(_standing.c.request_id).where(_standing.c.due_at <= at).order_by(_standing.c.due_at).limit(limit)
    return list((await tx.scalars(query)).all())


async def look_again(tx: AsyncConnection, at: datetime, *, acted: str | None = None, held: str | None = None) -> None:
    """Makes every open request due, or those that somebody has acted on: what they depend on has changed. `held`: the
    request that the caller is going to write, which takes its turn in the order of the locks."""
    found = _held()
    if acted is not None:
        theirs = _standing.c.acted.contains(sa.cast([acted], ARRAY(sa.Text())))
        found = found.where(sa.or_(theirs, _standing.c.request_id == held))
    ids = sa.select(found.cte().c.request_id)
    await tx.execute(sa.update(_standing).where(_standing.c.request_id.in_(ids)).values(due_at=at))


async def look_again_at(tx: AsyncConnection, at: datetime, workspace: str, model: str) -> None:
    """Makes the open requests of a model due, whose stream the caller holds. Where somebody has the lock of one, it is
    due already, or they make it so; it is not waited for, since the caller may hold locks out of order."""
    found = _of_model(workspace, model).with_for_update(of=_standing, skip_locked=True)
    ids = sa.select(found.cte().c.request_id)
    await tx.execute(sa.update(_standing).where(_standing.c.request_id.in_(ids)).values(due_at=at))


async def hold(tx: AsyncConnection, workspace: str, model: str) -> None:
    """Locks where the open requests of a model stand, before several of them are written."""
    await tx.execute(sa.select(sa.func.count()).select_from(_of_model(workspace, model).subquery()))


def _of_model(workspace: str, model: str) -> sa.Select[Any]:
    return _held().where(_request.c.workspace == workspace, _request.c.model == model)


def _held() -> sa.Select[Any]:
    """Open requests, locked by everybody in the same order, so that nobody waits in a circle. Changes of policies come
    first: who publishes one has written it before all the others are made due."""
    query = sa.select(_standing.c.request_id).join(_request, _request.c.request_id == _standing.c.request_id)
    query = query.where(_request.c.status == "open")
    query = query.order_by(_request.c.kind != "policy", _request.c.opened_at, _request.c.request_id)
    return query.with_for_update(of=_standing)


async def restore(tx: AsyncConnection, at: datetime) -> None:
    """Makes every request due of which nothing is noted: the sweeper notes where they stand."""
    values = (_request.c.request_id, sa.literal("new"), sa.literal(""), sa.literal(at), sa.text("'{}'"))
    columns = ["request_id", "phase", "waits_for", "due_at", "acted"]
    await tx.execute(insert(_standing).from_select(columns, sa.select(*values)).on_conflict_do_nothing())


async def put_off(tx: AsyncConnection, request_id: str, until: datetime) -> None:
    """A request that cannot be looked at just now must not keep the others waiting."""
    await tx.execute(sa.update(_standing).where(_standing.c.request_id == request_id).values(due_at=until))


async def is_due(tx: AsyncConnection, request_id: str, at: datetime) -> bool:
    """Whether the request is due, and no other replica has it; it is this transaction's then."""
    query = sa.select(_standing.c.request_id).where(_standing.c.request_id == request_id, _standing.c.due_at <= at)
    return await tx.scalar(query.with_for_update(skip_locked=True)) is not None
