"""The audit of the audit: whoever reads leaves a record before the answer is given, also when it was denied.

Records of one moment share a transaction: while one is being written, the next wait and are written together. So a
read waits for two commits at the most, and the lock of the stream is taken once for all of them.
"""

import asyncio
import math
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import parse_qsl, urlencode

import structlog
from fastapi import Request

from audit.tlog.publisher import ACTOR
from contracts.access import Action
from contracts.audit import AccessRecorded
from contracts.people import is_pseudonym
from kit.auth import Principal
from kit.db import Database
from kit.errors import Transient, is_transient
from kit.events import Cause, EventLog, New
from kit.problems import Problem
from kit.web import Guard

log = structlog.get_logger()
ALL = "*"
TILES, FEED = "GET /tile/...", "GET /v1/siem"
MORE = " (more of them within a minute are told together)"
SPARSE_SECONDS = 60.0
MAX_QUERY = 8_000
# Parts of a query: what is none of people, where people are named, and texts that are told when they look like an id.
PLAIN = frozenset(
    (
        *(
            "act",
            "after",
            "at",
            "copies",
            "end",
            "finding",
            "format",
            "from",
            "index",
            "known_at",
            "known_size",
            "limit",
        ),
        *("model", "outcome", "pin", "problem", "proofs", "signed", "since", "stage", "start", "target", "to", "type"),
        *("until", "version", "violations", "workspace"),
    )
)
PERSONAL, TEXTS = frozenset({"actor", "owner", "person", "q"}), frozenset({"subject", "correlationid", "request"})
AN_ID = re.compile(r"[0-9a-fA-F-]{32,36}|([a-z]+:)?p_[a-z2-7]{26}|[^/@:\s]+/[^@:\s]+")
MOST_NAMES = 20
WITHHELD = "(withheld)"
BATCH = 200
CLOSE_SECONDS = 5.0
Span = tuple[int, int]


@dataclass
class _Window:
    """What somebody read of a kind since the record that opened it: `reads` of the entries from `first` up to but
    without `until`."""

    principal: Principal
    closes: float
    reads: int = 0
    first: int = 0
    until: int = 0

    def add(self, span: Span) -> None:
        first, until = span
        if first < until:
            self.first, self.until = (
                (min(first, self.first), max(until, self.until)) if self.first < self.until else span
            )
        self.reads += 1

    def told(self, kind: str) -> str:
        of = f" of entries {self.first} to {self.until - 1}" if self.first < self.until else ""
        return f"{kind}: {self.reads} more reads{of} within a minute"


@dataclass(eq=False)
class _Waiting:
    message: AccessRecorded
    done: asyncio.Future[None]


class AccessLog:
    """Admits readers, and records each reading before it happens."""

    def __init__(self, db: Database, events: EventLog, guard: Guard, origin: str) -> None:
        self._db, self._events, self._guard = db, events, guard
        self._stream = f"access:{origin}"
        self._windows: dict[tuple[str, str], _Window] = {}
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
        words = text.split()
        known = await self._guard.people.known_of(words)
        return " ".join(known.get(word, word) for word in words) or text

    async def told(self, request: Request) -> str:
        """What is recorded of a question. Where people have pseudonyms, no name is: it would come back into the log
        with whoever asks for somebody who was erased. Nor is what no route reads."""
        query = request.url.query
        if self._guard.people is not None and query:
            parts = parse_qsl(query, keep_blank_values=True)
            names = dict.fromkeys(value for name, value in parts if name in PERSONAL)
            known = await self._guard.people.known_of(list(names)[:MOST_NAMES])
            query = urlencode([_nameless(name, known.get(value, value)) for name, value in parts], safe="*:()/")
        return f"{request.method} {request.url.path}" + (f"?{query}" if query else "")

    def withheld(self, parts: Iterable[tuple[str, str]]) -> list[str]:
        """The names of the parts of a query that may be names of people, where those have pseudonyms."""
        if self._guard.people is None:
            return []
        return [name for name, value in parts if _nameless(name, value)[1] == WITHHELD]

    async def admit(
        self, principal: Principal, query: str, action: Action = Action.AUDIT, workspace: str = ALL, model: str = ALL
    ) -> None:
        """Lets somebody read who may do the action there. `query`: what they ask, whole.

        Raises:
            Problem: 403, they may not; 414, the record could not say what they ask. Both were recorded.
        """
        try:
            self._guard.require(principal, action, workspace, model)
            if len(query) > MAX_QUERY:
                raise Problem(414, "query-too-long", f"a query has at most {MAX_QUERY} characters")
        except Problem:
            await self.record(principal, query, "denied")
            raise
        await self.record(principal, query, "allowed")

    async def admit_sparsely(self, principal: Principal, kind: str, query: str, span: Span) -> None:
        """As `admit`, but of reads of one kind by the same principal there are two records a minute, not one each: the
        records are entries themselves. The first says what is read, the second what else was read since.

        `span`: the entries that are asked for, from and up to but without. Raises Problem as `admit`.
        """
        now, key = time.monotonic(), (principal.subject, kind)
        window = self._windows.get(key)
        if window is None or now >= window.closes:
            await self.close(until=now)
            await self.admit(principal, query + MORE)
            self._windows[key] = _Window(principal, now + SPARSE_SECONDS)
            return
        try:
            self._guard.require(principal, Action.AUDIT, ALL)
        except Problem:
            await self.record(principal, query, "denied")
            raise
        window.add(span)

    async def close(self, *, until: float = math.inf) -> None:
        """Tells what was read in the minutes that are over by then."""
        for key in [key for key, window in self._windows.items() if window.closes <= until]:
            window = self._windows.pop(key, None)
            if window is None or not window.reads:
                continue
            try:
                await self.record(window.principal, window.told(key[1]), "allowed")
            except BaseException:
                self._windows.setdefault(key, window)
                raise

    async def run(self) -> None:
        """Closes what is over, until cancelled; then the rest."""
        try:
            while True:
                await asyncio.sleep(CLOSE_SECONDS)
                await self._try_to_close(time.monotonic())
        finally:
            await self._try_to_close(math.inf)

    async def _try_to_close(self, until: float) -> None:
        try:
            await self.close(until=until)
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("what was read within a minute is not recorded yet", error=repr(error))

    async def record(self, principal: Principal, query: str, outcome: str) -> None:
        """Returns when the record is durable; raises what kept it from being written."""
        message = AccessRecorded(principal=principal.subject, query=_whole(query), outcome=outcome)
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


def _nameless(name: str, value: str) -> tuple[str, str]:
    if name in PLAIN or (name in PERSONAL and is_pseudonym(value)) or (name in TEXTS and AN_ID.fullmatch(value)):
        return name, value
    return name if name in PERSONAL | TEXTS else WITHHELD, WITHHELD


def _whole(query: str) -> str:
    """The query; of one that is too long the beginning, its length and the SHA-256 of all of it."""
    if len(query) <= MAX_QUERY + len(MORE):
        return query
    return f"{query[:MAX_QUERY]}... ({len(query)} characters, sha256 {sha256(query.encode()).hexdigest()})"


def _settle(batch: list[_Waiting], error: Exception | None) -> None:
    for each in batch:
        if each.done.done():  # settled, or its reader has gone
            continue
        if error is None:
            each.done.set_result(None)
        else:
            each.done.set_exception(error)
