"""Sends the feed to an HTTP receiver: at least once, in order, for as long as it takes. Nothing is ever dropped.

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

from audit.out.siem.feed import FORMATS, LAG, Feed
from audit.projector import position
from audit.tables import follower
from audit.tlog.publisher import Publisher
from kit.db import Database
from kit.errors import is_transient

log = structlog.get_logger()
REFUSED = Counter("hallmark_audit_siem_refused", "Pages that the receiver did not take", ["sink"])
MAX_PAUSE = 60.0


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


class Pusher:
    def __init__(
        self,
        db: Database,
        feed: Feed,
        publisher: Publisher,
        sink: Sink,
        *,
        every_seconds: float = 1.0,
        max_pause: float = MAX_PAUSE,
    ) -> None:
        self._db, self._feed, self._publisher, self._sink = db, feed, publisher, sink
        self._every, self._max_pause = every_seconds, max_pause
        self.follower = f"siem:{sink.name}"

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
                    failures += 1
                    REFUSED.labels(self._sink.name).inc()
                    log.warning("the receiver did not take a page", sink=self._sink.name, error=repr(error)[:300])
                    pause = min(self._max_pause, self._every * 2 ** min(failures, 16))
                    await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 no secret
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
        page = await self._feed.page(following - 1, size, form=self._sink.form, limit=self._sink.limit)
        if page.records:
            headers = {**dict(self._sink.headers), "Content-Type": FORMATS[self._sink.form][1]}
            body = await asyncio.to_thread(page.body)
            response = await client.post(self._sink.url, content=body, headers=headers)
            if not response.is_success:
                raise Refused(f"{response.status_code}: {response.text[:200]}")
            async with self._db.transaction() as tx:
                mine = (follower.c.name == self.follower) & (follower.c.next == following)
                await tx.execute(sa.update(follower).where(mine).values(next=page.after + 1))
        LAG.labels(self._sink.name).set(page.lag)
        return len(page.records)
