"""Filters by stage and expression; every event that is read is kept, so that filters can be tried on it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    stages = sa.Column("stages", postgresql.JSONB(), nullable=False, server_default=sa.text("'[]'"))
    op.add_column("subscription", stages, schema="notifier")
    op.alter_column("subscription", "stages", server_default=None, schema="notifier")
    op.add_column("subscription", sa.Column("cel", sa.String(), nullable=True), schema="notifier")
    op.create_table(
        "filter_error",
        sa.Column("subscription_id", sa.String(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("subscription_id", name=op.f("pk_filter_error")),
        schema="notifier",
    )
    op.add_column("source_event", sa.Column("workspace", sa.String(), nullable=True), schema="notifier")
    op.add_column("source_event", sa.Column("type", sa.String(), nullable=True), schema="notifier")
    op.execute(
        """
        update notifier.source_event set
          type = (select h ->> 1 from json_array_elements(headers) h where h ->> 0 = 'ce_type' limit 1),
          workspace = (
            select case
              when h ->> 1 like 'workspace:%' then substr(h ->> 1, 11)
              when h ->> 1 ~ '^[^:/]+/[^:/]+(/[0-9]+)?$' then split_part(h ->> 1, '/', 1)
            end
            from json_array_elements(headers) h where h ->> 0 = 'ce_subject' limit 1)
        """
    )
    op.alter_column("source_event", "type", nullable=False, schema="notifier")
    position = sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False)
    op.add_column("source_event", position, schema="notifier")
    op.create_index("ix_source_event_position", "source_event", ["position"], schema="notifier")
    op.create_index("ix_source_event_workspace", "source_event", ["workspace", "position"], schema="notifier")
