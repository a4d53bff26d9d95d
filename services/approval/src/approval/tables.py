"""Tables of the schema `approval`: views of its own events, and its copy of what the registry's events tell."""

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from kit.db import Mechanism, tables_of, timestamp


class Table(SQLModel, registry=tables_of("approval")):
    """The base of this service's tables."""


class PolicyRow(Table, table=True):
    """One revision of a policy (view)."""

    __tablename__ = "policy"
    name: str = Field(primary_key=True)
    revision: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    digest: str
    document: str
    published_by: str
    published_at: datetime = Field(sa_column=timestamp(nullable=False))


class RequestRow(Table, table=True):
    """One request (view). `state` is `domain.Request` as JSON; the other columns are for finding it."""

    __tablename__ = "request"
    __table_args__ = (sa.Index(None, "status", "expires_at"), sa.Index(None, "opened_at", "request_id"))
    request_id: str = Field(primary_key=True)
    workspace: str
    model: str
    version: int
    status: str
    opened_at: datetime = Field(sa_column=timestamp(nullable=False))
    expires_at: datetime = Field(sa_column=timestamp(nullable=False))
    last_vote_at: datetime | None = Field(default=None, sa_column=timestamp())
    state: str


class ModelRow(Table, table=True):
    """Copy of the registry's model."""

    __tablename__ = "model"
    workspace: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    data: str


class VersionRow(Table, table=True):
    """Copy of a registered version. `data` is the payload of `version.registered` as it came."""

    __tablename__ = "version"
    workspace: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    digest: str
    artifact_digest: str
    registered_at: datetime = Field(sa_column=timestamp(nullable=False))
    data: str


class StayRow(Table, table=True):
    """A version has been in a stage. `sequence` is the registry's, of its latest entry; `present`: it still is."""

    __tablename__ = "stay"
    workspace: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    stage: str = Field(primary_key=True)
    sequence: int = Field(sa_type=sa.BigInteger)
    present: bool


mechanism = Mechanism(Table.metadata)


def of(row: type[Table]) -> sa.Table:
    """The Core table that a SQLModel class declares."""
    table = row.__table__  # type: ignore[attr-defined]
    assert isinstance(table, sa.Table)
    return table
