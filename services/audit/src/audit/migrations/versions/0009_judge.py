"""What an event says besides its id, and indexes for questions that read everything. Run `python -m audit rebuild` once
to fill `content`: until then an entry of before counts as the first of any that has its id."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("timeline", sa.Column("content", sa.LargeBinary(), nullable=True), schema="audit")
    op.create_index(
        op.f("ix_timeline_subject"),
        "timeline",
        ["subject", "at", "index"],
        schema="audit",
        postgresql_ops={"subject": "text_pattern_ops"},
    )
    op.create_index(
        op.f("ix_timeline_outcome"),
        "timeline",
        ["outcome", "at", "index"],
        schema="audit",
        postgresql_where=sa.text("outcome <> 'ok'"),
    )
    # With the index of the entry, gaps are found without reading the timeline.
    op.drop_index(op.f("ix_timeline_topic_stream_sequence"), "timeline", schema="audit")
    op.create_index(
        op.f("ix_timeline_topic_stream_sequence_index"),
        "timeline",
        ["topic", "stream", "sequence", "index"],
        schema="audit",
    )
    op.create_index(op.f("ix_claim_refused"), "claim", ["index"], schema="audit", postgresql_where=sa.text("not good"))
