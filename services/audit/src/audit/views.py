"""Views of the past: a timeline for people and the stages of every version. Folds of the log (law 2)."""

from dataclasses import replace
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.decisions import NOT_VERIFIED, Decisions
from audit.domain import REGISTRATION, Flaw, Move, Reading, about, gated, move_of, read
from audit.leaf import Leaf
from audit.settings import AuditSettings
from audit.summary import summarise
from audit.tables import entry, mechanism, stage_interval, timeline, tree_head
from contracts.envelope import Envelope
from contracts.lifecycle import Stage, TransitionKind
from contracts.payload import Message
from contracts.registry import StageChanged
from contracts.topics import REGISTRY_EVENTS
from kit.auth import KeySource
from kit.errors import is_transient
from kit.inbox import Admission, Inbox

log = structlog.get_logger()
STAGES = "stages"
PAGE = 500


class Views:
    """`project` runs in the transaction that appends the entry, and again in `rebuild`."""

    def __init__(self, inbox: Inbox, decisions: Decisions | None = None) -> None:
        self._inbox, self._decisions = inbox, decisions

    async def check(self, reading: Reading, *, doubted: bool = False) -> Reading:
        """The reading with what its decision says. `doubted`: it did not verify before, so nothing else clears it.

        Raises:
            Transient: the keys cannot be read.
        """
        if self._decisions is not None:
            return await self._decisions.check(reading)
        return replace(reading, flaw=Flaw(NOT_VERIFIED, "it did not verify when it came")) if doubted else reading

    async def project(self, tx: AsyncConnection, index: int, leaf: Leaf, reading: Reading) -> None:
        """Folds one entry."""
        envelope = reading.envelope
        copy_of = await _first_with_id(tx, leaf.topic, envelope.id) if envelope else None
        whom = about(reading)
        await tx.execute(
            sa.insert(timeline).values(
                index=index,
                at=envelope.time if envelope else leaf.recorded_at,
                recorded_at=leaf.recorded_at,
                topic=leaf.topic,
                event_id=envelope.id if envelope else None,
                type=envelope.type if envelope else None,
                subject=envelope.subject if envelope else None,
                stream=envelope.key if envelope else None,
                sequence=envelope.sequence if envelope else None,
                workspace=whom.workspace,
                model=whom.model,
                version=whom.version,
                actor=envelope.actor if envelope else None,
                correlationid=envelope.correlationid if envelope else None,
                causationid=envelope.causationid if envelope else None,
                summary=summarise(reading),
                problem=f"{reading.flaw.code}: {reading.flaw.detail}" if reading.flaw else None,
                copy_of=copy_of,
            )
        )
        if leaf.topic == REGISTRY_EVENTS.name and envelope and envelope.sequence is not None and copy_of is None:
            await self._stages(tx, index, reading, envelope)

    async def _stages(self, tx: AsyncConnection, index: int, reading: Reading, envelope: Envelope) -> None:
        """Entries are in order of arrival, stages in order of the stream: what came early waits for its turn.

        A record without a good decision takes no turn, and one that took the turn of a decided change does not
        displace it.
        """
        if reading.flaw is not None and reading.flaw.code == NOT_VERIFIED:
            return
        admission = await self._inbox.admit(tx, STAGES, envelope)
        if admission is Admission.NEXT or (admission is Admission.DUPLICATE and self._decided(reading.message)):
            await self._move(tx, index, envelope)
        while early := await self._inbox.take_early(tx, STAGES, envelope.key):
            found = await _first_with_id(tx, REGISTRY_EVENTS.name, early.id)
            assert found is not None
            await self._move(tx, found, early)

    def _decided(self, message: Message | None) -> bool:
        return self._decisions is not None and gated(message)

    async def _move(self, tx: AsyncConnection, index: int, envelope: Envelope) -> None:
        """Moves a version. An event whose body is bad moves nothing, nor does one that was obeyed before."""
        message = read(REGISTRY_EVENTS.name, envelope.key.encode(), tuple(envelope.headers()), envelope.value).message
        move = move_of(message, envelope.time)
        if move is None or await _moved_before(tx, move):
            return
        if self._decisions is not None and isinstance(message, StageChanged):
            if message.kind is TransitionKind.SUPERSEDED:
                return  # no signature covers it: it counts with the decided change that follows it
            if message.replaces is not None and gated(message):
                await _supersede(tx, envelope, message, message.replaces)
        await _apply(tx, index, move)


def views_of(settings: AuditSettings) -> Views:
    """The views as the settings want them."""
    keys = settings.decision_jwks
    return Views(Inbox(mechanism), Decisions(KeySource(keys)) if keys else None)


