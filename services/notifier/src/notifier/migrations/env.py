from kit.migrations import run_migrations
from notifier.tables import Table

run_migrations(Table.metadata)
