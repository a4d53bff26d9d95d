"""Silences, inhibition rules and the alarms that are on; what reminders remind of."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

STAMP = sa.DateTime(timezone=True)
LIST = postgresql.JSONB(astext_type=sa.Text())


def upgrade() -> None:
    op.create_table(
        "silence",
        sa.Column("silence_id", sa.String(), nullable=False),
        sa.Column("workspace", sa.String(), nullable=False),
        sa.Column("types", LIST, nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("stages", LIST, nullable=False),
        sa.Column("cel", sa.String(), nullable=True),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("starts_at", STAMP, nullable=False),
        sa.Column("ends_at", STAMP, nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("comment", sa.String(), nullable=False),
        sa.Column("created_at", STAMP, nullable=False),
        sa.Column("expired_by", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("silence_id", name=op.f("pk_silence")),
        schema="notifier",
    )
    op.create_index("ix_silence_workspace", "silence", ["workspace", "ends_at"], schema="notifier")
    op.create_table(
        "inhibition",
        sa.Column("inhibition_id", sa.String(), nullable=False),
        sa.Column("workspace", sa.String(), nullable=False),
        sa.Column("source_types", LIST, nullable=False),
        sa.Column("cel", sa.String(), nullable=True),
        sa.Column("until_types", LIST, nullable=False),
        sa.Column("seconds", sa.Integer(), nullable=False),
        sa.Column("target_types", LIST, nullable=False),
        sa.Column("equal", LIST, nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("comment", sa.String(), nullable=False),
        sa.Column("created_at", STAMP, nullable=False),
        sa.Column("removed_by", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("inhibition_id", name=op.f("pk_inhibition")),
        schema="notifier",
    )
    op.create_table(
        "alarm",
        sa.Column("inhibition_id", sa.String(), nullable=False),
        sa.Column("labels", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("until", STAMP, nullable=False),
        sa.PrimaryKeyConstraint("inhibition_id", "labels", name=op.f("pk_alarm")),
        schema="notifier",
    )
    op.add_column("delivery", sa.Column("held_by", sa.String(), nullable=True), schema="notifier")
    op.add_column("delivery", sa.Column("cancel_key", sa.String(), nullable=True), schema="notifier")
    op.create_index(
        "ix_delivery_cancel",
        "delivery",
        ["cancel_key"],
        schema="notifier",
        postgresql_where=sa.text("open and cancel_key is not null"),
    )
