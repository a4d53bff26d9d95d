"""Which events of the notifier's own told what the subscriptions were when an event was matched with them."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("source_event", sa.Column("known", sa.BigInteger(), nullable=True), schema="notifier")
