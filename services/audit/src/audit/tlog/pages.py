"""Entries for people and programs, a page at a time."""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from audit.tables import finding
from audit.tlog.proofs import Proofs
from audit.view_tables import timeline
from kit.db import Database

NOTHING: Mapping[Any, Any] = {"event_id": None, "type": None}


async def entry_page(db: Database, proofs: Proofs, start: int, limit: int) -> dict[str, Any]:
    """Entries from index `start`, with their exact bytes."""
    pages = proofs.pages(start, start + limit + 1, limit + 1)
    rows = [row async for page in pages for row in page]
    until = start + limit
    told = sa.select(timeline.c.index, timeline.c.event_id, timeline.c.type)
    flaws = sa.select(finding).where(finding.c.index.between(start, until))
    async with db.transaction() as tx:
        found = await tx.execute(told.where(timeline.c.index.between(start, until)))
        events = {row["index"]: row for row in found.mappings()}
        problems = {row["index"]: f"{row['code']}: {row['detail']}" for row in (await tx.execute(flaws)).mappings()}
    items = [
        {
            "index": row["index"],
            "recorded_at": row["recorded_at"],
            "topic": row["topic"],
            "partition": row["partition"],
            "offset": row["kafka_offset"],
            "event_id": events.get(row["index"], NOTHING)["event_id"],
            "type": events.get(row["index"], NOTHING)["type"],
            "problem": problems.get(row["index"]),
            "leaf": b64encode(row["leaf"]).decode(),
            "leaf_hash": row["leaf_hash"].hex(),
        }
        for row in rows[:limit]
    ]
    return {"items": items, "next": str(rows[limit]["index"]) if len(rows) > limit else None}
