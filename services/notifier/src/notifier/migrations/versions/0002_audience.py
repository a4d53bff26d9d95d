"""Subscriptions that stand for somebody."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    audience = sa.Column("audience", postgresql.JSONB(), nullable=False, server_default=sa.text("'[]'"))
    op.add_column("subscription", audience, schema="notifier")
    op.alter_column("subscription", "audience", server_default=None, schema="notifier")
