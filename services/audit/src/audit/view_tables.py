"""The views' tables: folds of `entry` and `finding`, which can be dropped and rebuilt."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlmodel import Field

from audit.tables import Table, big, table_of
from kit.db import timestamp


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
    index: int = Field(sa_column=big(primary_key=True))
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
    index: int = Field(sa_column=big(primary_key=True))
    known_from: int = Field(sa_column=big(primary_key=True))
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
    index: int = Field(sa_column=big(primary_key=True))
    known_from: int = Field(sa_column=big(primary_key=True))
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
    index: int = Field(sa_column=big(primary_key=True))
    workspace: str = Field(sa_type=sa.Text)
    sequence: int = Field(sa_column=big())
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
    index: int = Field(sa_column=big(primary_key=True))
    workspace: str = Field(sa_type=sa.Text)
    model: str = Field(sa_type=sa.Text)
    version: int
    stream: str = Field(sa_type=sa.Text)
    sequence: int = Field(sa_column=big())
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
    index: int = Field(sa_column=big())


class Revoked(Table, table=True):
    """An entry that says that nobody may use a version any more, since `at`. Of several the first in their stream
    counts, as far as it is known."""

    __tablename__ = "revoked"
    __table_args__ = (sa.Index(None, "workspace", "model", "version", "sequence"),)
    index: int = Field(sa_column=big(primary_key=True))
    workspace: str = Field(sa_type=sa.Text)
    model: str = Field(sa_type=sa.Text)
    version: int
    sequence: int = Field(sa_column=big())
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
    index: int = Field(sa_column=big(primary_key=True))
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
    index: int = Field(sa_column=big(primary_key=True))
    words: Any = Field(sa_column=sa.Column(TSVECTOR, nullable=False))
    names: str = Field(sa_type=sa.Text)


timeline = table_of(Timeline)
stage_interval = table_of(StageInterval)
alias_interval = table_of(AliasInterval)
configuration = table_of(Configuration)
claim = table_of(Claim)
model_name = table_of(ModelName)
revoked = table_of(Revoked)
fact = table_of(Fact)
search_entry = table_of(SearchEntry)
# Dropped and folded again by a rebuild.
VIEWS = (timeline, stage_interval, alias_interval, configuration, claim, model_name, revoked, fact)
