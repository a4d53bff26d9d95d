"""The tables of the schema `audit`, beside the mechanism's own (`kit.db`).

`entry`, `node`, `finding` and `checkpoint` are append-only; `tree_head` only grows; `timeline` and all that follows it
are views that can be rebuilt from `entry` and `finding`.
"""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlmodel import Field, SQLModel

from kit.db import Mechanism, tables_of, timestamp


class Table(SQLModel, registry=tables_of("audit")):
    """The base of this service's tables."""


def _big(**options: Any) -> Any:
    return sa.Column(sa.BigInteger, nullable=False, autoincrement=False, **options)


class TreeHead(Table, table=True):
    """One row: the size, root and frontier of the tree. Its update is a compare-and-set on `size`."""

    __tablename__ = "tree_head"
    __table_args__ = (sa.CheckConstraint("id = 1", name="single"),)
    id: int = Field(sa_column=sa.Column(sa.SmallInteger, primary_key=True, autoincrement=False))
    size: int = Field(sa_column=_big())
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
    index: int = Field(sa_column=_big(primary_key=True))
    recorded_at: datetime = Field(sa_column=timestamp(primary_key=True))
    topic: str = Field(sa_type=sa.Text)
    partition: int
    kafka_offset: int = Field(sa_column=_big())
    leaf: bytes
    leaf_hash: bytes


class Node(Table, table=True):
    """The root over `256**level` leaves from `index * 256**level` on: what a tile of that level holds."""

    __tablename__ = "node"
    level: int = Field(sa_column=sa.Column(sa.SmallInteger, primary_key=True, autoincrement=False))
    index: int = Field(sa_column=_big(primary_key=True))
    hash: bytes


class Finding(Table, table=True):
    """What was wrong with an entry when it was read for the first time."""

    __tablename__ = "finding"
    index: int = Field(sa_column=_big(primary_key=True))
    code: str = Field(sa_type=sa.Text)
    detail: str = Field(sa_type=sa.Text)


class KafkaOffset(Table, table=True):
    """How far a partition was read. A new `epoch` begins when the broker forgot its log and gave offsets anew; the
    entries of the epoch have an index from `since` on."""

    __tablename__ = "kafka_offset"
    topic: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    partition: int = Field(sa_column=sa.Column(sa.Integer, primary_key=True, autoincrement=False))
    epoch: int = Field(sa_column=sa.Column(sa.Integer, primary_key=True, autoincrement=False))
    lowest: int = Field(sa_column=_big())
    next: int = Field(sa_column=_big())
    entries: int = Field(sa_column=_big())
    since: int = Field(sa_column=_big())


class OffsetGap(Table, table=True):
    """Offsets, from `first` up to but without `until`, of which the broker said that it has no record."""

    __tablename__ = "offset_gap"
    topic: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    partition: int = Field(sa_column=sa.Column(sa.Integer, primary_key=True, autoincrement=False))
    epoch: int = Field(sa_column=sa.Column(sa.Integer, primary_key=True, autoincrement=False))
    first: int = Field(sa_column=_big(primary_key=True))
    until: int = Field(sa_column=_big(primary_key=True))


class Follower(Table, table=True):
    """How far an asynchronous reader of the log has come: `next` is the first index that it has not taken."""

    __tablename__ = "follower"
    name: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    next: int = Field(sa_column=_big())


class Checkpoint(Table, table=True):
    """One signed note per size: never two roots."""

    __tablename__ = "checkpoint"
    size: int = Field(sa_column=_big(primary_key=True))
    root: bytes
    note: str = Field(sa_type=sa.Text)
    at: datetime = Field(sa_column=timestamp(nullable=False))


class RetentionPolicy(Table, table=True):
    """A published policy; the newest counts. `rules`: list of {topic, type, days}, "*" is any."""

    __tablename__ = "retention_policy"
    sequence: int = Field(sa_column=_big(primary_key=True))
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
    index: int = Field(sa_column=_big(primary_key=True))
    at: datetime = Field(sa_column=timestamp(nullable=False))


