"""Views of the past: a timeline for people, and stages, aliases and names over time. Folds of the log (law 2)."""

from dataclasses import replace

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import claims, intervals
from audit.decisions import Decisions
from audit.domain import NOT_VERIFIED, Entering, Flaw, Reading, about, decided, move_of, read, signed, target_of
from audit.leaf import Leaf, decode
from audit.settings import AuditSettings
from audit.summary import summarise
from audit.tables import VIEWS, alias_interval, claim, finding, follower, logged, mechanism, stage_interval, timeline
from audit.tlog.archive import Archive
from contracts.envelope import Envelope
from contracts.lifecycle import TransitionKind
from contracts.registry import (
    AliasChanged,
    AliasRemoved,
    ModelRegistered,
    ModelRenamed,
    StageChanged,
    VersionRevoked,
    WorkspaceConfigured,
)
from contracts.topics import REGISTRY_EVENTS
from kit.auth import KeySource
from kit.errors import is_transient
from kit.inbox import Admission, Inbox

log = structlog.get_logger()
STAGES = "stages"
FOLLOWER = "views"
PAGE = 500


class Views:
    """`project` runs in the transaction that appends the entry, and again in `rebuild`.

    Without `decisions` every change and revocation is believed, but for those that did not verify once.
    """

    def __init__(self, inbox: Inbox, decisions: Decisions | None = None, archive: Archive | None = None) -> None:
        self._inbox, self._decisions, self._archive = inbox, decisions, archive

    async def leaf(self, data: bytes) -> Leaf:
        """The record in an entry, also when it is too large to stand in the log itself."""
        leaf = decode(data if self._archive is None else await self._archive.inline(data))
        if not isinstance(leaf, Leaf):
            raise ValueError("the leaf is in the object store, which was not given")
        return leaf

    async def entry(self, index: int, data: bytes | None) -> Leaf:
        """As `leaf`; without data it is pruned, and lies in the object store."""
        if data is None:
            if self._archive is None:
                raise ValueError("the entry is in the object store, which was not given")
            data = await self._archive.entry(index)
        return await self.leaf(data)

    async def check(self, reading: Reading, *, doubted: bool = False) -> Reading:
        """The reading with what its signature says. `doubted`: it did not verify before, so nothing else clears it.

        Raises:
            Transient: the keys cannot be read.
        """
        if not signed(reading.message):
            return reading
        if self._decisions is not None:
            return await self._decisions.check(reading)
        return replace(reading, flaw=Flaw(NOT_VERIFIED, "it did not verify when it came")) if doubted else reading

    async def project(
        self, tx: AsyncConnection, index: int, leaf: Leaf, reading: Reading, *, doubted: bool = False
    ) -> Reading:
        """Folds one entry. Gives the reading with what the rules of its workspace say of it, as known by now."""
        envelope = reading.envelope
        copy_of = await _first_with_id(tx, leaf.topic, envelope.id) if envelope else None
        sequenced = leaf.topic == REGISTRY_EVENTS.name and envelope is not None and envelope.sequence is not None
        if sequenced and envelope is not None:
            message, judged = reading.message, self._is_judged(reading, doubted=doubted)
            reading = await self.judge(tx, reading, doubted=doubted)
            if isinstance(message, Entering):
                await claims.note(tx, index, envelope, message, judged=judged, good=reading.flaw is None)
            elif isinstance(message, WorkspaceConfigured) and copy_of is None:
                reading = replace(reading, flaw=await claims.contested(tx, envelope, message))
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
                copy_of=copy_of,
                **_told(reading),
            )
        )
        if sequenced and envelope is not None and copy_of is None:
            await self._fold(tx, index, reading, envelope)
        return reading

    def _is_judged(self, reading: Reading, *, doubted: bool) -> bool:
        return not decided(reading.message) and (self._decisions is not None or doubted)

    async def judge(self, tx: AsyncConnection, reading: Reading, *, doubted: bool = False) -> Reading:
        """The reading, with a flaw when the rules known by now want a decision that it does not carry."""
        message, envelope = reading.message, reading.envelope
        if not isinstance(message, Entering) or envelope is None or not self._is_judged(reading, doubted=doubted):
            return reading
        known, target = await claims.history(tx, message.workspace), target_of(message)
        return replace(reading, flaw=None if known.opens(target, envelope.time) else claims.flaw_of(target))

    async def _fold(self, tx: AsyncConnection, index: int, reading: Reading, envelope: Envelope) -> None:
        message = reading.message
        if isinstance(message, ModelRegistered | ModelRenamed):
            await intervals.name(tx, index, message)
        elif isinstance(message, VersionRevoked) and reading.flaw is None:
            await intervals.revoke(tx, index, envelope, message)
        await self._moves(tx, index, reading, envelope)
        if isinstance(message, WorkspaceConfigured):
            await self._turn(tx, await claims.configure(tx, index, envelope, message))

    async def _turn(self, tx: AsyncConnection, turned: dict[int, bool]) -> None:
        """Rules came late: what they clear or flag is told anew, and the models concerned are folded again."""
        t = timeline.c
        streams = await tx.scalars(sa.select(t.stream).where(t.index.in_(turned)).distinct().order_by(t.stream))
        for stream in streams.all():
            await self._again(tx, stream)

    async def _again(self, tx: AsyncConnection, stream: str) -> None:
        """Folds the stages and aliases of one model from its entries, with the present verdicts."""
        workspace, _, model = stream.partition("/")
        for table in (stage_interval, alias_interval):
            await tx.execute(sa.delete(table).where(table.c.workspace == workspace, table.c.model == model))
        for table in (mechanism.progress, mechanism.early):
            await tx.execute(sa.delete(table).where(table.c.consumer == STAGES, table.c.stream == stream))
        t, last = timeline.c, -1
        page = (
            sa.select(t.index, t.problem, t.copy_of, logged.c.leaf, claim.c.judged, claim.c.good, claim.c.target)
            .join(logged, logged.c.index == t.index)
            .outerjoin(claim, claim.c.index == t.index)
            .where(t.topic == REGISTRY_EVENTS.name, t.stream == stream, t.sequence.is_not(None))
            .order_by(t.index)
            .limit(PAGE)
        )
        while rows := (await tx.execute(page.where(t.index > last))).mappings().all():
            last = rows[-1]["index"]
            for row in rows:
                leaf = await self.entry(row["index"], row["leaf"])
                reading = read(leaf.topic, leaf.key, leaf.headers, leaf.value)
                if row["judged"]:
                    reading = replace(reading, flaw=None if row["good"] else claims.flaw_of(row["target"]))
                    await tx.execute(sa.update(timeline).where(t.index == row["index"]).values(**_told(reading)))
                elif (row["problem"] or "").startswith(NOT_VERIFIED):
                    reading = replace(reading, flaw=Flaw(NOT_VERIFIED, row["problem"]))
                if row["copy_of"] is None and reading.envelope is not None:
                    await self._moves(tx, row["index"], reading, reading.envelope)

    async def _moves(self, tx: AsyncConnection, index: int, reading: Reading, envelope: Envelope) -> None:
        """Entries are in order of arrival, stages in order of the stream: what came early waits for its turn.

        A change without a good decision takes no turn, and a record that took the turn of a decided change does not
        displace it.
        """
        doubtful = reading.flaw is not None and reading.flaw.code == NOT_VERIFIED
        if doubtful and isinstance(reading.message, Entering):
            return
        admission = await self._inbox.admit(tx, STAGES, envelope)
        late = self._decisions is not None and decided(reading.message)
        if admission is Admission.NEXT or (admission is Admission.DUPLICATE and late):
            await self._move(tx, index, envelope)
        while early := await self._inbox.take_early(tx, STAGES, envelope.key):
            found = await _first_with_id(tx, REGISTRY_EVENTS.name, early.id)
            assert found is not None
            await self._move(tx, found, early)

    async def _move(self, tx: AsyncConnection, index: int, envelope: Envelope) -> None:
        """Moves a version or an alias. An event whose body is bad moves nothing, nor one that was obeyed before."""
        message = read(REGISTRY_EVENTS.name, envelope.key.encode(), tuple(envelope.headers()), envelope.value).message
        if isinstance(message, AliasChanged | AliasRemoved):
            await intervals.point(tx, index, envelope.time, message)
            return
        move = move_of(message, envelope.time)
        if move is None or await intervals.moved_before(tx, move):
            return
        if self._decisions is not None and isinstance(message, StageChanged):
            if message.kind is TransitionKind.SUPERSEDED:
                return  # no signature covers it: it counts with the change that follows it
            await intervals.supersede(tx, envelope, message)
        await intervals.enter(tx, index, move)


