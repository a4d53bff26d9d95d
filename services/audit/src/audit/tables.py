"""The log's tables in the schema `audit`, beside the mechanism's own (`kit.db`); the views' are in `view_tables`.

`entry`, `node`, `finding` and `checkpoint` are append-only; `tree_head` only grows.
"""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from kit.db import Mechanism, tables_of, timestamp


class Table(SQLModel, registry=tables_of("audit")):
    """The base of this service's tables."""


def big(**options: Any) -> Any:
    """A column of 64 bits."""
    return sa.Column(sa.BigInteger, nullable=False, autoincrement=False, **options)


class TreeHead(Table, table=True):
    """One row: the size, root and frontier of the tree. Its update is a compare-and-set on `size`."""

    __tablename__ = "tree_head"
    __table_args__ = (sa.CheckConstraint("id = 1", name="single"),)
    id: int = Field(sa_column=sa.Column(sa.SmallInteger, primary_key=True, autoincrement=False))
    size: int = Field(sa_column=big())
    root: bytes
    frontier: bytes
    at: datetime = Field(sa_column=timestamp(nullable=False))


class Entry(Table, table=True):
    """One leaf. `leaf` holds the exact bytes that `leaf_hash` commits to; the other columns repeat what it says.

    A partition a month; `recorded_at` never decreases with `index`, so that each is a range of the log.
    """

    __tablename__ = "entry"
    __table_args__ = (
        sa.Index(None, "topic", "partition", "kafka_offset"),
        sa.Index(None, "recorded_at", postgresql_using="brin"),
        {"postgresql_partition_by": "RANGE (recorded_at)"},
    )
    index: int = Field(sa_column=big(primary_key=True))
    recorded_at: datetime = Field(sa_column=timestamp(primary_key=True))
    topic: str = Field(sa_type=sa.Text)
    partition: int
    kafka_offset: int = Field(sa_column=big())
    leaf: bytes
    leaf_hash: bytes


class Node(Table, table=True):
    """The root over `256**level` leaves from `index * 256**level` on: what a tile of that level holds."""

    __tablename__ = "node"
    level: int = Field(sa_column=sa.Column(sa.SmallInteger, primary_key=True, autoincrement=False))
    index: int = Field(sa_column=big(primary_key=True))
    hash: bytes


class Finding(Table, table=True):
    """What was wrong with an entry when it was read for the first time."""

    __tablename__ = "finding"
    index: int = Field(sa_column=big(primary_key=True))
    code: str = Field(sa_type=sa.Text)
    detail: str = Field(sa_type=sa.Text)


class KafkaOffset(Table, table=True):
    """How far a partition was read. A new `epoch` begins when the broker forgot its log and gave offsets anew; the
    entries of the epoch have an index from `since` on."""

    __tablename__ = "kafka_offset"
    topic: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    partition: int = Field(sa_column=sa.Column(sa.Integer, primary_key=True, autoincrement=False))
    epoch: int = Field(sa_column=sa.Column(sa.Integer, primary_key=True, autoincrement=False))
    lowest: int = Field(sa_column=big())
    next: int = Field(sa_column=big())
    entries: int = Field(sa_column=big())
    since: int = Field(sa_column=big())


class OffsetGap(Table, table=True):
    """Offsets, from `first` up to but without `until`, of which the broker said that it has no record."""

    __tablename__ = "offset_gap"
    topic: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    partition: int = Field(sa_column=sa.Column(sa.Integer, primary_key=True, autoincrement=False))
    epoch: int = Field(sa_column=sa.Column(sa.Integer, primary_key=True, autoincrement=False))
    first: int = Field(sa_column=big(primary_key=True))
    until: int = Field(sa_column=big(primary_key=True))


class Follower(Table, table=True):
    """How far an asynchronous reader of the log has come: `next` is the first index that it has not taken."""

    __tablename__ = "follower"
    name: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    next: int = Field(sa_column=big())


class Checkpoint(Table, table=True):
    """One signed note per size: never two roots."""

    __tablename__ = "checkpoint"
    size: int = Field(sa_column=big(primary_key=True))
    root: bytes
    note: str = Field(sa_type=sa.Text)
    at: datetime = Field(sa_column=timestamp(nullable=False))


class SavedSearch(Table, table=True):
    """A saved search. `filters` and `q`: what `audit.params.Filters` and `GET /v1/search` take. `every` is in seconds.

    `next` is the first index that it has not looked at, `due_at` when it runs again (null: by hand only). `groups` are
    those of its owner when it was saved. `ran_at` and `matches` are of the last run; `matches` is null after a denial.
    """

    __tablename__ = "saved_search"
    __table_args__ = (
        sa.UniqueConstraint("owner", "name"),
        sa.Index("ix_saved_search_due", "due_at", postgresql_where=sa.text("due_at is not null")),
    )
    id: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    owner: str = Field(sa_type=sa.Text)
    name: str = Field(sa_type=sa.Text)
    filters: dict[str, Any] = Field(sa_type=JSONB)
    q: str | None = Field(sa_type=sa.Text)
    every: int | None
    alert_above: int | None = Field(sa_type=sa.BigInteger)
    groups: list[str] = Field(sa_type=JSONB)
    saved_at: datetime = Field(sa_column=timestamp(nullable=False))
    next: int = Field(sa_column=big())
    due_at: datetime | None = Field(sa_column=timestamp())
    ran_at: datetime | None = Field(sa_column=timestamp())
    matches: int | None = Field(sa_type=sa.BigInteger)
    outcome: str | None = Field(sa_type=sa.Text)