class Pruned(Table, table=True):
    """A month that left the database: entries from `first` up to but without `until`. The database fills in all but
    `partition` and `checkpoint_size`, and refuses a month that must stay."""

    __tablename__ = "pruned"
    partition: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    first: int = Field(sa_column=_big())
    until: int = Field(sa_column=_big())
    minimum_index: int = Field(sa_column=_big())
    checkpoint_size: int = Field(sa_column=_big())
    transaction: str = Field(sa_type=sa.Text)
    at: datetime = Field(sa_column=timestamp(nullable=False))


class PrunedEntry(Table, table=True):
    """What stays of an entry whose month was dropped: its place and hash. Its bytes are in the object store."""

    __tablename__ = "pruned_entry"
    __table_args__ = (sa.Index(None, "topic", "partition", "kafka_offset"),)
    index: int = Field(sa_column=_big(primary_key=True))
    recorded_at: datetime = Field(sa_column=timestamp(nullable=False))
    topic: str = Field(sa_type=sa.Text)
    partition: int
    kafka_offset: int = Field(sa_column=_big())
    leaf_hash: bytes


class HeldObject(Table, table=True):
    """An object of the store on which S3's legal hold was put because of a hold."""

    __tablename__ = "held_object"
    hold: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    key: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))


class Timeline(Table, table=True):
    """One row per entry, for people. `copy_of` is the first entry with the same event id, topic and `content`, which is
    a digest of the event.

    `outcome` is ok, refused or failed, as the event tells. `revised` is the entry whose rules changed what is told.
    """

    __tablename__ = "timeline"
    __table_args__ = (
        sa.Index(None, "workspace", "model", "at", "index"),
        sa.Index(None, "at", "index"),
        sa.Index(None, "topic", "event_id"),
        sa.Index(None, "correlationid"),
        sa.Index(None, "stream", "index"),
        sa.Index(None, "topic", "stream", "sequence", "index"),
        sa.Index(None, "actor", "at", "index"),
        sa.Index(None, "type", "at", "index"),
        sa.Index(None, "recorded_at", "index"),
        sa.Index("ix_timeline_problem", "at", "index", postgresql_where=sa.text("problem is not null")),
        sa.Index(None, "revised", postgresql_where=sa.text("revised is not null")),
        sa.Index("ix_timeline_subject", "subject", "at", "index", postgresql_ops={"subject": "text_pattern_ops"}),
        sa.Index("ix_timeline_outcome", "outcome", "at", "index", postgresql_where=sa.text("outcome <> 'ok'")),
    )
    index: int = Field(sa_column=_big(primary_key=True))
    at: datetime = Field(sa_column=timestamp(nullable=False))
    recorded_at: datetime = Field(sa_column=timestamp(nullable=False))
    topic: str = Field(sa_type=sa.Text)
    event_id: str | None = Field(sa_type=sa.Text)
    type: str | None = Field(sa_type=sa.Text)
    subject: str | None = Field(sa_type=sa.Text)
    stream: str | None = Field(sa_type=sa.Text)
    sequence: int | None = Field(sa_type=sa.BigInteger)
    workspace: str | None = Field(sa_type=sa.Text)
    model: str | None = Field(sa_type=sa.Text)
    version: int | None
    actor: str | None = Field(sa_type=sa.Text)
    correlationid: str | None = Field(sa_type=sa.Text)
    causationid: str | None = Field(sa_type=sa.Text)
    summary: str = Field(sa_type=sa.Text)
    problem: str | None = Field(sa_type=sa.Text)
    copy_of: int | None = Field(sa_type=sa.BigInteger)
    outcome: str = Field(sa_type=sa.Text)
    revised: int | None = Field(default=None, sa_type=sa.BigInteger)
    content: bytes | None = Field(default=None, sa_type=sa.LargeBinary)


