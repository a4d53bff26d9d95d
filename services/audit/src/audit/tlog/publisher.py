"""From the database to the world: tiles and bundles first, then the signed checkpoint. Never two roots for one size.

Every step can be done again, so a publisher that dies anywhere leaves nothing that the next one cannot finish; two
that work side by side write the same bytes. What was published binds: a tree that does not extend it (a database that
was restored from an older backup, say) is not signed.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
import structlog
from prometheus_client import Gauge
from sqlalchemy.dialects.postgresql import insert

from audit import merkle
from audit.note import Checkpoint, NoteError, open_note
from audit.tables import checkpoint, entry, mechanism, tree_head
from audit.tlog import tiles
from audit.tlog.archive import TEXT, Archive, Contradiction, Damage
from audit.tlog.proofs import Proofs
from audit.tlog.signing import CheckpointSigner, Overtaken, sign_extension
from audit.tlog.tiles import Tile
from contracts.audit import CheckpointPublished
from contracts.envelope import now
from kit.db import Database
from kit.errors import Transient, is_transient
from kit.events import Cause, EventLog, New

log = structlog.get_logger()
PUBLISHED = Gauge("hallmark_audit_checkpoint_size", "Entries under the newest signed checkpoint")
SPLIT = Gauge("hallmark_audit_log_contradicted", "1 while the log contradicts what was published; nothing is signed")
ACTOR = "service:audit"
AT_ONCE = 8
TRIES = 50
MOST_PAUSE = 0.2


@dataclass(frozen=True)
class Published:
    """A checkpoint and its signed note."""

    checkpoint: Checkpoint
    note: str


@dataclass(frozen=True)
class Attestation:
    """What others add to a note: `cosign` gives it back with their lines, `stamp` is told of it once it is out."""

    cosign: Callable[[str, Proofs], Awaitable[str]]
    stamp: Callable[[Published], Awaitable[None]]


class Publisher:
    def __init__(
        self,
        db: Database,
        events: EventLog,
        archive: Archive,
        signer: CheckpointSigner,
        *,
        every_seconds: float,
        publish_seconds: float,
        attestation: Attestation | None = None,
        former_keys: Sequence[str] = (),
    ) -> None:
        self._db, self._events, self._archive, self._signer = db, events, archive, signer
        self._proofs = Proofs(db, archive)
        self._every, self._publish_every = every_seconds, publish_seconds
        self._attestation, self._former_keys = attestation, tuple(former_keys)
        self._busy = asyncio.Lock()
        self._partial: set[Tile] = set()  # what this process has put and not tidied up, without the widths
        self._finished: Checkpoint | None = None  # what this process has brought out completely
        self.stream = f"checkpoint:{signer.name}"

    @property
    def vkeys(self) -> list[str]:
        return self._signer.vkeys

    async def newest(self) -> Published | None:
        """The newest checkpoint, or None before the first."""
        async with self._db.transaction() as tx:
            row = (await tx.execute(sa.select(checkpoint).order_by(checkpoint.c.size.desc()).limit(1))).first()
        return None if row is None else Published(Checkpoint(self._signer.name, row.size, row.root), row.note)

    async def current(self) -> Published:
        """The head of the tree, published.

        Raises:
            Contradiction: the tree does not extend what was published.
            Transient: the store, the signer or too many witnesses are away.
        """
        async with self._busy:
            await self._signer.load()
            for n in range(TRIES):
                await asyncio.sleep(min(0.005 * n, MOST_PAUSE))
                # What was published is read before the head, so that the head can only be ahead of it.
                newest = await self.newest()
                if newest is not None and newest.checkpoint == self._finished == await self._head():
                    return newest
                largest = await self._largest()
                stored = await self._archive.checkpoint()
                head = await self._head()
                if newest is not None:
                    await self._extends(newest.checkpoint, head)
                if largest.size > head.size or largest.root not in (
                    merkle.EMPTY_ROOT,
                    newest and newest.checkpoint.root,
                ):
                    await self._extends(largest, head)
                try:
                    found = await self._publish(head, stored)
                except Overtaken as error:
                    if error.size > (await self._head()).size:
                        raise
                    found = None
                if found is not None:
                    self._finished = head
                    PUBLISHED.set(head.size)
                    SPLIT.set(0)
                    return found
            raise Transient("others publish all the time, or the store does not let the checkpoint be replaced")

    async def run(self) -> None:
        """Publishes the tree as it grows, until cancelled."""
        await self._archive.ready()
        while True:
            try:
                await self.announce(await self.current())
            except Damage as error:
                SPLIT.set(1)
                log.critical(
                    "the log is damaged, or contradicts its checkpoints; nothing is signed", error=error.detail
                )
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("cannot publish now; trying again", error=repr(error))
            await asyncio.sleep(self._every)

    async def _head(self) -> Checkpoint:
        async with self._db.transaction() as tx:
            row = (await tx.execute(sa.select(tree_head.c.size, tree_head.c.root))).one()
        return Checkpoint(self._signer.name, row.size, row.root)

    async def _publish(self, head: Checkpoint, stored: tuple[str, str] | None) -> Published | None:
        """None: another publisher was faster. `stored`: the note in the store and its ETag."""
        note, etag = stored or (None, None)
        out = self._opened(note) if note else Checkpoint(self._signer.name, 0, merkle.EMPTY_ROOT)
        await self._extends(out, head)
        await self._put(tiles.grown(out.size, head.size))
        published = await self._signed(head, out.size)
        if note != published.note and not await self._archive.replace_checkpoint(published.note, etag):
            return None
        await self._tidy(out.size, head.size)
        if self._attestation is not None:
            await self._attestation.stamp(published)
        return published

    def _opened(self, note: str) -> Checkpoint:
        try:
            return open_note(note, *self.vkeys, *self._former_keys)
        except NoteError as error:
            raise Contradiction(f"the published checkpoint is none of this log's: {error}") from error

    async def _extends(self, out: Checkpoint, head: Checkpoint) -> None:
        """Raises Contradiction when the tree does not begin with what was published."""
        if out.size > head.size:
            raise Contradiction(
                f"the database holds {head.size} entries, but {out.size} were published before: "
                "was it restored from an older backup?"
            )
        if out.root != (head.root if out.size == head.size else await self._proofs.root(out.size)):
            raise Contradiction(f"another root was published for {out.size} entries")

    async def _largest(self) -> Checkpoint:
        """The largest that was ever signed, here or by another process, wherever `checkpoint` was set back to. Where
        only its size is left: with the empty root."""
        size = await self._archive.largest()
        if self._finished is not None and self._finished.size >= size:
            return self._finished
        note = await self._archive.read(f"checkpoints/{size}") if size else None
        return Checkpoint(self._signer.name, size, merkle.EMPTY_ROOT) if note is None else self._opened(note.decode())

    async def _put(self, wanted: Iterable[Tile]) -> None:
        """Puts tiles and bundles, several at a time. All are durable when this returns."""
        rest = iter(wanted)

        async def work() -> None:
            for tile in rest:
                if not tile.is_full:
                    self._partial.add(Tile(tile.level, tile.number))
                await self._archive.keep(tile.path, await self._made(tile), lock=tile.is_full)

        ends = await asyncio.gather(*(work() for _ in range(AT_ONCE)), return_exceptions=True)
        for error in filter(None, ends):
            raise error

    async def _made(self, tile: Tile) -> bytes:
        start, stop = tile.start, tile.start + tile.width
        if tile.level >= 0:
            return b"".join(await self._proofs.hashes(tile.level, start, stop))
        query = sa.select(entry.c.leaf).where(entry.c.index >= start, entry.c.index < stop).order_by(entry.c.index)
        async with self._db.transaction() as tx:
            leaves = list(await tx.scalars(query))
        if len(leaves) != tile.width:
            raise Damage(f"entries between {start} and {stop} are missing")
        return tiles.bundle(leaves)

    async def _signed(self, head: Checkpoint, old: int) -> Published:
        """Signs and has it witnessed. What lies in the store first for that size counts: it can be locked there, and a
        database that is restored does not know it. Then it is written down, and served from then on."""
        key, noted = f"checkpoints/{head.size}", await self._noted(head)
        kept = await self._archive.read(key)
        note = kept or (noted.note if noted is not None else await self._new(head, old)).encode()
        # The size first: whoever dies in between leaves no signed note that a restored database would not meet.
        await self._archive.keep_size(head.size)
        if kept is None:
            kept = await self._archive.keep_first(key, note, content_type=TEXT)
        if self._opened(kept.decode()) != head:
            raise Contradiction(f"another root was published for {head.size} entries")
        if noted is None:
            row = {"size": head.size, "root": head.root, "note": kept.decode(), "at": now()}
            async with self._db.transaction() as tx:
                await tx.execute(insert(checkpoint).values(row).on_conflict_do_nothing())
        return Published(head, kept.decode())

    async def _new(self, head: Checkpoint, old: int) -> str:
        lines = await sign_extension(self._signer, head, old, lambda size: self._proofs.consistency(size, head.size))
        note = f"{head.text()}\n{lines}"
        return note if self._attestation is None else await self._attestation.cosign(note, self._proofs)

    async def _noted(self, head: Checkpoint) -> Published | None:
        query = sa.select(checkpoint.c.root, checkpoint.c.note).where(checkpoint.c.size == head.size)
        async with self._db.transaction() as tx:
            row = (await tx.execute(query)).first()
        if row is None:
            return None
        if row.root != head.root:
            raise Contradiction(f"another root was signed for {head.size} entries")
        return Published(head, row.note)

    async def _tidy(self, old: int, new: int) -> None:
        """Deletes partial tiles whose full tile is there now: those of the checkpoint before, and of what never became
        one."""
        last = {tile for tile in tiles.grown(old, new) if tile.is_full and tile.start < old >> (max(tile.level, 0) * 8)}
        full = {tile for tile in self._partial if tile.start + tile.width <= new >> (max(tile.level, 0) * 8)}
        for tile in sorted(last | full):
            await self._archive.delete_under(f"{tile.path}.p/")
        self._partial -= full

    async def announce(self, published: Published) -> None:
        """Appends `checkpoint.published` when the tree has grown by more than the last such event, and that is old
        enough."""
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
                if recent or published.checkpoint.size <= json.loads(row.data)["size"] + 1:
                    return
            size, root = published.note.split("\n")[1:3]
            message = CheckpointPublished(origin=self._signer.name, size=int(size), root=root, note=published.note)
            await self._events.append(tx, self.stream, last, [New(message, subject=self.stream)], Cause(actor=ACTOR))
