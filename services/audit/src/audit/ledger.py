"""Append to the log: leaves, hashes, tree head and offsets in one transaction (law 6).

The index of an entry is not a sequence of the database, which would leave gaps: it is the size of the tree that the
compare-and-set on `tree_head` replaces. A writer that lost its place (a zombie) loses that and changes nothing. The
same statement moves the Kafka offsets, so a record is an entry exactly once, whatever Kafka's groups believe.

Callers that come while others are written are written together after them. They prepare their leaves meanwhile:
PostgreSQL and this process work side by side. A transaction copies its rows while the one before it commits, and moves
the head when that is done; where that one failed, nothing is true that this one was planned on, and it is planned anew.
So the head is held for a moment only, and not within COPY, where no time limit cuts a writer off that stopped (`Months`
does). Only who lost to another writer takes the head first, so that a busy one starves nobody; should that one stop,
whoever waits for it ends it.
"""

import asyncio
from collections import Counter as Tally
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import asyncpg
import sqlalchemy as sa
import structlog
from prometheus_client import Counter, Gauge

from audit import merkle
from audit.clock import Clock
from audit.known import Known, leaf_of, place_of
from audit.leaf import MAX_LEAF, Detached
from audit.months import end_stalled
from audit.places import COLUMNS, Item, Read, Row, State, advance, doubtful, load, move, sort
from audit.tables import kafka_offset
from audit.tlog.archive import Archive
from contracts.envelope import now
from kit.bus import Record
from kit.db import Database, Signal
from kit.errors import Transient, is_transient

log = structlog.get_logger()
SIZE = Gauge("hallmark_audit_log_size", "Entries in the log")
APPENDED = Counter("hallmark_audit_records_total", "Records taken, by what became of them", ["topic", "outcome"])
AHEAD = Gauge(
    "hallmark_audit_clock_ahead_seconds", "By how much the log's newest entry is ahead of the database's clock"
)
# A writer that stops with the head in its hands must not hold it for ever.
# The transaction acts as the role that may append, and no more.
AS_WRITER = "set local role hallmark_audit_writer"
BEGIN = (
    "begin; set local idle_in_transaction_session_timeout = '{limit}'; set local statement_timeout = '{limit}'; "
    + AS_WRITER
)
LIMIT = "15s"
HOLD = "select 1 from audit.tree_head where id = 1 for update; set local role none"  # to read, which a writer may not
MAX_BATCH = 5_000
LANES = 2  # transactions at a time: one copies its rows while the other commits
SLICE = 32  # leaves that are prepared before others get a turn
TRIES = 5
MOST_AHEAD = timedelta(seconds=10)  # of the database's clock; what is dated later is not written
AFTER = timedelta(milliseconds=250)  # what others append meanwhile is not dated later
LARGE = 1_000  # places whose date is remembered
FEW = 4  # rows that go with the head: COPY would cost them more than it saves


class LostRace(Transient):
    """Another writer appended first."""


class ClockAhead(Transient):
    """This machine's clock was set forward; it is compared with the database's again."""


def _future() -> "asyncio.Future[Any]":
    return asyncio.get_running_loop().create_future()


@dataclass(eq=False)
class _Work:
    number: int
    items: list[Item]
    tries: int = 0
    done: "asyncio.Future[None]" = field(default_factory=_future)


@dataclass(eq=False)
class _Batch:
    """What one transaction writes on top of what `before` writes, and the log as it is then."""

    new: list[Item]
    reads: list[Read]
    nodes: list[merkle.Node]
    was: State
    state: State
    before: "asyncio.Future[bool] | None"
    written: "asyncio.Future[bool]"

    def rows(self) -> list[Row]:
        return [
            (index, i.at, i.record.topic, i.record.partition, i.record.offset, i.data, i.hash)
            for index, i in enumerate(self.new, self.was.tree.size)
        ]


@asynccontextmanager
async def _within(driver: asyncpg.Connection) -> AsyncIterator[None]:
    """A writer's transaction, or the one that has begun. Whoever ends it says so; else it is committed."""
    if not driver.is_closed() and driver.is_in_transaction():
        await driver.execute(AS_WRITER)
        yield
        return
    await driver.execute(BEGIN.format(limit=LIMIT))
    try:
        yield
        if driver.is_in_transaction():
            await driver.execute("commit")
    except BaseException:
        # Whatever state the session is in: the next one begins anew.
        driver.terminate()
        raise


def _fail(works: list[_Work], error: BaseException) -> None:
    for work in works:
        work.done.set_exception(error)
        work.done.exception()  # nobody may be left to ask for it