class RetentionPolicy(Table, table=True):
    """A published policy; the newest counts. `rules`: list of {topic, type, days}, "*" is any."""

    __tablename__ = "retention_policy"
    sequence: int = Field(sa_column=big(primary_key=True))
    rules: list[dict[str, Any]] = Field(sa_type=JSONB)
    published_by: str = Field(sa_type=sa.Text)
    reason: str | None = Field(sa_type=sa.Text)
    at: datetime = Field(sa_column=timestamp(nullable=False))


class Hold(Table, table=True):
    """A legal hold. `marks` are byte strings of which every leaf it protects has one; none: it protects all leaves.

    `since` and `until` (without it) narrow it by when the log recorded the leaf.
    """

    __tablename__ = "hold"
    id: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    workspace: str | None = Field(sa_type=sa.Text)
    model: str | None = Field(sa_type=sa.Text)
    since: datetime | None = Field(sa_column=timestamp())
    until: datetime | None = Field(sa_column=timestamp())
    marks: list[bytes] = Field(sa_column=sa.Column(ARRAY(sa.LargeBinary), nullable=False))
    placed_by: str = Field(sa_type=sa.Text)
    reason: str = Field(sa_type=sa.Text)
    at: datetime = Field(sa_column=timestamp(nullable=False))


class HoldRelease(Table, table=True):
    """The end of a hold."""

    __tablename__ = "hold_release"
    id: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    released_by: str = Field(sa_type=sa.Text)
    reason: str = Field(sa_type=sa.Text)
    at: datetime = Field(sa_column=timestamp(nullable=False))


class MinimumIndex(Table, table=True):
    """The log promises to give out entries from `index` on (C2SP tlog-tiles, pruning); the largest counts."""

    __tablename__ = "minimum_index"
    index: int = Field(sa_column=big(primary_key=True))
    at: datetime = Field(sa_column=timestamp(nullable=False))


class Pruned(Table, table=True):
    """A month that left the database: entries from `first` up to but without `until`. The database fills in all but
    `partition` and `checkpoint_size`, and refuses a month that must stay."""

    __tablename__ = "pruned"
    partition: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    first: int = Field(sa_column=big())
    until: int = Field(sa_column=big())
    minimum_index: int = Field(sa_column=big())
    checkpoint_size: int = Field(sa_column=big())
    transaction: str = Field(sa_type=sa.Text)
    at: datetime = Field(sa_column=timestamp(nullable=False))


class PrunedEntry(Table, table=True):
    """What stays of an entry whose month was dropped: its place and hash. Its bytes are in the object store."""

    __tablename__ = "pruned_entry"
    __table_args__ = (sa.Index(None, "topic", "partition", "kafka_offset"),)
    index: int = Field(sa_column=big(primary_key=True))
    recorded_at: datetime = Field(sa_column=timestamp(nullable=False))
    topic: str = Field(sa_type=sa.Text)
    partition: int
    kafka_offset: int = Field(sa_column=big())
    leaf_hash: bytes


class HeldObject(Table, table=True):
    """An object of the store on which S3's legal hold was put because of a hold."""

    __tablename__ = "held_object"
    hold: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    key: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))


mechanism = Mechanism(Table.metadata)


def table_of(model: type[SQLModel]) -> sa.Table:
    """The Core table that a model declares."""
    table = model.metadata.tables[f"audit.{model.__tablename__}"]
    assert isinstance(table, sa.Table)
    return table


tree_head = table_of(TreeHead)
entry = table_of(Entry)
node = table_of(Node)
finding = table_of(Finding)
kafka_offset = table_of(KafkaOffset)
offset_gap = table_of(OffsetGap)
follower = table_of(Follower)
checkpoint = table_of(Checkpoint)
saved_search = table_of(SavedSearch)
retention_policy = table_of(RetentionPolicy)
hold = table_of(Hold)
hold_release = table_of(HoldRelease)
minimum_index = table_of(MinimumIndex)
pruned = table_of(Pruned)
pruned_entry = table_of(PrunedEntry)
held_object = table_of(HeldObject)

# A view: every entry, also the pruned ones, whose `leaf` is null.
logged = sa.table("logged", *(sa.column(column.name, column.type) for column in entry.c), schema="audit")