async def _first_with_id(tx: AsyncConnection, topic: str, event_id: str) -> int | None:
    found = await tx.scalar(
        sa.select(sa.func.min(timeline.c.index)).where(timeline.c.topic == topic, timeline.c.event_id == event_id)
    )
    return None if found is None else int(found)


async def _moved_before(tx: AsyncConnection, move: Move) -> bool:
    """Whether the version was registered, or the transition applied, already: a decision is good once."""
    t = stage_interval.c
    query = sa.select(t.index).where(t.workspace == move.workspace, t.model == move.model, t.version == move.version)
    if move.kind != REGISTRATION:
        query = query.where(t.transition_id == move.transition_id, t.stage == str(move.stage))
    return (await tx.execute(query.limit(1))).first() is not None


async def _supersede(tx: AsyncConnection, envelope: Envelope, change: StageChanged, former: int) -> None:
    """Archives the version that a decided change replaces, with the event just before it in the stream as the entry."""
    t, i = timeline.c, stage_interval.c
    before = await tx.scalar(
        sa.select(sa.func.min(t.index)).where(
            t.workspace == change.workspace,
            t.model == change.model,
            t.version == former,
            t.topic == REGISTRY_EVENTS.name,
            t.type == StageChanged.TYPE,
            t.stream == envelope.key,
            t.sequence == (envelope.sequence or 0) - 1,
            t.copy_of.is_(None),
            t.problem.is_(None),
        )
    )
    held = (
        await tx.execute(
            sa.select(i.digest, i.artifact_digest).where(
                i.workspace == change.workspace,
                i.model == change.model,
                i.version == former,
                i.stage == str(change.to_stage),
                i.until.is_(None),
            )
        )
    ).first()
    if before is None or held is None:
        log.error("a replaced version cannot be archived", stream=envelope.key, version=former)
        return
    leaving = Move(
        workspace=change.workspace,
        model=change.model,
        version=former,
        stage=Stage.ARCHIVED,
        at=envelope.time,
        kind=TransitionKind.SUPERSEDED.value,
        requested_by=change.requested_by,
        reason=change.reason,
        digest=held.digest,
        artifact_digest=held.artifact_digest,
        decision_id=change.decision_id,
        transition_id=change.transition_id,
        superseded_by=change.version,
    )
    await _apply(tx, int(before), leaving)


async def _apply(tx: AsyncConnection, index: int, move: Move) -> None:
    """Closes the version's open interval and opens the next."""
    t = stage_interval.c
    is_open = sa.and_(
        t.workspace == move.workspace, t.model == move.model, t.version == move.version, t.until.is_(None)
    )
    # Clocks of replicas differ: an interval never ends before it began.
    started = await tx.scalar(sa.select(sa.func.max(t.since)).where(is_open))
    at = max(move.at, started) if started else move.at
    await tx.execute(sa.update(stage_interval).where(is_open).values(until=at, closed_by=index))
    await tx.execute(sa.insert(stage_interval).values(index=index, since=at, **_columns(move)))


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
        "approved_by": [a.model_dump(mode="json") for a in move.approved_by],
        "criteria": [c.model_dump(mode="json") for c in move.criteria],
        "policy": move.policy,
        "decision_id": move.decision_id,
        "transition_id": move.transition_id,
        "superseded_by": move.superseded_by,
    }


async def rebuild(tx: AsyncConnection, views: Views) -> int:
    """Drops the views and folds every entry again, while writers wait. Returns the number of entries."""
    await tx.execute(sa.select(tree_head).with_for_update())
    for table in (timeline, stage_interval):
        await tx.execute(sa.delete(table))
    for table in (mechanism.progress, mechanism.early):
        await tx.execute(sa.delete(table).where(table.c.consumer == STAGES))
    count = 0
    page = sa.select(entry.c.index, entry.c.leaf, entry.c.problem).order_by(entry.c.index).limit(PAGE)
    while rows := (await tx.execute(page.where(entry.c.index >= count))).mappings().all():
        for row in rows:
            await _refold(tx, views, row["index"], row["leaf"], doubted=(row["problem"] or "").startswith(NOT_VERIFIED))
        count = rows[-1]["index"] + 1
    return count


async def _refold(tx: AsyncConnection, views: Views, index: int, data: bytes, *, doubted: bool) -> None:
    try:
        async with tx.begin_nested():
            leaf = Leaf.decode(data)
            reading = read(leaf.topic, leaf.key, leaf.headers, leaf.value)
            # What verified once stays verified: keys come and go. What did not may, with the keys of today.
            await views.project(tx, index, leaf, await views.check(reading, doubted=True) if doubted else reading)
    except Exception as error:
        if is_transient(error):
            raise
        # One bad leaf (`/v1/log/verify` names it) must not keep the views of all others away.
        log.exception("an entry cannot be folded", index=index)
