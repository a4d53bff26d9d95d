"""A dry run: what a filter would have matched of the events that came lately."""

import asyncio
from collections.abc import Callable

from kit.db import Database
from notifier import views
from notifier.domain import Subscription
from notifier.matching import Seen
from notifier.views import Document
from notifier.wording import notice
from policy.expressions import ExpressionError

PAGE = 50
# Of events that the caller may not read, at most so many are passed over for each that they may.
PASSES = 10
LISTED = 10


async def preview(db: Database, asked: Subscription, readable: Callable[[Seen], bool], last: int) -> Document:
    """Of the `last` events of its workspace that the caller may read: how many it wants, and the newest of them."""
    looked = matched = failed = 0
    error, since, listed, before = None, None, list[Document](), None
    for _ in range(0, last * PASSES, PAGE):
        async with db.snapshot() as tx:
            page = await views.past_events(tx, asked.workspace, before=before, limit=PAGE)
        for position, envelope in page:
            event, before = Seen(envelope), position
            if looked == last or not readable(event):
                continue
            looked, since = looked + 1, envelope.time.isoformat()
            try:
                wanted = asked.wants(event)
            except ExpressionError as problem:
                failed, error = failed + 1, error or f"{envelope.type}: {problem}"
                continue
            matched += wanted
            if wanted and len(listed) < LISTED:
                listed.append(_line(event))
        if len(page) < PAGE or looked == last:
            break
        await asyncio.sleep(0)
    return {
        "looked_at": looked,
        "matched": matched,
        "failed": failed,
        "error": error,
        "since": since,
        "newest": listed,
    }


def _line(event: Seen) -> Document:
    envelope = event.envelope
    return {
        "event_id": envelope.id,
        "type": envelope.type,
        "subject": envelope.subject,
        "time": envelope.time.isoformat(),
        "headline": notice(envelope).headline,
    }
