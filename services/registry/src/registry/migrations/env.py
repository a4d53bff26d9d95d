from kit.migrations import run_migrations
from registry.tables import Table

run_migrations(Table.metadata)
