"""The first tables. There is no way down: the log forgets nothing."""

from hashlib import sha256

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from kit.migrations import guard_events

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# As `kit.migrations.guard_events` does for `event`; ENABLE ALWAYS reaches owners and replicas too.
GUARD = """
create trigger {table}_guard_rows before update or delete on audit.{table}
  for each row execute function audit.refuse_change();
create trigger {table}_guard_table before truncate on audit.{table}
  for each statement execute function audit.refuse_change();
alter table audit.{table} enable always trigger {table}_guard_rows;
alter table audit.{table} enable always trigger {table}_guard_table;
"""
SHRINK = """
create function audit.refuse_shrink() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' and new.size > old.size and new.id = old.id then
    return new;
  end if;
  raise exception 'the tree only grows' using errcode = 'restrict_violation';
end $$;
create trigger tree_head_guard_rows before update or delete on audit.tree_head
  for each row execute function audit.refuse_shrink();
create trigger tree_head_guard_table before truncate on audit.tree_head
  for each statement execute function audit.refuse_shrink();
alter table audit.tree_head enable always trigger tree_head_guard_rows;
alter table audit.tree_head enable always trigger tree_head_guard_table;
"""


def upgrade() -> None:
    op.create_table(
        "checkpoint",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_checkpoint")),
        schema="audit",
    )
    op.create_table(
        "early",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "stream", "sequence", name=op.f("pk_early")),
        schema="audit",
    )
    op.create_table(
        "entry",
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("dedupe", sa.LargeBinary(), nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("kafka_offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("index", name=op.f("pk_entry")),
        sa.UniqueConstraint("dedupe", name=op.f("uq_entry_dedupe")),
        schema="audit",
    )
    op.create_table(
        "event",
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("correlationid", sa.Text(), nullable=False),
        sa.Column("causationid", sa.Text(), nullable=True),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_event")),
        sa.UniqueConstraint("id", name=op.f("uq_event_id")),
        sa.UniqueConstraint("stream", "sequence", name=op.f("uq_event_stream_sequence")),
        schema="audit",
    )
    op.create_table(
        "inbox",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "event_id", name=op.f("pk_inbox")),
        schema="audit",
    )
    op.create_table(
        "kafka_offset",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("lowest", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("highest", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entries", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("duplicates", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("redelivered", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("rewound", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", name=op.f("pk_kafka_offset")),
        schema="audit",
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        schema="audit",
    )
    op.create_table(
        "outbox_mark",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", name=op.f("pk_outbox_mark")),
        schema="audit",
    )
    op.create_table(
        "progress",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "stream", name=op.f("pk_progress")),
        schema="audit",
    )
    op.create_table(
        "stage_interval",
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_by", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("artifact_digest", sa.Text(), nullable=False),
        sa.Column("approved_by", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("criteria", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("policy", sa.Text(), nullable=True),
        sa.Column("decision_id", sa.Text(), nullable=True),
        sa.Column("transition_id", sa.Text(), nullable=True),
        sa.Column("superseded_by", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("index", name=op.f("pk_stage_interval")),
        schema="audit",
    )
    op.create_index(
        op.f("ix_stage_interval_workspace_model_stage_since"),
        "stage_interval",
        ["workspace", "model", "stage", "since"],
        unique=False,
        schema="audit",
    )
    op.create_table(
        "timeline",
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=True),
        sa.Column("type", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("stream", sa.Text(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("workspace", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("correlationid", sa.Text(), nullable=True),
        sa.Column("causationid", sa.Text(), nullable=True),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("copy_of", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("index", name=op.f("pk_timeline")),
        schema="audit",
    )
    op.create_index(op.f("ix_timeline_correlationid"), "timeline", ["correlationid"], unique=False, schema="audit")
    op.create_index(op.f("ix_timeline_topic_event_id"), "timeline", ["topic", "event_id"], unique=False, schema="audit")
    op.create_index(
        op.f("ix_timeline_workspace_model_index"),
        "timeline",
        ["workspace", "model", "index"],
        unique=False,
        schema="audit",
    )
    op.create_table(
        "tree_head",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_tree_head_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tree_head")),
        schema="audit",
    )
    op.execute(
        sa.text(
            "insert into audit.tree_head (id, size, root, frontier, at) values (1, 0, :root, '', now())"
        ).bindparams(root=sha256(b"").digest())
    )
    for statement in guard_events("audit"):
        op.execute(statement)
    for table in ("entry", "checkpoint"):
        _execute(GUARD.format(table=table))
    _execute(SHRINK)


def _execute(script: str) -> None:
    """One statement at a time, which is all that asyncpg takes; a function's body is kept whole."""
    head, body, tail = script.partition("end $$;")
    statements = [head + body, *tail.split(";")] if body else head.split(";")
    for statement in statements:
        if statement.strip():
            op.execute(statement)
