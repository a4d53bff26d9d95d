"""Bad records go to the dead-letter topic as well, after they are in the log and were read."""

import sqlalchemy as sa

from audit.domain import LEAF_LOST, LOGGED, VIEW_FAILED
from audit.leaf import Leaf
from audit.projector import move, position
from audit.tables import finding, logged
from audit.views import FOLLOWER as VIEWS
from audit.views import Views
from kit.bus import Bus, Record
from kit.db import Database, Signal
from kit.errors import Permanent
from kit.tasks import repeat

PARKED = "parked"
OWN_FAULTS = (VIEW_FAILED, LEAF_LOST)  # nothing is wrong with the record
PAGE = 100
POLL_SECONDS = 1.0
_TOPICS = {topic.name: topic for topic in LOGGED}


class DeadLetters:
    """Parks what has a finding, at least once, in the log's order."""

    def __init__(self, db: Database, bus: Bus, views: Views, projected: Signal) -> None:
        self._db, self._bus, self._views, self._projected = db, bus, views, projected

    async def run(self) -> None:
        """Until cancelled."""
        await repeat(self.step, lambda: self._projected.wait(POLL_SECONDS), "dead letters")

    async def step(self) -> int:
        """Parks a page of them. Gives how many."""
        async with self._db.transaction() as tx:
            start, until = await position(tx, PARKED), await position(tx, VIEWS)
            found = (
                sa.select(finding, logged.c.leaf, logged.c.leaf_hash)
                .join(logged, logged.c.index == finding.c.index)
                .where(finding.c.index >= start, finding.c.index < until, finding.c.code.not_in(OWN_FAULTS))
            )
            rows = (await tx.execute(found.order_by(finding.c.index).limit(PAGE))).mappings().all()
        for row in rows:
            record = _record(await self._views.entry(row["index"], row["leaf"], row["leaf_hash"]))
            if record != _undecodable(record):
                await self._bus.park(_TOPICS[record.topic], record, Permanent(row["code"], row["detail"]), 1)
        after = rows[-1]["index"] + 1 if len(rows) == PAGE else until
        async with self._db.transaction() as tx:
            # Another replica may have parked the same: at least once is what is promised.
            if after > start and await position(tx, PARKED, lock=True) == start:
                await move(tx, PARKED, after)
        return len(rows)


def _record(leaf: Leaf) -> Record:
    return Record(leaf.topic, leaf.partition, leaf.offset, leaf.timestamp, leaf.key, leaf.headers, leaf.value)


def _undecodable(record: Record) -> Record:
    """What the log has of a record that Kafka's client cannot decode. The bus has parked it itself."""
    return Record(record.topic, record.partition, record.offset, 0, None, (), None)
