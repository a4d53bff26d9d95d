"""Requests in full: people, evidence, and where requests stand.

Requests and policies are folded anew from the events when the service starts: their views have other columns now.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("delete from approval.request")
    op.execute("delete from approval.policy")
    op.execute("""
        update approval.model set data = json_build_object(
            'name', name,
            'owner', coalesce(data::json->>'owner', ''),
            'description', coalesce(data::json->>'description', ''),
            'tags', coalesce(data::json->'tags', '{}')
        )::text
    """)
    op.create_table(
        "asked",
        sa.Column("group_name", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("workspace", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("without", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("delegation", sa.Interval(), nullable=True),
        sa.PrimaryKeyConstraint("group_name", "status", "opened_at", "request_id", name=op.f("pk_asked")),
        schema="approval",
    )
    op.create_index(op.f("ix_asked_request_id"), "asked", ["request_id"], unique=False, schema="approval")
    op.create_index(
        "ix_asked_place",
        "asked",
        ["workspace", "model", "group_name", "status", "opened_at", "request_id"],
        unique=False,
        schema="approval",
    )
    for first in ("model", "workspace"):
        op.create_index(
            op.f(f"ix_asked_{first}_group_name_status_opened_at_request_id"),
            "asked",
            [first, "group_name", "status", "opened_at", "request_id"],
            unique=False,
            schema="approval",
        )
    op.create_table(
        "call",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("gate", sa.String(), nullable=False),
        sa.Column("bound_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("request_digest", sa.String(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("request_id", "gate", "bound_at", name=op.f("pk_call")),
        schema="approval",
    )
    op.create_index(op.f("ix_call_next_at"), "call", ["next_at"], unique=False, schema="approval")
    op.create_table(
        "delegation",
        sa.Column("delegation_id", sa.String(), nullable=False),
        sa.Column("delegator", sa.String(), nullable=False),
        sa.Column("delegate", sa.String(), nullable=False),
        sa.Column("starts", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("granted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_by", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("delegation_id", name=op.f("pk_delegation")),
        schema="approval",
    )
    op.create_index(
        op.f("ix_delegation_granted_at_delegation_id"),
        "delegation",
        ["granted_at", "delegation_id"],
        unique=False,
        schema="approval",
    )
    op.create_index(
        op.f("ix_delegation_delegate_ends"), "delegation", ["delegate", "ends"], unique=False, schema="approval"
    )
    op.create_index(
        op.f("ix_delegation_delegator_ends"), "delegation", ["delegator", "ends"], unique=False, schema="approval"
    )
    op.create_table(
        "evidence",
        sa.Column("evidence_id", sa.String(), nullable=False),
        sa.Column("workspace", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("evidence_id", name=op.f("pk_evidence")),
        schema="approval",
    )
    op.create_index(
        op.f("ix_evidence_workspace_model_version_at"),
        "evidence",
        ["workspace", "model", "version", "at"],
        unique=False,
        schema="approval",
    )
    op.create_table(
        "member",
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("groups", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("person", sa.Boolean(), nullable=True),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("email", sa.String(), nullable=True),
        sa.Column("told_groups", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("told_person", sa.Boolean(), nullable=True),
        sa.Column("told_by", sa.String(), nullable=True),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_member")),
        schema="approval",
    )
    op.create_table(
        "outcome",
        sa.Column("transition_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("transition_id", name=op.f("pk_outcome")),
        schema="approval",
    )
    op.create_table(
        "standing",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("waits_for", sa.String(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acted", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_standing")),
        schema="approval",
    )
    op.create_index(op.f("ix_standing_due_at"), "standing", ["due_at"], unique=False, schema="approval")
    op.add_column("request", sa.Column("kind", sa.String(), nullable=False), schema="approval")
    op.add_column("request", sa.Column("requested_by", sa.String(), nullable=False), schema="approval")
    op.add_column("request", sa.Column("freezes_at", sa.DateTime(timezone=True), nullable=True), schema="approval")
    op.add_column("request", sa.Column("holds_until", sa.DateTime(timezone=True), nullable=True), schema="approval")
    op.drop_index(op.f("ix_request_status_expires_at"), table_name="request", schema="approval")
    for moment in ("freezes_at", "holds_until"):
        op.create_index(
            op.f(f"ix_request_workspace_model_{moment}"),
            "request",
            ["workspace", "model", moment],
            unique=False,
            schema="approval",
            postgresql_where=sa.text(f"{moment} is not null"),
        )
    for names in (["requested_by"], ["workspace"], ["model"], ["workspace", "model"]):
        op.create_index(
            op.f(f"ix_request_{'_'.join(names)}_status_opened_at_request_id"),
            "request",
            [*names, "status", "opened_at", "request_id"],
            unique=False,
            schema="approval",
        )
    op.create_index(
        op.f("ix_request_status_opened_at_request_id"),
        "request",
        ["status", "opened_at", "request_id"],
        unique=False,
        schema="approval",
    )
    op.drop_column("request", "expires_at", schema="approval")
    op.drop_column("request", "last_vote_at", schema="approval")
    op.add_column("version", sa.Column("learnt", sa.String(), server_default="{}", nullable=False), schema="approval")
