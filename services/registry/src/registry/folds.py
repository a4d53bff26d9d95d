"""The folds of stages, transitions and aliases."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope
from contracts.lifecycle import TransitionKind
from contracts.registry import AliasChanged, AliasRemoved, StageChanged, StageRefused, StageRequested, Transition
from registry import stages
from registry.tables import AliasMoveRow, AliasRow, ModelRow, TenureRow, TransitionRow, VersionRow, t

ENDED = {stages.EXPIRED: "expired", stages.CANCELLED: "cancelled"}


async def requested(tx: AsyncConnection, envelope: Envelope, event: StageRequested) -> None:
    await tx.execute(
        sa.insert(t(TransitionRow)).values(
            **_common(event, envelope),
            status="open",
            expires_at=event.expires_at,
            expected=event.expected,
            criteria=[],
            approved_by=[],
        )
    )


async def changed(tx: AsyncConnection, envelope: Envelope, event: StageChanged) -> None:
    version, tenure = t(VersionRow), t(TenureRow)
    same_model = (tenure.c.workspace == event.workspace, tenure.c.model == event.model)
    await tx.execute(
        sa.update(version)
        .where(version.c.workspace == event.workspace, version.c.model == event.model)
        .where(version.c.version == event.version)
        .values(stage=event.to_stage, updated_at=envelope.time)
    )
    model = t(ModelRow)
    await tx.execute(
        sa.update(model)
        .where(model.c.workspace == event.workspace, model.c.model == event.model)
        .values(updated_at=envelope.time)
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
        approved_by = [a.model_dump(mode="json") for a in event.approved_by]
        await _close(tx, envelope, event, event.transition_id, "applied", approved_by=approved_by)


async def refused(tx: AsyncConnection, envelope: Envelope, event: StageRefused) -> None:
    status = ENDED.get(event.code, "refused")
    await _close(tx, envelope, event, event.transition_id, status, code=event.code, detail=event.detail)


async def alias_changed(tx: AsyncConnection, envelope: Envelope, event: AliasChanged) -> None:
    key = {"workspace": event.workspace, "model": event.model, "alias": event.alias}
    values = {
        "version": event.version,
        "sequence": envelope.sequence,
        "set_by": event.requested_by,
        "set_at": envelope.time,
    }
    statement = insert(t(AliasRow)).values(**key, **values)
    await tx.execute(statement.on_conflict_do_update(index_elements=list(key), set_=values))
    await _moved(tx, envelope, event, event.version)
    if event.transition_id is not None:
        approved_by = [a.model_dump(mode="json") for a in event.approved_by]
        await _close(tx, envelope, event, event.transition_id, "applied", approved_by=approved_by)


async def alias_removed(tx: AsyncConnection, envelope: Envelope, event: AliasRemoved) -> None:
    table = t(AliasRow)
    same = (table.c.workspace == event.workspace, table.c.model == event.model, table.c.alias == event.alias)
    await tx.execute(sa.delete(table).where(*same))
    await _moved(tx, envelope, event, None)


async def _moved(
    tx: AsyncConnection, envelope: Envelope, event: AliasChanged | AliasRemoved, version: int | None
) -> None:
    await tx.execute(
        sa.insert(t(AliasMoveRow)).values(
            workspace=event.workspace,
            model=event.model,
            sequence=envelope.sequence,
            alias=event.alias,
            version=version,
            previous=event.previous,
            by=event.requested_by,
            reason=event.reason,
            at=envelope.time,
        )
    )


async def _close(
    tx: AsyncConnection,
    envelope: Envelope,
    event: StageChanged | StageRefused | AliasChanged,
    transition_id: str,
    status: str,
    **values: Any,
) -> None:
    table = t(TransitionRow)
    await tx.execute(
        sa.update(table)
        .where(table.c.transition_id == transition_id)
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
        "fields": getattr(event, "fields", {}),
    }
