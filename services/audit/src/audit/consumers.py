"""Kafka in: every record of every topic, good or bad, goes into the log before anything else is said about it."""

from audit.domain import LOGGED
from audit.ledger import Ledger
from kit.bus import Bus, Record
from kit.errors import Permanent, Transient, is_transient


class Ingest:
    """Appends a record; one that is no good event is parked on the dead-letter topic as well, afterwards."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def __call__(self, record: Record) -> None:
        try:
            (outcome,) = await self._ledger.append([record])
        except Exception as error:
            if is_transient(error):
                raise
            # The log must not miss a record: rather stop at it, loudly, than park it unlogged.
            raise Transient(f"cannot append: {error!r}") from error
        if outcome.flaw is not None:
            raise Permanent(outcome.flaw.code, outcome.flaw.detail)

    async def parked(self, record: Record, error: Permanent) -> None:
        """Nothing is left to do: the record is in the log."""


def subscribe(bus: Bus, ledger: Ledger) -> None:
    """Not the audit topic: the log would feed itself."""
    for topic in LOGGED:
        bus.subscribe(topic, Ingest(ledger))
