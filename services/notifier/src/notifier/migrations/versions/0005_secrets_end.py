"""Secrets that are rotated away count for a while."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("secret", sa.Column("until", sa.DateTime(timezone=True)), schema="notifier")
