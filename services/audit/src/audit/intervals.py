"""The folds over time: which version was in which stage, where an alias pointed, what a model was called."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import claims
from audit.domain import REGISTRATION, Move
from audit.tables import alias_interval, model_name, revoked, stage_interval
from contracts.envelope import Envelope
from contracts.lifecycle import TransitionKind
from contracts.registry import AliasChanged, AliasRemoved, ModelRegistered, ModelRenamed, StageChanged, VersionRevoked

log = structlog.get_logger()


async def moved_before(tx: AsyncConnection, move: Move) -> bool:
    """Whether the version was registered, or the transition applied, already: a decision is good once."""
    t = stage_interval.c
    query = sa.select(t.index).where(t.workspace == move.workspace, t.model == move.model, t.version == move.version)
    if move.kind != REGISTRATION:
        query = query.where(t.transition_id == move.transition_id, t.stage == str(move.stage))
    return (await tx.execute(query.limit(1))).first() is not None


async def enter(tx: AsyncConnection, index: int, move: Move) -> None:
    """Closes the version's open interval and opens the next."""
    t = stage_interval.c
    mine = (t.workspace == move.workspace, t.model == move.model, t.version == move.version)
    at = await _close(tx, stage_interval, mine, index, move.at)
    await tx.execute(sa.insert(stage_interval).values(index=index, since=at, **_columns(move)))


async def supersede(tx: AsyncConnection, envelope: Envelope, change: StageChanged) -> None:
    """Moves out the versions that make room for a change, as their own entries say it."""
    leaving = await claims.making_room(tx, envelope, change)
    if leaving is None:
        log.error("a replaced version cannot be archived", stream=envelope.key, version=change.replaces)
        return
    i = stage_interval.c
    for row in leaving:
        held = (
            await tx.execute(
                sa.select(i.digest, i.artifact_digest).where(
                    i.workspace == change.workspace,
                    i.model == change.model,
                    i.version == row["version"],
                    i.stage == str(change.to_stage),
                    i.until.is_(None),
                )
            )
        ).first()
        if held is None:
            log.error("a replaced version was not there", stream=envelope.key, version=row["version"])
            continue
        move = Move(
            workspace=change.workspace,
            model=change.model,
            version=row["version"],
            stage=row["target"],
            at=envelope.time,
            kind=TransitionKind.SUPERSEDED.value,
            requested_by=change.requested_by,
            reason=change.reason,
            digest=held.digest,
            artifact_digest=held.artifact_digest,
            decision_id=change.decision_id,
            transition_id=change.transition_id,
            superseded_by=change.version,
        )
        await enter(tx, row["index"], move)


async def point(tx: AsyncConnection, index: int, at: datetime, event: AliasChanged | AliasRemoved) -> None:
    """Closes the alias's open interval and opens the next. A decision is good once."""
    t = alias_interval.c
    mine = (t.workspace == event.workspace, t.model == event.model, t.alias == event.alias)
    values: dict[str, Any] = {"version": None, "approved_by": [], "criteria": []}
    if isinstance(event, AliasChanged):
        used = sa.select(t.index).where(*mine, t.transition_id == event.transition_id).limit(1)
        if event.transition_id is not None and (await tx.execute(used)).first() is not None:
            return
        values = {
            "version": event.version,
            "digest": event.digest,
            "artifact_digest": event.artifact_digest,
            "approved_by": [a.model_dump(mode="json") for a in event.approved_by],
            "criteria": [c.model_dump(mode="json") for c in event.criteria],
            "policy": event.policy,
            "decision_id": event.decision_id,
            "transition_id": event.transition_id,
        }
    same = ("workspace", "model", "alias", "previous", "requested_by", "reason")
    values |= {name: getattr(event, name) for name in same}
    at = await _close(tx, alias_interval, mine, index, at)
    await tx.execute(sa.insert(alias_interval).values(index=index, since=at, **values))


async def name(tx: AsyncConnection, index: int, event: ModelRegistered | ModelRenamed) -> None:
    """Remembers every name that leads to the model."""
    names = {event.model}
    if isinstance(event, ModelRenamed):
        names |= {event.former, event.name}
    rows = [{"workspace": event.workspace, "name": n, "model": event.model, "index": index} for n in sorted(names)]
    await tx.execute(insert(model_name).values(rows).on_conflict_do_nothing())


async def revoke(tx: AsyncConnection, index: int, envelope: Envelope, event: VersionRevoked) -> None:
    """Remembers that nobody may use the version. The first word of its stream counts, in whatever order they come."""
    of = {name: getattr(event, name) for name in ("workspace", "model", "version")}
    told = {name: getattr(event, name) for name in ("revoked_by", "reason", "fallback")}
    told |= {"sequence": envelope.sequence, "index": index, "at": envelope.time}
    row = insert(revoked).values(of | told)
    first = sa.tuple_(row.excluded.sequence, row.excluded.index) < sa.tuple_(revoked.c.sequence, revoked.c.index)
    new = {name: row.excluded[name] for name in told}
    await tx.execute(row.on_conflict_do_update(index_elements=list(of), set_=new, where=first))


async def _close(
    tx: AsyncConnection, table: sa.Table, mine: tuple[sa.ColumnElement[bool], ...], index: int, at: datetime
) -> datetime:
    """Closes the open interval. Gives when: clocks of replicas differ, and none ends before it began."""
    is_open = (*mine, table.c.until.is_(None))
    started = await tx.scalar(sa.select(sa.func.max(table.c.since)).where(*is_open))
    at = max(at, started) if started else at
    await tx.execute(sa.update(table).where(*is_open).values(until=at, closed_by=index))
    return at


def _columns(move: Move) -> dict[str, Any]:
    return {
        "workspace": move.workspace,
        "model": move.model,
        "version": move.version,
        "stage": str(move.stage),
        "until": None,
        "closed_by": None,
        "kind": move.kind,
        "requested_by": move.requested_by,
        "reason": move.reason,
        "digest": move.digest,
        "artifact_digest": move.artifact_digest,
        "approved_by": [a.model_dump(mode="json") for a in move.approved_by],
        "criteria": [c.model_dump(mode="json") for c in move.criteria],
        "policy": move.policy,
        "decision_id": move.decision_id,
        "transition_id": move.transition_id,
        "superseded_by": move.superseded_by,
    }
