"""Events are immutable, whoever asks: the owner, the service's own role, a replica's apply process."""

import asyncpg
import pytest
from tests.integration.kit.support import SCHEMA, Store

from kit.migrations import _grant

CHANGES = {
    "update": f"update {SCHEMA}.event set actor = 'eve'",
    "delete": f"delete from {SCHEMA}.event",
    "truncate": f"truncate {SCHEMA}.event",
    "truncate-all": f"truncate {SCHEMA}.event, {SCHEMA}.outbox cascade",
    "merge": f"merge into {SCHEMA}.event e using (select 1) s on true when matched then update set actor = 'eve'",
    "upsert": f"""insert into {SCHEMA}.event (id, stream, sequence, type, subject, data, at, correlationid)
        select id, stream, sequence, type, subject, data, at, correlationid from {SCHEMA}.event
        on conflict (stream, sequence) do update set actor = 'eve'""",
}


async def tried(connection: asyncpg.Connection, statement: str, expected: type[Exception]) -> None:
    before = await connection.fetch(f"select * from {SCHEMA}.event")
    assert before
    with pytest.raises(expected):
        await connection.execute(statement)
    assert await connection.fetch(f"select * from {SCHEMA}.event") == before


@pytest.mark.parametrize("change", CHANGES)
async def test_the_owner_cannot(store: Store, change: str) -> None:
    await store.append()
    connection = await asyncpg.connect(store.url)
    try:
        await tried(connection, CHANGES[change], asyncpg.RestrictViolationError)
    finally:
        await connection.close()


@pytest.mark.parametrize("change", CHANGES)
async def test_switched_off_triggers_fire_all_the_same(store: Store, change: str) -> None:
    await store.append()
    connection = await asyncpg.connect(store.url)
    try:
        await connection.execute("set session_replication_role = replica")
        await tried(connection, CHANGES[change], asyncpg.RestrictViolationError)
    finally:
        await connection.close()


@pytest.fixture
async def role(store: Store) -> str:
    """The URL of a plain role; roles are the cluster's, so its name is this database's."""
    database = store.url.rpartition("/")[2]
    name = f"service_{database}"
    connection = await asyncpg.connect(store.url)
    try:
        await connection.execute(f"create role {name} login password 'p'")
        await connection.execute(f"grant connect on database {database} to {name}")
    finally:
        await connection.close()
    host = store.url.rpartition("@")[2]
    return f"postgresql://{name}:p@{host}"


@pytest.mark.parametrize("change", CHANGES)
async def test_the_service_s_role_has_no_right_to(store: Store, role: str, change: str) -> None:
    await store.append()
    await _grant(SCHEMA, store.url, role, ("event",))
    connection = await asyncpg.connect(role)
    try:
        await tried(connection, CHANGES[change], asyncpg.InsufficientPrivilegeError)
    finally:
        await connection.close()
        await forget(store, role)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_role_with_every_right_cannot(store: Store, role: str, change: str) -> None:
    await store.append()
    owner = await asyncpg.connect(store.url)
    name = role.split("//")[1].split(":", maxsplit=1)[0]
    await owner.execute(f"grant all on schema {SCHEMA} to {name}; grant all on all tables in schema {SCHEMA} to {name}")
    await owner.close()
    connection = await asyncpg.connect(role)
    try:
        await tried(connection, CHANGES[change], asyncpg.RestrictViolationError)
    finally:
        await connection.close()
        await forget(store, role)


async def test_the_service_s_role_can_do_its_work(store: Store, role: str) -> None:
    await _grant(SCHEMA, store.url, role, ("event",))
    other = Store(role, store.tables, store.seen)
    other.database()
    try:
        await other.append()
        assert await other.count("event") == await other.count("outbox") == 1
        connection = await asyncpg.connect(role)
        await connection.execute(f"delete from {SCHEMA}.outbox")
        await connection.close()
    finally:
        await other.close()
        await forget(store, role)


async def forget(store: Store, role: str) -> None:
    name = role.split("//")[1].split(":", maxsplit=1)[0]
    connection = await asyncpg.connect(store.url)
    await connection.execute(f"drop owned by {name}; drop role {name}")
    await connection.close()
