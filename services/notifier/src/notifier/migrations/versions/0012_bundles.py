"""Messages about many events."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

STAMP = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("subscription", sa.Column("bundling", postgresql.JSONB(), nullable=True), schema="notifier")
    op.create_table(
        "bundle",
        sa.Column("subscription_id", sa.String(), nullable=False),
        sa.Column("labels", sa.String(), nullable=False),
        sa.Column("due_at", STAMP, nullable=True),
        sa.Column("event_at", STAMP, nullable=False),
        sa.Column("sent_at", STAMP, nullable=True),
        sa.Column("message", postgresql.JSONB(), nullable=True),
        sa.Column("request", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("subscription_id", "labels", name=op.f("pk_bundle")),
        schema="notifier",
    )
    op.create_index("ix_bundle_due", "bundle", ["due_at"], schema="notifier")
    op.create_index("ix_bundle_request", "bundle", ["request"], schema="notifier")
    op.drop_index("ix_delivery_cancel", "delivery", schema="notifier")
    for name, columns, where in (
        ("ix_delivery_cancel", ["cancel_key"], "cancel_key is not null"),
        ("ix_delivery_held", ["held_by", "subscription_id"], "held_by is not null"),
    ):
        op.create_index(name, "delivery", columns, schema="notifier", postgresql_where=sa.text(where))
