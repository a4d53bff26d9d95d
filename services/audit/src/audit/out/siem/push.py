"""Sends the feed to an HTTP receiver: at least once, in order, for as long as it takes.

How far it has come is a row of `follower`, so that a restart goes on where the receiver said yes.
"""

import asyncio
import random
from dataclasses import dataclass

import httpx2
import sqlalchemy as sa
import structlog
from prometheus_client import Counter
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.domain import clean
from audit.out.siem.feed import FORMATS, LAG, Feed, Page
from audit.projector import position
from audit.tables import follower
from audit.tlog.publisher import ACTOR, Publisher
from contracts.audit import RecordSkipped
from kit.db import Database
from kit.errors import is_transient
from kit.events import Cause, EventLog, New

log = structlog.get_logger()
REFUSED = Counter("hallmark_audit_siem_refused", "Pages that the receiver did not take", ["sink"])
SKIPPED = Counter(
    "hallmark_audit_siem_skipped", "Records that the receiver refused alone, and that were set aside", ["sink"]
)
MAX_PAUSE = 60.0
# Between two tries of a record that is refused alone the pause doubles no more than so often.
DOUBLINGS = 2
TOO_LARGE = 413
ROUNDS, ROUNDS_OF_5XX = 3, 12
PREFIX = "siem:"
NEVER_OF_THE_RECORD = frozenset({401, 402, 403, 404, 405, 407, 408, 425, 429, 502, 503, 504})


@dataclass(frozen=True)
class Sink:
    """A receiver. `name` is its own for ever: the cursor hangs on it. `headers`: a token, for instance."""

    name: str
    url: str
    form: str = "ocsf"
    headers: tuple[tuple[str, str], ...] = ()
    limit: int = 500
    timeout: float = 30.0


class Refused(Exception):
    """The receiver answered with something else than 2xx."""

    def __init__(self, status: int, text: str, *, of: int) -> None:
        """`of`: how many records it was about."""
        super().__init__(f"{status}: {text}")
        self.status, self.text, self.of = status, text, of

    @property
    def may_be_of_the_record(self) -> bool:
        """Whether the receiver may have meant what was sent. It does not when it is away, busy, or does not know us."""
        return self.status >= 400 and self.status not in NEVER_OF_THE_RECORD

    @property
    def rounds(self) -> int:
        """How often in a row it must come to this: a 5xx may be a receiver that fails now and then."""
        return ROUNDS if self.status < 500 else ROUNDS_OF_5XX


