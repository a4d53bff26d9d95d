"""What changed for those who follow a model, read from its stream of events.

The stream is the source, not the views: its sequences have no gaps and become visible in order, so "everything after
17" can neither skip nor repeat a change. (The position in the event table would not do: across streams, a lower one
may become visible later.)
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from fastapi.sse import format_sse_event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.lifecycle import stream_of
from contracts.registry import (
    AliasChanged,
    AliasRemoved,
    ModelDeleted,
    ModelRecreated,
    ModelRestored,
    StageChanged,
    VersionRevoked,
)
from kit.db import Database
from kit.problems import Problem
from registry.serving.targets import DEFAULT_LIFECYCLE_JSON, Target, deleted, unknown_stage
from registry.state import no_model

FOLLOWED = [
    kind.TYPE
    for kind in (StageChanged, AliasChanged, AliasRemoved, ModelDeleted, ModelRestored, ModelRecreated, VersionRevoked)
]
PAGE = 200

_AFTER = sa.text(
    """
    select e.stream, e.sequence, e.type, e.at, case when e.type = any(cast(:types as text[])) then e.data end as data
    from unnest(cast(:streams as text[]), cast(:after as bigint[])) as s(stream, sequence)
    cross join lateral (
        select * from registry.event e where e.stream = s.stream and e.sequence > s.sequence
        order by e.sequence limit :page
    ) e
    order by e.stream, e.sequence"""
)
# Who was in the stage before event `sequence`, which took one of them out.
_OCCUPANTS = sa.text(
    """
    select t.version, v.digest, v.artifact_digest
    from registry.tenure t
    join registry.version v on v.workspace = t.workspace and v.model = t.model and v.version = t.version
    where t.workspace = :workspace and t.model = :model and t.stage = :stage and t.entered_sequence < :sequence
        and (t.left_sequence is null or t.left_sequence >= :sequence)
    order by t.entered_sequence desc limit 2"""
)
_HEAD = sa.text("select coalesce(max(sequence), 0) from registry.event where stream = :stream")
_MODEL = sa.text(
    """
    select n.model, m.name, m.deleted_at, coalesce(w.lifecycle, cast(:lifecycle as jsonb))->>'initial' as initial,
        (select e->>'name' from jsonb_array_elements(coalesce(w.lifecycle, cast(:lifecycle as jsonb))->'stages') e
         where lower(e->>'name') = lower(:stage)) as stage
    from registry.name n
    join registry.model m on m.workspace = n.workspace and m.model = n.model
    left join registry.workspace w on w.workspace = n.workspace
    where n.workspace = :workspace and n.name = :name"""
)
_SPELLED = sa.text(
    """
    select e->>'name' from jsonb_array_elements(coalesce(
        (select lifecycle from registry.workspace where workspace = :workspace), cast(:lifecycle as jsonb)
    )->'stages') e where lower(e->>'name') = lower(:stage)"""
)
_STATE = sa.text(
    """
    select * from (
        select distinct on (t.stage) t.stage as target, t.version, t.entered_sequence as sequence, t.entered_at as at,
            v.digest, v.artifact_digest, v.revocation
        from registry.tenure t
        join registry.version v on v.workspace = t.workspace and v.model = t.model and v.version = t.version
        where t.workspace = :workspace and t.model = :model and t.left_sequence is null
            and (cast(:target as text) is null or t.stage = :target)
        order by t.stage, v.status = 'revoked', t.entered_sequence desc
    ) found
    union all
    select '@' || a.alias, a.version, a.sequence, a.set_at, v.digest, v.artifact_digest, v.revocation
    from registry.alias a
    join registry.version v on v.workspace = a.workspace and v.model = a.model and v.version = a.version
    where a.workspace = :workspace and a.model = :model
        and (cast(:target as text) is null or '@' || a.alias = :target)
    order by 1"""
).columns(revocation=JSONB())


@dataclass(frozen=True)
class Change:
    """`kind` is change (`target` is `version` now), removed (nothing is there now), deleted or restored (the model).

    Or revoked: `version` must not be used any more, by whomever and for whatever target; `revoked` says why.
    """

    kind: str
    sequence: int
    at: str
    target: str | None = None
    version: int | None = None
    digest: str | None = None
    artifact_digest: str | None = None
    replaced: int | None = None
    reason: str = ""
    revoked: dict[str, Any] | None = None

    @cached_property
    def frame(self) -> bytes:
        """The server-sent event, made once for all who get it."""
        return format_sse_event(event=self.kind, data_str=self._data, id=str(self.sequence))

    @cached_property
    def part(self) -> bytes:
        """Without the id: the same registry event changed more, and only with its last change it has been told."""
        return format_sse_event(event=self.kind, data_str=self._data)

    @property
    def _data(self) -> str:
        return json.dumps({name: getattr(self, name) for name in self.__dataclass_fields__ if name != "kind"})


Group = tuple[Change, ...]  # what one event of the stream changed


def frames(group: Group) -> bytes:
    return b"".join(change.part for change in group[:-1]) + group[-1].frame


@dataclass(frozen=True)
class Found:
    """The model behind a name, and the target in the lifecycle's own spelling (None: everything)."""

    workspace: str
    model: str
    name: str
    target: Target | None

    @property
    def stream(self) -> str:
        return stream_of(self.workspace, self.model)


@dataclass(frozen=True)
class State:
    """What the targets are now. `sequence`: everything up to it is in here."""

    sequence: int
    targets: tuple[dict[str, Any], ...]

    @property
    def frame(self) -> bytes:
        data = {"sequence": self.sequence, "targets": self.targets}
        return format_sse_event(event="state", data_str=json.dumps(data), id=str(self.sequence))