def views_of(settings: AuditSettings, archive: Archive) -> Views:
    """The views as the settings want them."""
    keys = settings.decision_jwks
    return Views(Inbox(mechanism), Decisions(KeySource(keys)) if keys else None, archive)


def _told(reading: Reading) -> dict[str, str | None]:
    problem = f"{reading.flaw.code}: {reading.flaw.detail}" if reading.flaw else None
    return {"summary": summarise(reading), "problem": problem}


async def _first_with_id(tx: AsyncConnection, topic: str, event_id: str) -> int | None:
    found = await tx.scalar(
        sa.select(sa.func.min(timeline.c.index)).where(timeline.c.topic == topic, timeline.c.event_id == event_id)
    )
    return None if found is None else int(found)


async def rebuild(tx: AsyncConnection, views: Views) -> int:
    """Drops the views and folds every entry again; those that come meanwhile wait. Returns the number of entries."""
    mine = follower.c.name == FOLLOWER
    await tx.execute(sa.select(follower).where(mine).with_for_update())
    for table in VIEWS:
        await tx.execute(sa.delete(table))
    for table in (mechanism.progress, mechanism.early):
        await tx.execute(sa.delete(table).where(table.c.consumer == STAGES))
    count = 0
    page = (
        sa.select(logged.c.index, logged.c.leaf, finding.c.code)
        .outerjoin(finding, finding.c.index == logged.c.index)
        .order_by(logged.c.index)
        .limit(PAGE)
    )
    while rows := (await tx.execute(page.where(logged.c.index >= count))).mappings().all():
        for row in rows:
            await _refold(tx, views, row["index"], row["leaf"], doubted=row["code"] == NOT_VERIFIED)
        count = rows[-1]["index"] + 1
    await tx.execute(sa.update(follower).where(mine).values(next=count))
    return count


async def _refold(tx: AsyncConnection, views: Views, index: int, data: bytes | None, *, doubted: bool) -> None:
    try:
        async with tx.begin_nested():
            leaf = await views.entry(index, data)
            reading = read(leaf.topic, leaf.key, leaf.headers, leaf.value)
            # What verified once stays verified: keys come and go. What did not may, with the keys of today.
            reading = await views.check(reading, doubted=True) if doubted else reading
            await views.project(tx, index, leaf, reading, doubted=doubted)
    except Exception as error:
        if is_transient(error):
            raise
        # One bad leaf (`/v1/log/verify` names it) must not keep the views of all others away.
        log.exception("an entry cannot be folded", index=index)
