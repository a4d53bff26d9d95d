"""Webhooks in the formats of other registries."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "subscription",
        sa.Column("format", sa.String(), nullable=False, server_default="cloudevents"),
        schema="notifier",
    )
    op.alter_column("subscription", "format", server_default=None, schema="notifier")
