"""Subscriptions can be paused."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    paused: sa.Column[bool] = sa.Column("paused", sa.Boolean(), nullable=False, server_default=sa.text("false"))
    op.add_column("subscription", paused, schema="notifier")
    op.alter_column("subscription", "paused", server_default=None, schema="notifier")