class StageInterval(Table, table=True):
    """A version's stay in a stage, from `since` up to but without `until`. `index` is the entry that opened it.

    Bitemporal: the entry `known_from` made it known, and `known_until` replaced it (null: it is known still). A tree of
    n entries knows the rows with known_from < n <= known_until.
    """

    __tablename__ = "stage_interval"
    __table_args__ = (
        sa.Index(None, "workspace", "model", "stage", "since"),
        sa.Index(None, "workspace", "model", "version"),
    )
    index: int = Field(sa_column=_big(primary_key=True))
    known_from: int = Field(sa_column=_big(primary_key=True))
    known_until: int | None = Field(sa_type=sa.BigInteger)
    workspace: str = Field(sa_type=sa.Text)
    model: str = Field(sa_type=sa.Text)
    version: int
    stage: str = Field(sa_type=sa.Text)
    since: datetime = Field(sa_column=timestamp(nullable=False))
    until: datetime | None = Field(sa_column=timestamp())
    closed_by: int | None = Field(sa_type=sa.BigInteger)
    kind: str = Field(sa_type=sa.Text)
    requested_by: str = Field(sa_type=sa.Text)
    reason: str = Field(sa_type=sa.Text)
    digest: str = Field(sa_type=sa.Text)
    artifact_digest: str = Field(sa_type=sa.Text)
    approved_by: list[dict[str, Any]] = Field(sa_type=JSONB)
    criteria: list[dict[str, Any]] = Field(sa_type=JSONB)
    policy: str | None = Field(sa_type=sa.Text)
    decision_id: str | None = Field(sa_type=sa.Text)
    transition_id: str | None = Field(sa_type=sa.Text)
    superseded_by: int | None


class AliasInterval(Table, table=True):
    """Where an alias pointed, from `since` up to but without `until`. `version` is null after a removal, and then
    the other columns say who removed it and why. Bitemporal, as `StageInterval`."""

    __tablename__ = "alias_interval"
    __table_args__ = (sa.Index(None, "workspace", "model", "alias", "since"), sa.Index(None, "transition_id"))
    index: int = Field(sa_column=_big(primary_key=True))
    known_from: int = Field(sa_column=_big(primary_key=True))
    known_until: int | None = Field(sa_type=sa.BigInteger)
    workspace: str = Field(sa_type=sa.Text)
    model: str = Field(sa_type=sa.Text)
    alias: str = Field(sa_type=sa.Text)
    version: int | None
    previous: int | None
    since: datetime = Field(sa_column=timestamp(nullable=False))
    until: datetime | None = Field(sa_column=timestamp())
    closed_by: int | None = Field(sa_type=sa.BigInteger)
    requested_by: str = Field(sa_type=sa.Text)
    reason: str = Field(sa_type=sa.Text)
    digest: str | None = Field(sa_type=sa.Text)
    artifact_digest: str | None = Field(sa_type=sa.Text)
    approved_by: list[dict[str, Any]] = Field(sa_type=JSONB)
    criteria: list[dict[str, Any]] = Field(sa_type=JSONB)
    policy: str | None = Field(sa_type=sa.Text)
    decision_id: str | None = Field(sa_type=sa.Text)
    transition_id: str | None = Field(sa_type=sa.Text)


class Configuration(Table, table=True):
    """The rules that a workspace got, one row per entry that gave it some. `sequence` is that of its stream."""

    __tablename__ = "configuration"
    __table_args__ = (sa.Index(None, "workspace", "sequence"),)
    index: int = Field(sa_column=_big(primary_key=True))
    workspace: str = Field(sa_type=sa.Text)
    sequence: int = Field(sa_column=_big())
    at: datetime = Field(sa_column=timestamp(nullable=False))
    lifecycle: dict[str, Any] = Field(sa_type=JSONB)
    protected_aliases: list[str] = Field(sa_type=JSONB)


