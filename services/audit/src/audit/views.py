"""Views of the past: a timeline for people, and stages, aliases and names over time. Folds of the log (law 2)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import claims, intervals, telling
from audit.decisions import Decisions
from audit.domain import (
    NOT_VERIFIED,
    VIEW_FAILED,
    Entering,
    Flaw,
    Reading,
    clean,
    content_of,
    decided,
    move_of,
    read,
    signed,
)
from audit.forgetting import forgotten
from audit.leaf import Leaf, decode
from audit.page import Page
from audit.settings import AuditSettings
from audit.tables import logged
from audit.tlog.archive import Archive
from audit.turns import STAGES
from audit.view_tables import claim, timeline
from contracts.envelope import Envelope
from contracts.lifecycle import TransitionKind
from contracts.payload import Message
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
from kit.inbox import Admission

__all__ = ["FOLLOWER", "PAGE", "STAGES", "Item", "Views", "views_of"]
log = structlog.get_logger()
FOLLOWER = "views"
PAGE = 500


@dataclass(frozen=True)
class Item:
    """An entry to fold. Without a leaf there is nothing to fold: it is damaged, or the store lost it.

    `doubted`: its signature did not verify when it came.
    """

    index: int
    leaf: Leaf | None
    reading: Reading
    doubted: bool = False


class Views:
    """The folds, entry after entry in the order of the log.

    Without `decisions` every change and revocation is believed, but for those that did not verify once. `archive` has
    what is too large to stand in the log.
    """

    def __init__(self, decisions: Decisions | None = None, archive: Archive | None = None) -> None:
        self._decisions, self._archive = decisions, archive

    async def entry(self, index: int, data: bytes | None, leaf_hash: bytes) -> Leaf:
        """As `leaf`; without data it is pruned, and lies in the object store as `leaf_hash` commits to it."""
        if data is None:
            if self._archive is None:
                raise ValueError("the entry is in the object store, which was not given")
            data = await self._archive.entry(index, leaf_hash)
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

    async def project_page(self, tx: AsyncConnection, items: Sequence[Item]) -> list[Reading]:
        """Folds entries in order, in few statements, with the same result as one by one.

        An entry whose fold fails is left out of the views, and its reading says `view-failed`, after the
        flaw that it had already; the others are folded.
        """
        if not items:
            return []
        try:
            async with tx.begin_nested():
                return await self.fold(tx, items)
        except Exception as error:
            if is_transient(error):
                raise
            if len(items) == 1:
                log.exception("a view failed", index=items[0].index)
                return [_failed(items[0].reading, error)]
        half = len(items) // 2
        return [*await self.project_page(tx, items[:half]), *await self.project_page(tx, items[half:])]

    async def fold(self, tx: AsyncConnection, items: Sequence[Item]) -> list[Reading]:
        """As `project_page`, all or nothing: raises whatever the fold of an entry raises."""
        page = Page(tx)
        envelopes = [(item.leaf.topic, item.reading.envelope) for item in items if item.leaf is not None]
        await page.load((topic, envelope.id) for topic, envelope in envelopes if envelope is not None)
        of_registry = [e for topic, e in envelopes if topic == REGISTRY_EVENTS.name and e is not None and e.sequence]
        await page.turns.load(envelope.key for envelope in of_registry)
        moves = [move_of(i.reading.message, i.leaf.recorded_at) for i in items if i.leaf is not None]
        await page.stages.load((m.workspace, m.model, m.version) for m in moves if m is not None)
        told = [await self._one(page, item) for item in items]
        await page.flush()
        return told

    async def _one(self, page: Page, item: Item) -> Reading:
        page.now, leaf, reading = item.index, item.leaf, item.reading
        if leaf is None:
            return reading
        envelope = reading.envelope
        content = content_of(envelope) if envelope else None
        copy_of = rival = None
        if envelope and content:
            copy_of = await page.first(leaf.topic, envelope.id, content)
            rival = await page.rival(item.index, leaf.topic, envelope.id, content) if copy_of is None else None
        aside = rival is not None and not self._vouched(reading)
        sequenced = leaf.topic == REGISTRY_EVENTS.name and envelope is not None and envelope.sequence is not None
        if sequenced and envelope is not None:
            message, judged = reading.message, self._is_judged(reading, doubted=item.doubted)
            if judged and not aside and isinstance(message, Entering):
                known = await page.history(message.workspace)
                reading = replace(reading, flaw=claims.verdict(known, envelope, message))
            if isinstance(message, Entering):
                good = reading.flaw is None and not aside
                page.claims.append(claims.note(item.index, envelope, message, judged=judged and not aside, good=good))
            elif isinstance(message, WorkspaceConfigured) and copy_of is None:
                reading = replace(reading, flaw=await claims.contested(page.tx, envelope, message))
        told = reading if rival is None else telling.twice(reading, rival)
        row, fact = telling.rows(item.index, leaf, told)
        page.tell({**row, "copy_of": copy_of, "content": content})
        if fact is not None:
            page.facts.append(fact)
        if sequenced and envelope is not None and copy_of is None and not aside:
            await self._fold(page, item.index, reading, envelope)
        return told

    def _vouched(self, reading: Reading) -> bool:
        """Whether a signature speaks for the event, so that it counts though another one has taken its id."""
        return self._decisions is not None and signed(reading.message) and reading.flaw is None

    def _is_judged(self, reading: Reading, *, doubted: bool) -> bool:
        return not decided(reading.message) and (self._decisions is not None or doubted)

    async def _fold(self, page: Page, index: int, reading: Reading, envelope: Envelope) -> None:
        message = reading.message
        if isinstance(message, ModelRegistered | ModelRenamed):
            await intervals.name(page.tx, index, message)
        elif isinstance(message, VersionRevoked) and reading.flaw is None:
            await intervals.revoke(page.tx, index, envelope, message)
        await self._moves(page, index, reading, envelope)
        if isinstance(message, WorkspaceConfigured):
            await page.settle()
            turned = await claims.configure(page.tx, index, envelope, message)
            page.forget_history(message.workspace)
            await self._turn(page, turned)

    async def _turn(self, page: Page, turned: dict[int, bool]) -> None:
        """Rules came late: what they clear or flag is told anew, and the models concerned are folded again."""
        t = timeline.c
        streams = await page.tx.scalars(
            sa.select(t.stream).where(claims.among(t.index, turned)).distinct().order_by(t.stream)
        )
        for stream in streams.all():
            await self._again(page, stream)

    async def _again(self, page: Page, stream: str) -> None:
        """Folds the stages and aliases of one model from its entries, with the present verdicts.

        What was known before stays known as of then.
        """
        workspace, _, model = stream.partition("/")
        for known in (page.stages, page.aliases):
            await known.begin_again((workspace, model))
        await page.turns.restart(stream)
        t, last = timeline.c, -1
        query = (
            sa.select(
                t.index,
                t.problem,
                t.copy_of,
                logged.c.leaf,
                logged.c.leaf_hash,
                claim.c.judged,
                claim.c.good,
                claim.c.target,
            )
            .join(logged, sa.and_(logged.c.index == t.index, logged.c.recorded_at == t.recorded_at))
            .outerjoin(claim, claim.c.index == t.index)
            .where(t.topic == REGISTRY_EVENTS.name, t.stream == stream, t.sequence.is_not(None))
            .order_by(t.index)
            .limit(PAGE)
        )
        while rows := (await page.tx.execute(query.where(t.index > last))).mappings().all():
            last = rows[-1]["index"]
            for row in rows:
                await self._refold(page, row)
        for known in (page.stages, page.aliases):
            known.end_again(page.now, (workspace, model))

    async def _refold(self, page: Page, row: sa.RowMapping) -> None:
        leaf = await self.entry(row["index"], row["leaf"], row["leaf_hash"])
        reading = read(leaf.topic, leaf.key, leaf.headers, leaf.value)
        envelope = reading.envelope
        rival = None
        if envelope is not None:
            rival = await page.rival(row["index"], leaf.topic, envelope.id, content_of(envelope))
        if row["judged"]:
            reading = replace(reading, flaw=None if row["good"] else claims.flaw_of(row["target"]))
            told = telling.told(reading)
            told = told if row["leaf"] is not None else forgotten(told)
            if told["problem"] != row["problem"]:
                changed = sa.update(timeline).where(timeline.c.index == row["index"])
                await page.tx.execute(changed.values(**told, revised=page.now))
        elif (row["problem"] or "").startswith(NOT_VERIFIED):
            reading = replace(reading, flaw=Flaw(NOT_VERIFIED, row["problem"]))
        aside = rival is not None and not self._vouched(reading)
        if row["copy_of"] is None and envelope is not None and not aside:
            await self._moves(page, row["index"], reading, envelope)

    async def leaf(self, data: bytes) -> Leaf:
        """The record in an entry, also when it is too large to stand in the log itself.

        Raises:
            ValueError: it is none, or no archive was given.
        """
        leaf = decode(data if self._archive is None else await self._archive.inline(data))
        if not isinstance(leaf, Leaf):
            raise ValueError("the leaf is in the object store, which was not given")
        return leaf

    async def _moves(self, page: Page, index: int, reading: Reading, envelope: Envelope) -> None:
        """Entries are in order of arrival, stages in order of the stream: what came early waits for its turn.

        A change without a good decision takes no turn, and a record that took the turn of a decided change does not
        displace it.
        """
        doubtful = reading.flaw is not None and reading.flaw.code == NOT_VERIFIED
        if doubtful and isinstance(reading.message, Entering):
            return
        admission = await page.turns.admit(envelope)
        late = self._decisions is not None and decided(reading.message)
        if admission is Admission.NEXT or (admission is Admission.DUPLICATE and late):
            await self._move(page, index, envelope, reading.message)
        while early := await page.turns.take_early(envelope.key):
            found = await page.first(REGISTRY_EVENTS.name, early.id, content_of(early))
            assert found is not None
            headers = tuple(early.headers())
            message = read(REGISTRY_EVENTS.name, early.key.encode(), headers, early.value).message
            await self._move(page, found, early, message)

    async def _move(self, page: Page, index: int, envelope: Envelope, message: Message | None) -> None:
        """Moves a version or an alias. An event whose body is bad moves nothing, nor one that was obeyed before."""
        if isinstance(message, AliasChanged | AliasRemoved):
            await intervals.point(page, index, envelope.time, message)
            return
        move = move_of(message, envelope.time)
        if move is None or await intervals.moved_before(page, move):
            return
        if self._decisions is not None and isinstance(message, StageChanged):
            if message.kind is TransitionKind.SUPERSEDED:
                return  # no signature covers it: it counts with the change that follows it
            await intervals.supersede(page, envelope, message)
        await intervals.enter(page, index, move)


def _failed(reading: Reading, error: Exception) -> Reading:
    """What was wrong with the record itself stays what is told of it: whoever judges it again must know."""
    failed = Flaw(VIEW_FAILED, clean(repr(error)))
    if (flaw := reading.flaw) is not None:
        failed = replace(flaw, detail=clean(f"{flaw.detail}; {failed.code}: {failed.detail}"))
    return replace(reading, flaw=failed)


def views_of(settings: AuditSettings, archive: Archive) -> Views:
    """The views as the settings want them."""
    keys = settings.decision_jwks
    return Views(Decisions(KeySource(keys)) if keys else None, archive)