class Pusher:
    """Of a page that is refused comes one half, then half of what is left, and so on to the record itself.

    One record that is refused every time, while the receiver takes another behind it every time, is set aside, which is
    an event: it must not keep the rest back for ever. The log still has it. A receiver that fails half of the time
    looks like that once in 4**ROUNDS_OF_5XX."""

    def __init__(
        self,
        db: Database,
        feed: Feed,
        publisher: Publisher,
        sink: Sink,
        events: EventLog,
        *,
        every_seconds: float = 1.0,
        max_pause: float = MAX_PAUSE,
    ) -> None:
        self._db, self._feed, self._publisher, self._sink, self._events = db, feed, publisher, sink, events
        self._every, self._max_pause = every_seconds, max_pause
        self._limit = sink.limit
        self._suspect = 0  # one of the records below this index was refused, it seems
        self.follower = follower_of(sink.name)

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        async with httpx2.AsyncClient(timeout=self._sink.timeout, follow_redirects=False) as client:
            while True:
                try:
                    sent = await self.step(client)
                    failures = 0
                except Exception as error:
                    if not (isinstance(error, (Refused, httpx2.HTTPError)) or is_transient(error)):
                        raise
                    REFUSED.labels(self._sink.name).inc()
                    log.warning("the receiver did not take a page", sink=self._sink.name, error=repr(error)[:300])
                    if isinstance(error, Refused) and error.of > 1 and error.may_be_of_the_record:
                        continue  # half of it, at once
                    failures += 1
                    await self._pause(failures)
                    continue
                if not sent:
                    await asyncio.sleep(self._every)

    async def step(self, client: httpx2.AsyncClient) -> int:
        """Sends the next page. Returns how many records it had.

        Raises:
            Refused, httpx2.HTTPError: the receiver has not taken it; the cursor stays.
        """
        async with self._db.transaction() as tx:
            await tx.execute(insert(follower).values(name=self.follower, next=0).on_conflict_do_nothing())
            following = await position(tx, self.follower)
        published = await self._publisher.newest()
        size = published.checkpoint.size if published else 0
        left = self._suspect - following
        page = await self._page(following - 1, size, max(1, left // 2) if left > 0 else self._limit)
        if page.records:
            try:
                await self._send(client, page)
            except Refused as refused:
                if refused.may_be_of_the_record:
                    self._limit = max(1, refused.of // 2)
                    self._suspect = 0 if refused.status == TOO_LARGE else page.after + 1
                if not (refused.of == 1 and refused.may_be_of_the_record):
                    raise
                if not await self._is_refused_alone(client, page, size, refused):
                    raise
                await self._set_aside(following, page, refused)
                return 1
            self._limit = min(self._sink.limit, self._limit * 2)
            async with self._db.transaction() as tx:
                await self._move(tx, following, page.after + 1)
        LAG.labels(self._sink.name).set(page.lag)
        return len(page.records)

    async def _page(self, after: int, size: int, limit: int) -> Page:
        return await self._feed.page(after, size, form=self._sink.form, limit=limit)

    async def _send(self, client: httpx2.AsyncClient, page: Page) -> None:
        headers = {**dict(self._sink.headers), "Content-Type": FORMATS[self._sink.form][1]}
        body = await asyncio.to_thread(page.body)
        response = await client.post(self._sink.url, content=body, headers=headers)
        if not response.is_success:
            raise Refused(response.status_code, response.text[:200], of=len(page.records))

    async def _is_refused_alone(self, client: httpx2.AsyncClient, page: Page, size: int, refused: Refused) -> bool:
        """Whether the receiver refuses it again and again, and takes another each time: it is not that it is away."""
        other = await self._one_that_is_taken(client, page.after, size)
        if other is None:
            return False
        turn = 0
        while turn < refused.rounds:
            await self._pause(min(turn, DOUBLINGS))
            turn += 1
            again = await self._refusal(client, page)
            if again is None or not again.may_be_of_the_record or await self._refusal(client, other) is not None:
                return False
            refused = max(refused, again, key=lambda one: one.rounds)
        return True

    async def _one_that_is_taken(self, client: httpx2.AsyncClient, after: int, size: int) -> Page | None:
        """A record behind that one which the receiver takes, looked for in doubling steps up to the last. It will get
        it again in its turn."""
        last = size - 2 - after
        for step in sorted({min(2**k - 1, last) for k in range(last.bit_length() + 1)}) if last >= 0 else ():
            page = await self._page(after + step, size, 1)
            if not page.records:
                break
            if await self._refusal(client, page) is None:
                return page
        return None

    async def _refusal(self, client: httpx2.AsyncClient, page: Page) -> Refused | None:
        try:
            await self._send(client, page)
        except Refused as refused:
            return refused
        return None

    async def _pause(self, turn: int) -> None:
        pause = min(self._max_pause, self._every * 2 ** min(turn, 16))
        await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 no secret

    async def _set_aside(self, following: int, page: Page, refused: Refused) -> None:
        """Goes on behind the record, with an event of it. An event of this kind that is refused itself has none."""
        stream = self.follower
        detail = clean(refused.text) or "nothing"
        message = RecordSkipped(sink=self._sink.name, index=following, status=refused.status, detail=detail)
        async with self._db.transaction() as tx:
            if await self._move(tx, following, page.after + 1) and page.types != [RecordSkipped.TYPE]:
                last = await self._events.lock(tx, stream)
                await self._events.append(tx, stream, last, [New(message, subject=stream)], Cause(actor=ACTOR))
        SKIPPED.labels(self._sink.name).inc()
        log.error("the receiver refuses a record, which is set aside", sink=self._sink.name, index=following)

    async def _move(self, tx: AsyncConnection, following: int, to: int) -> bool:
        """False: another replica has moved the cursor."""
        mine = (follower.c.name == self.follower) & (follower.c.next == following)
        moved = await tx.execute(sa.update(follower).where(mine).values(next=to).returning(follower.c.next))
        return moved.first() is not None


def follower_of(sink: str) -> str:
    """The name of a sink's cursor among the followers."""
    return f"{PREFIX}{sink}"
