"""The audit of the audit: whoever reads the log leaves a record, also when the reading was denied."""

import time

from audit.tlog.publisher import ACTOR
from contracts.access import Action
from contracts.audit import AccessRecorded
from kit.auth import Principal
from kit.db import Database
from kit.events import Cause, EventLog, New
from kit.problems import Problem
from kit.web import Guard

ALL = "*"
TILES = "GET /tile/... (and more of them within a minute)"
FEED = "GET /v1/siem (and again within a minute)"
SPARSE_SECONDS = 60.0


class AccessLog:
    """Admits auditors of the whole log, and records each reading before it happens."""

    def __init__(self, db: Database, events: EventLog, guard: Guard, origin: str) -> None:
        self._db, self._events, self._guard = db, events, guard
        self._stream = f"access:{origin}"
        self._until: dict[tuple[str, str], float] = {}

    async def admit(
        self, principal: Principal, query: str, action: Action = Action.AUDIT, workspace: str = ALL, model: str = ALL
    ) -> None:
        """Raises Problem 403."""
        try:
            self._guard.require(principal, action, workspace, model)
        except Problem:
            await self._record(principal, query, "denied")
            raise
        await self._record(principal, query, "allowed")

    async def admit_to_tiles(self, principal: Principal) -> None:
        """As `admit_sparsely`: whoever fetches the log tile by tile. Raises Problem 403."""
        await self.admit_sparsely(principal, TILES)

    async def admit_sparsely(self, principal: Principal, query: str) -> None:
        """As `admit`, but of the same query by the same principal there is one record a minute, not one each: the
        records are entries themselves. Raises Problem 403."""
        now, key = time.monotonic(), (principal.subject, query)
        if now < self._until.get(key, 0):
            self._guard.require(principal, Action.AUDIT, ALL)
            return
        await self.admit(principal, query)
        self._until = {who: until for who, until in self._until.items() if until > now}
        self._until[key] = now + SPARSE_SECONDS

    async def _record(self, principal: Principal, query: str, outcome: str) -> None:
        message = AccessRecorded(principal=principal.subject, query=query[:2_000], outcome=outcome)
        async with self._db.transaction() as tx:
            last = await self._events.lock(tx, self._stream)
            new = New(message, subject=self._stream)
            await self._events.append(tx, self._stream, last, [new], Cause(actor=principal.subject or ACTOR))
