"""`python -m audit.rebuild`: drops the views and folds the whole log again."""

import asyncio
import sys

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import search
from audit.app import archive_of
from audit.domain import NOT_VERIFIED, read
from audit.forgetting import forget_all
from audit.settings import AuditSettings
from audit.tables import VIEWS, finding, follower, logged, mechanism
from audit.tlog.archive import Damage
from audit.views import FOLLOWER, PAGE, STAGES, Item, Views, views_of
from kit.db import Database

log = structlog.get_logger()


async def rebuild(tx: AsyncConnection, views: Views, *, size: int | None = None) -> int:
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
    await forget_all(tx)
    await tx.execute(sa.update(follower).where(mine).values(next=count))
    return count


async def _item(views: Views, row: sa.RowMapping) -> Item | None:
    doubted = row["code"] == NOT_VERIFIED
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


async def main() -> None:
    settings = AuditSettings()
    db = Database(settings.database_url.get_secret_value(), name="audit-rebuild", pool=1)
    try:
        async with db.transaction() as tx:
            count = await rebuild(tx, views_of(settings, archive_of(settings)))
    finally:
        await db.close()
    sys.stdout.write(f"audit: views rebuilt from {count} entries\n")


if __name__ == "__main__":
    asyncio.run(main())
