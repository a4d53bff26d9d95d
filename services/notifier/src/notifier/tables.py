"""The notifier's tables.

`subscription`, `silence`, `inhibition`, `template` and `standing` are views: folds of the events. The others are
operational: `delivery`, `lane`, `bundle`, `alarm`, `attempt`, `confirmation` are timers and a log of tries (outcomes
are events, due times are not), `source_event` is what was read (deliveries carry it, and filters are tried on it),
`filter_error` tells owners of filters that fail, and `secret` holds what no event may hold. `endpoint` and `target` say
how the addresses fare.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from kit.db import Mechanism, tables_of, timestamp


class Table(SQLModel, registry=tables_of("notifier")):
    """The base of this service's tables."""


def table_of(row: Any) -> sa.Table:
    """The Core table that a SQLModel class declares."""
    table = row.__table__
    assert isinstance(table, sa.Table)
    return table


mechanism = Mechanism(Table.metadata)


class SubscriptionRow(Table, table=True):
    __tablename__ = "subscription"
    __table_args__ = (
        sa.Index("ix_subscription_active", "workspace", postgresql_where=sa.text("status = 'active'")),
        sa.Index("ix_subscription_workspace", "workspace", "subscription_id"),
    )

    subscription_id: str = Field(primary_key=True)
    owner: str
    channel: str
    address: str
    types: list[Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    workspace: str
    model: str
    status: str
    reason: str | None
    created_at: datetime = Field(sa_column=timestamp(nullable=False))
    ended_at: datetime | None = Field(sa_column=timestamp())
    audience: list[Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    retry_seconds: list[Any] | None = Field(sa_column=sa.Column(JSONB(none_as_null=True)))
    order: str
    stages: list[Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    cel: str | None
    paused: bool
    bundling: dict[str, Any] | None = Field(sa_column=sa.Column(JSONB(none_as_null=True)))
    format: str


class BundleRow(Table, table=True):
    """Deliveries that wait to go out in one message. `due_at` is when to look at it (null: when the next one comes),
    `event_at` when the newest came, `sent_at` and `message` tell of the last message; `request` is the open request it
    is about."""

    __tablename__ = "bundle"
    __table_args__ = (sa.Index("ix_bundle_due", "due_at"), sa.Index("ix_bundle_request", "request"))

    subscription_id: str = Field(primary_key=True)
    labels: str = Field(primary_key=True)
    due_at: datetime | None = Field(sa_column=timestamp())
    event_at: datetime = Field(sa_column=timestamp(nullable=False))
    sent_at: datetime | None = Field(sa_column=timestamp())
    message: dict[str, Any] | None = Field(sa_column=sa.Column(JSONB(none_as_null=True)))
    request: str | None


class TemplateRow(Table, table=True):
    __tablename__ = "template"

    workspace: str = Field(primary_key=True)
    channel: str = Field(primary_key=True)
    types: str = Field(primary_key=True)
    revision: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    parts: dict[str, Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    published_by: str
    published_at: datetime = Field(sa_column=timestamp(nullable=False))
    current: bool


class SilenceRow(Table, table=True):
    __tablename__ = "silence"
    __table_args__ = (sa.Index("ix_silence_workspace", "workspace", "ends_at"),)

    silence_id: str = Field(primary_key=True)
    workspace: str
    types: list[Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    model: str
    stages: list[Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    cel: str | None
    owner: str | None
    starts_at: datetime = Field(sa_column=timestamp(nullable=False))
    ends_at: datetime = Field(sa_column=timestamp(nullable=False))
    author: str
    comment: str
    created_at: datetime = Field(sa_column=timestamp(nullable=False))
    expired_by: str | None


class InhibitionRow(Table, table=True):
    __tablename__ = "inhibition"

    inhibition_id: str = Field(primary_key=True)
    workspace: str
    source_types: list[Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    cel: str | None
    until_types: list[Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    seconds: int
    target_types: list[Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    equal: list[Any] = Field(sa_column=sa.Column(JSONB, nullable=False))
    author: str
    comment: str
    created_at: datetime = Field(sa_column=timestamp(nullable=False))
    removed_by: str | None


class AlarmRow(Table, table=True):
    """An alarm that is on: which rule hushes which labels, since which event, and until when at most."""

    __tablename__ = "alarm"

    inhibition_id: str = Field(primary_key=True)
    labels: str = Field(primary_key=True)
    event_id: str
    until: datetime = Field(sa_column=timestamp(nullable=False))


class FilterErrorRow(Table, table=True):
    """How often the expression of a subscription (or a silence, or a rule) had no answer, since it was last changed,
    and what it said last."""

    __tablename__ = "filter_error"

    subscription_id: str = Field(primary_key=True)
    count: int = Field(sa_column=sa.Column(sa.BigInteger, nullable=False))
    detail: str
    event_id: str
    at: datetime = Field(sa_column=timestamp(nullable=False))


SIGNING, FORMER, UNSUBSCRIBE, CONFIRM = "signing", "former-", "unsubscribe", "confirm"


class SecretRow(Table, table=True):
    """`name` is `signing`, `address`, `unsubscribe` and `confirm` (in links of mail), or of a secret that was rotated
    away `former-<id>`: it signs too, `until` then. `value` is sealed (`vault`)."""

    __tablename__ = "secret"

    subscription_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    value: bytes
    until: datetime | None = Field(default=None, sa_column=timestamp())


class ConfirmationRow(Table, table=True):
    """A mailbox that is asked whether it wants the mail. `due_at` is when the link is sent (null: it was, or never will
    be), `error` what went wrong the last time."""

    __tablename__ = "confirmation"
    __table_args__ = (sa.Index("ix_confirmation_due", "due_at", postgresql_where=sa.text("due_at is not null")),)

    subscription_id: str = Field(primary_key=True)
    asked_at: datetime = Field(sa_column=timestamp(nullable=False))
    expires_at: datetime = Field(sa_column=timestamp(nullable=False))
    due_at: datetime | None = Field(sa_column=timestamp())
    tries: int
    sent_at: datetime | None = Field(sa_column=timestamp())
    error: str | None


class EndpointRow(Table, table=True):
    """An address that deliveries go to, of one subscription or several. Its name is a keyed digest of the address. It
    is ill while `probe_at` is set, and has asked for peace `paused_until` then."""

    __tablename__ = "endpoint"

    endpoint: str = Field(primary_key=True)
    slots: list[Any] = Field(sa_column=sa.Column(JSONB, nullable=False, server_default=sa.text("'[]'")))
    probe_at: datetime | None = Field(sa_column=timestamp())
    probes: int = Field(sa_column=sa.Column(sa.Integer, nullable=False, server_default=sa.text("0")))
    paused_until: datetime | None = Field(sa_column=timestamp())
    tokens: float = Field(sa_column=sa.Column(sa.Float, nullable=False, server_default=sa.text("1")))
    refilled_at: datetime = Field(sa_column=timestamp(nullable=False, server_default=sa.func.now()))


class TargetRow(Table, table=True):
    """Where a subscription leads, and since when it has known failures only."""

    __tablename__ = "target"
    __table_args__ = (sa.Index("ix_target_endpoint", "endpoint"),)

    subscription_id: str = Field(primary_key=True)
    endpoint: str
    failing_since: datetime | None = Field(sa_column=timestamp())
    failures: int = Field(sa_column=sa.Column(sa.Integer, nullable=False, server_default=sa.text("0")))
    told: int = Field(sa_column=sa.Column(sa.Integer, nullable=False, server_default=sa.text("0")))


class SourceEventRow(Table, table=True):
    """Every event of the topics that are read. `position` is the order in which they came, that of a stream the one of
    its sequence; `workspace` is null of an event of none. `at` is when it happened, `taken_at` when it was matched with
    the subscriptions: these were what our own events up to position `known` tell (null: it was not matched)."""

    __tablename__ = "source_event"
    __table_args__ = (
        sa.Index("ix_source_event_position", "position"),
        sa.Index("ix_source_event_workspace", "workspace", "position"),
    )

    event_id: str = Field(primary_key=True)
    position: int | None = Field(sa_column=sa.Column(sa.BigInteger, sa.Identity(always=True), nullable=False))
    type: str
    workspace: str | None
    at: datetime = Field(sa_column=timestamp(nullable=False))
    taken_at: datetime = Field(sa_column=timestamp(nullable=False, server_default=sa.func.clock_timestamp()))
    headers: list[Any] = Field(sa_column=sa.Column(sa.JSON, nullable=False))
    stream: str
    value: bytes
    known: int | None = Field(sa_column=sa.Column(sa.BigInteger))


class LaneRow(Table, table=True):
    """Deliveries that wait for one another: those of one model, or each alone where the order does not matter. A row
    while one of them is open. `due_at` is when the oldest open one may go."""

    __tablename__ = "lane"
    __table_args__ = (sa.Index("ix_lane_due", "subscription_id", "due_at"),)

    subscription_id: str = Field(primary_key=True)
    lane: str = Field(primary_key=True)
    due_at: datetime = Field(sa_column=timestamp(nullable=False))
    leased_until: datetime | None = Field(sa_column=timestamp())


class DeliveryRow(Table, table=True):
    """`event_position`, that of the source event, orders a lane; `position` orders lists."""

    __tablename__ = "delivery"
    __table_args__ = (
        sa.UniqueConstraint("subscription_id", "event_id"),
        sa.Index("ix_delivery_lane", "subscription_id", "lane", "event_position", postgresql_where=sa.text("open")),
        sa.Index("ix_delivery_position", "position"),
        sa.Index("ix_delivery_cancel", "cancel_key", postgresql_where=sa.text("cancel_key is not null")),
        sa.Index("ix_delivery_held", "held_by", "subscription_id", postgresql_where=sa.text("held_by is not null")),
    )

    delivery_id: UUID = Field(primary_key=True)
    position: int | None = Field(sa_column=sa.Column(sa.BigInteger, sa.Identity(always=True), nullable=False))
    subscription_id: str
    event_id: str
    event_type: str
    subject: str
    lane: str
    event_position: int = Field(sa_column=sa.Column(sa.BigInteger, nullable=False))
    status: str
    open: bool
    # Tries in all, and tries since it was last made due by a person.
    attempts: int
    tries: int
    due_at: datetime = Field(sa_column=timestamp(nullable=False))
    created_at: datetime = Field(sa_column=timestamp(nullable=False, server_default=sa.func.now()))
    closed_at: datetime | None = Field(sa_column=timestamp())
    # Why it is not sent: the silence, the rule, the event that made it needless, the labels or the message that it is
    # in with others.
    held_by: str | None
    cancel_key: str | None
    # Whose words it was sent in, and why in the built-in ones after all.
    template: str | None
    template_error: str | None


class AttemptRow(Table, table=True):
    """Written when the try begins. One without an outcome was cut off: the receiver may have got it. `headers`: those
    `sent` and those `received`, without secrets."""

    __tablename__ = "attempt"

    delivery_id: UUID = Field(primary_key=True)
    attempt: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    started_at: datetime = Field(sa_column=timestamp(nullable=False))
    outcome: str | None
    status: int | None
    latency_ms: float | None
    detail: str | None
    response: str | None
    headers: dict[str, Any] | None = Field(sa_column=sa.Column(JSONB(none_as_null=True)))


class SlackThreadRow(Table, table=True):
    """The message that began the thread of a request, and whether it tells the end of it."""

    __tablename__ = "slack_thread"

    subscription_id: str = Field(primary_key=True)
    request_id: str = Field(primary_key=True)
    channel: str
    ts: str
    ended: bool
    at: datetime = Field(sa_column=timestamp(nullable=False, server_default=sa.func.now()))


class StandingRow(Table, table=True):
    """The groups of an owner: of the newest token, and those that the directory told last, which take away only."""

    __tablename__ = "standing"

    owner: str = Field(primary_key=True)
    groups: list[Any] | None = Field(sa_column=sa.Column(JSONB(none_as_null=True)))
    person: bool | None
    issued_at: datetime | None = Field(sa_column=timestamp())
    told_groups: list[Any] | None = Field(sa_column=sa.Column(JSONB(none_as_null=True)))
    told_person: bool | None
    told_at: datetime | None = Field(sa_column=timestamp())


VIEWS = (SubscriptionRow, SilenceRow, InhibitionRow, TemplateRow, StandingRow)
