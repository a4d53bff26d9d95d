"""What became of a saved search's last run: allowed, denied or failed."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("saved_search", sa.Column("outcome", sa.Text(), nullable=True), schema="audit")
