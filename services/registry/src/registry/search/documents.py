"""What a search answers of each row: a fixed number of queries, however many rows there are."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.search.columns import filename
from registry.search.query import Identity
from registry.tables import AliasRow, ModelRow, VersionRow, t

Document = dict[str, Any]


async def version_documents(tx: AsyncConnection, workspace: str, rows: list[Identity]) -> list[Document]:
    """In the order of `rows`, which are (model, version)."""
    v, m, a = t(VersionRow).alias("v"), t(ModelRow).alias("m"), t(AliasRow).alias("a")
    models, versions = [row[0] for row in rows], [row[1] for row in rows]
    wanted = sa.func.unnest(_array(models, sa.String()), _array(versions, sa.Integer()))
    asked = wanted.table_valued(
        sa.column("model", sa.String), sa.column("version", sa.Integer), name="asked"
    ).render_derived()
    aliases = (
        sa.select(sa.func.coalesce(sa.func.array_agg(sa.distinct(a.c.alias)), _array([], sa.String())))
        .where(a.c.workspace == workspace, a.c.model == v.c.model, a.c.version == v.c.version)
        .scalar_subquery()
    )
    part = v.c.content
    query = sa.select(
        v.c.workspace,
        v.c.model,
        m.c.name,
        v.c.version,
        v.c.stage,
        v.c.status,
        v.c.status_detail,
        v.c.revocation,
        aliases.label("aliases"),
        v.c.digest,
        v.c.artifact_digest,
        filename(part).label("source_path"),
        v.c.description,
        part["metrics"].label("metrics"),
        part["parameters"].label("parameters"),
        v.c.tags,
        v.c.run_id,
        m.c.owner,
        v.c.registered_by,
        v.c.registered_at,
        v.c.updated_at,
    ).where(
        v.c.workspace == workspace,
        v.c.model == asked.c.model,
        v.c.version == asked.c.version,
        m.c.workspace == workspace,
        m.c.model == v.c.model,
    )
    found = {(row["model"], row["version"]): dict(row) for row in (await tx.execute(query)).mappings()}
    return [found[row[0], row[1]] for row in rows]


async def model_documents(
    tx: AsyncConnection, workspace: str, rows: list[Identity], stages: tuple[str, ...]
) -> list[Document]:
    """In the order of `rows`, which are (model,). `stages` of a model: the newest version in each that has one."""
    m, v, a = t(ModelRow).alias("m"), t(VersionRow).alias("v"), t(AliasRow).alias("a")
    models = _array([row[0] for row in rows], sa.String())
    query = sa.select(m).where(m.c.workspace == workspace, m.c.model == sa.any_(models))
    found: dict[str, Document] = {}
    for row in (await tx.execute(query)).mappings():
        found[row["model"]] = {k: v for k, v in row.items() if k != "deleted_at"} | {"stages": {}, "aliases": {}}

    # One step into the index for each model and stage, whatever the number of versions.
    asked = sa.func.unnest(models).table_valued(sa.column("model", sa.String), name="asked").render_derived()
    stage = (
        sa.func.unnest(_array(list(stages), sa.String()))
        .table_valued(sa.column("stage", sa.String), name="s")
        .render_derived()
    )
    newest = (
        sa.select(sa.func.max(v.c.version))
        .where(v.c.workspace == workspace, v.c.model == asked.c.model, v.c.stage == stage.c.stage)
        .where(v.c.deleted_at.is_(None))
        .scalar_subquery()
    )
    of_stages = sa.select(asked.c.model, stage.c.stage, newest.label("version")).select_from(
        asked.join(stage, sa.true())
    )
    for model, name, version in await tx.execute(of_stages):
        if version is not None:
            found[model]["stages"][name] = version

    of_aliases = sa.select(a.c.model, a.c.alias, a.c.version).where(
        a.c.workspace == workspace, a.c.model == sa.any_(models)
    )
    for model, alias, version in await tx.execute(of_aliases.order_by(a.c.alias)):
        found[model]["aliases"][alias] = version
    return [found[row[0]] for row in rows]


def _array(values: list[Any], kind: Any) -> sa.ColumnElement[Any]:
    return sa.cast(sa.literal(values, ARRAY(kind)), ARRAY(kind))
