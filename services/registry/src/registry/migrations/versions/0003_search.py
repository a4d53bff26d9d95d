"""Indexes for what people search and order versions by."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_version_updated", "version", ["workspace", "updated_at", "model", "version"], schema="registry")
    op.create_index("ix_version_status", "version", ["workspace", "status", "model", "version"], schema="registry")
    op.create_index(
        "ix_version_source",
        "version",
        ["workspace", sa.text("(content #>> '{artifact,filename}')"), "model", "version"],
        schema="registry",
    )
    op.create_index("ix_version_number", "version", ["workspace", "version", "model"], schema="registry")
    op.create_index(
        "ix_model_deleted",
        "model",
        ["workspace", "model"],
        schema="registry",
        postgresql_where=sa.text("deleted_at is not null"),
    )
    op.create_index("ix_alias_name", "alias", ["workspace", "alias", "model", "version"], schema="registry")
