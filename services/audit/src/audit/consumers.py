"""Kafka in: every record of every topic, good or bad, goes into the log before anything else is said about it."""

from collections.abc import Sequence

from audit.domain import LOGGED
from audit.ledger import Ledger
from kit.bus import Bus, Record
from kit.errors import Permanent, Transient, is_transient

BATCH = 1_000


class Ingest:
    """Appends records. What is wrong with one is found when it is read, afterwards."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def __call__(self, record: Record) -> None:
        await self.many([record])

    async def many(self, records: Sequence[Record]) -> None:
        try:
            await self._ledger.append(records)
        except Exception as error:
            if is_transient(error):
                raise
            # The log must not miss a record: rather stop at it, loudly, than park it unlogged.
            raise Transient(f"cannot append: {error!r}") from error

    async def taken(self, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        """How far the log itself has come: the group may be ahead, of a database from a backup say."""
        return await self._ledger.taken(topic, partitions)

    async def parked(self, record: Record, error: Permanent) -> None:
        """Of a record that Kafka's client cannot decode the log knows the place only: its offset is no hole."""
        await self.many([record])


def subscribe(bus: Bus, ledger: Ledger) -> None:
    for topic in LOGGED:
        bus.subscribe_batch(topic, Ingest(ledger), BATCH)
