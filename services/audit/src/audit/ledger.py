"""Append to the log: leaves, hashes, tree head and offsets in one transaction (law 6).

The index of an entry is not a sequence of the database, which would leave gaps: it is the size of the tree that the
compare-and-set on `tree_head` replaces. A writer that lost its place (a zombie) loses that and changes nothing. The
same statement moves the Kafka offsets, so a record is an entry exactly once, whatever Kafka's groups believe.

Callers that come while another transaction runs are written together in the next one. They prepare their leaves
meanwhile: PostgreSQL and this process work side by side.
"""

import asyncio
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import asyncpg
import sqlalchemy as sa
import structlog
from prometheus_client import Counter, Gauge

from audit import merkle
from audit.clock import Clock
from audit.known import leaf_of, place_of
from audit.leaf import MAX_LEAF, Detached
from audit.places import Item, State, advance, load, move, sort
from audit.tables import kafka_offset
from audit.tlog.archive import Archive
from contracts.envelope import now
from kit.bus import Record
from kit.db import Database, Signal
from kit.errors import Transient

log = structlog.get_logger()
SIZE = Gauge("hallmark_audit_log_size", "Entries in the log")
APPENDED = Counter("hallmark_audit_records_total", "Records taken, by what became of them", ["topic", "outcome"])
AHEAD = Gauge(
    "hallmark_audit_clock_ahead_seconds", "By how much the log's newest entry is ahead of the database's clock"
)
# A writer that stops inside its transaction must not hold the head for ever. The database ends an idle one by itself;
# within COPY no time limit cuts it off, so whoever has waited that long for the head ends its session.
# The transaction acts as the role that may append, and no more.
BEGIN = (
    "begin; set local idle_in_transaction_session_timeout = '{limit}'; set local statement_timeout = '{limit}'; "
    "set local role hallmark_audit_writer"
)
LIMIT = "15s"
MAX_BATCH = 5_000
SLICE = 32  # leaves that are prepared before others get a turn
TRIES = 5
MOST_AHEAD = timedelta(seconds=10)  # of the database's clock; what is dated later is not written
LARGE = 1_000  # places whose date is remembered
COLUMNS = ("index", "recorded_at", "topic", "partition", "kafka_offset", "leaf", "leaf_hash")
STALLED = """
select pg_terminate_backend(a.pid) from pg_locks l join pg_stat_activity a on a.pid = l.pid
where l.relation = 'audit.tree_head'::regclass and l.granted and l.mode = 'RowExclusiveLock'
  and a.datname = current_database() and a.pid <> pg_backend_pid()
  and a.xact_start < clock_timestamp() - $1::text::interval
"""


class LostRace(Transient):
    """Another writer appended first."""


class ClockAhead(Transient):
    """This machine's clock was set forward; it is compared with the database's again."""


@dataclass
class _Work:
    items: list[Item]
    done: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Ledger:
    """The writer of the log; of several, in several processes, each append finds its place. `appended` fires after
    each commit."""

    def __init__(self, db: Database, archive: Archive) -> None:
        self._db, self._archive = db, archive
        self.appended = Signal()
        self._preparing, self._writing = asyncio.Lock(), asyncio.Lock()
        self._waiting: list[_Work] = []
        self._state: State | None = None
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
        work = _Work(items)
        self._waiting.append(work)
        async with self._writing:
            while not work.done.done():
                await self._write_all()
        await work.done
        for item in work.items if self._dated else ():
            self._dated.pop(place_of(item.record), None)
        told = Tally((item.record.topic, "redelivered" if item.index is None else "entry") for item in work.items)
        for labels, count in told.items():
            APPENDED.labels(*labels).inc(count)
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

    async def _write_all(self) -> None:
        """Writes what waits, in the order in which it was prepared. One that fails fails alone."""
        batch: list[_Work] = []
        while self._waiting and sum(len(work.items) for work in batch) + len(self._waiting[0].items) <= MAX_BATCH:
            batch.append(self._waiting.pop(0))
        if not batch:
            batch.append(self._waiting.pop(0))
        try:
            await self._write([item for work in batch for item in work.items])
        except BaseException as error:
            stopped = not isinstance(error, Exception)
            for work in batch:
                work.done.set_exception(Transient("the writer was stopped") if stopped else error)
                work.done.exception()  # nobody may be left to ask for it
            if stopped:
                raise
            return
        for work in batch:
            work.done.set_result(None)
        self.appended.set()

    async def _write(self, items: list[Item]) -> None:
        for _ in range(TRIES):
            async with self._db.engine.connect() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                assert driver is not None
                try:
                    if await self._try(driver, items):
                        return
                except asyncpg.QueryCanceledError:
                    await self._end_stalled()
            self._state = None
        raise LostRace("others appended first, several times")

    async def _try(self, driver: asyncpg.Connection, items: list[Item]) -> bool:
        """One transaction. False: the log was not as this writer believed, and nothing was written."""
        state = self._state or await load(driver)
        self._state = None  # until the commit is through
        await self._redate(items, state.at)
        new, reads = await sort(driver, items, state)
        if not new:
            if reads and not await advance(driver, reads):
                return False
            state.places.update({read.place: read.again() for read in reads})
            self._state = state
            return True
        at, before = items[-1].at, state.tree.size
        nodes = state.tree.extend([item.hash for item in new])
        rows = [
            (index, i.at, i.record.topic, i.record.partition, i.record.offset, i.data, i.hash)
            for index, i in enumerate(new, before)
        ]
        await self._ensure_month(driver, rows[0][1], at)
        await driver.execute(BEGIN.format(limit=LIMIT))
        try:
            there = await move(driver, before, state, at, reads)
            if there is None:
                await driver.execute("rollback")
                return False
            self._compare_clocks(at, state.at, there)
            await driver.copy_records_to_table("entry", schema_name="audit", columns=COLUMNS, records=rows)
            if nodes:
                columns = ("level", "index", "hash")
                await driver.copy_records_to_table("node", schema_name="audit", columns=columns, records=nodes)
            await driver.execute("commit")
        except BaseException:
            # Whatever state the session is in: the next one begins anew.
            driver.terminate()
            raise
        for index, item in enumerate(new, before):
            item.index = index
        state.at = at
        state.places.update({read.place: read.again() for read in reads})
        self._state = state
        SIZE.set(state.tree.size)
        return True

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

    async def _end_stalled(self) -> None:
        """Ends the sessions of writers that have held the head for longer than anybody may."""
        async with self._db.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            ended = await driver.fetch(STALLED, LIMIT)
        log.warning("waited too long for the head of the log", ended=len(ended))

    async def _ensure_month(self, driver: asyncpg.Connection, first: datetime, last: datetime) -> None:
        for at in (first, last):
            month = f"{at:%Y-%m}"
            if month not in self._months:
                await driver.execute("select audit.ensure_partition($1)", at)
                self._months.add(month)
