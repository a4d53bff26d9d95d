"""Folding events into the view tables (law 2). Queries are in `queries.py`; `folds.py` has the folds of stages."""

from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts import registry as contract
from contracts.envelope import Envelope
from contracts.model import Artifact
from contracts.payload import Message
from registry import folds
from registry.domain import Status
from registry.tables import (
    BlobRow,
    BlobUseRow,
    MetricRow,
    ModelRow,
    NameRow,
    ParameterRow,
    RemarkRow,
    ServerRow,
    TagRow,
    VersionRow,
    WorkspaceRow,
    t,
)

Fold = Callable[[AsyncConnection, Envelope, Any], Awaitable[None]]
OF_MODEL = 0  # where a row is about a version or, with this number, about its model


async def project(tx: AsyncConnection, envelope: Envelope) -> None:
    """Folds one event. Types without a view are ignored."""
    found = FOLDS.get(envelope.type)
    if found is not None:
        kind, fold = found
        await fold(tx, envelope, envelope.payload(kind))


async def _workspace(tx: AsyncConnection, envelope: Envelope, event: contract.WorkspaceConfigured) -> None:
    values = {
        "lifecycle": event.lifecycle.model_dump(mode="json"),
        "naming": event.naming,
        "naming_message": event.naming_message,
        "protected_aliases": list(event.protected_aliases),
        "configured_by": envelope.actor or "",
        "configured_at": envelope.time,
    }
    statement = insert(t(WorkspaceRow)).values(workspace=event.workspace, **values)
    await tx.execute(statement.on_conflict_do_update(index_elements=["workspace"], set_=values))


async def _registered(tx: AsyncConnection, envelope: Envelope, event: contract.ModelRegistered) -> None:
    await tx.execute(
        sa.insert(t(ModelRow)).values(
            workspace=event.workspace,
            model=event.model,
            name=event.model,
            description=event.description,
            owner=event.owner,
            tags=event.tags,
            versions=0,
            registered_by=envelope.actor,
            registered_at=envelope.time,
            updated_at=envelope.time,
        )
    )
    await _take_name(tx, event, event.model)
    await _set_tags(tx, event, OF_MODEL, event.tags)


async def _take_name(tx: AsyncConnection, event: Any, name: str) -> None:
    statement = insert(t(NameRow)).values(workspace=event.workspace, name=name, model=event.model)
    await tx.execute(statement.on_conflict_do_nothing())


async def _update(tx: AsyncConnection, envelope: Envelope, event: Any, **values: Any) -> None:
    model = t(ModelRow)
    await tx.execute(
        sa.update(model)
        .where(model.c.workspace == event.workspace, model.c.model == event.model)
        .values(updated_at=envelope.time, **values)
    )


async def _updated(tx: AsyncConnection, envelope: Envelope, event: contract.ModelUpdated) -> None:
    values = {n: v for n in ("description", "owner") if (v := getattr(event, n)) is not None}
    if event.tags is not None:
        values["tags"] = await _change_tags(tx, event, OF_MODEL, t(ModelRow), event.tags)
    await _update(tx, envelope, event, **values)


async def _renamed(tx: AsyncConnection, envelope: Envelope, event: contract.ModelRenamed) -> None:
    await _update(tx, envelope, event, name=event.name)
    await _take_name(tx, event, event.name)


async def _deleted(tx: AsyncConnection, envelope: Envelope, event: contract.ModelDeleted) -> None:
    await _update(tx, envelope, event, deleted_at=envelope.time)


async def _restored(tx: AsyncConnection, envelope: Envelope, event: contract.ModelRestored) -> None:
    await _update(tx, envelope, event, deleted_at=None)


async def _recreated(tx: AsyncConnection, envelope: Envelope, event: contract.ModelRecreated) -> None:
    version, tag = t(VersionRow), t(TagRow)
    await tx.execute(
        sa.update(version)
        .where(*_here(version, event), version.c.deleted_at.is_(None))
        .values(deleted_at=envelope.time, updated_at=envelope.time)
    )
    await tx.execute(sa.delete(tag).where(*_here(tag, event), tag.c.version == OF_MODEL))
    await _set_tags(tx, event, OF_MODEL, event.tags)
    await _update(
        tx,
        envelope,
        event,
        name=event.name,
        description=event.description,
        owner=event.owner,
        tags=event.tags,
        registered_by=envelope.actor,
        registered_at=envelope.time,
        deleted_at=None,
    )


