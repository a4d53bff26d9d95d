"""The registry's tables: the mechanism's, and views that are folds of the events."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from contracts.topics import REGISTRY_EVENTS
from kit.db import Mechanism, tables_of, timestamp
from kit.events import EventLog


class Table(SQLModel, registry=tables_of("registry")):
    """The base of this service's tables."""


mechanism = Mechanism(Table.metadata)


def event_log() -> EventLog:
    return EventLog(mechanism, topic=REGISTRY_EVENTS.name, source="hallmark/registry")


def t(row: type[SQLModel]) -> sa.Table:
    """The Core table that a SQLModel class declares."""
    table = row.__table__  # type: ignore[attr-defined]
    assert isinstance(table, sa.Table)
    return table


class WorkspaceRow(Table, table=True):
    """The rules of a workspace that has rules of its own."""

    __tablename__ = "workspace"

    workspace: str = Field(primary_key=True)
    lifecycle: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    naming: str | None
    naming_message: str
    protected_aliases: list[Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    configured_by: str
    configured_at: datetime = Field(sa_column=timestamp(nullable=False))


class ModelRow(Table, table=True):
    """`model` is the name it was registered under and its identity for ever; `name` is the one it has now."""

    __tablename__ = "model"
    __table_args__ = (
        sa.Index("ix_model_name", "workspace", "name"),
        sa.Index("ix_model_deleted", "workspace", "model", postgresql_where=sa.text("deleted_at is not null")),
    )

    workspace: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    name: str
    description: str
    owner: str | None
    tags: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    versions: int
    registered_by: str
    registered_at: datetime = Field(sa_column=timestamp(nullable=False))
    updated_at: datetime = Field(sa_column=timestamp(nullable=False))
    deleted_at: datetime | None = Field(sa_column=timestamp())


class NameRow(Table, table=True):
    """Every name a model ever had leads to it, so that nobody else can take it and old links hold."""

    __tablename__ = "name"

    workspace: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    model: str


class VersionRow(Table, table=True):
    """`status` is pending, ready, quarantined, rejected or revoked; `tags` are the present ones.

    `revocation` has who, why and when, the version to return to, and the sequence of the event. `description` is what
    was said of it last; the notes of its registration are in `content`.
    """

    __tablename__ = "version"
    __table_args__ = (
        sa.Index("ix_version_stage", "workspace", "model", "stage"),
        sa.Index("ix_version_pending", "registered_at", postgresql_where=sa.text("status = 'pending'")),
        sa.Index("ix_version_registered", "workspace", "registered_at", "model", "version"),
        sa.Index("ix_version_author", "workspace", "registered_by", "registered_at"),
        sa.Index("ix_version_artifact", "artifact_digest"),
        sa.Index("ix_version_in_stage", "workspace", "stage", "model", "version"),
        sa.Index("ix_version_updated", "workspace", "updated_at", "model", "version"),
        sa.Index("ix_version_status", "workspace", "status", "model", "version"),
        sa.Index("ix_version_number", "workspace", "version", "model"),
        sa.Index("ix_version_source", "workspace", sa.text("(content #>> '{artifact,filename}')"), "model", "version"),
        sa.Index("ix_version_revoked", "workspace", "model", "stage", postgresql_where=sa.text("status = 'revoked'")),
        sa.Index("ix_version_run", "workspace", "run_id", postgresql_where=sa.text("run_id is not null")),
    )

    workspace: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    digest: str
    artifact_digest: str
    stage: str
    status: str
    status_detail: str | None
    revocation: dict[str, Any] | None = Field(sa_column=sa.Column(JSONB))
    content: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    inspection: dict[str, Any] | None = Field(sa_column=sa.Column(JSONB))
    tags: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    description: str
    run_id: str | None
    correlationid: str
    registered_by: str
    registered_at: datetime = Field(sa_column=timestamp(nullable=False))
    updated_at: datetime = Field(sa_column=timestamp(nullable=False))
    deleted_at: datetime | None = Field(sa_column=timestamp())


# An index row has room for 2 704 bytes: of a text, only the first characters are in it. Queries compare both.
INDEXED_CHARACTERS = 64


def _text_index(table: str) -> Any:
    """The index of a table of named texts: by the beginning of the value, within a workspace."""
    beginning = sa.text(f"left(value, {INDEXED_CHARACTERS})")
    return (sa.Index(f"ix_{table}_value", "workspace", "name", beginning, "model", "version"),)


class _Named(Table):
    """The key of what a version has many of, each under its own name."""

    workspace: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    name: str = Field(primary_key=True)


class MetricRow(_Named, table=True):
    """The metrics of registration, for search. Not a number is not stored."""

    __tablename__ = "metric"
    __table_args__ = (sa.Index("ix_metric_value", "workspace", "name", "value", "model", "version"),)

    value: float


class ParameterRow(_Named, table=True):
    """Parameters as text, for search."""

    __tablename__ = "parameter"
    __table_args__ = _text_index("parameter")

    value: str


class TagRow(_Named, table=True):
    """Present tags, for search: of a version, or with version 0 of the model."""

    __tablename__ = "tag"
    __table_args__ = _text_index("tag")

    value: str


class RemarkRow(Table, table=True):
    """What was appended to a version, in order: `kind` is evaluation, note or scan, `data` the event's own part."""

    __tablename__ = "remark"

    workspace: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    sequence: int = Field(primary_key=True, sa_type=sa.BigInteger, sa_column_kwargs={"autoincrement": False})
    kind: str
    data: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    by: str
    at: datetime = Field(sa_column=timestamp(nullable=False))


class AliasRow(Table, table=True):
    """Where an alias points now, and the sequence of the event that said so."""

    __tablename__ = "alias"
    __table_args__ = (
        sa.Index("ix_alias_version", "workspace", "model", "version"),
        sa.Index("ix_alias_name", "workspace", "alias", "model", "version"),
    )

    workspace: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    alias: str = Field(primary_key=True)
    version: int
    sequence: int = Field(sa_type=sa.BigInteger)
    set_by: str
    set_at: datetime = Field(sa_column=timestamp(nullable=False))


class AliasMoveRow(Table, table=True):
    """The history of aliases. `version` is null where the alias was removed."""

    __tablename__ = "alias_move"

    workspace: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    sequence: int = Field(primary_key=True, sa_type=sa.BigInteger, sa_column_kwargs={"autoincrement": False})
    alias: str
    version: int | None
    previous: int | None
    by: str
    reason: str
    at: datetime = Field(sa_column=timestamp(nullable=False))


class ServerRow(Table, table=True):
    """What a serving process said last that it has loaded."""

    __tablename__ = "server"

    workspace: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    server: str = Field(primary_key=True)
    target: str = Field(primary_key=True)
    version: int
    state: str
    detail: str
    reported_at: datetime = Field(sa_column=timestamp(nullable=False))


class BlobUseRow(Table, table=True):
    """Which version holds which blob: what is held is never collected."""

    __tablename__ = "blob_use"

    digest: str = Field(primary_key=True)
    workspace: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})


