"""Saved searches: a row each, an event for whatever becomes of them, in one transaction.

A run reads what came into the log since the one before. Its event, and how far it came, are committed together: no
entry is looked at twice or left out, whoever runs and however often it restarts.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import sqlalchemy as sa
import structlog
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from audit import paging
from audit.access import MAX_QUERY, AccessLog
from audit.forgetting import pruned_until, refuse_forgotten
from audit.paging import Document
from audit.params import Filters, Reader
from audit.saved.schedule import following
from audit.search import found_until, saying
from audit.tables import saved_search
from audit.tlog.publisher import ACTOR
from audit.view_tables import search_entry, timeline
from contracts.audit import CheckpointPublished, SearchAlerted, SearchRan, SearchRemoved, SearchSaved
from contracts.envelope import now
from contracts.payload import Message
from contracts.topics import AUDIT_EVENTS, NOTIFIER_EVENTS
from kit.auth import Principal
from kit.db import Database
from kit.errors import is_transient
from kit.events import Cause, EventLog, New
from kit.problems import Problem
from kit.tasks import repeat

log = structlog.get_logger()
POLL_SECONDS = 2.0
MOST_SAVED = 100
MOST_NAMED = 20
PAGE = 1_000_000  # entries that one run looks at; what is left is looked at by the next one, at once
FILTERS = TypeAdapter(Filters)
Readers = Callable[[Principal], Reader]


@dataclass(frozen=True)
class Wanted:
    """What is to be saved. `start`: entries from this index on; None: what comes into the log from now on."""

    filters: Filters
    q: str | None = None
    every: timedelta | None = None
    alert_above: int | None = None
    start: int | None = None


class Searches:
    """`reader` gives the rights of somebody whose reading is recorded here, by the event of the run."""

    def __init__(self, db: Database, events: EventLog, access: AccessLog, reader: Readers, *, page: int = PAGE) -> None:
        self._db, self._events, self._access, self._reader, self._page = db, events, access, reader, page

    async def save(self, who: Reader, name: str, wanted: Wanted) -> tuple[Document, bool]:
        """The search, and whether it is new: one of the same name that says the same is the one there is. Its runs have
        the caller's groups of now.

        Raises:
            Problem: 403, the caller may not read that; 409, the name is another search's; 422, it cannot be saved.
        """
        await who.filter(wanted.filters)
        actor, q = await who.meant(wanted.filters.actor), wanted.q and await who.words(wanted.q)
        filters = FILTERS.dump_python(
            replace(wanted.filters, actor=actor), mode="json", by_alias=True, exclude_defaults=True
        )
        filters["workspace"] = wanted.filters.workspace
        query = self._told(filters, q)
        every = int(wanted.every.total_seconds()) if wanted.every else None
        asked = {"filters": filters, "q": q, "every": every, "alert_above": wanted.alert_above}
        owner, groups, at = who.principal.subject, sorted(who.principal.groups), now()
        async with self._db.transaction() as tx:
            await self._events.lock(tx, f"searches:{owner}")  # one at a time: names, and how many there are
            found = await self._row(tx, owner, name)
            if found is not None:
                if {key: found[key] for key in asked} != asked:
                    raise Problem(409, "search-exists", f"{name} is another search; remove it first")
                if found["groups"] != groups:
                    await self._move(tx, found, groups=groups)
                    await self._say_saved(tx, found | {"groups": groups}, query, at)
                return _shown(found | {"groups": groups}), False
            c = saved_search.c
            count = sa.select(sa.func.count()).select_from(saved_search).where(c.owner == owner)
            if int(await tx.scalar(count) or 0) >= MOST_SAVED:
                raise Problem(422, "too-many-searches", f"{MOST_SAVED} saved searches are the most; remove some")
            row = {
                "id": uuid4().hex,
                "owner": owner,
                "name": name,
                **asked,
                "groups": groups,
                "saved_at": at,
                "next": await paging.told(tx) if wanted.start is None else wanted.start,
                "due_at": at if every else None,
                "ran_at": None,
                "matches": None,
                "outcome": None,
            }
            await tx.execute(sa.insert(saved_search).values(row))
            await self._say_saved(tx, row, query, at)
        return _shown(row), True

    async def _say_saved(self, tx: AsyncConnection, row: Document, query: str, at: datetime) -> None:
        said = {name: row[name] for name in ("groups", "every", "alert_above")}
        message = SearchSaved(**_whose(row), **said, query=query, start=row["next"])
        await self._append(tx, row["id"], [message], row["owner"], at)

    async def saved(self, owner: str, after: str, limit: int) -> Document:
        """A page of somebody's searches, by name: those after that name."""
        c = saved_search.c
        query = sa.select(saved_search).where(c.owner == owner, c.name > after).order_by(c.name).limit(limit + 1)
        async with self._db.snapshot() as tx:
            rows = [dict(row) for row in (await tx.execute(query)).mappings()]
        items = [_shown(row) for row in rows[:limit]]
        return {"items": items, "next": items[-1]["name"] if len(rows) > limit else None}

    async def one(self, owner: str, name: str) -> Document:
        """Raises Problem 404."""
        async with self._db.snapshot() as tx:
            return _shown(_there(await self._row(tx, owner, name), owner, name))

    async def remove(self, owner: str, name: str, by: str) -> None:
        """Raises Problem 404."""
        async with self._db.transaction() as tx:
            row = _there(await self._row(tx, owner, name, lock=True), owner, name)
            await tx.execute(sa.delete(saved_search).where(saved_search.c.id == row["id"]))
            await self._append(tx, row["id"], [SearchRemoved(**_whose(row), removed_by=by)], by, now())

    async def run_one(self, who: Reader, name: str) -> Document:
        """Runs a search of the caller now.

        Raises:
            Problem: 404; 403, the caller may not read that any more; 409, it cannot be run.
        """
        owner, ran, at = who.principal.subject, None, now()
        async with self._db.transaction() as tx:
            row = _there(await self._row(tx, owner, name, lock=True), owner, name)
            try:
                async with tx.begin_nested():
                    ran = await self._look(tx, row, who)
            except Exception as error:
                if isinstance(error, Problem) or is_transient(error):
                    raise
                log.warning("a saved search cannot run", id=row["id"], error=repr(error))
                await self._could_not(tx, row, "failed", owner, at)
            else:
                await self._end(tx, row, ran, owner, at)
        if ran is None:
            raise Problem(409, "search-failed", f"{name} cannot be run as it was saved; remove it and save it anew")
        return {**ran, "alerted": _alerts(row, ran)}

    async def step(self, at: datetime | None = None) -> bool:
        """Runs the search that is due the longest. Gives whether there was one."""
        c, at = saved_search.c, at or now()
        due = sa.select(saved_search).where(c.due_at <= at).order_by(c.due_at, c.id).limit(1)
        async with self._db.transaction() as tx:
            found = (await tx.execute(due.with_for_update(skip_locked=True))).mappings().first()
            if found is None:
                return False
            row = dict(found)
            try:
                async with tx.begin_nested():
                    await self._scheduled(tx, row, at)
            except Exception as error:
                # It must not be in the way of the others; its cursor stays.
                log.warning("a saved search cannot run now; trying at its next time", id=row["id"], error=repr(error))
                await self._could_not(tx, row, "failed", ACTOR, at)
        return True

    async def run(self) -> None:
        """Until cancelled."""
        await repeat(self.step, lambda: asyncio.sleep(POLL_SECONDS), "saved searches")

    async def _scheduled(self, tx: AsyncConnection, row: Document, at: datetime) -> None:
        groups = frozenset(row["groups"])
        who = self._reader(Principal(row["owner"], groups, kind="service", issued_at=0, method="saved-search"))
        try:
            ran = await self._look(tx, row, who)
        except Problem as problem:
            if problem.status != 403:
                raise
            await self._could_not(tx, row, "denied", ACTOR, at)
            return
        if self._is_full(row, ran) or await tx.scalar(sa.select(_news(row["next"], ran["until"]))):
            await self._end(tx, row, ran, ACTOR, at)
        else:
            await self._move(tx, row, due_at=_next(row, at))

    async def _could_not(self, tx: AsyncConnection, row: Document, why: str, by: str, at: datetime) -> None:
        """Not as one that found nothing: an event says so, and the list does."""
        none = {"first": row["next"], "until": row["next"], "matches": 0}
        await self._append(tx, row["id"], [SearchRan(**_whose(row), **none, outcome=why)], by, at)
        is_due = row["due_at"] is not None and row["due_at"] <= at
        due = _next(row, at) if is_due else row["due_at"]
        await self._move(tx, row, due_at=due, ran_at=at, matches=None, outcome=why)

    async def _look(self, tx: AsyncConnection, row: Document, who: Reader) -> Document:
        """What is new and matches: {first, until, matches, indexes}. Raises Problem 403."""
        wanted = await who.filter(FILTERS.validate_python(row["filters"]), row["next"])
        until = await paging.told(tx)
        if row["q"] is not None:
            until = min(until, await found_until(tx))
        until = max(row["next"], min(until, row["next"] + self._page))
        try:
            refuse_forgotten(wanted, pruned := await pruned_until(tx))
        except Problem:
            # Nobody can tell any more which of the pruned entries match. `first` says that they were left out.
            wanted = replace(wanted, start=min(pruned, until))
        t, s = timeline.c, search_entry.c
        query = sa.select(t.index, sa.func.count().over()).where(
            t.index >= wanted.start, t.index < until, *wanted.conditions(), _is_counted()
        )
        if row["q"] is not None:
            query = query.join(search_entry, s.index == t.index).where(saying(row["q"]))
        found = (await tx.execute(query.order_by(t.index).limit(MOST_NAMED))).all()
        matches = int(found[0][1]) if found else 0
        return {"first": wanted.start, "until": until, "matches": matches, "indexes": [one[0] for one in found]}

    async def _end(self, tx: AsyncConnection, row: Document, ran: Document, by: str, at: datetime) -> None:
        said = {**_whose(row), **ran}
        messages: list[Message] = [SearchRan(**said, outcome="allowed")]
        if _alerts(row, ran):
            messages.append(SearchAlerted(**said, above=row["alert_above"]))
        await self._append(tx, row["id"], messages, by, at)
        due = row["due_at"]
        if due is not None and due <= at and not self._is_full(row, ran):
            due = _next(row, at)
        await self._move(tx, row, next=ran["until"], due_at=due, ran_at=at, matches=ran["matches"], outcome="allowed")

    def _is_full(self, row: Document, ran: Document) -> bool:
        """Whether there may be more than one run looks at."""
        return bool(ran["until"] == row["next"] + self._page)

    async def _move(self, tx: AsyncConnection, row: Document, **values: Any) -> None:
        await tx.execute(sa.update(saved_search).where(saved_search.c.id == row["id"]).values(**values))

    async def _append(self, tx: AsyncConnection, search: str, messages: list[Message], by: str, at: datetime) -> None:
        stream = f"search:{search}"
        last = await self._events.lock(tx, stream)
        news = [New(message, subject=stream) for message in messages]
        await self._events.append(tx, stream, last, news, Cause(actor=by), at)

    async def _row(self, tx: AsyncConnection, owner: str, name: str, *, lock: bool = False) -> Document | None:
        query = sa.select(saved_search).where(saved_search.c.owner == owner, saved_search.c.name == name)
        row = (await tx.execute(query.with_for_update() if lock else query)).mappings().first()
        return None if row is None else dict(row)

    def _told(self, filters: Document, q: str | None) -> str:
        """What is asked, as a query; the event has it for ever, and so it must name nobody that may be erased."""
        parts = [
            (name, str(value).lower() if isinstance(value, bool) else str(value))
            for name, values in (filters | ({} if q is None else {"q": q})).items()
            for value in (values if isinstance(values, list) else [values])
        ]
        if hidden := self._access.withheld(parts):
            why = "the log has no names of people here, and what is saved goes into the log"
            raise Problem(422, "names-withheld", f"{', '.join(hidden)}: {why}; give a pseudonym or an id")
        query = urlencode(parts, safe="*:()/")
        if len(query) > MAX_QUERY:
            raise Problem(422, "query-too-long", f"a query has at most {MAX_QUERY} characters")
        return query