async def _version(tx: AsyncConnection, envelope: Envelope, event: contract.VersionRegistered) -> None:
    content, place = event.content, _place(event)
    run = content.lineage.run
    await tx.execute(
        sa.insert(t(VersionRow)).values(
            **place,
            digest=event.digest,
            artifact_digest=content.artifact.digest,
            stage=event.stage,
            # The registry never reads what stays outside, so there is nothing to wait for.
            status=Status.READY if content.artifact.external else Status.PENDING,
            content=content.model_dump(mode="json"),
            tags=content.tags,
            description=content.notes,
            run_id=run.id if run else None,
            correlationid=envelope.correlationid,
            registered_by=event.registered_by,
            registered_at=envelope.time,
            updated_at=envelope.time,
        )
    )
    await _update(tx, envelope, event, versions=event.version)
    rows: tuple[tuple[Any, list[dict[str, Any]]], ...] = (
        (MetricRow, [{"name": name, "value": value} for name, value in content.metrics.items()]),
        (ParameterRow, [{"name": name, "value": _text(value)} for name, value in content.parameters.items()]),
        (BlobUseRow, [{"digest": digest} for digest in {part.digest for part in content.artifact.parts()}]),
    )
    for table, values in rows:
        if values:
            await tx.execute(sa.insert(t(table)), [place | value for value in values])
    await _set_tags(tx, event, event.version, content.tags)


async def _verified(tx: AsyncConnection, envelope: Envelope, event: contract.VersionVerified) -> None:
    status = Status.QUARANTINED if event.inspection.unsafe else Status.READY
    inspection = event.inspection.model_dump(mode="json")
    await _change(tx, envelope, event, status=status, inspection=inspection)
    version = t(VersionRow)
    content: Any = await tx.scalar(sa.select(version.c.content).where(*_here(version, event)))
    blobs = {part.digest: part.size for part in Artifact.model_validate(content["artifact"], strict=False).parts()}
    await tx.execute(
        insert(t(BlobRow)).on_conflict_do_nothing(),
        [{"digest": digest, "size": size} for digest, size in sorted(blobs.items())],
    )


async def _rejected(tx: AsyncConnection, envelope: Envelope, event: contract.VersionRejected) -> None:
    await _change(tx, envelope, event, status=Status.REJECTED, status_detail=f"{event.code}: {event.detail}")


async def _revoked(tx: AsyncConnection, envelope: Envelope, event: contract.VersionRevoked) -> None:
    revocation = {
        "by": event.revoked_by,
        "reason": event.reason,
        "at": envelope.time.isoformat(),
        "fallback": event.fallback,
        "sequence": envelope.sequence,
    }
    await _change(tx, envelope, event, status=Status.REVOKED, status_detail=event.reason, revocation=revocation)


async def _evaluated(tx: AsyncConnection, envelope: Envelope, event: contract.VersionEvaluated) -> None:
    await _remark(tx, envelope, event, "evaluation", event.evaluation.model_dump(mode="json"))


async def _noted(tx: AsyncConnection, envelope: Envelope, event: contract.VersionNoted) -> None:
    await _remark(tx, envelope, event, "note", {"text": event.text})


async def _described(tx: AsyncConnection, envelope: Envelope, event: contract.VersionDescribed) -> None:
    await _change(tx, envelope, event, description=event.description)


async def _version_deleted(tx: AsyncConnection, envelope: Envelope, event: contract.VersionDeleted) -> None:
    await _change(tx, envelope, event, deleted_at=envelope.time)
    await _update(tx, envelope, event)


async def _version_restored(tx: AsyncConnection, envelope: Envelope, event: contract.VersionRestored) -> None:
    await _change(tx, envelope, event, deleted_at=None)
    await _update(tx, envelope, event)


async def _scanned(tx: AsyncConnection, envelope: Envelope, event: contract.VersionScanned) -> None:
    data = event.model_dump(mode="json", include={"scanner", "findings"})
    await _remark(tx, envelope, event, "scan", data)
    if any(finding.severity == "unsafe" for finding in event.findings):
        version = t(VersionRow)
        await tx.execute(
            sa.update(version)
            .where(*_here(version, event), version.c.status == Status.READY)
            .values(status=Status.QUARANTINED)
        )


