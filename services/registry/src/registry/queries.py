"""Reading the view tables: documents for HTTP, and the state that the rules decide on."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.lifecycle import Stage, TransitionKind
from contracts.registry import Transition
from kit.problems import Problem
from registry import domain
from registry.tables import BlobRow, ModelRow, TenureRow, TransitionRow, VersionRow
from registry.views import t

Document = dict[str, Any]


def no_model(workspace: str, model: str) -> Problem:
    return Problem(404, "model-not-found", f"there is no model {model!r} in workspace {workspace!r}")


def no_version(model: str, version: int) -> Problem:
    return Problem(404, "version-not-found", f"model {model!r} has no version {version}")


async def model_state(tx: AsyncConnection, workspace: str, model: str) -> domain.Model:
    """What the rules know of a model; `exists` is False when it is not registered."""
    table = t(ModelRow)
    row = (await tx.execute(sa.select(table).where(table.c.workspace == workspace, table.c.model == model))).first()
    if row is None:
        return domain.Model(workspace, model)
    version = t(VersionRow)
    occupants = (
        await tx.execute(
            sa.select(
                version.c.version, version.c.digest, version.c.artifact_digest, version.c.stage, version.c.registered_by
            ).where(version.c.workspace == workspace, version.c.model == model, version.c.stage.in_(domain.SINGLE))
        )
    ).all()
    return domain.Model(workspace, model, True, row.versions, {Stage(o.stage): _version_state(o) for o in occupants})


async def version_state(tx: AsyncConnection, model: domain.Model, number: int) -> domain.Version:
    """Raises Problem 404."""
    if not model.exists:
        raise no_model(model.workspace, model.name)
    table, tenure = t(VersionRow), t(TenureRow)
    row = (
        await tx.execute(
            sa.select(
                table.c.version, table.c.digest, table.c.artifact_digest, table.c.stage, table.c.registered_by
            ).where(table.c.workspace == model.workspace, table.c.model == model.name, table.c.version == number)
        )
    ).first()
    if row is None:
        raise no_version(model.name, number)
    stages = await tx.scalars(
        sa.select(tenure.c.stage)
        .distinct()
        .where(tenure.c.workspace == model.workspace, tenure.c.model == model.name, tenure.c.version == number)
    )
    return _version_state(row, frozenset(Stage(s) for s in stages))


async def last_good(tx: AsyncConnection, model: domain.Model, stage: Stage) -> int | None:
    """The version that was in `stage` last before the present occupant and was not rolled back from."""
    tenure = t(TenureRow)
    current = model.occupants.get(stage)
    return await tx.scalar(
        sa.select(tenure.c.version)
        .where(
            tenure.c.workspace == model.workspace,
            tenure.c.model == model.name,
            tenure.c.stage == stage,
            tenure.c.left_sequence.is_not(None),
            tenure.c.left_by != TransitionKind.ROLLBACK,
            tenure.c.version != (current.number if current else 0),
        )
        .order_by(tenure.c.entered_sequence.desc())
        .limit(1)
    )


async def open_transition(tx: AsyncConnection, transition_id: str) -> domain.Open | None:
    """The transition if it still waits for its decision."""
    table = t(TransitionRow)
    row = (await tx.execute(sa.select(table).where(table.c.transition_id == transition_id))).first()
    if row is None or row.status != "open":
        return None
    return domain.Open(
        transition=Transition(**{name: getattr(row, name) for name in Transition.model_fields}),
        requested_by=row.requested_by,
        reason=row.reason,
        expires_at=row.expires_at,
    )


async def due_transitions(tx: AsyncConnection, now: datetime) -> list[Document]:
    table = t(TransitionRow)
    query = sa.select(table).where(table.c.status == "open", table.c.expires_at <= now).limit(100)
    return [dict(row) for row in (await tx.execute(query)).mappings()]


async def has_open(tx: AsyncConnection, workspace: str, model: str, version: int, to_stage: Stage) -> str | None:
    """The id of the open transition of this version to this stage."""
    table = t(TransitionRow)
    return await tx.scalar(
        sa.select(table.c.transition_id).where(
            table.c.workspace == workspace,
            table.c.model == model,
            table.c.version == version,
            table.c.to_stage == to_stage,
            table.c.status == "open",
        )
    )


async def blob_size(tx: AsyncConnection, digest: str) -> int | None:
    return await tx.scalar(sa.select(t(BlobRow).c.size).where(t(BlobRow).c.digest == digest))


async def model_document(tx: AsyncConnection, workspace: str, model: str) -> Document:
    """Raises Problem 404."""
    found = await model_documents(tx, workspace, model=model)
    if not found:
        raise no_model(workspace, model)
    return found[0]


async def model_documents(
    tx: AsyncConnection, workspace: str, *, model: str | None = None, after: str = "", limit: int = 1
) -> list[Document]:
    table, version = t(ModelRow), t(VersionRow)
    query = sa.select(table).where(table.c.workspace == workspace)
    query = query.where(table.c.model == model) if model else query.where(table.c.model > after)
    rows = (await tx.execute(query.order_by(table.c.model).limit(limit))).mappings().all()
    staged = await tx.execute(
        sa.select(version.c.model, version.c.stage, version.c.version)
        .where(version.c.workspace == workspace, version.c.model.in_([row["model"] for row in rows]))
        .where(version.c.stage.in_([Stage.STAGING, Stage.PRODUCTION]))
        .order_by(version.c.version)
    )
    stages: dict[str, dict[str, list[int]]] = {}
    for row in staged:
        stages.setdefault(row.model, {}).setdefault(row.stage, []).append(row.version)
    return [{**row, "stages": stages.get(row["model"], {})} for row in rows]


async def version_documents(
    tx: AsyncConnection,
    workspace: str,
    model: str,
    *,
    numbers: list[int] | None = None,
    after: int = 0,
    limit: int = 50,
) -> list[Document]:
    """Ascending by number; raises Problem 404 for a model or a named version that does not exist."""
    await model_document(tx, workspace, model)
    table = t(VersionRow)
    query = sa.select(table).where(table.c.workspace == workspace, table.c.model == model)
    query = query.where(table.c.version.in_(numbers)) if numbers else query.where(table.c.version > after)
    rows = (await tx.execute(query.order_by(table.c.version).limit(limit))).mappings().all()
    missing = sorted(set(numbers or ()) - {row["version"] for row in rows})
    if missing:
        raise no_version(model, missing[0])
    return [{k: v for k, v in row.items() if k != "artifact_digest"} for row in rows]


async def transition_document(tx: AsyncConnection, transition_id: str) -> Document:
    """Raises Problem 404."""
    table = t(TransitionRow)
    row = (await tx.execute(sa.select(table).where(table.c.transition_id == transition_id))).mappings().first()
    if row is None:
        raise Problem(404, "transition-not-found", f"there is no transition {transition_id!r}")
    return dict(row)


async def resolve(
    tx: AsyncConnection, workspace: str, model: str, *, stage: Stage | None = None, version: int | None = None
) -> Document:
    """The version in a stage (the newest there), or a version by number. `sequence` grows with every change of it.

    Raises:
        Problem: 404.
    """
    table, tenure = t(VersionRow), t(TenureRow)
    query = (
        sa.select(table, tenure.c.entered_sequence)
        .outerjoin(
            tenure,
            sa.and_(
                tenure.c.workspace == table.c.workspace,
                tenure.c.model == table.c.model,
                tenure.c.version == table.c.version,
                tenure.c.stage == table.c.stage,
                tenure.c.left_sequence.is_(None),
            ),
        )
        .where(table.c.workspace == workspace, table.c.model == model)
        .order_by(tenure.c.entered_sequence.desc().nulls_last(), table.c.version.desc())
        .limit(1)
    )
    query = query.where(table.c.version == version) if version else query.where(table.c.stage == stage)
    row = (await tx.execute(query)).mappings().first()
    if row is None:
        await model_document(tx, workspace, model)
        if version:
            raise no_version(model, version)
        raise Problem(404, "nothing-in-stage", f"no version of {model!r} is in {stage}")
    content = row["content"]
    return {
        "workspace": workspace,
        "model": model,
        "version": row["version"],
        "stage": row["stage"],
        "digest": row["digest"],
        "artifact": content["artifact"],
        "metrics": content["metrics"],
        "sequence": row["entered_sequence"] or 0,
    }


def _version_state(row: Any, has_been: frozenset[Stage] = frozenset()) -> domain.Version:
    return domain.Version(row.version, row.digest, row.artifact_digest, Stage(row.stage), has_been, row.registered_by)
