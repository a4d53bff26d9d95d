"""What approval remembers of the registry: models, versions, and who has been in which stage.

Folded from the registry's events in their order; another service's tables are never read (law 9).
"""

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from approval.gates import snapshot_of_version
from approval.tables import ModelRow, StayRow, VersionRow, of
from contracts.envelope import Envelope
from contracts.registry import AliasChanged, AliasRemoved, ModelRegistered, StageChanged, VersionRegistered
from kit.errors import Permanent

_model, _version, _stay = of(ModelRow), of(VersionRow), of(StayRow)


async def model_registered(tx: AsyncConnection, envelope: Envelope, event: ModelRegistered) -> None:
    values = {"workspace": event.workspace, "name": event.model, "data": envelope.value.decode()}
    statement = insert(_model).values(values)
    await tx.execute(
        statement.on_conflict_do_update(index_elements=["workspace", "name"], set_={"data": values["data"]})
    )


async def version_registered(tx: AsyncConnection, envelope: Envelope, event: VersionRegistered) -> None:
    """Raises Permanent when the version is known with another content: a version never changes (law 4)."""
    if event.digest != event.content.digest():
        raise Permanent("digest-mismatch", f"version {event.version}: its digest is not that of its content")
    known = await _row(tx, event.workspace, event.model, event.version)
    if known is not None:
        if known.digest != event.digest:
            raise Permanent("version-changed", f"version {event.version} is known with digest {known.digest}")
        return
    await tx.execute(
        sa.insert(_version).values(
            workspace=event.workspace,
            model=event.model,
            version=event.version,
            digest=event.digest,
            artifact_digest=event.content.artifact.digest,
            registered_at=envelope.time,
            data=envelope.value.decode(),
        )
    )


async def stage_changed(tx: AsyncConnection, envelope: Envelope, event: StageChanged) -> None:
    place = {"workspace": event.workspace, "model": event.model, "version": event.version}
    left = sa.update(_stay).where(*_at(place), _stay.c.stage.not_like("@%"))
    await tx.execute(left.values(present=False))
    await _enter(tx, place | {"stage": str(event.to_stage)}, envelope)


async def alias_changed(tx: AsyncConnection, envelope: Envelope, event: AliasChanged | AliasRemoved) -> None:
    """An alias is kept like a stage that holds one version: what a new holder is compared with."""
    alias = {"workspace": event.workspace, "model": event.model, "stage": f"@{event.alias}"}
    await tx.execute(sa.update(_stay).where(*_at(alias)).values(present=False))
    if isinstance(event, AliasChanged):
        await _enter(tx, alias | {"version": event.version}, envelope)


async def _enter(tx: AsyncConnection, place: dict[str, Any], envelope: Envelope) -> None:
    statement = insert(_stay).values({**place, "sequence": envelope.sequence, "present": True})
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=["workspace", "model", "version", "stage"],
            set_={"sequence": envelope.sequence, "present": True},
        )
    )


async def candidate(tx: AsyncConnection, workspace: str, model: str, version: int) -> dict[str, Any] | None:
    """The version as gates see it, or None when it was never registered."""
    row = await _row(tx, workspace, model, version)
    if row is None:
        return None
    event = VersionRegistered.model_validate_json(row.data)
    place = {"workspace": workspace, "model": model, "version": version}
    stages = (await tx.scalars(sa.select(_stay.c.stage).where(*_at(place)).order_by(_stay.c.stage))).all()
    return snapshot_of_version(
        version=event.version,
        digest=event.digest,
        content=event.content.model_dump(mode="json"),
        registered_by=event.registered_by,
        registered_at=row.registered_at,
        stages=list(stages),
    )


async def occupant(
    tx: AsyncConnection, workspace: str, model: str, stage: str, *, other_than: int
) -> dict[str, Any] | None:
    """The version that entered the stage last and is still there: what a candidate is compared with."""
    query = (
        sa.select(_stay.c.version)
        .where(*_at({"workspace": workspace, "model": model, "stage": str(stage)}))
        .where(_stay.c.present, _stay.c.version != other_than)
        .order_by(_stay.c.sequence.desc())
        .limit(1)
    )
    version = await tx.scalar(query)
    return None if version is None else await candidate(tx, workspace, model, version)


async def model(tx: AsyncConnection, workspace: str, name: str) -> dict[str, Any]:
    """The model as policies see it."""
    data = await tx.scalar(sa.select(_model.c.data).where(_model.c.workspace == workspace, _model.c.name == name))
    known = json.loads(data) if data else {}
    return {
        "workspace": workspace,
        "name": name,
        "owner": known.get("owner") or "",
        "description": known.get("description") or "",
        "tags": known.get("tags") or {},
    }


async def _row(tx: AsyncConnection, workspace: str, name: str, version: int) -> Any:
    query = sa.select(_version).where(
        _version.c.workspace == workspace, _version.c.model == name, _version.c.version == version
    )
    return (await tx.execute(query)).first()


def _at(place: dict[str, Any]) -> list[sa.ColumnElement[bool]]:
    return [_stay.c[name] == value for name, value in place.items()]
