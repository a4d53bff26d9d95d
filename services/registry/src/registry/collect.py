"""`python -m registry collect`: frees what was uploaded and never registered, and blobs that no version references.

Collected, once older than `older_than`:
- unfinished multipart uploads and copies (none of their parts is younger);
- copies in `verifying/` that a killed worker left (one that still needs its copy makes another);
- uploads whose digest no `pending` version waits for: what is verified is a blob by then;
- blobs that no version references. A `rejected` version references nothing; every other one does, for ever, and so
  does the view `blob`, which names what was verified.

A registration may happen at the same time. It shares the lock of each digest that is not verified yet from before it
looks into the store until its reference is committed (`Artifacts.claim`). Here the same lock is taken alone, only then
are the references read, and the objects are gone before it is given back. Hence a registration that commits saw bytes
that this command left alone, and one that comes too late is told that they are missing. A lock that is in use is not
waited for: these digests are left for the next run, so a busy registry is never held up. Verification needs no lock of
its own: it works for a version that is registered, so that its upload and the blob it keeps are referenced already.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.blobs import BlobStore, Stored
from kit.db import Database
from kit.main import Command, duration
from registry.artifacts import store_of
from registry.domain import Status
from registry.places import ASIDE, BLOBS, UPLOADS, digest_of, lock_of, take_alone
from registry.settings import RegistrySettings
from registry.tables import BlobRow, BlobUseRow, VersionRow, t

Kind = Literal["upload", "multipart", "aside", "blob"]
Say = Callable[[str], None]
BATCH = 100  # digests under one lock; a registration waits for it, a fraction of a second
TRIES, PAUSE_SECONDS = 3, 0.1
LEAST = timedelta(hours=1)  # as long as an address is good; what is younger may be on its way


@dataclass(frozen=True)
class Item:
    kind: Kind
    key: str
    size: int
    modified: str


@dataclass
class Report:
    """`items` are what went, or would go; `busy` counts what was left because its digest is being registered."""

    dry_run: bool
    older_than_seconds: float
    items: list[Item] = field(default_factory=list)
    looked_at: int = 0
    busy: int = 0

    def totals(self) -> dict[str, dict[str, int]]:
        """Kind -> number of objects and their bytes."""
        count, size = Counter[str](), Counter[str]()
        for item in self.items:
            count[item.kind] += 1
            size[item.kind] += item.size
        return {kind: {"objects": count[kind], "bytes": size[kind]} for kind in sorted(count)}

    def document(self) -> dict[str, object]:
        return {**asdict(self), "totals": self.totals()}


async def collect(
    db: Database,
    blobs: BlobStore,
    *,
    older_than: timedelta,
    dry_run: bool,
    say: Say = lambda _: None,
    now: datetime | None = None,
) -> Report:
    """One pass over the bucket. `say` gets a line for everything that goes. Stopped anywhere, it can start again."""
    report = Report(dry_run, older_than.total_seconds())
    run = _Run(db, blobs, report, (now or datetime.now(UTC)) - older_than, say)
    for prefix in (UPLOADS, ASIDE, BLOBS):
        await run.multiparts(prefix)
    await run.asides()
    await run.unreferenced("upload", UPLOADS)
    await run.unreferenced("blob", BLOBS)
    return report


class _Run:
    def __init__(self, db: Database, blobs: BlobStore, report: Report, before: datetime, say: Say) -> None:
        self._db = db
        self._blobs = blobs
        self._report = report
        self._before = before
        self._say = say

    async def multiparts(self, prefix: str) -> None:
        for upload in await self._blobs.unfinished(prefix):
            self._report.looked_at += 1
            if upload.started >= self._before:
                continue
            parts = await self._blobs.parts(upload.key, upload.upload_id)
            if parts is None or any(part.modified >= self._before for part in parts):
                continue
            if not self._report.dry_run:
                await self._blobs.abort_multipart(upload.key, upload.upload_id)
            size = sum(part.size for part in parts)
            self._note("multipart", Stored(upload.key, size, upload.started))

    async def asides(self) -> None:
        async for batch in _batches(self._old(ASIDE)):
            if not self._report.dry_run:
                await self._blobs.delete(*(found.key for found in batch))
            for found in batch:
                self._note("aside", found)

    async def unreferenced(self, kind: Kind, prefix: str) -> None:
        async for batch in _batches(self._old(prefix)):
            named = sorted((lock_of(digest), digest, found) for found in batch if (digest := digest_of(found.key)))
            for lock, group in groupby(named, key=lambda item: item[0]):
                await self._free(kind, lock, [(digest, found) for _, digest, found in group])

    async def _free(self, kind: Kind, lock: int, found: list[tuple[str, Stored]]) -> None:
        for attempt in range(1, TRIES + 1):
            async with self._db.transaction() as tx:
                if self._report.dry_run or await tx.scalar(take_alone(lock)):
                    await self._free_locked(tx, kind, found)
                    return
            if attempt < TRIES:
                await asyncio.sleep(PAUSE_SECONDS)
        self._report.busy += len(found)

    async def _free_locked(self, tx: AsyncConnection, kind: Kind, found: list[tuple[str, Stored]]) -> None:
        needed = await _needed(tx, kind, {digest for digest, _ in found})
        free = [item for digest, item in found if digest not in needed]
        if not self._report.dry_run:
            # Uploaded again since the bucket was listed: then it is about to be registered.
            seen = await asyncio.gather(*(self._blobs.stat(item.key) for item in free))
            free = [item for item in seen if item is not None and item.modified < self._before]
            await self._blobs.delete(*(item.key for item in free))
        for item in free:
            self._note(kind, item)

    async def _old(self, prefix: str) -> AsyncIterator[Stored]:
        async for found in self._blobs.objects(prefix):
            self._report.looked_at += 1
            if found.modified < self._before:
                yield found

    def _note(self, kind: Kind, found: Stored) -> None:
        self._report.items.append(Item(kind, found.key, found.size, found.modified.isoformat()))
        verb = "would go" if self._report.dry_run else "gone"
        self._say(f"{verb}: {kind} {found.key}, {human(found.size)}, of {found.modified:%Y-%m-%d %H:%M}")


async def _needed(tx: AsyncConnection, kind: Kind, digests: Iterable[str]) -> set[str]:
    """Those of the digests that a version references: for an upload, one that is not verified yet."""
    use, version, blob = t(BlobUseRow), t(VersionRow), t(BlobRow)
    same = sa.and_(*(use.c[name] == version.c[name] for name in ("workspace", "model", "version")))
    alive = version.c.status == Status.PENDING if kind == "upload" else version.c.status != Status.REJECTED
    used = sa.select(use.c.digest).join(version, same).where(use.c.digest.in_(set(digests)), alive)
    query: sa.Executable = used
    if kind == "blob":
        query = used.union(sa.select(blob.c.digest).where(blob.c.digest.in_(set(digests))))
    return set((await tx.scalars(query)).all())


async def _batches(found: AsyncIterator[Stored]) -> AsyncIterator[list[Stored]]:
    batch: list[Stored] = []
    async for item in found:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def human(size: int) -> str:
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.{0 if unit == 'B' else 1}f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


# -- the command -------------------------------------------------------------------------------------------------


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--older-than", type=_age, default=timedelta(hours=24), metavar="AGE", help="such as 90m, 24h, 7d (default 24h)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    parser.add_argument("--json", action="store_true", help="the result as JSON on standard output")


def _age(text: str) -> timedelta:
    age = duration(text)
    if age < LEAST:
        raise argparse.ArgumentTypeError(f"at least {LEAST.total_seconds() / 3600:.0f}h: uploads may be under way")
    return age


async def _command(settings: RegistrySettings, given: argparse.Namespace) -> int:
    db = Database(settings.database_url.get_secret_value(), name="registry-collect", pool=2)
    out = sys.stderr if given.json else sys.stdout
    try:
        report = await collect(
            db,
            store_of(settings),
            older_than=given.older_than,
            dry_run=given.dry_run,
            say=lambda line: print(line, file=out, flush=True),
        )
    finally:
        await db.close()
    if given.json:
        print(json.dumps(report.document()))
        return 0
    for kind, total in report.totals().items():
        print(f"{kind}: {total['objects']} objects, {human(total['bytes'])}")
    freed = human(sum(item.size for item in report.items))
    verb = "would be freed" if report.dry_run else "freed"
    print(f"{report.looked_at} looked at, {len(report.items)} collected, {freed} {verb}, {report.busy} busy")
    return 0


COMMAND = Command("collect", "free abandoned uploads and blobs that no version references", _arguments, _command)
