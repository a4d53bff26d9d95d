"""The log in tiles: entries by month, nodes of the tree, findings, followers. Every entry is kept as it was.

Partitions lie in a schema of their own, which nobody but the owner of the tables may use: rows come and go through the
parent only.
"""

import sqlalchemy as sa
from alembic import op

from audit.merkle import Frontier

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

PAGE = 10_000
# A new partition is made by whoever writes the first entry of a month. PostgreSQL clones row triggers to partitions,
# but neither those of TRUNCATE nor, on its own, that they fire always.
PARTITIONS = """
create function audit.ensure_partition(at timestamptz) returns void language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
  month timestamptz := date_trunc('month', at, 'UTC');
  name text := 'entry_' || to_char(month at time zone 'UTC', 'YYYY_MM');
begin
  if to_regclass('audit_part.' || name) is not null then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtextextended('audit.ensure_partition', 0));
  if to_regclass('audit_part.' || name) is not null then
    return;
  end if;
  execute format('create table audit_part.%I partition of audit.entry for values from (%L) to (%L)',
    name, month, (month at time zone 'UTC' + interval '1 month') at time zone 'UTC');
  execute format('create trigger guard_table before truncate on audit_part.%I '
    'for each statement execute function audit.refuse_change()', name);
  execute format('alter table audit_part.%I enable always trigger guard_table', name);
  execute format('alter table audit_part.%I enable always trigger entry_guard_rows', name);
end $$;
"""
GUARD = """
create trigger {table}_guard_rows before update or delete on audit.{table}
  for each row execute function audit.refuse_change();
create trigger {table}_guard_table before truncate on audit.{table}
  for each statement execute function audit.refuse_change();
alter table audit.{table} enable always trigger {table}_guard_rows;
alter table audit.{table} enable always trigger {table}_guard_table;
"""


def upgrade() -> None:
    if large := op.get_bind().scalar(sa.text("select count(*) from audit.entry where length(leaf) > 65535")):
        raise RuntimeError(f"{large} entries have more than 65,535 bytes, which tiles cannot hold: begin a new log")
    op.execute("create schema audit_part")
    op.execute("alter table audit.entry rename to entry_old")
    op.execute("alter table audit.entry_old rename constraint pk_entry to pk_entry_old")
    op.create_table(
        "entry",
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("kafka_offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("index", "recorded_at", name=op.f("pk_entry")),
        schema="audit",
        postgresql_partition_by="RANGE (recorded_at)",
    )
    op.create_index(
        op.f("ix_entry_topic_partition_kafka_offset"), "entry", ["topic", "partition", "kafka_offset"], schema="audit"
    )
    op.create_index(op.f("ix_entry_recorded_at"), "entry", ["recorded_at"], schema="audit", postgresql_using="brin")
    op.create_table(
        "node",
        sa.Column("level", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "index", name=op.f("pk_node")),
        schema="audit",
    )
    op.create_table(
        "finding",
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("index", name=op.f("pk_finding")),
        schema="audit",
    )
    op.create_table(
        "follower",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("next", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_follower")),
        schema="audit",
    )
    for table in ("entry", "node", "finding"):
        _execute(GUARD.format(table=table))
    _execute(PARTITIONS)
    _offsets()
    _move()


def _offsets() -> None:
    op.execute("alter table audit.kafka_offset rename to kafka_offset_old")
    op.execute("alter table audit.kafka_offset_old rename constraint pk_kafka_offset to pk_kafka_offset_old")
    op.create_table(
        "kafka_offset",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("lowest", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("next", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entries", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("since", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", "epoch", name=op.f("pk_kafka_offset")),
        schema="audit",
    )
    op.create_table(
        "offset_gap",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("until", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", "epoch", "first", "until", name=op.f("pk_offset_gap")),
        schema="audit",
    )
    # Repetitions were counted and not logged then: their offsets are no holes.
    op.execute(
        "insert into audit.offset_gap select topic, partition, 0, o + 1, following from ("
        "select topic, partition, kafka_offset as o, lead(kafka_offset) over "
        "(partition by topic, partition order by kafka_offset) as following from audit.entry_old) placed "
        "where following > o + 1"
    )
    op.execute(
        "insert into audit.kafka_offset select o.topic, o.partition, 0, o.lowest, o.highest + 1, count(e.*), 0 "
        "from audit.kafka_offset_old o left join audit.entry_old e using (topic, partition) group by 1, 2, 4, 5"
    )
    op.execute("drop table audit.kafka_offset_old")


def _move() -> None:
    """Copies the entries month by month, and computes the nodes of the tree from their hashes."""
    connection = op.get_bind()
    op.execute(
        "select audit.ensure_partition(month) from (select distinct date_trunc('month', recorded_at, 'UTC') as month "
        "from audit.entry_old union select date_trunc('month', now(), 'UTC')) months order by month"
    )
    op.execute(
        'insert into audit.entry select "index", recorded_at, topic, partition, kafka_offset, leaf, leaf_hash '
        'from audit.entry_old order by "index"'
    )
    op.execute(
        "insert into audit.finding select \"index\", split_part(problem, ': ', 1), substr(problem, "
        "length(split_part(problem, ': ', 1)) + 3) from audit.entry_old where problem is not null"
    )
    op.execute(
        "insert into audit.follower select name, size from audit.tree_head, (values ('views'), ('parked')) as f (name)"
    )
    tree = Frontier()
    page = sa.text('select leaf_hash from audit.entry where "index" >= :next order by "index" limit :page')
    while hashes := connection.scalars(page, {"next": tree.size, "page": PAGE}).all():
        nodes = tree.extend(hashes)
        if nodes:
            connection.execute(
                sa.text('insert into audit.node (level, "index", hash) values (:level, :index, :hash)'),
                [node._asdict() for node in nodes],
            )
    op.execute("drop table audit.entry_old")


def _execute(script: str) -> None:
    """One statement at a time, which is all that asyncpg takes; a function's body is kept whole."""
    head, body, tail = script.partition("end $$;")
    statements = [head + body, *tail.split(";")] if body else head.split(";")
    for statement in statements:
        if statement.strip():
            op.execute(statement)
