"""Resolve: which version to serve, in one indexed query."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from kit.db import Database
from kit.problems import Problem
from registry.domain import Status
from registry.serving.changes import told_of
from registry.serving.targets import DEFAULT_LIFECYCLE_JSON, Target, deleted, unknown_stage
from registry.state import no_model, no_version, version_deleted

MOST_OTHERS = 100  # how many versions beside the answer are named

# Where several versions may be, the answer also changes when the newest leaves or is revoked, and its sequence must
# grow then too.
# Whoever got into a gated stage by a signed decision stays the answer, whatever is found later: taking it out is a
# decision too. In an open stage a quarantined version is nothing to serve.
_IN_STAGE = """
    left join lateral (
        select e->>'name' as stage, coalesce((e->>'gated')::boolean, false) as gated, e->>'holds' as holds
        from jsonb_array_elements(coalesce(w.lifecycle, cast(:lifecycle as jsonb))->'stages') e
        where lower(e->>'name') = lower(:name)
    ) l on true
    left join lateral (
        select json_agg(row_to_json(c)) as found from (
            select x.version, coalesce(t.entered_at, x.registered_at) as at,
                case when l.holds = '1' then t.entered_sequence else greatest(t.entered_sequence, (
                    select max(s.left_sequence) from registry.tenure s
                    where s.workspace = n.workspace and s.model = n.model and s.stage = l.stage
                ), (
                    select max((r.revocation->>'sequence')::bigint) from registry.version r
                    where r.workspace = n.workspace and r.model = n.model and r.stage = l.stage
                        and r.status = 'revoked'
                )) end as sequence,
                x.status = 'ready' or x.status = 'quarantined' and (l.gated or :unsafe) as usable
            from registry.version x
            left join registry.tenure t on t.workspace = x.workspace and t.model = x.model and t.version = x.version
                and t.stage = x.stage and t.left_sequence is null
            where x.workspace = n.workspace and x.model = n.model and x.stage = l.stage and x.deleted_at is null
            order by usable desc, t.entered_sequence desc nulls last, x.version desc
            limit :most
        ) c
    ) f on true"""
_AT_ALIAS = """
    left join lateral (select :name as stage) l on true
    left join lateral (
        select json_agg(row_to_json(c)) as found from (
            select a.version, a.sequence, a.set_at as at,
                x.status = 'ready' or x.status <> 'revoked'
                    and (:unsafe or coalesce(w.protected_aliases, '[]') ? a.alias) as usable
            from registry.alias a
            join registry.version x on x.workspace = a.workspace and x.model = a.model and x.version = a.version
            where a.workspace = n.workspace and a.model = n.model and a.alias = :name
            limit :most
        ) c
    ) f on true"""
_BY_NUMBER = """
    left join lateral (select :name as stage) l on true
    left join lateral (
        select json_agg(row_to_json(c)) as found from (
            select x.version, t.entered_sequence as sequence, coalesce(t.entered_at, x.registered_at) as at,
                x.status = 'ready' or x.status = 'quarantined' and :unsafe as usable
            from registry.version x
            left join registry.tenure t on t.workspace = x.workspace and t.model = x.model and t.version = x.version
                and t.stage = x.stage and t.left_sequence is null
            where x.workspace = n.workspace and x.model = n.model and x.version = cast(:name as integer)
            limit :most
        ) c
    ) f on true"""


def _query(found: str) -> sa.TextualSelect:
    return sa.text(
        f"""
    select n.model, m.name, m.deleted_at, l.stage as target, f.found, v.version, v.stage, v.status, v.status_detail,
        v.deleted_at as version_deleted_at, v.digest, v.artifact_digest, v.content->'artifact' as artifact,
        v.content->'metrics' as metrics, v.revocation
    from registry.name n
    join registry.model m on m.workspace = n.workspace and m.model = n.model
    left join registry.workspace w on w.workspace = n.workspace {found}
    left join registry.version v on v.workspace = n.workspace and v.model = n.model
        and v.version = (f.found->0->>'version')::integer
    where n.workspace = :workspace and n.name = :model"""  # noqa: S608
    ).columns(found=sa.JSON(), artifact=JSONB(), metrics=JSONB(), revocation=JSONB())


QUERIES = {
    "stage": _query(_IN_STAGE).bindparams(lifecycle=DEFAULT_LIFECYCLE_JSON),
    "alias": _query(_AT_ALIAS),
    "version": _query(_BY_NUMBER),
}


_LAST_THERE = sa.text(
    """
    select t.version, v.revocation from registry.tenure t
    join registry.version v on v.workspace = t.workspace and v.model = t.model and v.version = t.version
    where t.workspace = :workspace and t.model = :model and t.stage = :stage and t.left_sequence is not null
    order by t.left_sequence desc limit 1"""
).columns(revocation=JSONB())


@dataclass(frozen=True)
class Resolved:
    """`model` is the identity; `name` what the model is called now. `sequence` names the event that made it so."""

    workspace: str
    model: str
    name: str
    target: str
    version: int
    stage: str
    status: str
    digest: str
    artifact_digest: str
    artifact: dict[str, Any]
    metrics: dict[str, float]
    sequence: int
    at: str
    also: tuple[int, ...]

    @property
    def etag(self) -> str:
        others = f".{sha256(json.dumps(self.also).encode()).hexdigest()[:12]}" if self.also else ""
        return f'"{self.version}.{self.sequence}.{self.status}{others}"'

    @property
    def warning(self) -> str | None:
        if self.status != Status.QUARANTINED:
            return None
        return f"version {self.version} is quarantined: its artifact has unsafe findings"


async def resolve(
    db: Database,
    workspace: str,
    model: str,
    target: Target,
    allow: Callable[[str], None],
    *,
    allow_quarantined: bool = False,
) -> Resolved:
    """The version that `target` names now. `model` is any name the model ever had.

    `allow` is given the model's identity before anything of it is told, and may raise.

    Raises:
        Problem: 404 model-not-found, nothing-in-stage, alias-not-found, version-not-found; 410 model-deleted,
            version-deleted, version-revoked; 409 version-not-ready, version-rejected, version-quarantined;
            422 unknown-stage.
    """
    asked = {"workspace": workspace, "model": model, "name": target.name, "unsafe": allow_quarantined}
    async with db.engine.connect() as connection:
        # One statement sees one instant by itself: no transaction, two round trips less.
        reading = await connection.execution_options(isolation_level="AUTOCOMMIT")
        row = (await reading.execute(QUERIES[target.kind], asked | {"most": MOST_OTHERS + 1})).first()
    allow(model if row is None else row.model)
    if row is None:
        raise no_model(workspace, model)
    if row.deleted_at is not None and not (target.kind == "version" and row.revocation):
        raise deleted(row.name)
    if row.target is None:
        raise unknown_stage(target.name)
    if row.version is None:
        place = Target(target.kind, row.target)
        raise await _why_empty(db, workspace, row.model, place) or _nothing(row.name, place)
    if row.version_deleted_at is not None and not row.revocation:
        raise version_deleted(row.name, row.version)
    best, *others = row.found
    if not best["usable"]:
        raise _unusable(row)
    return Resolved(
        workspace=workspace,
        model=row.model,
        name=row.name,
        target=str(Target(target.kind, row.target)),
        version=row.version,
        stage=row.stage,
        status=row.status,
        digest=row.digest,
        artifact_digest=row.artifact_digest,
        artifact=row.artifact,
        metrics=row.metrics,
        sequence=best["sequence"] or 0,
        at=best["at"],
        also=tuple(other["version"] for other in others if other["usable"]),
    )


async def _why_empty(db: Database, workspace: str, model: str, target: Target) -> Problem | None:
    """Nobody is in the stage: whoever still uses what was there last must hear that it was revoked."""
    if target.kind != "stage":
        return None
    asked = {"workspace": workspace, "model": model, "stage": target.name}
    async with db.snapshot() as tx:
        last = (await tx.execute(_LAST_THERE, asked)).first()
    return _revoked(model, last.version, last.revocation) if last is not None and last.revocation else None


def _revoked(model: str, version: int, revocation: dict[str, Any]) -> Problem:
    told = told_of(model, version, revocation)
    detail = (
        f"{told['by']} revoked version {version}: {told['reason'].rstrip('.')}. Stop using it; resolve the stage or "
        "alias again for the version that takes its place, or watch it"
    )
    return Problem(410, "version-revoked", detail, **told)


def _nothing(model: str, target: Target) -> Problem:
    if target.kind == "stage":
        return Problem(404, "nothing-in-stage", f"no version of {model!r} is in {target.name}")
    if target.kind == "alias":
        return Problem(404, "alias-not-found", f"{model!r} has no alias {target.name!r}")
    return no_version(model, int(target.name))


def _unusable(row: Any) -> Problem:
    if row.status == Status.REVOKED:
        return _revoked(row.model, row.version, row.revocation)
    if row.status == Status.QUARANTINED:
        return Problem(
            409,
            "version-quarantined",
            f"version {row.version} has unsafe findings; allow_quarantined=true gives it all the same",
        )
    if row.status == Status.REJECTED:
        return Problem(409, "version-rejected", f"version {row.version} was rejected: {row.status_detail}")
    return Problem(409, "version-not-ready", f"version {row.version} is being verified; try again in a moment")
