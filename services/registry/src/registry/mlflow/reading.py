"""The views as MLflow's documents: a fixed number of queries, however many rows there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.lifecycle import DEFAULT_LIFECYCLE, Lifecycle
from registry import state
from registry.domain import Status
from registry.mlflow.errors import INVALID, Refusal
from registry.tables import AliasRow, ModelRow, VersionRow, WorkspaceRow, t

Document = dict[str, Any]
NONE = "None"
UPLOADED = "hallmark:/"
STATUSES = {
    Status.PENDING: "PENDING_REGISTRATION",
    Status.READY: "READY",
    Status.QUARANTINED: "READY",
    Status.REJECTED: "FAILED_REGISTRATION",
    Status.REVOKED: "FAILED_REGISTRATION",
}
MESSAGES = {Status.QUARANTINED: "quarantined: its artifact has unsafe findings"}


@dataclass(frozen=True)
class Found:
    """A living model: its identity, and its tags."""

    identity: str
    tags: dict[str, str]


async def find(tx: AsyncConnection, workspace: str, name: str) -> Found | None:
    """The living model that has this name now."""
    m = t(ModelRow)
    query = sa.select(m.c.model, m.c.tags).where(m.c.workspace == workspace, m.c.name == name, m.c.deleted_at.is_(None))
    row = (await tx.execute(query)).first()
    return None if row is None else Found(row.model, row.tags)


async def lifecycle(tx: AsyncConnection, workspace: str) -> Lifecycle:
    return (await state.rules(tx, workspace)).lifecycle


async def alias(tx: AsyncConnection, workspace: str, identity: str, name: str) -> int | None:
    """The version that the alias points at."""
    a = t(AliasRow)
    query = sa.select(a.c.version).where(a.c.workspace == workspace, a.c.model == identity, a.c.alias == name)
    return await tx.scalar(query)


async def models(tx: AsyncConnection, workspace: str, identities: Sequence[str]) -> list[Document]:
    """RegisteredModel, in the order of the identities."""
    m, a = t(ModelRow), t(AliasRow)
    query = sa.select(m).where(m.c.workspace == workspace, m.c.model == sa.any_(_texts(identities)))
    rows = {row.model: row for row in await tx.execute(query)}
    named = sa.select(a.c.model, a.c.alias, a.c.version).where(
        a.c.workspace == workspace, a.c.model == sa.any_(_texts(identities))
    )
    aliases: dict[str, list[Document]] = {}
    for row in await tx.execute(named.order_by(a.c.alias)):
        aliases.setdefault(row.model, []).append({"alias": row.alias, "version": str(row.version)})
    newest: dict[str, list[Document]] = {}
    keys = await latest(tx, workspace, identities)
    for (model, _), document in zip(keys, await versions(tx, workspace, keys), strict=True):
        newest.setdefault(model, []).append(document)
    return [
        _said(
            name=row.name,
            creation_timestamp=_milliseconds(row.registered_at),
            last_updated_timestamp=_milliseconds(row.updated_at),
            user_id=row.registered_by,
            description=row.description,
            latest_versions=newest.get(row.model),
            tags=_tags(row.tags),
            aliases=aliases.get(row.model),
        )
        for row in (rows[identity] for identity in identities)
    ]


async def latest(
    tx: AsyncConnection, workspace: str, identities: Sequence[str], stages: Sequence[str] | None = None
) -> list[tuple[str, int]]:
    """(model, version) of the highest version in each of the stages, which are the lifecycle's own (None: all).

    One step into the index for each model and stage, whatever the number of versions.
    """
    if stages is None:
        stages = [rule.name for rule in (await lifecycle(tx, workspace)).stages]
    v = t(VersionRow)
    asked = sa.func.unnest(_texts(identities)).table_valued(sa.column("model", sa.String), name="asked")
    stage = sa.func.unnest(_texts(stages)).table_valued(sa.column("stage", sa.String), name="s")
    asked, stage = asked.render_derived(), stage.render_derived()
    highest = (
        sa.select(v.c.version)
        .where(v.c.workspace == workspace, v.c.model == asked.c.model, v.c.stage == stage.c.stage)
        .where(v.c.deleted_at.is_(None))
        .order_by(v.c.version.desc())
        .limit(1)
        .lateral("highest")
    )
    found = sa.select(asked.c.model, highest.c.version).select_from(
        asked.join(stage, sa.true()).join(highest, sa.true())
    )
    return [(row.model, row.version) for row in await tx.execute(found)]


async def versions(
    tx: AsyncConnection, workspace: str, rows: Sequence[tuple[str, int]], *, deleted: bool = False
) -> list[Document]:
    """ModelVersion, in the order of the rows (model, version). What does not exist, or is deleted, is left out."""
    if not rows:
        return []
    v, m, a, w = t(VersionRow), t(ModelRow), t(AliasRow), t(WorkspaceRow)
    initial = sa.select(w.c.lifecycle["initial"].astext).where(w.c.workspace == workspace).scalar_subquery()
    wanted = sa.func.unnest(_texts([row[0] for row in rows]), _array([row[1] for row in rows], sa.Integer()))
    asked = wanted.table_valued(
        sa.column("model", sa.String), sa.column("version", sa.Integer), name="asked"
    ).render_derived()
    aliases = (
        sa.select(sa.func.array_agg(a.c.alias))
        .where(a.c.workspace == workspace, a.c.model == v.c.model, a.c.version == v.c.version)
        .scalar_subquery()
    )
    query = sa.select(
        v.c.model,
        m.c.name,
        v.c.version,
        v.c.stage,
        v.c.status,
        v.c.status_detail,
        v.c.content["artifact"].label("artifact"),
        v.c.content["lineage"]["run"].label("run"),
        v.c.description,
        v.c.tags,
        v.c.registered_by,
        v.c.registered_at,
        v.c.updated_at,
        aliases.label("aliases"),
        sa.func.coalesce(initial, DEFAULT_LIFECYCLE.initial).label("initial"),
    ).where(
        v.c.workspace == workspace,
        v.c.model == asked.c.model,
        v.c.version == asked.c.version,
        sa.true() if deleted else v.c.deleted_at.is_(None),
        m.c.workspace == workspace,
        m.c.model == v.c.model,
    )
    found = {(row.model, row.version): _version(row) for row in await tx.execute(query)}
    return [found[row] for row in rows if row in found]


def _version(row: Any) -> Document:
    run = row.run or {}
    of_run = {"id": run["id"]} if run and run["id"] not in (run["version"], run["url"]) else {}
    return _said(
        name=row.name,
        version=str(row.version),
        creation_timestamp=_milliseconds(row.registered_at),
        last_updated_timestamp=_milliseconds(row.updated_at),
        user_id=row.registered_by,
        current_stage=NONE if row.stage == row.initial else row.stage,
        description=row.description,
        source=source(row.name, row.version, row.artifact),
        run_id=of_run.get("id"),
        run_link=run.get("url"),
        model_id=run.get("version"),
        status=STATUSES[row.status],
        status_message=row.status_detail or MESSAGES.get(row.status),
        tags=_tags(row.tags),
        aliases=sorted(row.aliases or ()),
    )


def source(name: str, version: int, artifact: Document) -> str:
    """Where the artifact came from; `hallmark:/name/version` when its bytes were uploaded to the registry."""
    if artifact.get("external"):
        return str(artifact["filename"])
    return artifact.get("source") or f"{UPLOADED}{name}/{version}"


def shown(known: Lifecycle, stage: str) -> str:
    """A stage in MLflow's words."""
    return NONE if stage == known.initial else stage


def meant(known: Lifecycle, text: str) -> str:
    """The stage that MLflow's word means. Raises Refusal for a stage that the workspace does not have."""
    found = known.initial if text.lower() == NONE.lower() else known.named(text)
    if found is None:
        stages = ", ".join(shown(known, rule.name) for rule in known.stages)
        raise Refusal(INVALID, f"Invalid Model Version stage: {text}. Value must be one of {stages}.")
    return found


def _said(**fields: Any) -> Document:
    """As MLflow writes JSON: what is empty is left out."""
    return {name: value for name, value in fields.items() if value not in (None, "", [])}


def _tags(tags: dict[str, str]) -> list[Document]:
    return [{"key": key, "value": value} for key, value in sorted(tags.items())]


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)


def _texts(values: Sequence[str]) -> sa.ColumnElement[Any]:
    return _array(values, sa.String())


def _array(values: Sequence[Any], kind: Any) -> sa.ColumnElement[Any]:
    return sa.cast(sa.literal(list(values), ARRAY(kind)), ARRAY(kind))
