"""The folds over time: which version was in which stage, where an alias pointed, what a model was called."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import claims
from audit.domain import REGISTRATION, Move
from audit.knowledge import Known
from audit.page import Page
from audit.view_tables import model_name, revoked
from contracts.envelope import Envelope
from contracts.lifecycle import TransitionKind
from contracts.registry import AliasChanged, AliasRemoved, ModelRegistered, ModelRenamed, StageChanged, VersionRevoked

log = structlog.get_logger()


async def moved_before(page: Page, move: Move) -> bool:
    """Whether the version was registered, or the transition applied, already: a decision is good once."""
    rows = await page.stages.of((move.workspace, move.model, move.version))
    if move.kind == REGISTRATION:
        return bool(rows)
    return any(row["transition_id"] == move.transition_id and row["stage"] == str(move.stage) for row in rows)


async def enter(page: Page, index: int, move: Move) -> None:
    """Closes the version's open interval and opens the next."""
    at = await _close(page, page.stages, (move.workspace, move.model, move.version), index, move.at)
    page.stages.add(page.now, {"index": index, "since": at, **_columns(move)})


async def supersede(page: Page, envelope: Envelope, change: StageChanged) -> None:
    """Moves out the versions that make room for a change, as their own entries say it."""
    await page.settle()
    leaving = await claims.making_room(page.tx, envelope, change)
    if leaving is None:
        log.error("a replaced version cannot be archived", stream=envelope.key, version=change.replaces)
        return
    for row in leaving:
        rows = await page.stages.of((change.workspace, change.model, row["version"]))
        held = next((r for r in rows if r["stage"] == str(change.to_stage) and r["until"] is None), None)
        if held is None:
            log.error("a replaced version was not there", stream=envelope.key, version=row["version"])
            continue
        move = Move(
            workspace=change.workspace,
            model=change.model,
            version=row["version"],
            stage=row["target"],
            at=envelope.time,
            kind=TransitionKind.SUPERSEDED.value,
            requested_by=change.requested_by,
            reason=change.reason,
            digest=held["digest"],
            artifact_digest=held["artifact_digest"],
            decision_id=change.decision_id,
            transition_id=change.transition_id,
            superseded_by=change.version,
        )
        await enter(page, row["index"], move)


async def point(page: Page, index: int, at: datetime, event: AliasChanged | AliasRemoved) -> None:
    """Closes the alias's open interval and opens the next. A decision is good once."""
    of = (event.workspace, event.model, event.alias)
    told: dict[str, Any] = {**dict.fromkeys(_DECIDED), "version": None, "approved_by": [], "criteria": []}
    if isinstance(event, AliasChanged):
        used = (("alias", event.alias), ("transition_id", event.transition_id))
        if event.transition_id is not None and await page.aliases.any(of[:2], *used):
            return
        told = {name: getattr(event, name) for name in ("version", *_DECIDED)} | _documents(event)
    same = ("workspace", "model", "alias", "previous", "requested_by", "reason")
    told |= {name: getattr(event, name) for name in same}
    at = await _close(page, page.aliases, of, index, at)
    page.aliases.add(page.now, {"index": index, "since": at, "until": None, "closed_by": None, **told})


_DECIDED = ("digest", "artifact_digest", "policy", "decision_id", "transition_id")


async def name(tx: AsyncConnection, index: int, event: ModelRegistered | ModelRenamed) -> None:
    """Remembers every name that leads to the model."""
    names = {event.model}
    if isinstance(event, ModelRenamed):
        names |= {event.former, event.name}
    rows = [{"workspace": event.workspace, "name": n, "model": event.model, "index": index} for n in sorted(names)]
    await tx.execute(insert(model_name).values(rows).on_conflict_do_nothing())


async def revoke(tx: AsyncConnection, index: int, envelope: Envelope, event: VersionRevoked) -> None:
    """Remembers that nobody may use the version."""
    told = {n: getattr(event, n) for n in ("workspace", "model", "version", "revoked_by", "reason", "fallback")}
    told |= {"sequence": envelope.sequence, "index": index, "at": envelope.time}
    await tx.execute(sa.insert(revoked).values(told))


async def _close(page: Page, known: Known, key: tuple[Any, ...], index: int, at: datetime) -> datetime:
    """Closes the open interval. Gives when: clocks of replicas differ, and none ends before it began."""
    started = [row["since"] for row in await known.of(key) if row["until"] is None]
    at = max([at, *started])
    known.change(page.now, lambda row: row["until"] is None, key, until=at, closed_by=index)
    return at


def _documents(said: Move | AliasChanged) -> dict[str, Any]:
    return {
        "approved_by": [a.model_dump(mode="json") for a in said.approved_by],
        "criteria": [c.model_dump(mode="json") for c in said.criteria],
    }


def _columns(move: Move) -> dict[str, Any]:
    return {
        "workspace": move.workspace,
        "model": move.model,
        "version": move.version,
        "stage": str(move.stage),
        "until": None,
        "closed_by": None,
        "kind": move.kind,
        "requested_by": move.requested_by,
        "reason": move.reason,
        "digest": move.digest,
        "artifact_digest": move.artifact_digest,
        "policy": move.policy,
        "decision_id": move.decision_id,
        "transition_id": move.transition_id,
        "superseded_by": move.superseded_by,
        **_documents(move),
    }
