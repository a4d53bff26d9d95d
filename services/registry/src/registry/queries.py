"""Reading the view tables: documents for HTTP. What the rules decide on is in `state.py`."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.lifecycle import DEFAULT_LIFECYCLE
from contracts.model import Artifact, Inspection
from contracts.registry import ServingReported
from kit.problems import Problem
from registry import state
from registry.tables import (
    AliasMoveRow,
    AliasRow,
    ModelRow,
    RemarkRow,
    ServerRow,
    TransitionRow,
    VersionRow,
    WorkspaceRow,
    t,
)

Document = dict[str, Any]
MODEL = t(ModelRow).c.model  # the identity, for conditions on it


async def workspace_document(tx: AsyncConnection, workspace: str) -> Document:
    """Its rules; the defaults where it has none of its own."""
    table = t(WorkspaceRow)
    row = (await tx.execute(sa.select(table).where(table.c.workspace == workspace))).mappings().first()
    if row is not None:
        return dict(row)
    return {
        "workspace": workspace,
        "lifecycle": DEFAULT_LIFECYCLE.model_dump(mode="json"),
        "naming": None,
        "naming_message": "",
        "protected_aliases": [],
        "configured_by": None,
        "configured_at": None,
    }


async def model_document(tx: AsyncConnection, workspace: str, model: str) -> Document:
    """By identity. Raises Problem 404."""
    found = await model_documents(tx, workspace, model=model)
    if not found:
        raise state.no_model(workspace, model)
    return found[0]


async def model_documents(
    tx: AsyncConnection,
    workspace: str,
    *,
    model: str | None = None,
    after: str = "",
    limit: int = 1,
    deleted: bool = False,
    readable: sa.ColumnElement[bool] | None = None,
) -> list[Document]:
    """One model, also a deleted one; or a page of them by identity, either the living or the deleted.

    `readable` is a condition on the identity: which models the caller may see.
    """
    table, version, alias = t(ModelRow), t(VersionRow), t(AliasRow)
    query = sa.select(table).where(table.c.workspace == workspace)
    if model is not None:
        query = query.where(table.c.model == model)
    else:
        query = query.where(table.c.model > after)
        query = query.where(table.c.deleted_at.is_not(None) if deleted else table.c.deleted_at.is_(None))
        if readable is not None:
            query = query.where(readable)
    rows = (await tx.execute(query.order_by(table.c.model).limit(limit))).mappings().all()
    names = [row["model"] for row in rows]
    lifecycle = (await state.rules(tx, workspace)).lifecycle
    quiet = {lifecycle.initial, lifecycle.archive}
    staged = await tx.execute(
        sa.select(version.c.model, version.c.stage, version.c.version)
        .where(version.c.workspace == workspace, version.c.model.in_(names), version.c.stage.not_in(quiet))
        .where(version.c.deleted_at.is_(None))
        .order_by(version.c.version)
    )
    stages: dict[str, dict[str, list[int]]] = {}
    for row in staged:
        stages.setdefault(row.model, {}).setdefault(row.stage, []).append(row.version)
    named = await tx.execute(
        sa.select(alias.c.model, alias.c.alias, alias.c.version)
        .where(alias.c.workspace == workspace, alias.c.model.in_(names))
        .order_by(alias.c.alias)
    )
    aliases: dict[str, dict[str, int]] = {}
    for row in named:
        aliases.setdefault(row.model, {})[row.alias] = row.version
    return [{**row, "stages": stages.get(row["model"], {}), "aliases": aliases.get(row["model"], {})} for row in rows]


async def version_documents(
    tx: AsyncConnection,
    workspace: str,
    model: str,
    *,
    numbers: list[int] | None = None,
    after: int = 0,
    limit: int = 50,
) -> list[Document]:
    """Ascending by number; deleted ones only where they are named.

    Raises Problem 404 for a model or a named version that does not exist.
    """
    await model_document(tx, workspace, model)
    table, alias = t(VersionRow), t(AliasRow)
    query = sa.select(table).where(table.c.workspace == workspace, table.c.model == model)
    if numbers:
        query = query.where(table.c.version.in_(numbers))
    else:
        query = query.where(table.c.version > after, table.c.deleted_at.is_(None))
    rows = (await tx.execute(query.order_by(table.c.version).limit(limit))).mappings().all()
    found = [row["version"] for row in rows]
    missing = sorted(set(numbers or ()) - set(found))
    if missing:
        raise state.no_version(model, missing[0])
    aliases: dict[int, list[str]] = {}
    for row in await tx.execute(
        sa.select(alias.c.alias, alias.c.version)
        .where(alias.c.workspace == workspace, alias.c.model == model, alias.c.version.in_(found))
        .order_by(alias.c.alias)
    ):
        aliases.setdefault(row.version, []).append(row.alias)
    return [
        {
            **{k: v for k, v in row.items() if k not in ("artifact_digest", "correlationid")},
            "aliases": aliases.get(row["version"], []),
        }
        for row in rows
    ]


async def remarks(
    tx: AsyncConnection, workspace: str, model: str, version: int, *, kind: str | None, after: int, limit: int
) -> list[Document]:
    """Evaluations, notes and scans of a version, oldest first. Raises Problem 404."""
    await version_documents(tx, workspace, model, numbers=[version])
    table = t(RemarkRow)
    query = sa.select(table.c.sequence, table.c.kind, table.c.data, table.c.by, table.c.at).where(
        table.c.workspace == workspace,
        table.c.model == model,
        table.c.version == version,
        table.c.sequence > after,
    )
    if kind is not None:
        query = query.where(table.c.kind == kind)
    return [dict(row) for row in (await tx.execute(query.order_by(table.c.sequence).limit(limit))).mappings()]


async def alias_document(tx: AsyncConnection, workspace: str, model: str, alias: str) -> Document:
    """Raises Problem 404."""
    table = t(AliasRow)
    query = sa.select(table).where(table.c.workspace == workspace, table.c.model == model, table.c.alias == alias)
    row = (await tx.execute(query)).mappings().first()
    if row is None:
        await model_document(tx, workspace, model)
        raise Problem(404, "alias-not-found", f"model {model!r} has no alias {alias!r}")
    return dict(row)


async def alias_documents(tx: AsyncConnection, workspace: str, model: str) -> list[Document]:
    """All aliases of a model, by name; there are few. Raises Problem 404."""
    await model_document(tx, workspace, model)
    table = t(AliasRow)
    query = sa.select(table).where(table.c.workspace == workspace, table.c.model == model).order_by(table.c.alias)
    return [dict(row) for row in (await tx.execute(query)).mappings()]


async def alias_history(
    tx: AsyncConnection, workspace: str, model: str, alias: str, *, after: int, limit: int
) -> list[Document]:
    """Where an alias has pointed, oldest first; version null where it was removed. Raises Problem 404."""
    await model_document(tx, workspace, model)
    table = t(AliasMoveRow)
    query = sa.select(table).where(
        table.c.workspace == workspace, table.c.model == model, table.c.alias == alias, table.c.sequence > after
    )
    return [dict(row) for row in (await tx.execute(query.order_by(table.c.sequence).limit(limit))).mappings()]


async def transition_document(tx: AsyncConnection, transition_id: str) -> Document:
    """Raises Problem 404."""
    table = t(TransitionRow)
    row = (await tx.execute(sa.select(table).where(table.c.transition_id == transition_id))).mappings().first()
    if row is None:
        raise Problem(404, "transition-not-found", f"there is no transition {transition_id!r}")
    return dict(row)


async def transition_documents(
    tx: AsyncConnection, workspace: str, model: str, *, status: str | None, after: str, limit: int
) -> list[Document]:
    """Transitions of a model by id, which is their order in time. Raises Problem 404."""
    await model_document(tx, workspace, model)
    table = t(TransitionRow)
    query = sa.select(table).where(
        table.c.workspace == workspace, table.c.model == model, table.c.transition_id > after
    )
    if status is not None:
        query = query.where(table.c.status == status)
    return [dict(row) for row in (await tx.execute(query.order_by(table.c.transition_id).limit(limit))).mappings()]


async def is_reported(tx: AsyncConnection, reported: ServingReported) -> bool:
    """Whether the server's last report says the same."""
    table = t(ServerRow)
    same = (table.c[name] == getattr(reported, name) for name in ("workspace", "model", "server", "target"))
    row = (await tx.execute(sa.select(table.c.version, table.c.state, table.c.detail).where(*same))).first()
    return row is not None and tuple(row) == (reported.version, reported.state, reported.detail)


