"""What approval remembers of the registry: models, versions, and who has been in which stage.

Folded from the registry's events in their order; another service's tables are never read (law 9).
"""

import json
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from approval.tables import EvidenceRow, ModelRow, OutcomeRow, RequestRow, StayRow, VersionRow, of
from contracts.approval import Evidence
from contracts.envelope import Envelope
from contracts.lifecycle import DEFAULT_LIFECYCLE
from contracts.model import Severity
from contracts.registry import (
    AliasChanged,
    AliasRemoved,
    ModelRegistered,
    ModelRenamed,
    ModelUpdated,
    StageChanged,
    VersionEvaluated,
    VersionRegistered,
    VersionRevoked,
    VersionScanned,
    VersionTagged,
    VersionVerified,
)
from kit.errors import Permanent
from policy.bounds import heard

_model, _version, _stay, _evidence = of(ModelRow), of(VersionRow), of(StayRow), of(EvidenceRow)
MAX_EVIDENCE = 100  # types and posters of one version
Learnt = VersionEvaluated | VersionTagged | VersionVerified | VersionScanned | VersionRevoked


async def model_registered(tx: AsyncConnection, event: ModelRegistered) -> None:
    data = {"name": event.model, "owner": event.owner or "", "description": event.description, "tags": event.tags}
    await _remember(tx, event.workspace, event.model, data)


async def model_changed(tx: AsyncConnection, event: ModelUpdated | ModelRenamed) -> None:
    data = await model(tx, event.workspace, event.model)
    if isinstance(event, ModelRenamed):
        data["name"] = event.name
    else:
        data |= {name: v for name in ("owner", "description") if (v := getattr(event, name)) is not None}
        data["tags"] = _tagged(data["tags"], event.tags) if event.tags else data["tags"]
    await _remember(tx, event.workspace, event.model, data)


async def _remember(tx: AsyncConnection, workspace: str, name: str, data: dict[str, Any]) -> None:
    text = json.dumps(data)
    statement = insert(_model).values(workspace=workspace, name=name, data=text)
    await tx.execute(statement.on_conflict_do_update(index_elements=["workspace", "name"], set_={"data": text}))


def _tagged(tags: dict[str, str], change: Any) -> dict[str, str]:
    return {name: value for name, value in {**tags, **change.set}.items() if name not in change.remove}


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


async def version_learnt(tx: AsyncConnection, envelope: Envelope, event: Learnt) -> None:
    """What came after the registration. A version that never arrived is passed over: nobody can ask for it."""
    row = await _row(tx, event.workspace, event.model, event.version)
    if row is None:
        return
    learnt = json.loads(row.learnt)
    match event:
        case VersionEvaluated():
            evaluations = [*learnt.get("evaluations", []), event.evaluation.model_dump(mode="json")]
            learnt["evaluations"], left_out = heard(evaluations, envelope.time)
            learnt["left_out"] = sorted({*learnt.get("left_out", []), *left_out})
        case VersionTagged():
            tags = learnt.get("tags", json.loads(row.data)["content"].get("tags") or {})
            learnt["tags"] = _tagged(tags, event.tags)
        case VersionVerified():
            learnt["unsafe"] = event.inspection.unsafe
        case VersionScanned():
            unsafe = any(finding.severity is Severity.UNSAFE for finding in event.findings)
            learnt["unsafe"] = unsafe or learnt.get("unsafe", False)
        case VersionRevoked():
            learnt["revoked"] = True
    place = (event.workspace, event.model, event.version)
    await tx.execute(sa.update(_version).where(*_is(place)).values(learnt=json.dumps(learnt)))


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


async def transition_ended(tx: AsyncConnection, transition_id: str) -> None:
    """The registry carried it out, or refused it. Transitions that nobody was asked about are passed over."""
    request = of(RequestRow)
    asked = sa.select(request.c.request_id).where(request.c.request_id == transition_id)
    statement = insert(of(OutcomeRow)).from_select(["transition_id"], asked)
    await tx.execute(statement.on_conflict_do_nothing())


async def _enter(tx: AsyncConnection, place: dict[str, Any], envelope: Envelope) -> None:
    statement = insert(_stay).values({**place, "sequence": envelope.sequence, "present": True})
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=["workspace", "model", "version", "stage"],
            set_={"sequence": envelope.sequence, "present": True},
        )
    )


