"""What is known of the groups of owners."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "standing",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("groups", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("person", sa.Boolean(), nullable=True),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("told_groups", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("told_person", sa.Boolean(), nullable=True),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_standing")),
        schema="notifier",
    )
