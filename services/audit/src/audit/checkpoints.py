"""Signed checkpoints: one note per size of the tree, and now and then an event that publishes one."""

import asyncio
import json

import sqlalchemy as sa
import structlog
from prometheus_client import Gauge
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.note import Checkpoint, Signer, is_signed_by
from audit.tables import checkpoint, mechanism, tree_head
from contracts.audit import CheckpointPublished
from contracts.envelope import now
from kit.db import Database
from kit.errors import is_transient
from kit.events import Cause, EventLog, New
from kit.problems import Problem

log = structlog.get_logger()
SIGNED = Gauge("hallmark_audit_checkpoint_size", "Entries under the newest signed checkpoint")
ACTOR = "service:audit"


class SplitLog(Problem):
    """The tree contradicts a checkpoint that was signed before: nothing is signed until somebody finds out why."""

    def __init__(self, detail: str) -> None:
        super().__init__(500, "split-log", detail)


class Checkpoints:
    def __init__(
        self, db: Database, events: EventLog, signer: Signer, *, every_seconds: float, publish_seconds: float
    ) -> None:
        self._db, self._events, self._signer = db, events, signer
        self._every, self._publish_every = every_seconds, publish_seconds
        self.stream = f"checkpoint:{signer.name}"

    @property
    def vkey(self) -> str:
        return self._signer.vkey

    async def current(self) -> tuple[Checkpoint, str]:
        """The head of the tree as a checkpoint, and its signed note; signs the head where that was not done yet.

        Raises:
            SplitLog: the tree has another root than was signed for its size, or has become shorter.
        """
        async with self._db.transaction() as tx:
            newest = await tx.scalar(sa.select(sa.func.max(checkpoint.c.size)))
            # The head is read after the newest checkpoint, so that it can only be ahead of it.
            head = (await tx.execute(sa.select(tree_head.c.size, tree_head.c.root))).one()
            if newest is not None and newest > head.size:
                raise SplitLog(f"the tree has {head.size} entries, but {newest} were signed before")
            note = await self._note(tx, head.size, head.root)
        SIGNED.set(head.size)
        return Checkpoint(self._signer.name, head.size, head.root), note

    async def run(self) -> None:
        """Signs the tree as it grows and publishes at most once per interval, until cancelled."""
        while True:
            await self._tick()
            await asyncio.sleep(self._every)

    async def _tick(self) -> None:
        try:
            _, note = await self.current()
            await self.publish(note)
        except SplitLog as error:
            log.critical("the log contradicts its own checkpoints", error=error.detail)
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("cannot sign now; trying again", error=repr(error))

    async def _note(self, tx: AsyncConnection, size: int, root: bytes) -> str:
        query = sa.select(checkpoint.c.root, checkpoint.c.note).where(checkpoint.c.size == size)
        stored = (await tx.execute(query)).first()
        if stored is None:
            row = {"size": size, "root": root, "note": self._signer.sign(size, root), "at": now()}
            await tx.execute(insert(checkpoint).values(row).on_conflict_do_nothing())
            stored = (await tx.execute(query)).one()
        if stored.root != root:
            raise SplitLog(f"another root was signed for {size} entries")
        note = str(stored.note)
        if not is_signed_by(note, self.vkey):
            # The key has changed since; the old signature stays beside the new one.
            note += self._signer.line(Checkpoint(self._signer.name, size, root).text())
        return note

    async def publish(self, note: str) -> None:
        """Appends `checkpoint.published` when the tree has grown and the last one is old enough."""
        async with self._db.transaction() as tx:
            last = await self._events.lock(tx, self.stream)
            if last:
                event = mechanism.event.c
                row = (
                    await tx.execute(
                        sa.select(event.at, event.data).where(event.stream == self.stream, event.sequence == last)
                    )
                ).one()
                recent = (now() - row.at).total_seconds() < self._publish_every
                if recent or json.loads(row.data)["note"] == note:
                    return
            size, root = note.split("\n")[1:3]
            message = CheckpointPublished(origin=self._signer.name, size=int(size), root=root, note=note)
            new = New(message, subject=self.stream)
            await self._events.append(tx, self.stream, last, [new], Cause(actor=ACTOR))
