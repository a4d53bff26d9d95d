"""Alembic's entry: all of it is shared, in `kit.migrations`."""

from audit.tables import Table
from kit.migrations import run_migrations

run_migrations(Table.metadata)
