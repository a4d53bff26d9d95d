"""The guards of the database: how the service watches them, and how a migration changes what they guard.

Event triggers of PostgreSQL (`migrations/sql/0007_guard.sql`) compare the guarded tables with what was accepted after
every DDL command, and refuse the command when a guard, a column or a partition is not as it was; for superusers too.
A later migration that means to change a guarded table says so, and leaves a row in `audit_guard.change`:

    with guards.changed(op.get_bind(), "0009: an index of its own for ..."):
        op.execute("alter table audit.entry ...")

Only a superuser can, where there are event triggers. A table that is to be guarded as well goes into
`audit_guard.guarded()`.

What is accepted are PostgreSQL's own words for constraints, conditions and views, which may change with its major
version. After such an upgrade the guards may say so and refuse: compare the shapes with those of the last row of
`audit_guard.change`, and accept them as a superuser, in a row of its own:

    select audit_guard.accept('PostgreSQL 19: spells constraints anew, compared by ...')
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
import structlog
from prometheus_client import Gauge

from kit.db import Database
from kit.tasks import repeat

log = structlog.get_logger()
MISSING = Gauge("hallmark_audit_guards_missing", "Guards of the database that are missing, or not as they were")
EVENT_TRIGGERS = ("audit_guard_command", "audit_guard_drop", "audit_guard_rewrite")
SQL = Path(__file__).parent / "migrations" / "sql"
EVERY_SECONDS = 60.0
OLDEST = 16  # major version of PostgreSQL


class Guards:
    """Watches that the guards are there."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def missing(self) -> list[str]:
        """The names of event triggers that are not there or do not fire always, and what is wrong with the tables."""
        async with self._db.transaction() as tx:
            return list(await tx.scalar(sa.text("select audit.guards_missing()")) or ())

    async def run(self) -> None:
        """Looks now and then, until cancelled."""

        async def step() -> None:
            missing = await self.missing()
            MISSING.set(len(missing))
            if missing:
                log.critical("guards of the audit log are missing in the database", missing=missing)

        await repeat(step, lambda: asyncio.sleep(EVERY_SECONDS), "guards")


def require_version(connection: sa.Connection) -> None:
    """Raises RuntimeError before a PostgreSQL that is too old."""
    if connection.scalar(sa.text("select current_setting('server_version_num')::int")) < OLDEST * 10_000:
        raise RuntimeError(f"audit needs PostgreSQL {OLDEST} or newer: it grants roles `with inherit false`")


def run_sql(connection: sa.Connection, name: str) -> None:
    """Runs a script of `migrations/sql` in the connection's transaction."""
    script = (SQL / f"{name}.sql").read_text()
    connection.connection.dbapi_connection.run_async(lambda driver: driver.execute(script))  # type: ignore[union-attr]


@contextmanager
def changed(connection: sa.Connection, reason: str) -> Iterator[None]:
    """Within the block, which is one transaction, guarded tables may be changed. What they are then is expected.

    Raises:
        sqlalchemy.exc.ProgrammingError: the connection is no superuser's.
    """
    there = connection.scalars(
        sa.text("select evtname from pg_event_trigger where evtname = any(:names)"), {"names": list(EVENT_TRIGGERS)}
    ).all()
    for name in there:
        connection.execute(sa.text(f"alter event trigger {name} disable"))
    yield
    connection.execute(sa.text("select audit_guard.accept(:reason)"), {"reason": reason})
    for name in there:
        connection.execute(sa.text(f"alter event trigger {name} enable always"))
