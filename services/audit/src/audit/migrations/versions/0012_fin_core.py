"""What the broker explained stays as it was written: `offset_gap` is guarded like the rest of the log."""

from alembic import op

from audit.guards import changed, run_sql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    with changed(connection, "0012: explained gaps of offsets are guarded too"):
        run_sql(connection, "0012_fin_core")
