"""Folding events into the view tables (law 2). Queries are in `queries.py`."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope
from contracts.lifecycle import Stage, TransitionKind
from contracts.registry import (
    ModelRegistered,
    StageChanged,
    StageRefused,
    StageRequested,
    Transition,
    VersionRegistered,
)
from kit.events import EventLog
from registry.tables import VIEWS, BlobRow, ModelRow, TenureRow, TransitionRow, VersionRow


def t(row: Any) -> sa.Table:
    """The Core table that a SQLModel class declares."""
    table = row.__table__
    assert isinstance(table, sa.Table)
    return table


async def project(tx: AsyncConnection, envelope: Envelope) -> None:
    """Folds one event. Types without a view are ignored."""
    match envelope.type:
        case ModelRegistered.TYPE:
            await _model(tx, envelope, envelope.payload(ModelRegistered))
        case VersionRegistered.TYPE:
            await _version(tx, envelope, envelope.payload(VersionRegistered))
        case StageRequested.TYPE:
            await _requested(tx, envelope, envelope.payload(StageRequested))
        case StageChanged.TYPE:
            await _changed(tx, envelope, envelope.payload(StageChanged))
        case StageRefused.TYPE:
            refused = envelope.payload(StageRefused)
            status = "expired" if refused.code == "request-expired" else "refused"
            await _close(tx, envelope, refused, status, code=refused.code, detail=refused.detail)


async def rebuild(tx: AsyncConnection, log: EventLog) -> int:
    """Drops every view and folds all events again, in one transaction. Returns the number of events."""
    # Writers wait at their outbox row: an event appended meanwhile would miss the views, or be in them twice.
    await tx.execute(sa.text("lock table registry.outbox in share mode"))
    for row in VIEWS:
        await tx.execute(sa.delete(t(row)))
    count = 0
    async for envelope in log.read(tx):
        await project(tx, envelope)
        count += 1
    return count


async def _model(tx: AsyncConnection, envelope: Envelope, event: ModelRegistered) -> None:
    await tx.execute(
        sa.insert(t(ModelRow)).values(
            workspace=event.workspace,
            model=event.model,
            description=event.description,
            owner=event.owner,
            tags=event.tags,
            versions=0,
            registered_by=envelope.actor,
            registered_at=envelope.time,
        )
    )


async def _version(tx: AsyncConnection, envelope: Envelope, event: VersionRegistered) -> None:
    model, content = t(ModelRow), event.content
    await tx.execute(
        sa.insert(t(VersionRow)).values(
            workspace=event.workspace,
            model=event.model,
            version=event.version,
            digest=event.digest,
            artifact_digest=content.artifact.digest,
            stage=Stage.DEVELOPMENT,
            content=content.model_dump(mode="json"),
            registered_by=event.registered_by,
            registered_at=envelope.time,
        )
    )
    await tx.execute(
        sa.update(model)
        .where(model.c.workspace == event.workspace, model.c.model == event.model)
        .values(versions=event.version)
    )
    await tx.execute(
        insert(t(BlobRow)).values(digest=content.artifact.digest, size=content.artifact.size).on_conflict_do_nothing()
    )


async def _requested(tx: AsyncConnection, envelope: Envelope, event: StageRequested) -> None:
    await tx.execute(
        sa.insert(t(TransitionRow)).values(
            **_common(event, envelope), status="open", expires_at=event.expires_at, criteria=[], approved_by=[]
        )
    )


async def _changed(tx: AsyncConnection, envelope: Envelope, event: StageChanged) -> None:
    version, tenure = t(VersionRow), t(TenureRow)
    same_model = (tenure.c.workspace == event.workspace, tenure.c.model == event.model)
    await tx.execute(
        sa.update(version)
        .where(version.c.workspace == event.workspace, version.c.model == event.model)
        .where(version.c.version == event.version)
        .values(stage=event.to_stage)
    )
    # A version that a rollback pushed out is not a good one to return to.
    pushed_out = event.kind is TransitionKind.SUPERSEDED and await tx.scalar(
        sa.select(t(TransitionRow).c.kind).where(t(TransitionRow).c.transition_id == event.transition_id)
    )
    await tx.execute(
        sa.update(tenure)
        .where(*same_model, tenure.c.version == event.version, tenure.c.left_sequence.is_(None))
        .values(left_sequence=envelope.sequence, left_by=pushed_out or event.kind)
    )
    await tx.execute(
        sa.insert(tenure).values(
            workspace=event.workspace,
            model=event.model,
            entered_sequence=envelope.sequence,
            stage=event.to_stage,
            version=event.version,
            entered_at=envelope.time,
        )
    )
    if event.kind is TransitionKind.RETIREMENT:
        await tx.execute(
            sa.insert(t(TransitionRow)).values(
                **_common(event, envelope), status="applied", closed_at=envelope.time, criteria=[], approved_by=[]
            )
        )
    elif event.kind is not TransitionKind.SUPERSEDED:
        await _close(tx, envelope, event, "applied", approved_by=[a.model_dump(mode="json") for a in event.approved_by])


async def _close(
    tx: AsyncConnection, envelope: Envelope, event: StageChanged | StageRefused, status: str, **values: Any
) -> None:
    table = t(TransitionRow)
    await tx.execute(
        sa.update(table)
        .where(table.c.transition_id == event.transition_id)
        .values(
            status=status,
            closed_at=envelope.time,
            criteria=[c.model_dump(mode="json") for c in event.criteria],
            policy=event.policy,
            decision_id=event.decision_id,
            **values,
        )
    )


def _common(event: StageRequested | StageChanged, envelope: Envelope) -> dict[str, Any]:
    return {
        **{name: getattr(event, name) for name in Transition.model_fields},
        "requested_by": event.requested_by,
        "reason": event.reason,
        "requested_at": envelope.time,
    }
