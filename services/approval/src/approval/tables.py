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
    """One request. `state` is `domain.Request` as JSON; the other columns are for finding it. `freezes_at`: from
    then on the model may not be promoted because of it. `holds_until`: when its approval ends, if it has one."""

    __tablename__ = "request"
    __table_args__ = (
        sa.Index(None, "status", "opened_at", "request_id"),
        sa.Index(None, "opened_at", "request_id"),
        sa.Index(None, "requested_by", "status", "opened_at", "request_id"),
        sa.Index(None, "workspace", "status", "opened_at", "request_id"),
        sa.Index(None, "workspace", "model", "status", "opened_at", "request_id"),
        sa.Index(None, "model", "status", "opened_at", "request_id"),
        sa.Index(None, "workspace", "model", "freezes_at", postgresql_where=sa.text("freezes_at is not null")),
        sa.Index(None, "workspace", "model", "holds_until", postgresql_where=sa.text("holds_until is not null")),
    )
    request_id: str = Field(primary_key=True)
    workspace: str
    model: str
    version: int
    kind: str
    status: str
    requested_by: str
    opened_at: datetime = Field(sa_column=timestamp(nullable=False))
    freezes_at: datetime | None = Field(default=None, sa_column=timestamp())
    holds_until: datetime | None = Field(default=None, sa_column=timestamp())
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
    """What is known of somebody: what their newest token said, and what the directory told last; `members.Known` makes
    one of both."""

    __tablename__ = "member"
    subject: str = Field(primary_key=True)
    groups: list[str] | None = Field(default=None, sa_column=sa.Column(ARRAY(sa.Text())))
    person: bool | None = None
    issued_at: datetime | None = Field(default=None, sa_column=timestamp())
    email: str | None = None
    told_groups: list[str] | None = Field(default=None, sa_column=sa.Column(ARRAY(sa.Text())))
    told_person: bool | None = None
    told_by: str | None = None
    told_at: datetime | None = Field(default=None, sa_column=timestamp())


class AccountRow(Table, table=True):
    """Whose an account of another system is. `account` is a digest of its name."""

    __tablename__ = "account"
    account: str = Field(primary_key=True)
    system: str
    subject: str = Field(index=True)
    linked_at: datetime = Field(sa_column=timestamp(nullable=False))


class LinkCodeRow(Table, table=True):
    """A code that links the account it is entered with to `subject`, once. `code` is its digest."""

    __tablename__ = "link_code"
    code: str = Field(primary_key=True)
    subject: str
    expires_at: datetime = Field(sa_column=timestamp(nullable=False))


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


class OutcomeRow(Table, table=True):
    """The registry has told what became of this request: it was carried out, or refused."""

    __tablename__ = "outcome"
    transition_id: str = Field(primary_key=True)


# -- where requests stand -----------------------------------------------------------------------------------------


class StandingRow(Table, table=True):
    """What a request waits for, as it was last looked at. `due_at`: when time alone may change it. `acted` have voted
    on it, or waived a gate of it, whether or not that counts now."""

    __tablename__ = "standing"
    __table_args__ = (sa.Index(None, "due_at"),)
    request_id: str = Field(primary_key=True)
    phase: str
    waits_for: str
    due_at: datetime | None = Field(default=None, sa_column=timestamp())
    acted: list[str] = Field(sa_column=sa.Column(ARRAY(sa.Text()), nullable=False))


class AskedRow(Table, table=True):
    """A group that a request waits for, `without` those who must not vote on it or have. `delegation`: the longest by
    which others may act for somebody of the group; None: nobody may."""

    __tablename__ = "asked"
    __table_args__ = (
        sa.Index(None, "request_id"),
        sa.Index(None, "workspace", "group_name", "status", "opened_at", "request_id"),
        sa.Index("ix_asked_place", "workspace", "model", "group_name", "status", "opened_at", "request_id"),
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
    """A webhook gate that is to be asked about a request, as it is bound since `bound_at`. `leased_until`: somebody is
    at it."""

    __tablename__ = "call"
    __table_args__ = (sa.Index(None, "next_at"),)
    request_id: str = Field(primary_key=True)
    gate: str = Field(primary_key=True)
    bound_at: datetime = Field(sa_column=timestamp(nullable=False, primary_key=True))
    request_digest: str
    next_at: datetime = Field(sa_column=timestamp(nullable=False))
    attempts: int = 0
    leased_until: datetime | None = Field(default=None, sa_column=timestamp())


mechanism = Mechanism(Table.metadata)


def of(row: type[Table]) -> sa.Table:
    """The Core table that a SQLModel class declares."""
    table = row.__table__  # type: ignore[attr-defined]
    assert isinstance(table, sa.Table)
    return table
