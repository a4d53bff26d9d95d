"""`python -m audit rebuild`: folds the views anew from the log, and compares (law 2).

All in one transaction: readers see the old views until it ends, and the projector waits. With `--check` it is rolled
back: what somebody edited stays, as evidence.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import search
from audit.app import archive_of
from audit.domain import LEAF_LOST, NOT_VERIFIED, VIEW_FAILED, read
from audit.forgetting import forget_all
from audit.projector import position
from audit.settings import AuditSettings
from audit.tables import finding, follower, logged, mechanism
from audit.tlog.archive import Damage
from audit.view_tables import VIEWS
from audit.views import FOLLOWER, PAGE, STAGES, Item, Views, views_of
from kit.db import Database, digests
from kit.main import Command

log = structlog.get_logger()
# Nobody can say of an entry with such a finding that its signature was looked at, and was good.
DOUBTED = (NOT_VERIFIED, VIEW_FAILED, LEAF_LOST)
Progress = Callable[[int], None]
MOST_ROWS = 5  # that are named of a table
HOUR_MS = 3_600_000  # a digest of a large table takes longer than a statement of the service may


@dataclass(frozen=True)
class Rebuilt:
    """`differing` are the tables that were not what the log says; `rows` are the first of their rows that were not, or
    that were missing or too many."""

    entries: int
    differing: tuple[str, ...]
    rows: tuple[str, ...]
    seconds: float


async def compared(db: Database, views: Views, progress: Progress, *, keep: bool = True) -> Rebuilt:
    """Folds what the views have read of the log, and says where they were something else. `progress` gets indexes.
    Without `keep` nothing changes."""
    started, names = time.monotonic(), [table.name for table in VIEWS]
    async with db.engine.connect() as tx, db.snapshot() as before:
        size = await position(tx, FOLLOWER, lock=True)
        # The first statement of `before` is what it sees to its end: the projector waits by now.
        old = await digests(before, "audit", names)
        count = await rebuild(tx, views, size=size, progress=progress)
        new = await digests(tx, "audit", names)
        differing = [table for table in VIEWS if old[table.name] != new[table.name]]
        rows = [row for table in differing for row in await first_differences(before, tx, table)]
        await (tx.commit() if keep else tx.rollback())
    seconds = round(time.monotonic() - started, 3)
    return Rebuilt(count, tuple(table.name for table in differing), tuple(rows), seconds)


async def first_differences(before: AsyncConnection, after: AsyncConnection, table: sa.Table) -> list[str]:
    """The first rows that two transactions see differently, in words."""
    keys = [sa.cast(column, sa.Text).collate("C") for column in table.primary_key.columns]
    query, width = sa.select(*keys, *table.columns).order_by(*keys), len(keys)
    found: list[str] = []
    async with before.stream(query) as olds, after.stream(query) as news:
        old, new = await anext(olds, None), await anext(news, None)
        while (old is not None or new is not None) and len(found) < MOST_ROWS:
            mine, other = (None if row is None else tuple(row[:width]) for row in (old, new))
            at = mine if other is None or (mine is not None and mine <= other) else other
            assert at is not None
            if mine == other and old is not None and new is not None:
                pairs = zip(table.columns.keys(), old[width:], new[width:], strict=True)
                changed = [f"{name} was {was!r}, is {now!r}" for name, was, now in pairs if was != now]
                what = "; ".join(changed)
            else:
                what = "was missing" if at == other else "was too many"
            if what:
                found.append(f"{table.name} {', '.join(at)}: {what}"[:500])
            old = await anext(olds, None) if mine == at else old
            new = await anext(news, None) if other == at else new
    return found


async def rebuild(
    tx: AsyncConnection, views: Views, *, size: int | None = None, progress: Progress = lambda _: None
) -> int:
    """Drops the views and folds every entry again, or the first `size`; the projector waits. Returns how many.

    What was known at each size comes out as it was. Only the keys of decisions are those of today: an entry that did
    not verify when it came, and does now, counts from its own place on. What pruned entries said is forgotten again.
    """
    mine = follower.c.name == FOLLOWER
    await tx.execute(sa.select(follower).where(mine).with_for_update())
    for table in VIEWS:
        await tx.execute(sa.delete(table))
    for table in (mechanism.progress, mechanism.early):
        await tx.execute(sa.delete(table).where(table.c.consumer == STAGES))
    await search.reset(tx)
    count = 0
    page = (
        sa.select(logged.c.index, logged.c.leaf, logged.c.leaf_hash, finding.c.code)
        .outerjoin(finding, finding.c.index == logged.c.index)
        .order_by(logged.c.index)
        .limit(PAGE)
    )
    if size is not None:
        page = page.where(logged.c.index < size)
    while rows := (await tx.execute(page.where(logged.c.index >= count))).mappings().all():
        items = [await _item(views, row) for row in rows]
        await views.project_page(tx, [item for item in items if item is not None])
        count = rows[-1]["index"] + 1
        progress(count)
    await forget_all(tx)
    await tx.execute(sa.update(follower).where(mine).values(next=count))
    return count


async def _item(views: Views, row: sa.RowMapping) -> Item | None:
    doubted = row["code"] in DOUBTED
    try:
        leaf = await views.entry(row["index"], row["leaf"], row["leaf_hash"])
    except (ValueError, Damage):
        # One bad leaf (`/v1/log/verify` names it) must not keep the views of all others away.
        log.exception("an entry cannot be folded", index=row["index"])
        return None
    reading = read(leaf.topic, leaf.key, leaf.headers, leaf.value)
    # What verified once stays verified: keys come and go. What did not may, with the keys of today.
    reading = await views.check(reading, doubted=True) if doubted else reading
    return Item(row["index"], leaf, reading, doubted)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="change nothing; ends with 1 where a view was edited")
    parser.add_argument("--json", action="store_true", help="the result as JSON on standard output")


async def _command(settings: AuditSettings, given: argparse.Namespace) -> int:
    db = Database(settings.database_url.get_secret_value(), name="audit-rebuild", pool=2, statement_timeout_ms=HOUR_MS)
    told = time.monotonic()

    def progress(count: int) -> None:
        nonlocal told
        if time.monotonic() - told > 1:
            told = time.monotonic()
            sys.stderr.write(f"{count} entries folded\n")

    try:
        views = views_of(settings, archive_of(settings))
        found = await compared(db, views, progress, keep=not given.check)
    finally:
        await db.close()
    code = int(given.check and bool(found.differing))
    if given.json:
        sys.stdout.write(json.dumps(asdict(found)) + "\n")
        return code
    done = "differ" if given.check else "differed and were replaced"
    verdict = f"{done}: {', '.join(found.differing)}" if found.differing else "every view is what the log says"
    told_rows = "".join(f"  {row}\n" for row in found.rows)
    sys.stdout.write(f"{found.entries} entries folded in {found.seconds} s; {verdict}\n{told_rows}")
    return code


COMMAND = Command("rebuild", "fold every view anew from the log, and compare", _arguments, _command)
