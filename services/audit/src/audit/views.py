"""Views of the past: a timeline for people and the stages of every version. Folds of the log (law 2)."""

from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.domain import Move, Reading, about, move_of, read
from audit.leaf import Leaf
from audit.summary import summarise
from audit.tables import entry, mechanism, stage_interval, timeline, tree_head
from contracts.envelope import Envelope
from contracts.topics import REGISTRY_EVENTS
from kit.errors import is_transient
from kit.inbox import Admission, Inbox

log = structlog.get_logger()
STAGES = "stages"
PAGE = 500


class Views:
    """`project` runs in the transaction that appends the entry, and again in `rebuild`."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

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
            await self._stages(tx, index, envelope)

    async def _stages(self, tx: AsyncConnection, index: int, envelope: Envelope) -> None:
        """Entries are in order of arrival, stages in order of the stream: what came early waits for its turn."""
        if await self._inbox.admit(tx, STAGES, envelope) is not Admission.NEXT:
            return
        await _move(tx, index, envelope)
        while early := await self._inbox.take_early(tx, STAGES, envelope.key):
            found = await _first_with_id(tx, REGISTRY_EVENTS.name, early.id)
            assert found is not None
            await _move(tx, found, early)


async def _first_with_id(tx: AsyncConnection, topic: str, event_id: str) -> int | None:
    found = await tx.scalar(
        sa.select(sa.func.min(timeline.c.index)).where(timeline.c.topic == topic, timeline.c.event_id == event_id)
    )
    return None if found is None else int(found)


async def _move(tx: AsyncConnection, index: int, envelope: Envelope) -> None:
    """Closes the version's open interval and opens the next. An event whose body is bad moves nothing."""
    reading = read(REGISTRY_EVENTS.name, envelope.key.encode(), tuple(envelope.headers()), envelope.value)
    move = move_of(reading.message, envelope.time)
    if move is None:
        return
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
        "stage": move.stage.value,
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
    page = sa.select(entry.c.index, entry.c.leaf).order_by(entry.c.index).limit(PAGE)
    while rows := (await tx.execute(page.where(entry.c.index >= count))).mappings().all():
        for row in rows:
            await _refold(tx, views, row["index"], row["leaf"])
        count = rows[-1]["index"] + 1
    return count


async def _refold(tx: AsyncConnection, views: Views, index: int, data: bytes) -> None:
    try:
        async with tx.begin_nested():
            leaf = Leaf.decode(data)
            await views.project(tx, index, leaf, read(leaf.topic, leaf.key, leaf.headers, leaf.value))
    except Exception as error:
        if is_transient(error):
            raise
        # One bad leaf (`/v1/log/verify` names it) must not keep the views of all others away.
        log.exception("an entry cannot be folded", index=index)
