from approval.tables import Table
from kit.migrations import run_migrations

run_migrations(Table.metadata)
