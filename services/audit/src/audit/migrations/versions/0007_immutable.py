"""What was written stays, also against who owns the tables: roles, an owner that nobody logs in as, guards of the
guards, and the one way in which a month leaves the database.

The statements are in `migrations/sql/0007_*.sql`. Event triggers need a superuser; without one the rest is in place,
the migration says so, and `hallmark_audit_guards_missing` counts them. `audit.guards` tells how later migrations
change guarded tables.
"""

import sys

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from audit.guards import require_version, run_sql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

GUARD = """
create trigger {table}_guard_rows before update or delete on audit.{table}
  for each row execute function audit.refuse_change();
create trigger {table}_guard_table before truncate on audit.{table}
  for each statement execute function audit.refuse_change();
alter table audit.{table} enable always trigger {table}_guard_rows;
alter table audit.{table} enable always trigger {table}_guard_table;
"""
NEW = ("retention_policy", "hold", "hold_release", "minimum_index", "pruned", "pruned_entry")
NO_SUPERUSER = (
    "audit: WARNING: the role of this migration is no superuser, so that PostgreSQL lets it make no event triggers. "
    "Whoever can act as hallmark_audit_owner can drop the guards of the log. Everything else is in place.\n"
)


def upgrade() -> None:
    connection = op.get_bind()
    require_version(connection)
    _tables()
    run_sql(connection, "0007_guard")
    run_sql(connection, "0007_conditions")
    for table in NEW:
        for statement in GUARD.format(table=table).split(";")[:-1]:
            op.execute(statement)
    run_sql(connection, "0007_retention")
    run_sql(connection, "0007_roles")
    # There is a month to take the partitions' shape from.
    op.execute("select audit.ensure_partition(now())")
    op.execute("select audit_guard.accept('0007: the guards are set')")
    if connection.scalar(sa.text("select rolsuper from pg_roles where rolname = current_user")):
        run_sql(connection, "0007_event_triggers")
    else:
        sys.stderr.write(NO_SUPERUSER)


def _tables() -> None:
    at = sa.DateTime(timezone=True)
    op.create_table(
        "retention_policy",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("rules", postgresql.JSONB(), nullable=False),
        sa.Column("published_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("at", at, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_retention_policy")),
        schema="audit",
    )
    op.create_table(
        "hold",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("since", at, nullable=True),
        sa.Column("until", at, nullable=True),
        sa.Column("marks", postgresql.ARRAY(sa.LargeBinary()), nullable=False),
        sa.Column("placed_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", at, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hold")),
        schema="audit",
    )
    op.create_table(
        "hold_release",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("released_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", at, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hold_release")),
        schema="audit",
    )
    op.create_table(
        "minimum_index",
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", at, nullable=False),
        sa.PrimaryKeyConstraint("index", name=op.f("pk_minimum_index")),
        schema="audit",
    )
    op.create_table(
        "pruned",
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("until", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("minimum_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("checkpoint_size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("transaction", sa.Text(), nullable=False),
        sa.Column("at", at, nullable=False),
        sa.PrimaryKeyConstraint("partition", name=op.f("pk_pruned")),
        schema="audit",
    )
    op.create_table(
        "pruned_entry",
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("recorded_at", at, nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("kafka_offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("index", name=op.f("pk_pruned_entry")),
        schema="audit",
    )
    op.create_index(
        op.f("ix_pruned_entry_topic_partition_kafka_offset"),
        "pruned_entry",
        ["topic", "partition", "kafka_offset"],
        schema="audit",
    )
    op.create_table(
        "held_object",
        sa.Column("hold", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("hold", "key", name=op.f("pk_held_object")),
        schema="audit",
    )
