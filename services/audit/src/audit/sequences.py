"""Does every stream have each `sequence` from 1 on? A row without its predecessor says no.

Rows are looked at once, in the order of the log. If each of a stream has its predecessor, all of them down to 1 are
there; a stream with one that has none is counted until it is whole.
"""

from typing import Any

import sqlalchemy as sa

from audit.tables import follower
from audit.views import FOLLOWER as VIEWS
from kit.db import Database

PAGE = 50_000
MOST = 10_000  # broken streams: the walk waits until some are whole
TOLD = 100
ORPHANS = sa.text("""
select distinct topic, stream from audit.timeline t
where "index" >= :start and "index" < :stop and stream is not null and sequence is not null and sequence <> 1
and not exists (
  select from audit.timeline p where p.topic = t.topic and p.stream = t.stream and p.sequence = t.sequence - 1)
""")
COUNTED = sa.text("""
select topic, stream, min(sequence) as lowest, max(sequence) as highest, count(distinct sequence) as found
from audit.timeline join unnest(cast(:topics as text[]), cast(:streams as text[])) as w (topic, stream)
using (topic, stream) where sequence is not null group by topic, stream
having count(distinct sequence) <> max(sequence) or min(sequence) <> 1 order by 1, 2
""")


class Sequences:
    def __init__(self, db: Database) -> None:
        self._db = db
        self.forget()

    def forget(self) -> None:
        """Next time everything is looked at."""
        self._walked = 0
        self._broken: set[tuple[str, str]] = set()

    async def holes(self) -> list[dict[str, Any]]:
        """Streams with missing sequences: what they have. Of very many, the first."""
        async with self._db.transaction() as tx:
            size = int(await tx.scalar(sa.select(follower.c.next).where(follower.c.name == VIEWS)) or 0)
        while self._walked < size and len(self._broken) < MOST:
            stop = min(self._walked + PAGE, size)
            async with self._db.transaction() as tx:
                rows = (await tx.execute(ORPHANS, {"start": self._walked, "stop": stop})).all()
            self._broken |= {(row.topic, row.stream) for row in rows}
            self._walked = stop
        if not self._broken:
            return []
        given = sorted(self._broken)
        async with self._db.transaction() as tx:
            asked = {"topics": [topic for topic, _ in given], "streams": [stream for _, stream in given]}
            found = [dict(row) for row in (await tx.execute(COUNTED, asked)).mappings()]
        self._broken = {(row["topic"], row["stream"]) for row in found}
        return found