async def pending(tx: AsyncConnection, limit: int) -> list[Document]:
    """Versions that wait for their verification, oldest first."""
    table = t(VersionRow)
    query = (
        sa.select(table.c.workspace, table.c.model, table.c.version, table.c.content, table.c.registered_by)
        .where(table.c.status == "pending")
        .order_by(table.c.registered_at)
        .limit(limit)
    )
    return [dict(row) for row in (await tx.execute(query)).mappings()]


async def inspection_of(tx: AsyncConnection, artifact: Artifact, scanner: str) -> Inspection | None:
    """What the same scanner has found in the same artifact before; its bytes are in the store then.

    The digest alone does not say that it is the same: a file may hold the very bytes of a directory's manifest, and
    what is looked for in a file depends on its name.
    """
    table = t(VersionRow)
    before = table.c.content["artifact"]
    if artifact.files:
        same = before["files"] != sa.text("'[]'::jsonb")
    else:
        same = sa.and_(before["files"] == sa.text("'[]'::jsonb"), before["filename"].astext == artifact.filename)
    found = await tx.scalar(
        sa.select(table.c.inspection)
        .where(
            table.c.artifact_digest == artifact.digest,
            same,
            table.c.inspection.is_not(None),
            table.c.inspection["scanner"].astext == scanner,
        )
        .limit(1)
    )
    return None if found is None else Inspection.model_validate(found, strict=False)


async def correlation_of(tx: AsyncConnection, workspace: str, model: str, version: int) -> str:
    """The correlation id of the version's registration."""
    table = t(VersionRow)
    same = (table.c.workspace == workspace, table.c.model == model, table.c.version == version)
    return str(await tx.scalar(sa.select(table.c.correlationid).where(*same)))
