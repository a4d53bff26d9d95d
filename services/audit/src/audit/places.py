"""Where Kafka's records have their place in the log: what is new, and how far each partition is read with it.

A partition is read in epochs: a new one begins when the broker forgot its log, or when somebody goes back to a hole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import structlog
from prometheus_client import Counter

from audit import merkle
from audit.known import Known, place_of
from audit.leaf import encode
from kit.bus import Record

log = structlog.get_logger()
EPOCHS = Counter("hallmark_audit_broker_forgot_total", "Times that a partition began anew", ["topic"])
COLUMNS = ("index", "recorded_at", "topic", "partition", "kafka_offset", "leaf", "leaf_hash")
OFFSETS = """
  update audit.kafka_offset o set next = n.next, entries = o.entries + n.entries
  from unnest($1::text[], $2::int[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[])
    as n (topic, partition, epoch, was, next, entries)
  where o.topic = n.topic and o.partition = n.partition and o.epoch = n.epoch and o.next = n.was returning 1
"""
MOVE = f"""
with head as (
  update audit.tree_head set size = $8, root = $9, frontier = $10, at = $11 where id = 1 and size = $7 returning 1
), moved as ({OFFSETS}), noted as (
  insert into audit.node (level, "index", hash)
  select n.* from head, unnest($12::int[], $13::bigint[], $14::bytea[]) as n
), entered as (
  insert into audit.entry ({", ".join(f'"{name}"' for name in COLUMNS)})
  select n.* from head, unnest(
    $15::bigint[], $16::timestamptz[], $17::text[], $18::int[], $19::bigint[], $20::bytea[], $21::bytea[]) as n
)
select (select count(*) from head) as heads, (select count(*) from moved) as moved, clock_timestamp() as now
"""  # noqa: S608
NEW_PLACES = """
insert into audit.kafka_offset (topic, partition, epoch, lowest, next, entries, since)
select * from unnest($1::text[], $2::int[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
on conflict do nothing returning 1
"""
LOG = """
select h.size, h.frontier, h.at, o.* from audit.tree_head h left join (
  select distinct on (topic, partition) topic, partition, epoch, next,
    max(next) over (partition by topic, partition) as highest
  from audit.kafka_offset order by topic, partition, epoch desc
) o on true
"""
Place = tuple[str, int]
Row = tuple[Any, ...]  # an entry, in the order of COLUMNS


class Item:
    """A record on its way: its leaf and hash, and in the end its index (None: it was in the log already)."""

    __slots__ = ("at", "data", "hash", "index", "place", "record")

    def __init__(self, record: Record, at: datetime) -> None:
        self.record, self.at = record, at
        topic, partition = self.place = (record.topic, record.partition)
        self.data = encode(
            topic, partition, record.offset, record.timestamp_ms, at, record.key, record.headers, record.value
        )
        self.hash = merkle.leaf_hash(self.data)
        self.index: int | None = None


@dataclass
class Read:
    """How far a partition was read in an epoch, and what is to be written of it."""

    place: Place
    epoch: int
    next: int
    highest: int = 0  # `next` of the epoch that went furthest
    was: int | None = None  # None: the row is new
    lowest: int = 0
    since: int = 0
    entries: int = 0

    def again(self) -> "Read":
        """To read on from."""
        return Read(self.place, self.epoch, self.next, self.highest, was=self.next)


@dataclass
class State:
    """What this writer believes of the log; the compare-and-set finds out when it is wrong."""

    tree: merkle.Frontier
    at: datetime
    places: dict[Place, Read]


def sort(items: list[Item], state: State, known: Known | None = None) -> tuple[list[Item], list[Read]] | None:
    """What is new, and how far each partition is read with it, epoch after epoch. None: the log, or the batch itself
    before it, has been at the place of a record, and it has to be known what is there."""
    new: list[Item] = []
    reads: list[Read] = []
    newest: dict[Place, Read] = {}
    for item in items:
        place, offset = item.place, item.record.offset
        read = newest.get(place)
        if read is None and place in state.places:
            read = newest[place] = state.places[place].again()
            reads.append(read)
        if read is not None and offset < read.highest:
            if known is None:
                return None
            if known.has(item.record):
                read.next = max(read.next, offset + 1)
                continue
        if read is None or offset < read.next:
            read = newest[place] = _epoch(item, read, state.tree.size + len(new))
            reads.append(read)
        read.next = offset + 1
        if read.highest <= offset:
            read.highest = offset + 1
        read.entries += 1
        new.append(item)
        if known is not None:
            known.add(item.record)
    return new, [read for read in reads if read.next != read.was]


def _epoch(item: Item, before: Read | None, since: int) -> Read:
    """The partition begins anew: for the first time, or since the broker forgot what it had."""
    place, offset = item.place, item.record.offset
    if before is None:
        return Read(place, 0, offset, lowest=offset, since=since)
    EPOCHS.labels(place[0]).inc()
    log.warning("the broker forgot its log", topic=place[0], partition=place[1], offset=offset)
    return Read(place, before.epoch + 1, offset, before.highest, lowest=offset, since=since)


async def advance(driver: asyncpg.Connection, reads: list[Read]) -> bool:
    """Of an epoch after the first: what comes is in the log from before, so nothing but the offsets moves."""
    return len(await driver.fetch(OFFSETS, *_columns(_moves(reads), 6))) == len(reads)


async def move(
    driver: asyncpg.Connection,
    size: int,
    state: State,
    reads: list[Read],
    nodes: Sequence[merkle.Node],
    rows: Sequence[Row] = (),
) -> datetime | None:
    """The compare-and-set on the head, from `size` to the one of `state`, and on every offset; with it the nodes of the
    tree that are full now, and `rows` that were not copied before. Gives the database's time; None: somebody was
    faster."""
    tree = state.tree
    # In one order: the rows of several writers are locked alike.
    known = _moves(reads)
    fresh = sorted((*r.place, r.epoch, r.lowest, r.next, r.entries, r.since) for r in reads if r.was is None)
    head = (size, tree.size, tree.root(), tree.dump(), state.at)
    lists = (*_columns(nodes, 3), *_columns(rows, len(COLUMNS)))
    found = await driver.fetchrow(MOVE, *_columns(known, 6), *head, *lists)
    if found["heads"] != 1 or found["moved"] != len(known):
        return None
    if fresh and len(await driver.fetch(NEW_PLACES, *_columns(fresh, 7))) != len(fresh):
        return None
    there: datetime = found["now"]
    return there


def _moves(reads: list[Read]) -> list[tuple[Any, ...]]:
    return sorted((*r.place, r.epoch, r.was, r.next, r.entries) for r in reads if r.was is not None)


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [[row[n] for row in rows] for n in range(width)]


def doubtful(items: list[Item], state: State) -> list[tuple[str, int, int]]:
    """Places that the log, or the batch itself before them, has been at already."""
    highest = {place: read.highest for place, read in state.places.items()}
    found = []
    for item in items:
        following = item.record.offset + 1
        if following <= highest.get(item.place, 0):
            found.append(place_of(item.record))
        highest[item.place] = max(highest.get(item.place, 0), following)
    return found


async def load(driver: asyncpg.Connection) -> State:
    """What the log is now, in one look."""
    rows = await driver.fetch(LOG)
    head = rows[0]
    reads = [
        Read((row["topic"], row["partition"]), row["epoch"], row["next"], row["highest"])
        for row in rows
        if row["topic"] is not None
    ]
    tree = merkle.Frontier.load(head["size"], head["frontier"])
    return State(tree, head["at"], {read.place: read for read in reads})