async def _tagged(tx: AsyncConnection, envelope: Envelope, event: contract.VersionTagged) -> None:
    tags = await _change_tags(tx, event, event.version, t(VersionRow), event.tags)
    await _change(tx, envelope, event, tags=tags)


async def _reported(tx: AsyncConnection, envelope: Envelope, event: contract.ServingReported) -> None:
    key = {"workspace": event.workspace, "model": event.model, "server": event.server, "target": event.target}
    values = {"version": event.version, "state": event.state, "detail": event.detail, "reported_at": envelope.time}
    statement = insert(t(ServerRow)).values(**key, **values)
    await tx.execute(statement.on_conflict_do_update(index_elements=list(key), set_=values))


async def _change(tx: AsyncConnection, envelope: Envelope, event: Any, **values: Any) -> None:
    version = t(VersionRow)
    await tx.execute(sa.update(version).where(*_here(version, event)).values(updated_at=envelope.time, **values))


async def _remark(tx: AsyncConnection, envelope: Envelope, event: Any, kind: str, data: dict[str, Any]) -> None:
    await tx.execute(
        sa.insert(t(RemarkRow)).values(
            **_place(event),
            sequence=envelope.sequence,
            kind=kind,
            data=data,
            by=envelope.actor or "",
            at=envelope.time,
        )
    )
    await _change(tx, envelope, event)


async def _set_tags(tx: AsyncConnection, event: Any, version: int, tags: dict[str, str]) -> None:
    if not tags:
        return
    key = {"workspace": event.workspace, "model": event.model, "version": version}
    statement = insert(t(TagRow))
    statement = statement.on_conflict_do_update(
        index_elements=["workspace", "model", "version", "name"], set_={"value": statement.excluded.value}
    )
    await tx.execute(statement, [{**key, "name": name, "value": value} for name, value in sorted(tags.items())])


async def _change_tags(
    tx: AsyncConnection, event: Any, version: int, owner: sa.Table, tags: contract.Tags
) -> dict[str, str]:
    """Changes the searched rows; gives the tags as they are now."""
    tag = t(TagRow)
    await _set_tags(tx, event, version, tags.set)
    if tags.remove:
        where = (tag.c.workspace == event.workspace, tag.c.model == event.model, tag.c.version == version)
        await tx.execute(sa.delete(tag).where(*where, tag.c.name.in_(tags.remove)))
    present: Any = await tx.scalar(sa.select(owner.c.tags).where(*_here(owner, event)))
    return {name: value for name, value in {**present, **tags.set}.items() if name not in tags.remove}


def _text(value: Any) -> str:
    """A parameter as people write it in a filter."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _place(event: Any) -> dict[str, Any]:
    return {"workspace": event.workspace, "model": event.model, "version": event.version}


def _here(table: sa.Table, event: Any) -> list[sa.ColumnElement[bool]]:
    names = [name for name in ("workspace", "model", "version") if name in table.c and hasattr(event, name)]
    return [table.c[name] == getattr(event, name) for name in names]


FOLDS: dict[str, tuple[type[Message], Fold]] = {
    kind.TYPE: (kind, fold)
    for kind, fold in (
        (contract.WorkspaceConfigured, _workspace),
        (contract.ModelRegistered, _registered),
        (contract.ModelUpdated, _updated),
        (contract.ModelRenamed, _renamed),
        (contract.ModelDeleted, _deleted),
        (contract.ModelRestored, _restored),
        (contract.ModelRecreated, _recreated),
        (contract.VersionRegistered, _version),
        (contract.VersionVerified, _verified),
        (contract.VersionRejected, _rejected),
        (contract.VersionRevoked, _revoked),
        (contract.VersionEvaluated, _evaluated),
        (contract.VersionNoted, _noted),
        (contract.VersionDescribed, _described),
        (contract.VersionDeleted, _version_deleted),
        (contract.VersionRestored, _version_restored),
        (contract.VersionScanned, _scanned),
        (contract.VersionTagged, _tagged),
        (contract.ServingReported, _reported),
        (contract.StageRequested, folds.requested),
        (contract.StageChanged, folds.changed),
        (contract.StageRefused, folds.refused),
        (contract.AliasChanged, folds.alias_changed),
        (contract.AliasRemoved, folds.alias_removed),
    )
}
