"""Versions have a description that may change, and may be deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("version", sa.Column("deleted_at", sa.DateTime(timezone=True)), schema="registry")
    op.add_column("version", sa.Column("description", sa.String()), schema="registry")
    op.execute(sa.text("update registry.version set description = coalesce(content->>'notes', '')"))
    op.alter_column("version", "description", nullable=False, schema="registry")
