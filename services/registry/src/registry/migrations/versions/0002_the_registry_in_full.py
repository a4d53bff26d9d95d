"""Lifecycles, names, verification, search, aliases, use. Present rows get what a fold of their events would give."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


# A version without `version.verified` is pending: the service verifies it soon.
BACKFILL = (
    (
        "update registry.version v set correlationid = e.correlationid from registry.event e "
        "where e.type = 'hallmark.version.registered.v1' "
        "and e.subject = v.workspace || '/' || v.model || '/' || v.version"
    ),
    "update registry.model set name = model, updated_at = registered_at",
    "insert into registry.name (workspace, name, model) select workspace, model, model from registry.model",
    (
        "update registry.version set status = 'pending', updated_at = registered_at, tags = content->'tags', "
        "run_id = content->'lineage'->'run'->>'id'"
    ),
    (
        "insert into registry.metric select workspace, model, version, m.key, m.value::text::float8 "
        "from registry.version, jsonb_each(content->'metrics') m"
    ),
    (
        "insert into registry.parameter select workspace, model, version, p.key, coalesce(p.value, '') "
        "from registry.version, jsonb_each_text(content->'parameters') p"
    ),
    (
        "insert into registry.tag select workspace, model, version, t.key, t.value "
        "from registry.version, jsonb_each_text(content->'tags') t"
    ),
    "insert into registry.tag select workspace, model, 0, t.key, t.value from registry.model, jsonb_each_text(tags) t",
    "insert into registry.blob_use select artifact_digest, workspace, model, version from registry.version",
)


def upgrade() -> None:
    op.create_table(
        "alias",
        sa.Column("workspace", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("set_by", sa.String(), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "model", "alias", name=op.f("pk_alias")),
        schema="registry",
    )
    op.create_index("ix_alias_version", "alias", ["workspace", "model", "version"], unique=False, schema="registry")
    op.create_table(
        "alias_move",
        sa.Column("workspace", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("previous", sa.Integer(), nullable=True),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "model", "sequence", name=op.f("pk_alias_move")),
        schema="registry",
    )
    op.create_table(
        "blob_use",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("workspace", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("digest", "workspace", "model", "version", name=op.f("pk_blob_use")),
        schema="registry",
    )
    op.create_table(
        "metric",
        sa.Column("workspace", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "model", "version", "name", name=op.f("pk_metric")),
        schema="registry",
    )
    op.create_index(
        "ix_metric_value", "metric", ["workspace", "name", "value", "model", "version"], unique=False, schema="registry"
    )
    op.create_table(
        "name",
        sa.Column("workspace", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "name", name=op.f("pk_name")),
        schema="registry",
    )
    op.create_table(
        "parameter",
        sa.Column("workspace", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "model", "version", "name", name=op.f("pk_parameter")),
        schema="registry",
    )
    op.create_index(
        "ix_parameter_value",
        "parameter",
        ["workspace", "name", sa.literal_column("left(value, 64)"), "model", "version"],
        unique=False,
        schema="registry",
    )
    op.create_table(
        "remark",
        sa.Column("workspace", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "model", "version", "sequence", name=op.f("pk_remark")),
        schema="registry",
    )
    op.create_table(
        "server",
        sa.Column("workspace", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("server", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "model", "server", "target", name=op.f("pk_server")),
        schema="registry",
    )
    op.create_table(
        "tag",
        sa.Column("workspace", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "model", "version", "name", name=op.f("pk_tag")),
        schema="registry",
    )
    op.create_index(
        "ix_tag_value",
        "tag",
        ["workspace", "name", sa.literal_column("left(value, 64)"), "model", "version"],
        unique=False,
        schema="registry",
    )
    op.create_table(
        "usage",
        sa.Column("workspace", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("principal", sa.String(), nullable=False),
        sa.Column("how", sa.String(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "model", "version", "principal", "how", name=op.f("pk_usage")),
        schema="registry",
    )
    op.create_index("ix_usage_last", "usage", ["workspace", "last_at"], unique=False, schema="registry")
    op.create_table(
        "workspace",
        sa.Column("workspace", sa.String(), nullable=False),
        sa.Column("lifecycle", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("naming", sa.String(), nullable=True),
        sa.Column("naming_message", sa.String(), nullable=False),
        sa.Column("protected_aliases", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("configured_by", sa.String(), nullable=False),
        sa.Column("configured_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace", name=op.f("pk_workspace")),
        schema="registry",
    )
    op.add_column("model", sa.Column("name", sa.String(), nullable=True), schema="registry")
    op.add_column("model", sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True), schema="registry")
    op.add_column("model", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True), schema="registry")
    op.create_index("ix_model_name", "model", ["workspace", "name"], unique=False, schema="registry")
    op.add_column("version", sa.Column("status", sa.String(), nullable=True), schema="registry")
    op.add_column("version", sa.Column("status_detail", sa.String(), nullable=True), schema="registry")
    op.add_column(
        "version", sa.Column("inspection", postgresql.JSONB(astext_type=sa.Text()), nullable=True), schema="registry"
    )
    op.add_column(
        "version", sa.Column("tags", postgresql.JSONB(astext_type=sa.Text()), nullable=True), schema="registry"
    )
    op.add_column("version", sa.Column("run_id", sa.String(), nullable=True), schema="registry")
    op.add_column("version", sa.Column("correlationid", sa.String(), nullable=True), schema="registry")
    op.add_column("transition", sa.Column("expected", sa.Integer(), nullable=True), schema="registry")
    op.add_column("version", sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True), schema="registry")
    op.drop_index(op.f("ix_version_workspace_model_stage"), table_name="version", schema="registry")
    op.create_index("ix_version_artifact", "version", ["artifact_digest"], schema="registry")
    op.create_index(
        "ix_version_author", "version", ["workspace", "registered_by", "registered_at"], unique=False, schema="registry"
    )
    op.create_index(
        "ix_version_in_stage", "version", ["workspace", "stage", "model", "version"], unique=False, schema="registry"
    )
    op.create_index(
        "ix_version_pending",
        "version",
        ["registered_at"],
        unique=False,
        schema="registry",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_version_registered",
        "version",
        ["workspace", "registered_at", "model", "version"],
        unique=False,
        schema="registry",
    )
    op.create_index(
        "ix_version_run",
        "version",
        ["workspace", "run_id"],
        unique=False,
        schema="registry",
        postgresql_where=sa.text("run_id is not null"),
    )
    op.create_index("ix_version_stage", "version", ["workspace", "model", "stage"], unique=False, schema="registry")
    for statement in BACKFILL:
        op.execute(statement)
    for table, column in (
        ("model", "name"),
        ("model", "updated_at"),
        ("version", "status"),
        ("version", "tags"),
        ("version", "correlationid"),
        ("version", "updated_at"),
    ):
        op.alter_column(table, column, nullable=False, schema="registry")