class UsageRow(Table, table=True):
    """Who resolved or watched which version, counted. Telemetry, not state: no event stands behind it."""

    __tablename__ = "usage"
    __table_args__ = (sa.Index("ix_usage_last", "workspace", "last_at"),)

    workspace: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    principal: str = Field(primary_key=True)
    how: str = Field(primary_key=True)
    count: int = Field(sa_type=sa.BigInteger)
    first_at: datetime = Field(sa_column=timestamp(nullable=False))
    last_at: datetime = Field(sa_column=timestamp(nullable=False))


class BlobRow(Table, table=True):
    """Blobs that a version holds: their bytes were verified."""

    __tablename__ = "blob"

    digest: str = Field(primary_key=True)
    size: int = Field(sa_type=sa.BigInteger)


class TenureRow(Table, table=True):
    """One stay of a version in a stage. `left_by` is the kind of the transition that ended it."""

    __tablename__ = "tenure"
    __table_args__ = (
        sa.Index("ix_tenure_current", "workspace", "model", "stage", postgresql_where=sa.text("left_sequence is null")),
    )

    workspace: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    entered_sequence: int = Field(primary_key=True, sa_type=sa.BigInteger, sa_column_kwargs={"autoincrement": False})
    stage: str
    version: int
    entered_at: datetime = Field(sa_column=timestamp(nullable=False))
    left_sequence: int | None = Field(sa_type=sa.BigInteger)
    left_by: str | None


class TransitionRow(Table, table=True):
    __tablename__ = "transition"
    __table_args__ = (
        sa.Index(
            "uq_transition_open",
            "workspace",
            "model",
            "version",
            "to_stage",
            unique=True,
            postgresql_where=sa.text("status = 'open'"),
        ),
        sa.Index("ix_transition_expiry", "expires_at", postgresql_where=sa.text("status = 'open'")),
    )

    transition_id: str = Field(primary_key=True)
    kind: str
    workspace: str
    model: str
    version: int
    digest: str
    artifact_digest: str
    from_stage: str
    to_stage: str
    status: str
    requested_by: str
    reason: str
    code: str | None
    detail: str | None
    criteria: list[Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    approved_by: list[Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    policy: str | None
    decision_id: str | None
    requested_at: datetime = Field(sa_column=timestamp(nullable=False))
    closed_at: datetime | None = Field(sa_column=timestamp())
    expires_at: datetime | None = Field(sa_column=timestamp())
    expected: int | None
    fields: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))


VIEWS = (
    WorkspaceRow,
    ModelRow,
    NameRow,
    VersionRow,
    MetricRow,
    ParameterRow,
    TagRow,
    RemarkRow,
    AliasRow,
    AliasMoveRow,
    ServerRow,
    BlobRow,
    BlobUseRow,
    TenureRow,
    TransitionRow,
)