async def candidate(tx: AsyncConnection, workspace: str, name: str, version: int) -> dict[str, Any] | None:
    """The version as gates see it, or None when it was never registered: its content with who, when, which stages it
    has been in, and what was learnt of it since."""
    row = await _row(tx, workspace, name, version)
    if row is None:
        return None
    event, learnt = VersionRegistered.model_validate_json(row.data), json.loads(row.learnt)
    place = {"workspace": workspace, "model": name, "version": version}
    stages = (await tx.scalars(sa.select(_stay.c.stage).where(*_at(place)).order_by(_stay.c.stage))).all()
    content = event.content.model_dump(mode="json")
    evaluations = learnt.get("evaluations", [])
    return {
        **content,
        "tags": learnt.get("tags", content["tags"]),
        "version": event.version,
        "digest": event.digest,
        "registered_by": event.registered_by,
        "registered_at": row.registered_at.isoformat(),
        "stages": list(stages),
        "evaluations": evaluations,
        "evaluated_at": max((one["evaluated_at"] for one in evaluations), key=datetime.fromisoformat, default=None),
        "unsafe": learnt.get("unsafe", False),
        "revoked": learnt.get("revoked", False),
        **({"left_out": learnt["left_out"]} if learnt.get("left_out") else {}),
        **await evidenced(tx, workspace, name, version),
    }


async def evidenced(
    tx: AsyncConnection, workspace: str, name: str, version: int, *, at: datetime | None = None
) -> dict[str, Any]:
    """`evidence`: the latest file or link of each type. `attestations`: what checks found, the latest last. With `at`:
    as it was then."""
    pieces = await evidence(tx, workspace, name, version, at=at)
    found = [one.model_dump(mode="json", exclude={"detail"}) for one in pieces]
    return {
        "evidence": {one["type"]: one for one in found if one["digest"] or one["url"]},
        "attestations": [one for one in found if one["result"] is not None],
    }


async def evidence(
    tx: AsyncConnection, workspace: str, name: str, version: int, *, at: datetime | None = None
) -> list[Evidence]:
    """The latest piece of each type and poster, oldest first: nobody pushes another's finding out by posting more."""
    e = _evidence
    said = sa.cast(e.c.data, sa.JSON)
    each = (said["type"].as_string(), said["posted_by"].as_string())
    query = (
        sa.select(e.c.data)
        .where(e.c.workspace == workspace, e.c.model == name, e.c.version == version)
        .where(sa.true() if at is None else e.c.at <= at)
        .order_by(*each, e.c.at.desc(), e.c.evidence_id.desc())
        .ext(distinct_on(*each))
    )
    found = [Evidence.model_validate_json(data) for data in (await tx.scalars(query)).all()]
    return sorted(found, key=lambda one: (one.at, one.evidence_id))


async def occupant(
    tx: AsyncConnection, workspace: str, name: str, stage: str, *, other_than: int
) -> dict[str, Any] | None:
    """The version that entered the stage last and is still there: what a candidate is compared with."""
    query = (
        sa.select(_stay.c.version)
        .where(*_at({"workspace": workspace, "model": name, "stage": str(stage)}))
        .where(_stay.c.present, _stay.c.version != other_than)
        .order_by(_stay.c.sequence.desc())
        .limit(1)
    )
    version = await tx.scalar(query)
    return None if version is None else await candidate(tx, workspace, name, version)


async def stays(tx: AsyncConnection, workspace: str, name: str, version: int) -> list[str]:
    """The stages (and `@alias`) that the version is in now."""
    place = {"workspace": workspace, "model": name, "version": version}
    query = sa.select(_stay.c.stage).where(*_at(place), _stay.c.present).order_by(_stay.c.stage)
    return list((await tx.scalars(query)).all())


async def spelled(tx: AsyncConnection, workspace: str, name: str, stage: str) -> str:
    """The stage in the registry's spelling: where versions of the model have been, or else in the default lifecycle."""
    same = [*_at({"workspace": workspace, "model": name}), sa.func.lower(_stay.c.stage) == stage.lower()]
    found = await tx.scalar(sa.select(_stay.c.stage).where(*same, _stay.c.stage.not_like("@%")).limit(1))
    return found or DEFAULT_LIFECYCLE.named(stage) or stage


async def digests(tx: AsyncConnection, workspace: str, name: str, version: int) -> tuple[str, str] | None:
    """The digest of a version and of its artifact, or None when it was never registered."""
    row = await _row(tx, workspace, name, version)
    return None if row is None else (row.digest, row.artifact_digest)


async def model(tx: AsyncConnection, workspace: str, name: str) -> dict[str, Any]:
    """The model as policies see it. `name` is what it is called now; it is found under the one it was registered by."""
    data = await tx.scalar(sa.select(_model.c.data).where(_model.c.workspace == workspace, _model.c.name == name))
    known = json.loads(data) if data else {"name": name, "owner": "", "description": "", "tags": {}}
    return {"workspace": workspace, **known}


async def _row(tx: AsyncConnection, workspace: str, name: str, version: int) -> Any:
    return (await tx.execute(sa.select(_version).where(*_is((workspace, name, version))))).first()


def _is(place: tuple[str, str, int]) -> list[sa.ColumnElement[bool]]:
    return [_version.c.workspace == place[0], _version.c.model == place[1], _version.c.version == place[2]]


def _at(place: dict[str, Any]) -> list[sa.ColumnElement[bool]]:
    return [_stay.c[name] == value for name, value in place.items()]
