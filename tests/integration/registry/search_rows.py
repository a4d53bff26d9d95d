"""Rows for searching, straight into the view tables."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

MANY = (
    """insert into registry.model (workspace, model, name, description, owner, tags, versions, registered_by,
         registered_at, updated_at)
       select :workspace, 'model-' || lpad(m::text, 5, '0'), 'model-' || lpad(m::text, 5, '0'), '', 'team-' || m % 20,
         '{}', :each, 'user-' || m % 50, timestamptz '2024-01-01' + m * interval '1 minute',
         timestamptz '2024-01-01' + m * interval '1 minute'
       from generate_series(1, :models) m""",
    """insert into registry.name select workspace, name, model from registry.model where workspace = :workspace""",
    """insert into registry.version (workspace, model, version, digest, artifact_digest, stage, status, content, tags,
         description, run_id, correlationid, registered_by, registered_at, updated_at)
       select workspace, model, v, 'sha256:' || md5(model || v), 'sha256:' || md5(v || model),
         case when v = :each then 'Production' when v = :each - 1 then 'Staging' when v % 5 = 0 then 'Archived'
           else 'Development' end,
         case when hashtext(model || v) % 500 = 0 then 'quarantined' else 'ready' end,
         jsonb_build_object(
           'artifact', jsonb_build_object('filename', 'file-' || hashint4(v) % 1000 || '.onnx'),
           'metrics', jsonb_build_object('auc', 0.5), 'parameters', jsonb_build_object('lr', '0.1'),
           'notes', repeat(md5(model || v), 20)),
         jsonb_build_object('team', 'risk'), '',
         case when v % 2 = 0 then 'run-' || md5(model || v) end, '', 'user-' || abs(hashtext(model)) % 50,
         timestamptz '2024-01-01' + (v * :models + abs(hashtext(model)) % :models) * interval '1 second',
         timestamptz '2024-06-01' + abs(hashtext(model || v)) % 10000000 * interval '1 second'
       from registry.model, generate_series(1, :each) v where workspace = :workspace""",
    """insert into registry.metric
       select workspace, model, version, 'auc', round((abs(hashtext(model || version)) % 100000) / 100000.0, 4)
       from registry.version where workspace = :workspace and version % 10 <> 0""",
    """insert into registry.metric
       select workspace, model, version, 'loss', abs(hashtext(version || model)) % 1000
       from registry.version where workspace = :workspace""",
    """insert into registry.parameter
       select workspace, model, version, 'seed', md5(model || version || model) || md5(version || 'x') || version
       from registry.version where workspace = :workspace""",
    """insert into registry.parameter select workspace, model, version, 'lr', '0.' || version % 10
       from registry.version where workspace = :workspace""",
    """insert into registry.tag select workspace, model, version, 'team', 'team-' || abs(hashtext(model)) % 20
       from registry.version where workspace = :workspace""",
    """insert into registry.tag select workspace, model, version, 'incident', 'INC-' || abs(hashtext(model)) % 10
       from registry.version where workspace = :workspace and abs(hashtext(model || version)) % 200 = 0""",
    """insert into registry.alias select workspace, model, 'champion', :each, 1, 'ana', now()
       from registry.model where workspace = :workspace""",
)


async def many(tx: AsyncConnection, workspace: str, *, models: int, each: int) -> None:
    """Versions with tags `team` (one of 20) and, one in 200, `incident`; metrics `auc` (nine of ten) and `loss`;
    parameters `seed` (all different) and `lr` (ten values). Each model has one in Production, and one champion."""
    given = {"workspace": workspace, "models": models, "each": each}
    for statement in MANY:
        used = {name: value for name, value in given.items() if f":{name}" in statement}
        await tx.execute(sa.text(statement), used)
