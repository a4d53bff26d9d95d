"""The audit of the audit: whoever reads leaves a record before the answer is given, also when it was denied.

Records of one moment share a transaction: while one is being written, the next wait and are written together. So a
read waits for two commits at the most, and the lock of the stream is taken once for all of them.
"""

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from fastapi import Request

from audit.tlog.publisher import ACTOR
from contracts.access import Action
from contracts.audit import AccessRecorded
from contracts.people import is_pseudonym
from kit.auth import Principal
from kit.db import Database
from kit.errors import Transient
from kit.events import Cause, EventLog, New
from kit.problems import Problem
from kit.web import Guard

ALL = "*"
TILES = "GET /tile/... (and more of them within a minute)"
FEED = "GET /v1/siem (and again within a minute)"
SPARSE_SECONDS = 60.0
MAX_QUERY = 2_000
PERSONAL = frozenset({"actor", "person", "q", "subject"})  # parts of a query in which people are named
WITHHELD = "(withheld)"
BATCH = 200


@dataclass(eq=False)
class _Waiting:
    message: AccessRecorded
    done: asyncio.Future[None]


class AccessLog:
    """Admits readers, and records each reading before it happens."""

    def __init__(self, db: Database, events: EventLog, guard: Guard, origin: str) -> None:
        self._db, self._events, self._guard = db, events, guard
        self._stream = f"access:{origin}"
        self._until: dict[tuple[str, str], float] = {}
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def meant(self, name: str | None) -> str | None:
        """Whom somebody means who asks for a name: where people have pseudonyms, theirs."""
        people = self._guard.people
        return name if name is None or people is None else await people.known(name) or name

    async def words(self, text: str) -> str:
        """As `meant`, for each word of a text."""
        if self._guard.people is None:
            return text
        return " ".join([await self.meant(word) or word for word in text.split()]) or text

    async def told(self, request: Request) -> str:
        """What is recorded of a question. Where people have pseudonyms, no name is: it would come back into the log
        with whoever asks for somebody who was erased."""
        query = request.url.query
        if self._guard.people is not None and query:
            parts = [await self._nameless(*part) for part in parse_qsl(query, keep_blank_values=True)]
            query = urlencode(parts, safe="*:()")
        return f"{request.method} {request.url.path}" + (f"?{query}" if query else "")

    async def _nameless(self, name: str, value: str) -> tuple[str, str]:
        if name not in PERSONAL:
            return name, value
        meant = await self.meant(value)
        return name, meant if meant and is_pseudonym(meant) else WITHHELD

    async def admit(
        self, principal: Principal, query: str, action: Action = Action.AUDIT, workspace: str = ALL, model: str = ALL
    ) -> None:
        """Lets somebody read who may do the action there.

        Raises:
            Problem: 403, they may not. That was recorded too.
        """
        try:
            self._guard.require(principal, action, workspace, model)
        except Problem:
            await self.record(principal, query, "denied")
            raise
        await self.record(principal, query, "allowed")

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

    async def record(self, principal: Principal, query: str, outcome: str) -> None:
        """Returns when the record is durable; raises what kept it from being written."""
        message = AccessRecorded(principal=principal.subject, query=query[:MAX_QUERY], outcome=outcome)
        mine = _Waiting(message, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        if self._writing is None:
            # A task of its own: a reader who goes away must not take the records of others along.
            self._writing = asyncio.create_task(self._write())
        await mine.done

    async def _write(self) -> None:
        batch: list[_Waiting] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                try:
                    await self._append([each.message for each in batch])
                except Exception as error:
                    _settle(batch, error)
                else:
                    _settle(batch, None)
        finally:
            self._writing = None
            _settle([*batch, *self._waiting], Transient("the service stops"))

    async def _append(self, messages: list[AccessRecorded]) -> None:
        news = [New(message, subject=self._stream, actor=message.principal) for message in messages]
        async with self._db.transaction() as tx:
            last = await self._events.lock(tx, self._stream)
            await self._events.append(tx, self._stream, last, news, Cause(actor=ACTOR))


def _settle(batch: list[_Waiting], error: Exception | None) -> None:
    for each in batch:
        if each.done.done():  # settled, or its reader has gone
            continue
        if error is None:
            each.done.set_result(None)
        else:
            each.done.set_exception(error)