def _next(row: Document, at: datetime) -> datetime:
    return following(row["due_at"], timedelta(seconds=row["every"]), at)


def _whose(row: Document) -> Document:
    return {"search_id": row["id"], "owner": row["owner"], "name": row["name"]}


def _shown(row: Document) -> Document:
    return {name: value for name, value in row.items() if name != "id"}


def _there(row: Document | None, owner: str, name: str) -> Document:
    if row is None:
        raise Problem(404, "no-such-search", f"{owner} has no saved search {name}")
    return row


def _alerts(row: Document, ran: Document) -> bool:
    return row["alert_above"] is not None and ran["matches"] > row["alert_above"]


def _is_counted() -> sa.ColumnElement[bool]:
    """Not what runs themselves bring into the log: their events, the deliveries of their alerts, and checkpoints.
    Otherwise a search for everything would find something new for ever."""
    t, alert = timeline.c, timeline.alias().c
    alerts = sa.select(alert.event_id).where(
        alert.type == SearchAlerted.TYPE, alert.topic == AUDIT_EVENTS.name, alert.event_id.is_not(None)
    )
    own = (SearchRan.TYPE, SearchAlerted.TYPE, CheckpointPublished.TYPE)
    return sa.not_(
        sa.or_(
            sa.and_(t.topic == AUDIT_EVENTS.name, sa.func.coalesce(t.type, "").in_(own)),
            sa.and_(t.topic == NOTIFIER_EVENTS.name, sa.func.coalesce(t.causationid, "").in_(alerts)),
        )
    )


def _news(first: int, until: int) -> sa.ColumnElement[bool]:
    return sa.exists().where(timeline.c.index >= first, timeline.c.index < until, _is_counted())
