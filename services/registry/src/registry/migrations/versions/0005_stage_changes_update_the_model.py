"""A stage change counts as an update of the model."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        sa.text(
            "update registry.model m set updated_at = greatest(m.updated_at, moved.at) from "
            "(select workspace, model, max(entered_at) as at from registry.tenure group by workspace, model) moved "
            "where moved.workspace = m.workspace and moved.model = m.model"
        )
    )
