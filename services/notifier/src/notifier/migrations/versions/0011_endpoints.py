"""How the addresses fare that subscriptions lead to."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

STAMP = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "endpoint",
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("slots", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("probe_at", STAMP, nullable=True),
        sa.Column("probes", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("paused_until", STAMP, nullable=True),
        sa.Column("tokens", sa.Float(), server_default=sa.text("1"), nullable=False),
        sa.Column("refilled_at", STAMP, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", name=op.f("pk_endpoint")),
        schema="notifier",
    )
    op.create_table(
        "target",
        sa.Column("subscription_id", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("failing_since", STAMP, nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("told", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("subscription_id", name=op.f("pk_target")),
        schema="notifier",
    )
    op.create_index("ix_target_endpoint", "target", ["endpoint"], schema="notifier")
    # Addresses are sealed, so those of before are told apart by their subscriptions.
    op.execute(
        """
        insert into notifier.target (subscription_id, endpoint)
        select subscription_id, 'subscription:' || subscription_id from notifier.subscription where status <> 'removed'
        """
    )
    op.execute("insert into notifier.endpoint (endpoint) select endpoint from notifier.target")
