"""Subscriptions with pauses of their own, and the headers of tries."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("subscription", sa.Column("retry_seconds", postgresql.JSONB(), nullable=True), schema="notifier")
    op.add_column("attempt", sa.Column("headers", postgresql.JSONB(), nullable=True), schema="notifier")