class Ledger:
    """The writer of the log; of several, in several processes, each append finds its place. `appended` fires after
    each commit."""

    def __init__(self, db: Database, archive: Archive) -> None:
        self._db, self._archive = db, archive
        self.appended = Signal()
        self._preparing, self._planning, self._lanes = asyncio.Lock(), asyncio.Lock(), asyncio.Semaphore(LANES)
        self._waiting: list[_Work] = []  # in the order in which they came
        self._numbers = count()
        self._state: State | None = None  # with what is on its way; None: it has to be looked up
        self._newest: asyncio.Future[bool] | None = None  # whether the newest batch was written
        self._months: set[str] = set()
        self._clock = Clock(db)
        self._dated: dict[tuple[str, int, int], datetime] = {}  # large leaves that were not appended yet

    async def append(self, records: Sequence[Record]) -> list[int | None]:
        """Appends what is new, in order, and gives the indexes; None for a record that Kafka delivered again.

        Raises:
            LostRace: others were faster several times; append again.
        """
        if not records:
            return []
        async with self._preparing:
            items = await self._prepare(records)
        await self._detach(items)
        work = _Work(next(self._numbers), items)
        self._waiting.append(work)
        async with self._lanes:
            while work in self._waiting:
                await self._write_next()
        await asyncio.shield(work.done)
        for item in work.items if self._dated else ():
            self._dated.pop(place_of(item.record), None)
        for outcome, known in ("entry", False), ("redelivered", True):
            told = Tally([item.record.topic for item in work.items if (item.index is None) is known])
            for topic, number in told.items():
                APPENDED.labels(topic, outcome).inc(number)
        return [item.index for item in work.items]

    async def taken(self, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        """By partition, the first offset that the log has not read, in the newest epoch."""
        k = kafka_offset.c
        query = sa.select(k.partition, k.next).where(k.topic == topic, k.partition.in_(partitions)).order_by(k.epoch)
        async with self._db.transaction() as tx:
            return {row.partition: row.next for row in await tx.execute(query)}

    async def _prepare(self, records: Sequence[Record]) -> list[Item]:
        at, items = now() + await self._clock.behind(), list[Item]()
        # What was detached before keeps its bytes, and with them its object in the store.
        at = min([at, *(self._dated.get(place_of(record), at) for record in records)]) if self._dated else at
        for start in range(0, len(records), SLICE):
            items += [Item(record, at) for record in records[start : start + SLICE]]
            await asyncio.sleep(0)
        return items

    async def _detach(self, items: list[Item]) -> None:
        """Before the transaction: an entry never names what is not in the store."""
        for item in items:
            if len(item.data) > MAX_LEAF:
                detached = Detached.of(leaf_of(item.record, item.at), item.data)
                self._date(item)
                await self._archive.keep_leaf(detached.sha256, item.data)
                item.data = detached.encode()
                item.hash = merkle.leaf_hash(item.data)

    def _date(self, item: Item) -> None:
        self._dated[place_of(item.record)] = item.at
        while len(self._dated) > LARGE:
            del self._dated[next(iter(self._dated))]

    async def _write_next(self) -> None:
        """Writes what waits, in the order in which it was prepared. One transaction that fails fails alone."""
        works, written = self._take(), _future()
        try:
            items = [item for work in works for item in work.items]
            await self._write(items, written, hold=any(work.tries for work in works))
            if not written.done():
                self._put_back(works)
        except BaseException as error:
            stopped = not isinstance(error, Exception)
            if isinstance(error, asyncpg.QueryCanceledError) and await self._end_stalled():
                self._put_back(works)
            elif not written.done():
                _fail(works, Transient("the writer was stopped") if stopped else error)
            if stopped:
                raise
        finally:
            if written.done():
                for work in works:
                    work.done.set_result(None)
                self.appended.set()
            else:
                self._state = None
                written.set_result(False)

    async def _end_stalled(self) -> bool:
        """Whoever has the head may have been stopped while it copied. False: nobody can tell, now."""
        try:
            await end_stalled(self._db)
        except Exception as error:
            if not is_transient(error):
                raise
            return False
        return True

    def _take(self) -> list[_Work]:
        works, size = list[_Work](), 0
        while self._waiting and (not works or size + len(self._waiting[0].items) <= MAX_BATCH):
            works.append(self._waiting.pop(0))
            size += len(works[-1].items)
        return works

    def _put_back(self, works: list[_Work]) -> None:
        """The log was not as this writer believed: they are tried again, before those that came after them."""
        for work in works:
            work.tries += 1
        if any(work.tries == TRIES for work in works):
            _fail(works, LostRace("others appended first, or held the log, several times"))
        else:
            self._waiting = sorted([*works, *self._waiting], key=lambda work: work.number)

    async def _write(self, items: list[Item], written: "asyncio.Future[bool]", *, hold: bool = False) -> None:
        """One transaction; `written` says whether. It is not where the log is not as this writer believed, which cannot
        be where it holds the head from the beginning."""
        async with AsyncExitStack() as held:
            async with self._planning:  # first come, first served
                connection = await held.enter_async_context(self._db.engine.connect())
                driver = (await connection.get_raw_connection()).driver_connection
                assert driver is not None
                if hold:
                    await self._settled()
                    await self._date_ahead(driver, items)
                    await self._ensure_month(driver, items[0].at, items[-1].at)
                    await held.enter_async_context(_within(driver))
                    await driver.execute(HOLD)
                    self._state = None
                batch = await self._plan(driver, items, written)
            if batch is not None:
                await self._carry_out(driver, batch)

    async def _plan(
        self, driver: asyncpg.Connection, items: list[Item], written: "asyncio.Future[bool]"
    ) -> _Batch | None:
        """What is to be written; None: nothing, now."""
        if self._state is None:
            await self._settled()
            self._state, self._newest = await load(driver), None
        was = self._state
        await self._redate(items, was.at)
        found = sort(items, was)
        if found is None:
            # What is known is looked up in the log, so what is on its way to it must have come there.
            if not await self._settled():
                return None
            found = sort(items, was, await Known.at(driver, doubtful(items, was)))
            assert found is not None
        new, reads = found
        places = was.places | {read.place: read.again() for read in reads}
        if not new:
            # All is in the log already: at most the offsets move.
            if reads:
                async with _within(driver):
                    moved = await advance(driver, reads)
                    await driver.execute("commit")
            if not reads or moved:
                self._state = State(was.tree, was.at, places)
                written.set_result(True)
            return None
        tree = merkle.Frontier.load(was.tree.size, was.tree.dump())
        nodes = tree.extend([item.hash for item in new])
        batch = _Batch(new, reads, nodes, was, State(tree, items[-1].at, places), self._newest, written)
        self._state, self._newest = batch.state, written
        return batch

    async def _settled(self) -> bool:
        """Waits for what is on its way. Whether the log is now as this writer believes."""
        return self._newest is None or await asyncio.shield(self._newest)

    async def _carry_out(self, driver: asyncpg.Connection, batch: _Batch) -> None:
        size = batch.was.tree.size
        await self._ensure_month(driver, batch.new[0].at, batch.state.at)
        async with _within(driver):
            there = None
            with suppress(asyncpg.UniqueViolationError):  # somebody wrote to this place at the same microsecond
                rows = batch.rows()
                if len(rows) > FEW:
                    await driver.copy_records_to_table("entry", schema_name="audit", columns=COLUMNS, records=rows)
                    rows = []
                if batch.before is None or await asyncio.shield(batch.before):
                    there = await move(driver, size, batch.state, batch.reads, batch.nodes, rows)
            if there is None:
                await driver.execute("rollback")
                return
            self._compare_clocks(batch.state.at, batch.was.at, there)
            await driver.execute("commit")
        for index, item in enumerate(batch.new, size):
            item.index = index
        SIZE.set(batch.state.tree.size)
        batch.written.set_result(True)

    def _compare_clocks(self, at: datetime, before: datetime, there: datetime) -> None:
        """Refuses what is dated ahead of the database's clock. Where the log is ahead already it goes on at its time,
        and somebody should know."""
        ahead = at - there
        if ahead > MOST_AHEAD and at > before:
            self._clock.forget()
            raise ClockAhead(f"the clock of this machine is ahead of the database's by {ahead}")
        AHEAD.set(max(ahead.total_seconds(), 0))
        if ahead > MOST_AHEAD:
            log.critical("the log's time is ahead of the database's clock", ahead=str(ahead))

    async def _redate(self, items: list[Item], at: datetime) -> None:
        """Time never runs backwards in the log, also where a clock does, or another writer's was ahead."""
        late = []
        for item in items:
            if item.at < at:
                item.__init__(item.record, at)  # type: ignore[misc]
                late.append(item)
            at = item.at
        await self._detach(late)

    async def _date_ahead(self, driver: asyncpg.Connection, items: list[Item]) -> None:
        """A large leaf that is dated anew goes to the store again. Not while everybody waits for the head."""
        if any(place_of(item.record) in self._dated for item in items):
            await self._redate(items, AFTER + await driver.fetchval("select at from audit.tree_head"))

    async def _ensure_month(self, driver: asyncpg.Connection, first: datetime, last: datetime) -> None:
        for at in (first, last):
            month = f"{at:%Y-%m}"
            if month not in self._months:
                await driver.execute("select audit.ensure_partition($1)", at)
                self._months.add(month)
