"""Stale versions: nobody uses them, or the latest evaluation fell below what is good enough."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from contracts.envelope import now
from contracts.lifecycle import Lifecycle
from kit.db import Database
from kit.problems import Problem
from registry import state
from registry.domain import Refused
from registry.serving.targets import unknown_stage

Archive = Callable[[str, int], Awaitable[dict[str, Any]]]
DEFAULT_UNUSED_DAYS = 30

_STALE = """
    select v.model, m.name, v.version, v.stage, v.status, v.revocation, v.registered_at, u.last_at as last_used_at,
        (select max(o.last_at) from registry.usage o
         where o.workspace = v.workspace and o.model = v.model) as model_last_used_at,
        coalesce((select array_agg(a.alias order by a.alias) from registry.alias a where a.workspace = v.workspace
         and a.model = v.model and a.version = v.version), '{}') as aliases,
        e.value, coalesce(v.content->'better'->>cast(:metric as text), 'higher') as better,
        coalesce(r.servers, '{}') as servers, v.status = 'revoked' and r.servers is not null as forbidden,
        v.stage <> :archive and v.registered_at < :before and coalesce(u.last_at < :before, true)
            and coalesce(s.entered_at < :before, true) as unused,
        v.stage <> :archive and coalesce(case v.content->'better'->>cast(:metric as text)
            when 'lower' then e.value > :floor else e.value < :floor end, false) as poor
    from registry.version v
    join registry.model m on m.workspace = v.workspace and m.model = v.model and m.deleted_at is null
    left join lateral (
        select max(u.last_at) as last_at from registry.usage u
        where u.workspace = v.workspace and u.model = v.model and u.version = v.version
    ) u on true
    left join lateral (
        select max(s.entered_at) as entered_at from registry.tenure s
        where s.workspace = v.workspace and s.model = v.model and s.stage = v.stage and s.version = v.version
            and s.left_sequence is null
    ) s on true
    left join lateral (
        select cast(r.data->'metrics'->>cast(:metric as text) as float8) as value from registry.remark r
        where cast(:metric as text) is not null
            and r.workspace = v.workspace and r.model = v.model and r.version = v.version
            and r.kind = 'evaluation' and jsonb_exists(r.data->'metrics', cast(:metric as text))
        order by cast(r.data->>'evaluated_at' as timestamptz) desc, r.sequence desc limit 1
    ) e on true
    left join lateral (
        select array_agg(distinct r.server order by r.server) as servers from registry.server r
        where r.workspace = v.workspace and r.model = v.model and r.version = v.version
            and r.state in ('loaded', 'serving')
    ) r on true
    where v.workspace = :workspace and (v.stage <> :archive or :archived and v.status = 'revoked')
        and (v.deleted_at is null or v.status = 'revoked')
        and (cast(:stage as text) is null or v.stage = :stage)
        and (v.model, v.version) > (cast(:model as text), cast(:version as integer))"""
_PAGE = (
    sa.text(
        f"select * from ({_STALE}) found where unused or poor or forbidden order by model, version limit :limit"  # noqa: S608
    )
    .bindparams(
        sa.bindparam("before", type_=sa.DateTime(timezone=True)),
        sa.bindparam("floor", type_=sa.Float()),
        sa.bindparam("archived", type_=sa.Boolean()),
    )
    .columns(revocation=JSONB())
)


@dataclass(frozen=True)
class Criteria:
    """`unused_days`: no use for so long, and older than that. `metric` and `floor`: the latest evaluation of the metric
    is below the floor, or above it where lower is better. What fits either is stale, and always what was revoked and
    is still run by a server."""

    workspace: str
    unused_days: int | None = None
    metric: str | None = None
    floor: float | None = None
    stage: str | None = None

    def checked(self) -> "Criteria":
        """Raises Problem 422 when metric and floor do not come together. Without any criterion: 30 days unused."""
        if (self.metric is None) != (self.floor is None):
            raise Problem(422, "invalid-request", "metric and floor go together, such as metric=auc&floor=0.8")
        if self.metric is None and self.unused_days is None:
            return Criteria(self.workspace, DEFAULT_UNUSED_DAYS, stage=self.stage)
        return self


async def find(
    db: Database, asked: Criteria, after: tuple[str, int], limit: int, *, archived: bool = True
) -> list[dict[str, Any]]:
    """The stale versions by model and number, after `after`. From the archive stage only what was revoked and still
    runs, and with `archived` only.

    Raises:
        Problem: 422 unknown-stage, invalid-request.
    """
    criteria = asked.checked()
    async with db.snapshot() as tx:
        lifecycle = (await state.rules(tx, criteria.workspace)).lifecycle
        stage = lifecycle.named(criteria.stage) if criteria.stage is not None else None
        if criteria.stage is not None and stage is None:
            raise unknown_stage(criteria.stage)
        days = criteria.unused_days
        rows = await tx.execute(
            _PAGE,
            {
                "workspace": criteria.workspace,
                "archive": lifecycle.archive,
                "archived": archived,
                "stage": stage,
                # Without this criterion: before anything was registered.
                "before": now() - timedelta(days=days if days is not None else 1_000 * 365),
                "metric": criteria.metric,
                "floor": criteria.floor,
                "model": after[0],
                "version": after[1],
                "limit": limit,
            },
        )
        return [_document(row, criteria, lifecycle) for row in rows.mappings()]


async def archive_all(
    found: list[dict[str, Any]], archive: Archive, *, dry_run: bool, include_serving: bool
) -> list[dict[str, Any]]:
    """What becomes, or in a dry run would become, of each: done, refused (with code and detail), would-archive.

    What serves (it stands in a stage that holds a limited number, or an alias points at it) stays unless asked for.
    """
    told = []
    for item in found:
        place = {name: item[name] for name in ("model", "version", "stage", "reason")}
        if item["serves"] and not include_serving:
            detail = f"it serves as {item['serves']}; include_serving=true archives it all the same"
            told.append({**place, "outcome": "refused", "code": "in-use", "detail": detail})
        elif dry_run:
            told.append({**place, "outcome": "would-archive"})
        else:
            try:
                done = await archive(item["model"], item["version"])
                told.append({**place, "outcome": "done", "transition_id": done.get("transition_id")})
            except (Problem, Refused) as refusal:
                told.append({**place, "outcome": "refused", "code": refusal.code, "detail": refusal.detail})
    return told


def _document(row: Any, criteria: Criteria, lifecycle: Lifecycle) -> dict[str, Any]:
    rule = lifecycle.rule(row["stage"])
    limited = [row["stage"]] if rule is not None and rule.holds is not None else []
    reasons = []
    if row["forbidden"]:
        reasons.append(f"revoked: {row['revocation']['reason']}; still run by {', '.join(row['servers'])}")
    if row["unused"]:
        reasons.append(f"no use in {criteria.unused_days} days")
    if row["poor"]:
        side = "above" if row["better"] == "lower" else "below"
        reasons.append(f"{criteria.metric} is {row['value']:g}, {side} {criteria.floor:g}")
    names = ("model", "name", "version", "stage", "status", "registered_at", "last_used_at", "model_last_used_at")
    return {
        **{name: row[name] for name in names},
        "revocation": row["revocation"],
        "servers": row["servers"],
        "unused": row["unused"],
        "poor": row["poor"],
        "value": row["value"] if row["poor"] else None,
        "reason": "; ".join(reasons),
        "serves": ", ".join([*limited, *(f"@{alias}" for alias in row["aliases"])]),
    }
