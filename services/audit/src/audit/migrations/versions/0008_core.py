"""Whoever asks which months may go keeps nobody from placing a hold; the guards know the version of PostgreSQL."""

from alembic import op

from audit.guards import changed, run_sql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    with changed(connection, "0008: judging a month locks nothing, the version of PostgreSQL is noted"):
        run_sql(connection, "0008_core")
