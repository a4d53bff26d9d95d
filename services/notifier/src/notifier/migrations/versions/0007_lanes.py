"""Lanes with rows of their own, and when events happened and were taken in."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

STAMP = sa.DateTime(timezone=True)
TIMES = """
    update notifier.source_event s set
      at = (select (h ->> 1)::timestamptz from json_array_elements(s.headers) h where h ->> 0 = 'ce_time'),
      taken_at = coalesce((select min(d.created_at) from notifier.delivery d where d.event_id = s.event_id), now())
"""
ORDER = """
    update notifier.delivery d set event_position = s.position, lane = d.stream
    from notifier.source_event s where s.event_id = d.event_id
"""
LANES = """
    insert into notifier.lane (subscription_id, lane, due_at, leased_until)
    select distinct on (subscription_id, lane) subscription_id, lane, due_at, leased_until
    from notifier.delivery where open order by subscription_id, lane, event_position
"""


def upgrade() -> None:
    order = sa.Column("order", sa.String(), nullable=False, server_default=sa.text("'fifo'"))
    op.add_column("subscription", order, schema="notifier")
    op.alter_column("subscription", "order", server_default=None, schema="notifier")

    op.add_column("source_event", sa.Column("at", STAMP), schema="notifier")
    taken = sa.Column("taken_at", STAMP, server_default=sa.text("clock_timestamp()"))
    op.add_column("source_event", taken, schema="notifier")
    op.create_index("ix_of_migration", "delivery", ["event_id"], schema="notifier")
    op.execute(TIMES)
    op.drop_index("ix_of_migration", "delivery", schema="notifier")
    for name in ("at", "taken_at"):
        op.alter_column("source_event", name, nullable=False, schema="notifier")

    op.add_column("delivery", sa.Column("lane", sa.String()), schema="notifier")
    op.add_column("delivery", sa.Column("event_position", sa.BigInteger()), schema="notifier")
    op.execute(ORDER)
    op.alter_column("delivery", "lane", nullable=False, schema="notifier")
    op.alter_column("delivery", "event_position", nullable=False, schema="notifier")
    op.drop_index("ix_delivery_lane", "delivery", schema="notifier")
    op.create_index(
        "ix_delivery_lane",
        "delivery",
        ["subscription_id", "lane", "event_position"],
        schema="notifier",
        postgresql_where=sa.text("open"),
    )
    op.create_table(
        "lane",
        sa.Column("subscription_id", sa.String(), nullable=False),
        sa.Column("lane", sa.String(), nullable=False),
        sa.Column("due_at", STAMP, nullable=False),
        sa.Column("leased_until", STAMP, nullable=True),
        sa.PrimaryKeyConstraint("subscription_id", "lane", name=op.f("pk_lane")),
        schema="notifier",
    )
    op.create_index("ix_lane_due", "lane", ["subscription_id", "due_at"], schema="notifier")
    op.execute(LANES)
    op.drop_column("delivery", "stream", schema="notifier")
    op.drop_column("delivery", "leased_until", schema="notifier")
