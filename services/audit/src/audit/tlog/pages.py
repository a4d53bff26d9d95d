"""Entries for people and programs, a page at a time."""

from base64 import b64encode
from typing import Any

import sqlalchemy as sa

from audit.tables import entry, finding, timeline
from kit.db import Database


async def entry_page(db: Database, start: int, limit: int) -> dict[str, Any]:
    """Entries from index `start`, with their exact bytes."""
    index = entry.c.index
    query = (
        sa.select(entry, timeline.c.event_id, timeline.c.type, finding.c.code, finding.c.detail)
        .join_from(entry, timeline, timeline.c.index == index, isouter=True)
        .outerjoin(finding, finding.c.index == index)
        .where(index >= start)
        .order_by(index)
        .limit(limit + 1)
    )
    async with db.transaction() as tx:
        rows = (await tx.execute(query)).mappings().all()
    items = [
        {
            "index": row["index"],
            "recorded_at": row["recorded_at"],
            "topic": row["topic"],
            "partition": row["partition"],
            "offset": row["kafka_offset"],
            "event_id": row["event_id"],
            "type": row["type"],
            "problem": f"{row['code']}: {row['detail']}" if row["code"] else None,
            "leaf": b64encode(row["leaf"]).decode(),
            "leaf_hash": row["leaf_hash"].hex(),
        }
        for row in rows[:limit]
    ]
    return {"items": items, "next": str(rows[limit]["index"]) if len(rows) > limit else None}
