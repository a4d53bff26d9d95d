"""What the rules decide on, read from the views in the command's transaction."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.lifecycle import Lifecycle, TransitionKind
from contracts.registry import Transition
from kit.problems import Problem
from registry import domain
from registry.stages import Open, alias_of
from registry.tables import (
    AliasMoveRow,
    AliasRow,
    ModelRow,
    NameRow,
    TagRow,
    TenureRow,
    TransitionRow,
    VersionRow,
    WorkspaceRow,
    t,
)


def no_model(workspace: str, model: str) -> Problem:
    return Problem(404, "model-not-found", f"there is no model {model!r} in workspace {workspace!r}")


def no_version(model: str, version: int) -> Problem:
    return Problem(404, "version-not-found", f"model {model!r} has no version {version}")


def version_deleted(model: str, version: int) -> Problem:
    return Problem(410, "version-deleted", f"version {version} of {model!r} is deleted; restore it first")


async def identity(tx: AsyncConnection, workspace: str, name: str) -> str:
    """The name under which the model was registered that has, or had, this one; itself when nobody had it.

    Names never change hands, so the answer holds without a lock.
    """
    table = t(NameRow)
    query = sa.select(table.c.model).where(table.c.workspace == workspace, table.c.name == name)
    return str(await tx.scalar(query) or name)


async def keep_rules(tx: AsyncConnection, workspace: str) -> None:
    """Until the transaction ends, nobody changes the rules of the workspace; whoever is doing so is waited for."""
    key = f"{t(WorkspaceRow).schema}:workspace:{workspace}"  # the lock of the workspace's stream, shared
    await tx.execute(sa.text("select pg_advisory_xact_lock_shared(hashtextextended(:key, 0))"), {"key": key})


_W, _M, _A = t(WorkspaceRow), t(ModelRow), t(AliasRow)
_asked = sa.values(sa.column("workspace", sa.String), sa.column("model", sa.String), name="asked").data(
    [(sa.bindparam("workspace", type_=sa.String), sa.bindparam("model", type_=sa.String))]
)
# One row, whether the model and the rules of its workspace are there or not.
_MODEL = sa.select(
    _W.c.lifecycle,
    _W.c.naming,
    _W.c.naming_message,
    _W.c.protected_aliases,
    _M.c.name,
    _M.c.versions,
    _M.c.tags,
    _M.c.deleted_at,
    sa.select(sa.func.jsonb_object_agg(_A.c.alias, _A.c.version))
    .where(_A.c.workspace == _asked.c.workspace, _A.c.model == _asked.c.model)
    .scalar_subquery()
    .label("aliases"),
).select_from(
    _asked.outerjoin(_W, _W.c.workspace == _asked.c.workspace).outerjoin(
        _M, sa.and_(_M.c.workspace == _asked.c.workspace, _M.c.model == _asked.c.model)
    )
)


async def rules(tx: AsyncConnection, workspace: str) -> domain.Rules:
    table = t(WorkspaceRow)
    row = (await tx.execute(sa.select(table).where(table.c.workspace == workspace))).first()
    return domain.Rules() if row is None else _rules(row)


def _rules(row: Any) -> domain.Rules:
    if row.lifecycle is None:
        return domain.Rules()
    return domain.Rules(
        lifecycle=Lifecycle.model_validate(row.lifecycle, strict=False),
        naming=row.naming,
        naming_message=row.naming_message,
        protected_aliases=frozenset(row.protected_aliases),
    )


async def model(tx: AsyncConnection, workspace: str, name: str) -> domain.Model:
    """What the rules know of a model, by its identity; `exists` is False when it is not registered."""
    row = (await tx.execute(_MODEL, {"workspace": workspace, "model": name})).one()
    known = _rules(row)
    if row.name is None:
        return domain.Model(workspace, name, rules=known, title=name)
    limited = [stage.name for stage in known.lifecycle.stages if stage.holds is not None]
    gated = [stage.name for stage in known.lifecycle.stages if stage.gated]
    version, tenure = t(VersionRow), t(TenureRow)
    here = (version.c.workspace == workspace, version.c.model == name)
    present = await tx.execute(
        sa.select(*_STATE)
        .outerjoin(  # a version that is where it began has no tenure; it stands there longest
            tenure,
            sa.and_(
                *(tenure.c[n] == version.c[n] for n in ("workspace", "model", "version", "stage")),
                tenure.c.left_sequence.is_(None),
            ),
        )
        .where(*here, version.c.stage.in_(limited) | (version.c.stage.in_(gated) & REVOKED))
        .order_by(tenure.c.entered_sequence.nulls_first(), version.c.version)
    )
    occupants: dict[str, tuple[domain.Version, ...]] = {}
    revoked: dict[str, tuple[domain.Version, ...]] = {}
    for row_ in present:
        occupant = _version(row_)
        if occupant.stage in limited:
            occupants[occupant.stage] = (*occupants.get(occupant.stage, ()), occupant)
        if occupant.status == domain.Status.REVOKED:
            revoked[occupant.stage] = (*revoked.get(occupant.stage, ()), occupant)
    return domain.Model(
        workspace,
        name,
        exists=True,
        versions=row.versions,
        occupants=occupants,
        revoked=revoked,
        aliases=row.aliases or {},
        tags=frozenset(row.tags),
        title=row.name,
        deleted=row.deleted_at is not None,
        rules=known,
    )


async def version(tx: AsyncConnection, of: domain.Model, number: int, *, deleted: bool = False) -> domain.Version:
    """Raises Problem 404; and 410 for a deleted one, unless `deleted` ones are wanted too."""
    if not of.exists:
        raise no_model(of.workspace, of.name)
    table, tenure = t(VersionRow), t(TenureRow)
    query = sa.select(*_STATE).where(
        table.c.workspace == of.workspace, table.c.model == of.name, table.c.version == number
    )
    row = (await tx.execute(query)).first()
    if row is None:
        raise no_version(of.title, number)
    if row.deleted_at is not None and not deleted:
        raise version_deleted(of.title, number)
    stages = await tx.scalars(
        sa.select(tenure.c.stage)
        .distinct()
        .where(tenure.c.workspace == of.workspace, tenure.c.model == of.name, tenure.c.version == number)
    )
    return _version(row, frozenset(stages))


async def version_tags(tx: AsyncConnection, of: domain.Model, number: int) -> frozenset[str]:
    table = t(TagRow)
    return frozenset(
        await tx.scalars(
            sa.select(table.c.name).where(
                table.c.workspace == of.workspace, table.c.model == of.name, table.c.version == number
            )
        )
    )


async def last_good(tx: AsyncConnection, of: domain.Model, stage: str) -> int | None:
    """The ready version that was in `stage` last, is not there now, and was not rolled back from at its last stay."""
    tenure, version = t(TenureRow), t(VersionRow)
    last_stays = (
        sa.select(tenure)
        .ext(distinct_on(tenure.c.version))
        .where(tenure.c.workspace == of.workspace, tenure.c.model == of.name, tenure.c.stage == stage)
        .order_by(tenure.c.version, tenure.c.entered_sequence.desc())
        .subquery()
    )
    return await tx.scalar(
        sa.select(last_stays.c.version)
        .join(version, sa.and_(*(version.c[n] == last_stays.c[n] for n in ("workspace", "model", "version"))))
        .where(
            last_stays.c.left_sequence.is_not(None),
            last_stays.c.left_by != TransitionKind.ROLLBACK,
            version.c.status == domain.Status.READY,
            version.c.stage == of.rules.lifecycle.archive,
            version.c.deleted_at.is_(None),
        )
        .order_by(last_stays.c.entered_sequence.desc())
        .limit(1)
    )


async def serving(tx: AsyncConnection, of: domain.Model) -> tuple[int, str] | None:
    """A version that stands in a gated stage, or that a protected alias points at, and where."""
    for alias, number in of.aliases.items():
        if of.rules.protects(alias):
            return number, f"@{alias}"
    table = t(VersionRow)
    gated = [rule.name for rule in of.rules.lifecycle.stages if rule.gated]
    query = sa.select(table.c.version, table.c.stage).where(
        table.c.workspace == of.workspace, table.c.model == of.name, table.c.stage.in_(gated)
    )
    row = (await tx.execute(query.limit(1))).first()
    return None if row is None else (row.version, row.stage)


async def in_stage(tx: AsyncConnection, of: domain.Model, stage: str) -> list[domain.Version]:
    """The versions in a stage that are not deleted, by number."""
    table = t(VersionRow)
    query = sa.select(*_STATE).where(
        table.c.workspace == of.workspace,
        table.c.model == of.name,
        table.c.stage == stage,
        table.c.deleted_at.is_(None),
    )
    return [_version(row) for row in await tx.execute(query.order_by(table.c.version))]


async def stages_in_use(tx: AsyncConnection, workspace: str) -> dict[str, int]:
    table = t(VersionRow)
    query = sa.select(table.c.stage, sa.func.count()).where(table.c.workspace == workspace).group_by(table.c.stage)
    return dict(iter(await tx.execute(query)))


async def open_transition(tx: AsyncConnection, transition_id: str) -> Open | None:
    """The transition if it still waits for its decision."""
    table = t(TransitionRow)
    row = (await tx.execute(sa.select(table).where(table.c.transition_id == transition_id))).first()
    return None if row is None or row.status != "open" else replace(_open(row), occupant=await _occupant(tx, row))


async def _occupant(tx: AsyncConnection, row: Any) -> int:
    """Who entered the target of a transition last and is still there, other than the version itself; 0: nobody."""
    if (alias := alias_of(row.to_stage)) is not None:
        table = t(AliasRow)
        query = sa.select(table.c.version).where(table.c.alias == alias)
    else:
        table = t(TenureRow)
        query = sa.select(table.c.version).where(table.c.stage == row.to_stage, table.c.left_sequence.is_(None))
        query = query.order_by(table.c.entered_sequence.desc()).limit(1)
    here = (table.c.workspace == row.workspace, table.c.model == row.model, table.c.version != row.version)
    return await tx.scalar(query.where(*here)) or 0


async def open_transitions(tx: AsyncConnection, of: domain.Model, number: int | None = None) -> list[Open]:
    """Those of the model, or of one version of it, oldest first."""
    table = t(TransitionRow)
    here = [table.c.workspace == of.workspace, table.c.model == of.name]
    here += [] if number is None else [table.c.version == number]
    query = sa.select(table).where(*here, table.c.status == "open").order_by(table.c.transition_id)
    return [_open(row) for row in await tx.execute(query)]


async def is_returning(tx: AsyncConnection, of: domain.Model, target: str) -> bool:
    """Whether a rollback of the stage, or of the alias, waits for its decision."""
    table = t(TransitionRow)
    here = (table.c.workspace == of.workspace, table.c.model == of.name, table.c.to_stage == target)
    rollback = (table.c.status == "open", table.c.kind == TransitionKind.ROLLBACK)
    return await tx.scalar(sa.select(sa.literal(1)).where(*here, *rollback).limit(1)) is not None


async def pointed_at(tx: AsyncConnection, of: domain.Model, alias: str) -> tuple[int, ...]:
    """Every version that the alias has pointed at, the latest first."""
    table = t(AliasMoveRow)
    query = (
        sa.select(table.c.version)
        .where(table.c.workspace == of.workspace, table.c.model == of.name, table.c.alias == alias)
        .where(table.c.version.is_not(None))
        .group_by(table.c.version)
        .order_by(sa.func.max(table.c.sequence).desc())
    )
    return tuple((await tx.scalars(query)).all())


async def due_transitions(tx: AsyncConnection, now: datetime) -> list[dict[str, Any]]:
    table = t(TransitionRow)
    query = sa.select(table).where(table.c.status == "open", table.c.expires_at <= now).limit(100)
    return [dict(row) for row in (await tx.execute(query)).mappings()]


async def has_open(tx: AsyncConnection, of: domain.Model, number: int, target: str) -> str | None:
    """The id of the open transition of this version to this stage or alias."""
    table = t(TransitionRow)
    return await tx.scalar(
        sa.select(table.c.transition_id).where(
            table.c.workspace == of.workspace,
            table.c.model == of.name,
            table.c.version == number,
            table.c.to_stage == target,
            table.c.status == "open",
        )
    )


_V = t(VersionRow)
_STATE = (
    _V.c.version,
    _V.c.digest,
    _V.c.artifact_digest,
    _V.c.stage,
    _V.c.status,
    _V.c.registered_by,
    _V.c.revocation,
    _V.c.deleted_at,
)
# As the index on it has it: written out, not bound.
REVOKED = _V.c.status == sa.literal_column(f"'{domain.Status.REVOKED}'")


def _version(row: Any, has_been: frozenset[str] = frozenset()) -> domain.Version:
    return domain.Version(
        row.version,
        row.digest,
        row.artifact_digest,
        row.stage,
        has_been | {row.stage},
        row.registered_by,
        row.status,
        domain.Revoked(**{n: row.revocation[n] for n in ("by", "reason", "fallback")}) if row.revocation else None,
        row.deleted_at is not None,
    )


def _open(row: Any) -> Open:
    return Open(
        transition=Transition(**{name: getattr(row, name) for name in Transition.model_fields}),
        requested_by=row.requested_by,
        reason=row.reason,
        requested_at=row.requested_at,
        expires_at=row.expires_at,
        expected=row.expected,
    )