class Claim(Table, table=True):
    """An entry that says a version entered `target`: a stage, or `@alias`. `good`: it may count.

    `judged`: it carries no decision, so that the rules of its workspace say whether it is good; see `audit.rules`.
    `origin` is the stage it left.
    """

    __tablename__ = "claim"
    __table_args__ = (
        sa.Index(None, "workspace", "at"),
        sa.Index(None, "stream", "sequence"),
        sa.Index("ix_claim_refused", "index", postgresql_where=sa.text("not good")),
    )
    index: int = Field(sa_column=_big(primary_key=True))
    workspace: str = Field(sa_type=sa.Text)
    model: str = Field(sa_type=sa.Text)
    version: int
    stream: str = Field(sa_type=sa.Text)
    sequence: int = Field(sa_column=_big())
    at: datetime = Field(sa_column=timestamp(nullable=False))
    target: str = Field(sa_type=sa.Text)
    origin: str | None = Field(sa_type=sa.Text)
    kind: str = Field(sa_type=sa.Text)
    transition_id: str | None = Field(sa_type=sa.Text)
    superseded_by: int | None
    judged: bool
    good: bool


class ModelName(Table, table=True):
    """A name that a model has or had. `model` is the one it was registered under: its identity, and a name of it."""

    __tablename__ = "model_name"
    workspace: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    name: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    model: str = Field(sa_column=sa.Column(sa.Text, primary_key=True))
    index: int = Field(sa_column=_big())


class Revoked(Table, table=True):
    """An entry that says that nobody may use a version any more, since `at`. Of several the first in their stream
    counts, as far as it is known."""

    __tablename__ = "revoked"
    __table_args__ = (sa.Index(None, "workspace", "model", "version", "sequence"),)
    index: int = Field(sa_column=_big(primary_key=True))
    workspace: str = Field(sa_type=sa.Text)
    model: str = Field(sa_type=sa.Text)
    version: int
    sequence: int = Field(sa_column=_big())
    at: datetime = Field(sa_column=timestamp(nullable=False))
    revoked_by: str = Field(sa_type=sa.Text)
    reason: str = Field(sa_type=sa.Text)
    fallback: int | None


class Fact(Table, table=True):
    """What an entry of the registry or of the approval service says, without what is bulky or signed (`audit.facts`).

    `person` is who did it; `request` is the request or transition it belongs to.
    """

    __tablename__ = "fact"
    __table_args__ = (
        sa.Index(None, "workspace", "model", "version", "index"),
        sa.Index(None, "type", "index"),
        sa.Index(None, "person", "index"),
        sa.Index(None, "request"),
    )
    index: int = Field(sa_column=_big(primary_key=True))
    at: datetime = Field(sa_column=timestamp(nullable=False))
    type: str = Field(sa_type=sa.Text)
    workspace: str | None = Field(sa_type=sa.Text)
    model: str | None = Field(sa_type=sa.Text)
    version: int | None
    person: str | None = Field(sa_type=sa.Text)
    request: str | None = Field(sa_type=sa.Text)
    data: dict[str, Any] = Field(sa_type=JSONB)


class SearchEntry(Table, table=True):
    """The words of an entry, and its names and ids for search by a part of them. Filled behind the timeline."""

    __tablename__ = "search_entry"
    __table_args__ = (
        sa.Index(None, "words", postgresql_using="gin"),
        # Where PostgreSQL has pg_trgm.
        sa.Index(None, "names", postgresql_using="gin", postgresql_ops={"names": "gin_trgm_ops"}),
    )
    index: int = Field(sa_column=_big(primary_key=True))
    words: Any = Field(sa_column=sa.Column(TSVECTOR, nullable=False))
    names: str = Field(sa_type=sa.Text)


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
    next: int = Field(sa_column=_big())
    due_at: datetime | None = Field(sa_column=timestamp())
    ran_at: datetime | None = Field(sa_column=timestamp())
    matches: int | None = Field(sa_type=sa.BigInteger)


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
timeline = table_of(Timeline)
stage_interval = table_of(StageInterval)
alias_interval = table_of(AliasInterval)
configuration = table_of(Configuration)
claim = table_of(Claim)
model_name = table_of(ModelName)
revoked = table_of(Revoked)
fact = table_of(Fact)
search_entry = table_of(SearchEntry)
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
# Dropped and folded again by a rebuild.
VIEWS = (timeline, stage_interval, alias_interval, configuration, claim, model_name, revoked, fact)