class History:
    """Reads streams and views; holds no connection between two questions."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def find(self, workspace: str, name: str, target: Target | None, allow: Callable[[str], None]) -> Found:
        """The model of that name. `allow` is given its identity before anything of it is told, and may raise.

        Raises Problem: 404 model-not-found, 410 model-deleted, 422 unknown-stage, or not-watchable: versions come
        into the initial stage by registration, without a stage change to tell.
        """
        stage = target.name if target is not None and target.kind == "stage" else None
        asked = {"workspace": workspace, "name": name, "stage": stage, "lifecycle": DEFAULT_LIFECYCLE_JSON}
        async with self._db.snapshot() as tx:
            row = (await tx.execute(_MODEL, asked)).first()
        allow(name if row is None else row.model)
        if row is None:
            raise no_model(workspace, name)
        if row.deleted_at is not None:
            raise deleted(row.name)
        if stage is not None:
            if row.stage is None:
                raise unknown_stage(stage)
            if row.stage == row.initial:
                raise Problem(422, "not-watchable", f"every new version starts in {row.stage}; ask resolve instead")
            target = Target("stage", row.stage)
        return Found(workspace, row.model, row.name, target)

    async def spelled(self, workspace: str, target: Target) -> Target:
        """A stage in its own spelling. Raises Problem: 422 unknown-stage."""
        if target.kind != "stage":
            return target
        asked = {"workspace": workspace, "stage": target.name, "lifecycle": DEFAULT_LIFECYCLE_JSON}
        async with self._db.snapshot() as tx:
            name = await tx.scalar(_SPELLED, asked)
        if name is None:
            raise unknown_stage(target.name)
        return Target("stage", name)

    async def head(self, stream: str) -> int:
        async with self._db.snapshot() as tx:
            return int(await tx.scalar(_HEAD, {"stream": stream}))

    async def state(self, found: Found) -> State:
        """All of one instant."""
        async with self._db.snapshot() as tx:
            head = int(await tx.scalar(_HEAD, {"stream": found.stream}))
            return State(head, tuple(await self.targets(tx, found)))

    async def targets(self, tx: AsyncConnection, found: Found) -> list[dict[str, Any]]:
        rows = await tx.execute(
            _STATE,
            {
                "workspace": found.workspace,
                "model": found.model,
                "target": str(found.target) if found.target else None,
            },
        )
        return [_target(found.model, dict(row)) for row in rows.mappings()]

    async def after(self, streams: Mapping[str, int]) -> dict[str, tuple[int, list[Group]]]:
        """Stream -> the sequence reached and the changes on the way, at most PAGE events each; in one query for all.

        Streams without news are left out.
        """
        asked = {"streams": list(streams), "after": list(streams.values()), "types": FOLLOWED, "page": PAGE}
        found: dict[str, tuple[int, list[Group]]] = {}
        async with self._db.engine.connect() as connection:
            reading = await connection.execution_options(isolation_level="AUTOCOMMIT")
            for row in (await reading.execute(_AFTER, asked)).all():
                _, changes = found.get(row.stream, (0, []))
                if row.data is not None:
                    changes.append(await _changes(reading, row))
                found[row.stream] = (row.sequence, changes)
        return found


def _target(model: str, row: dict[str, Any]) -> dict[str, Any]:
    revocation = row.pop("revocation")
    revoked = told_of(model, row["version"], revocation) if revocation else None
    return {**row, "at": row["at"].isoformat(), "revoked": revoked}


def told_of(model: str, version: int, revocation: Mapping[str, Any]) -> dict[str, Any]:
    """What servers are told of a version that nobody may use any more. `model` is the identity."""
    return {"model": model, "version": version, **{name: revocation[name] for name in ("reason", "at", "by")}}


async def _changes(tx: AsyncConnection, row: Any) -> Group:
    """What one event changed for its followers."""
    event = json.loads(row.data)
    common = {"sequence": row.sequence, "at": row.at.isoformat(), "reason": event.get("reason", "")}
    now = {name: event.get(name) for name in ("version", "digest", "artifact_digest")}
    if row.type == AliasChanged.TYPE:
        return (Change("change", target=f"@{event['alias']}", replaced=event.get("previous"), **common, **now),)
    if row.type == AliasRemoved.TYPE:
        return (Change("removed", target=f"@{event['alias']}", replaced=event["previous"], **common),)
    if row.type == VersionRevoked.TYPE:
        said = {"reason": event["reason"], "at": common["at"], "by": event["revoked_by"]}
        return (Change("revoked", revoked=told_of(event["model"], event["version"], said), **common, **now),)
    if row.type != StageChanged.TYPE:
        return (Change("deleted" if row.type == ModelDeleted.TYPE else "restored", **common),)
    entered = Change("change", target=event["to_stage"], replaced=event.get("replaces"), **common, **now)
    # Who is superseded leaves in the same transaction as the next one enters: that is one change, told once.
    left = [] if event.get("superseded_by") else await _left(tx, event, row.sequence, common)
    return (*left, entered)


async def _left(tx: AsyncConnection, event: dict[str, Any], sequence: int, common: dict[str, Any]) -> list[Change]:
    """What it means for a stage that a version left: the newest of the others is the answer now, or nobody."""
    asked = {"workspace": event["workspace"], "model": event["model"], "stage": event["from_stage"]}
    occupants = (await tx.execute(_OCCUPANTS, asked | {"sequence": sequence})).all()
    if not occupants or occupants[0].version != event["version"]:
        return []
    told = {"target": event["from_stage"], "replaced": event["version"], **common}
    if len(occupants) == 1:
        return [Change("removed", **told)]
    now = {name: getattr(occupants[1], name) for name in ("version", "digest", "artifact_digest")}
    return [Change("change", **now, **told)]
