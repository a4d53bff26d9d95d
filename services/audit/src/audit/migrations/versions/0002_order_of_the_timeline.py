"""The timeline is read in order of what happened."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index(op.f("ix_timeline_workspace_model_index"), table_name="timeline", schema="audit")
    op.create_index(
        op.f("ix_timeline_workspace_model_at_index"), "timeline", ["workspace", "model", "at", "index"], schema="audit"
    )
    op.create_index(op.f("ix_timeline_at_index"), "timeline", ["at", "index"], schema="audit")
