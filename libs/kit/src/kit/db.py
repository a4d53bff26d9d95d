"""The database of one service: engine, transactions, table bases, and the mechanism's own tables."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.orm import registry as orm_registry

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
_APPENDED = "hallmark.appended"


def tables_of(schema: str) -> orm_registry:
    """The registry of one service's tables: `class Table(SQLModel, registry=tables_of("registry")): ...`.

    Its own metadata, so that services never collide in one process.
    """
    return orm_registry(metadata=sa.MetaData(schema=schema, naming_convention=NAMING))


def timestamp(**options: Any) -> Any:
    """A fresh `timestamptz` column for a SQLModel field."""
    return sa.Column(sa.DateTime(timezone=True), **options)


class Mechanism:
    """The tables of section 5 of the design, in a service's schema.

    `event.data` is text, not jsonb: decisions are signed and audited over exact bytes, and jsonb reorders keys.
    Column names of `outbox` fit Debezium's event router.
    """

    def __init__(self, metadata: sa.MetaData) -> None:
        self.schema = str(metadata.schema)
        stamp = sa.DateTime(timezone=True)
        self.event = sa.Table(
            "event",
            metadata,
            sa.Column("position", sa.BigInteger, sa.Identity(always=True), primary_key=True),
            sa.Column("id", sa.Uuid, nullable=False, unique=True),
            sa.Column("stream", sa.Text, nullable=False),
            sa.Column("sequence", sa.BigInteger, nullable=False),
            sa.Column("type", sa.Text, nullable=False),
            sa.Column("subject", sa.Text, nullable=False),
            sa.Column("data", sa.Text, nullable=False),
            sa.Column("actor", sa.Text),
            sa.Column("at", stamp, nullable=False),
            sa.Column("correlationid", sa.Text, nullable=False),
            sa.Column("causationid", sa.Text),
            sa.Column("traceparent", sa.Text),
            sa.UniqueConstraint("stream", "sequence"),
        )
        self.outbox = sa.Table(
            "outbox",
            metadata,
            sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
            sa.Column("topic", sa.Text, nullable=False),
            sa.Column("key", sa.LargeBinary, nullable=False),
            sa.Column("headers", sa.JSON, nullable=False),
            sa.Column("value", sa.LargeBinary, nullable=False),
        )
        self.mark = sa.Table(
            "outbox_mark",
            metadata,
            sa.Column("topic", sa.Text, primary_key=True),
            sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("next_offset", sa.BigInteger, nullable=False),
        )
        self.inbox = sa.Table(
            "inbox",
            metadata,
            sa.Column("consumer", sa.Text, primary_key=True),
            sa.Column("event_id", sa.Text, primary_key=True),
            sa.Column("digest", sa.Text),
            sa.Column("result", sa.Text),
            sa.Column("at", stamp, nullable=False, server_default=sa.func.now()),
        )
        self.progress = sa.Table(
            "progress",
            metadata,
            sa.Column("consumer", sa.Text, primary_key=True),
            sa.Column("stream", sa.Text, primary_key=True),
            sa.Column("sequence", sa.BigInteger, nullable=False),
        )
        self.early = sa.Table(
            "early",
            metadata,
            sa.Column("consumer", sa.Text, primary_key=True),
            sa.Column("stream", sa.Text, primary_key=True),
            sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("headers", sa.JSON, nullable=False),
            sa.Column("value", sa.LargeBinary, nullable=False),
            sa.Column("at", stamp, nullable=False, server_default=sa.func.now()),
        )


def sqlalchemy_url(url: str) -> str:
    """`postgresql://...` with the asyncpg driver named."""
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)


def asyncpg_url(url: str) -> str:
    return url.replace("postgresql+asyncpg://", "postgresql://", 1)


class Signal:
    """Wakes everybody who waits at that moment. A hint within one process: waiters poll as well."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    def next(self) -> asyncio.Event:
        """What the next `set` fires. Take it before you look, and nothing slips between looking and waiting."""
        return self._event

    async def wait(self, timeout: float, event: asyncio.Event | None = None) -> None:
        """Until the next `set`, or until `event`, which `next` gave before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await (event or self._event).wait()


class Database:
    """One engine per service. `appended` (the relay's) and `changed` fire after each commit that appended events."""

    def __init__(self, url: str, *, name: str, pool: int = 8, statement_timeout_ms: int = 30_000) -> None:
        self.url = asyncpg_url(url)
        self.appended = asyncio.Event()
        self.changed = Signal()
        self.engine = create_async_engine(
            sqlalchemy_url(url),
            pool_size=pool,
            max_overflow=pool,
            pool_timeout=10,
            hide_parameters=True,  # errors are logged, and what is stored may be somebody's name or secret
            connect_args={
                "timeout": 5,
                "server_settings": {"application_name": name, "statement_timeout": str(statement_timeout_ms)},
            },
        )
        sa.event.listen(self.engine.sync_engine, "checkout", _refuse_closed)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        async with self.engine.begin() as tx:
            (await tx.get_raw_connection()).info.pop(_APPENDED, None)
            yield tx
            appended = (await tx.get_raw_connection()).info.pop(_APPENDED, False)
        if appended:
            self.appended.set()
            self.changed.set()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """A read-only transaction that sees one instant."""
        async with self.engine.connect() as connection:
            snapshot = await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            async with snapshot.begin():
                yield snapshot

    @asynccontextmanager
    async def look(self) -> AsyncIterator[AsyncConnection]:
        """For one statement, which sees one instant by itself: without a transaction, two ways to the server less."""
        async with self.engine.connect() as connection:
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    async def ping(self) -> None:
        async with self.engine.connect() as connection:
            await connection.execute(sa.text("select 1"))

    async def close(self) -> None:
        await self.engine.dispose()


def _refuse_closed(connection: Any, _record: Any, _proxy: Any) -> None:
    """The pool then gives another. A driver on the loop is told when its session ends: `pool_pre_ping` would ask the
    server before every transaction, which costs as much as a statement."""
    if connection.driver_connection.is_closed():
        raise sa.exc.DisconnectionError


async def digests(tx: AsyncConnection, schema: str, tables: Iterable[str]) -> dict[str, str]:
    """Table -> a digest of its rows, whatever their order on disk."""
    found = {}
    for name in tables:
        query = sa.text(
            f"select md5(coalesce(string_agg(h, '' order by h), '')) "  # noqa: S608
            f'from (select md5(v::text) as h from "{schema}"."{name}" v) rows'
        )
        found[name] = str(await tx.scalar(query))
    return found


async def mark_appended(tx: AsyncConnection) -> None:
    """Asks `transaction` to wake the relay once the commit is through."""
    (await tx.get_raw_connection()).info[_APPENDED] = True
