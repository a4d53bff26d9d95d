"""Fields of a request, and versions that were revoked."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    fields = sa.Column("fields", postgresql.JSONB(), nullable=False, server_default=sa.text("'{}'"))
    op.add_column("transition", fields, schema="registry")
    op.alter_column("transition", "fields", server_default=None, schema="registry")
    op.add_column("version", sa.Column("revocation", postgresql.JSONB(), nullable=True), schema="registry")
    op.create_index(
        "ix_version_revoked",
        "version",
        ["workspace", "model", "stage"],
        schema="registry",
        postgresql_where=sa.text("status = 'revoked'"),
    )
