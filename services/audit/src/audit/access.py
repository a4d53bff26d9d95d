"""The audit of the audit: whoever reads the log leaves a record, also when the reading was denied."""

from audit.checkpoints import ACTOR
from contracts.access import Action
from contracts.audit import AccessRecorded
from kit.auth import Principal
from kit.db import Database
from kit.events import Cause, EventLog, New
from kit.problems import Problem
from kit.web import Guard

ALL = "*"


class AccessLog:
    """Admits auditors of the whole log, and records each reading before it happens."""

    def __init__(self, db: Database, events: EventLog, guard: Guard, origin: str) -> None:
        self._db, self._events, self._guard = db, events, guard
        self._stream = f"access:{origin}"

    async def admit(self, principal: Principal, query: str) -> None:
        """Raises Problem 403."""
        try:
            self._guard.require(principal, Action.AUDIT, ALL)
        except Problem:
            await self._record(principal, query, "denied")
            raise
        await self._record(principal, query, "allowed")

    async def _record(self, principal: Principal, query: str, outcome: str) -> None:
        message = AccessRecorded(principal=principal.subject, query=query[:2_000], outcome=outcome)
        async with self._db.transaction() as tx:
            last = await self._events.lock(tx, self._stream)
            new = New(message, subject=self._stream)
            await self._events.append(tx, self._stream, last, [new], Cause(actor=principal.subject or ACTOR))
