"""The registry's tables: the mechanism's, and views that are folds of the events."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from kit.db import Mechanism, tables_of, timestamp


class Table(SQLModel, registry=tables_of("registry")):
    """The base of this service's tables."""


mechanism = Mechanism(Table.metadata)


class ModelRow(Table, table=True):
    __tablename__ = "model"

    workspace: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    description: str
    owner: str | None
    tags: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    versions: int
    registered_by: str
    registered_at: datetime = Field(sa_column=timestamp(nullable=False))


class VersionRow(Table, table=True):
    __tablename__ = "version"
    __table_args__ = (sa.Index(None, "workspace", "model", "stage"),)

    workspace: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    digest: str
    artifact_digest: str
    stage: str
    content: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    registered_by: str
    registered_at: datetime = Field(sa_column=timestamp(nullable=False))


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


VIEWS = (ModelRow, VersionRow, BlobRow, TenureRow, TransitionRow)
