"""What was known when, facts for questions, and search. Run `python -m audit rebuild` once to fill them.

Rows of before count as known since the entry that opened them, until the rebuild tells it exactly.
"""

import logging

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
log = logging.getLogger(__name__)


def upgrade() -> None:
    op.add_column("timeline", sa.Column("outcome", sa.Text(), nullable=False, server_default="ok"), schema="audit")
    op.alter_column("timeline", "outcome", server_default=None, schema="audit")
    op.add_column("timeline", sa.Column("revised", sa.BigInteger(), nullable=True), schema="audit")
    for table in ("stage_interval", "alias_interval"):
        op.add_column(table, sa.Column("known_from", sa.BigInteger(), nullable=True), schema="audit")
        op.add_column(table, sa.Column("known_until", sa.BigInteger(), nullable=True), schema="audit")
        rows = sa.table(table, sa.column("known_from"), sa.column("index"), schema="audit")
        op.execute(rows.update().values(known_from=rows.c["index"]))
        op.alter_column(table, "known_from", nullable=False, schema="audit")
        op.drop_constraint(op.f(f"pk_{table}"), table, schema="audit")
        op.create_primary_key(op.f(f"pk_{table}"), table, ["index", "known_from"], schema="audit")
    op.drop_constraint(op.f("pk_revoked"), "revoked", schema="audit")
    op.create_primary_key(op.f("pk_revoked"), "revoked", ["index"], schema="audit")
    op.create_table(
        "fact",
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("person", sa.Text(), nullable=True),
        sa.Column("request", sa.Text(), nullable=True),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("index", name=op.f("pk_fact")),
        schema="audit",
    )
    op.create_table(
        "search_entry",
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("words", postgresql.TSVECTOR(), nullable=False),
        sa.Column("names", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("index", name=op.f("pk_search_entry")),
        schema="audit",
    )
    for table, *columns in (
        ("timeline", "topic", "stream", "sequence"),
        ("timeline", "actor", "at", "index"),
        ("timeline", "type", "at", "index"),
        ("timeline", "recorded_at", "index"),
        ("stage_interval", "workspace", "model", "version"),
        ("alias_interval", "transition_id"),
        ("revoked", "workspace", "model", "version", "sequence"),
        ("fact", "workspace", "model", "version", "index"),
        ("fact", "type", "index"),
        ("fact", "person", "index"),
        ("fact", "request"),
    ):
        op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, columns, schema="audit")
    op.create_index(
        op.f("ix_timeline_revised"),
        "timeline",
        ["revised"],
        schema="audit",
        postgresql_where=sa.text("revised is not null"),
    )
    op.create_index(
        op.f("ix_timeline_problem"),
        "timeline",
        ["at", "index"],
        schema="audit",
        postgresql_where=sa.text("problem is not null"),
    )
    op.create_index(op.f("ix_search_entry_words"), "search_entry", ["words"], schema="audit", postgresql_using="gin")
    _index_names()


def _index_names() -> None:
    """Search by a part of a name is fast with pg_trgm, and right without it."""
    connection = op.get_bind()
    try:
        with connection.begin_nested():
            connection.execute(sa.text("create extension if not exists pg_trgm"))
            connection.execute(
                sa.text("create index ix_search_entry_names on audit.search_entry using gin (names gin_trgm_ops)")
            )
    except DBAPIError as error:
        log.warning("pg_trgm is not available, search by a part of a name reads every row: %s", error.orig)
