"""Alembic's entry: all of it is shared, in `kit.migrations`."""

from audit.view_tables import Timeline
from kit.migrations import run_migrations

run_migrations(Timeline.metadata)  # of all tables: those of the log come along
