"""Tables of the schema `approval`: views of its own events, its copy of what the registry's events tell, and where open
requests stand, which is computed from both."""

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from kit.db import Mechanism, tables_of, timestamp


class Table(SQLModel, registry=tables_of("approval")):
    """The base of this service's tables."""


# -- views of own events ------------------------------------------------------------------------------------------


class PolicyRow(Table, table=True):
    """One revision of a policy."""

    __tablename__ = "policy"
    name: str = Field(primary_key=True)
    revision: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    digest: str
    document: str
    published_by: str
    published_at: datetime = Field(sa_column=timestamp(nullable=False))


class RequestRow(Table, table=True):
    """One request. `state` is `domain.Request` as JSON; the other columns are for finding it. `freezes`: the model may
    not be promoted because of it."""

    __tablename__ = "request"
    __table_args__ = (
        sa.Index(None, "status", "opened_at", "request_id"),
        sa.Index(None, "opened_at", "request_id"),
        sa.Index(None, "requested_by", "status", "opened_at", "request_id"),
        sa.Index(None, "workspace", "status", "opened_at", "request_id"),
        sa.Index(None, "model", "status", "opened_at", "request_id"),
        sa.Index("ix_request_freezes", "workspace", "model", postgresql_where=sa.text("freezes")),
    )
    request_id: str = Field(primary_key=True)
    workspace: str
    model: str
    version: int
    kind: str
    status: str
    requested_by: str
    opened_at: datetime = Field(sa_column=timestamp(nullable=False))
    freezes: bool
    state: str


class EvidenceRow(Table, table=True):
    """A piece of evidence of a version. `data` is `contracts.approval.Evidence` as JSON."""

    __tablename__ = "evidence"
    __table_args__ = (sa.Index(None, "workspace", "model", "version", "at"),)
    evidence_id: str = Field(primary_key=True)
    workspace: str
    model: str
    version: int
    at: datetime = Field(sa_column=timestamp(nullable=False))
    data: str


class DelegationRow(Table, table=True):
    """`delegate` may vote where `delegator` may, from `starts` until `ends` or until it was ended."""

    __tablename__ = "delegation"
    __table_args__ = (
        sa.Index(None, "delegate", "ends"),
        sa.Index(None, "delegator", "ends"),
        sa.Index(None, "granted_at", "delegation_id"),
    )
    delegation_id: str = Field(primary_key=True)
    delegator: str
    delegate: str
    starts: datetime = Field(sa_column=timestamp(nullable=False))
    ends: datetime = Field(sa_column=timestamp(nullable=False))
    reason: str
    granted_at: datetime = Field(sa_column=timestamp(nullable=False))
    ended_at: datetime | None = Field(default=None, sa_column=timestamp())
    ended_by: str | None = None


class MemberRow(Table, table=True):
    """What is known of somebody: the groups they are in now."""

    __tablename__ = "member"
    subject: str = Field(primary_key=True)
    groups: list[str] = Field(sa_column=sa.Column(ARRAY(sa.Text()), nullable=False))
    person: bool
    told_by: str
    at: datetime = Field(sa_column=timestamp(nullable=False))


# -- copies of the registry ---------------------------------------------------------------------------------------


class ModelRow(Table, table=True):
    """Copy of the registry's model. `data` is what policies see of it, as JSON."""

    __tablename__ = "model"
    workspace: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    data: str


class VersionRow(Table, table=True):
    """Copy of a registered version. `data` is the payload of `version.registered` as it came; `learnt`, what came later
    (tags, evaluations, whether a scanner found it unsafe), as JSON."""

    __tablename__ = "version"
    workspace: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    digest: str
    artifact_digest: str
    registered_at: datetime = Field(sa_column=timestamp(nullable=False))
    data: str
    learnt: str = Field(default="{}", sa_column_kwargs={"server_default": "{}"})


class StayRow(Table, table=True):
    """A version has been in a stage. `sequence` is the registry's, of its latest entry; `present`: it still is."""

    __tablename__ = "stay"
    workspace: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    stage: str = Field(primary_key=True)
    sequence: int = Field(sa_type=sa.BigInteger)
    present: bool


# -- where requests stand -----------------------------------------------------------------------------------------


class StandingRow(Table, table=True):
    """What a request waits for, as it was last looked at. `due_at`: when time alone may change it. `heard` have voted
    on it."""

    __tablename__ = "standing"
    __table_args__ = (sa.Index(None, "due_at"),)
    request_id: str = Field(primary_key=True)
    phase: str
    waits_for: str
    due_at: datetime | None = Field(default=None, sa_column=timestamp())
    heard: list[str] = Field(sa_column=sa.Column(ARRAY(sa.Text()), nullable=False))


class AskedRow(Table, table=True):
    """A group that a request waits for, `without` those who must not vote on it or have. `delegation`: the longest by
    which others may act for somebody of the group; None: nobody may."""

    __tablename__ = "asked"
    __table_args__ = (
        sa.Index(None, "request_id"),
        sa.Index(None, "workspace", "group_name", "status", "opened_at", "request_id"),
        sa.Index(None, "model", "group_name", "status", "opened_at", "request_id"),
    )
    group_name: str = Field(primary_key=True)
    status: str = Field(primary_key=True)
    opened_at: datetime = Field(sa_column=timestamp(nullable=False, primary_key=True))
    request_id: str = Field(primary_key=True)
    workspace: str
    model: str
    without: list[str] = Field(sa_column=sa.Column(ARRAY(sa.Text()), nullable=False))
    delegation: timedelta | None = None


class CallRow(Table, table=True):
    """A webhook gate that is to be asked about a request, as it is bound now. `leased_until`: somebody is at it."""

    __tablename__ = "call"
    __table_args__ = (sa.Index(None, "next_at"),)
    request_id: str = Field(primary_key=True)
    gate: str = Field(primary_key=True)
    request_digest: str = Field(primary_key=True)
    next_at: datetime = Field(sa_column=timestamp(nullable=False))
    attempts: int = 0
    leased_until: datetime | None = Field(default=None, sa_column=timestamp())


mechanism = Mechanism(Table.metadata)


def of(row: type[Table]) -> sa.Table:
    """The Core table that a SQLModel class declares."""
    table = row.__table__  # type: ignore[attr-defined]
    assert isinstance(table, sa.Table)
    return table
