"""What each layer of the database's protection stops, and what it lets pass: the table of `audit.md`, section 4.1.

A database per layer has that layer and those before it; the last is as shipped. Each cell is tried in a transaction
that is rolled back.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from tests.support.databases import migrated_database

from audit import guards, tables
from audit.guards import EVENT_TRIGGERS, Guards
from contracts.envelope import now
from embedded.fixtures import run
from kit.db import Database, sqlalchemy_url

from .conftest import Harness, migrate_audit, record, service_url, story

LAYERS = ("privileges", "parent triggers", "enable always", "triggers on partitions", "event triggers")
MONTH = f"audit_part.entry_{datetime.now(UTC):%Y_%m}"
OWNER, WRITER, SERVICE, RETENTION = (
    "hallmark_audit_owner",
    "hallmark_audit_writer",
    "hallmark_audit",
    "hallmark_audit_retention",
)
NOT_ALLOWED, REFUSED = "42501", "23001"
NEVER = (
    "create or replace trigger node_guard_rows before update or delete on audit.node for each row "
    "when (false) execute function audit.refuse_change()"
)
QUIET = (
    "create trigger quiet before insert on audit.node for each row "
    "execute function suppress_redundant_updates_trigger()"
)
SHRINK = "update audit.tree_head set size = 0, root = root"


class Attack(NamedTuple):
    """`stopped_by` is the first layer that stops it, `needs` the first in which there is something to attack."""

    role: str
    sql: str
    stopped_by: str
    replica: bool = False
    state: str = REFUSED
    needs: str = LAYERS[0]


def _attacks() -> Iterator[Attack]:
    privileges, parent, always, partitions, events = LAYERS
    for table in ("audit.entry", MONTH):
        for sql in (f"update {table} set leaf = ''", f"delete from {table}", f"truncate {table}", f"table {table}"):
            yield Attack(WRITER, sql, privileges, state=NOT_ALLOWED)
        for sql in (f"update {table} set leaf = ''", f"delete from {table}"):
            yield Attack(OWNER, sql, parent)
            yield Attack(OWNER, sql, always, replica=True)
            yield Attack(SERVICE, sql, privileges, state=NOT_ALLOWED)
            yield Attack(RETENTION, sql, privileges, state=NOT_ALLOWED)
    for role in (WRITER, SERVICE):
        insert = f"insert into {MONTH} values (9, now(), 't', 0, 9, '', '')"
        yield Attack(role, insert, privileges, state=NOT_ALLOWED)
    changes = ("update audit.node set hash = ''", SHRINK, "update audit.kafka_offset set epoch = 9")
    for sql in (*changes, "update audit.offset_gap set until = 9"):
        yield Attack(SERVICE, sql, privileges, state=NOT_ALLOWED)
    yield Attack(SERVICE, "insert into audit.entry values (9, now(), 't', 0, 9, '', '')", privileges, state=NOT_ALLOWED)
    yield Attack(
        SERVICE, "insert into audit.pruned (partition, checkpoint_size) values ('x', 1)", privileges, state=NOT_ALLOWED
    )
    # The schema is not the owner's: no table of its leaves it, or changes its name.
    for sql in (
        "alter table audit.entry rename to old",
        "create index on audit.hold (id) where length(id) > 0",
        "create or replace view audit.logged as select * from audit.entry",
    ):
        yield Attack(OWNER, sql, privileges, state=NOT_ALLOWED)
    yield Attack(OWNER, f"alter table {MONTH} set schema own", events)
    yield Attack(OWNER, SHRINK, parent)
    yield Attack(OWNER, SHRINK, always, replica=True)
    yield Attack(OWNER, "truncate audit.entry", parent)
    yield Attack(OWNER, "truncate audit.entry", always, replica=True)
    yield Attack(OWNER, f"truncate {MONTH}", partitions)
    yield Attack(OWNER, f"truncate {MONTH}", partitions, replica=True)
    # No guard can be talked out of it by a setting.
    yield Attack(OWNER, "set local audit.maintenance = 'on'; delete from audit.entry", parent)
    guarded = "alter table audit.entry"
    for sql in (
        f"{guarded} disable trigger all",
        f"{guarded} disable trigger user",
        f"{guarded} disable trigger entry_guard_rows",
        f"{guarded} enable trigger entry_guard_rows",
        f"{guarded} enable replica trigger entry_guard_table",
        f"alter table only {MONTH} disable trigger entry_guard_rows",
        "alter table audit.tree_head disable trigger all",
        "drop trigger entry_guard_rows on audit.entry",
        "drop trigger node_guard_table on audit.node",
        "alter trigger entry_guard_rows on audit.entry rename to harmless",
        NEVER,
        QUIET,
        "create rule quiet as on insert to audit.node do instead nothing",
        f"create rule quiet as on insert to {MONTH} do instead nothing",
        f"{guarded} detach partition {MONTH}",
        f"drop table {MONTH}",
        "drop table audit.entry cascade",
        "drop view audit.logged",
        "drop table audit.checkpoint",
        "drop owned by hallmark_audit_owner cascade",
        f"{guarded} rename column leaf to leaf_old",
        f"{guarded} drop column leaf cascade",
        f"{guarded} add column more int",
        "alter table audit.node alter column hash type bytea using set_byte(hash, 0, 1)",
        "alter table audit.checkpoint alter column note type text using 'forged'",
        f"{guarded} alter column leaf set default ''",
        f"{guarded} enable row level security",
        "alter table audit.node set unlogged",
        "alter table audit.node drop constraint pk_node",
        "create table unguarded partition of audit.entry for values from ('2001-01-01') to ('2001-02-01')",
    ):
        needs = always if "_guard_" in sql or "disable" in sql else privileges
        yield Attack(OWNER, sql, events, needs=needs)
        yield Attack(OWNER, sql, events, replica=True, needs=needs)


def _name(attack: Attack) -> str:
    return f"{attack.role.removeprefix('hallmark_')}{' as replica' if attack.replica else ''}: {attack.sql}"


ATTACKS = {_name(attack): attack for attack in _attacks()}
CLEAN = """
create schema own authorization hallmark_audit_owner;
insert into audit.entry values (0, now(), 't', 0, 0, 'leaf', 'hash');
insert into audit.node values (1, 0, 'hash');
insert into audit.checkpoint values (1, 'root', 'note', now());
insert into audit.kafka_offset values ('t', 0, 0, 0, 1, 1, 0);
update audit.tree_head set size = 1;
"""


async def _build(url: str, layer: str) -> None:
    """As shipped, but for the layers after `layer`."""
    connection = await asyncpg.connect(url)
    have = LAYERS.index(layer)
    await connection.execute(CLEAN)
    if have < LAYERS.index("event triggers"):
        for name in EVENT_TRIGGERS:
            await connection.execute(f"drop event trigger {name}")
    found = await connection.fetch(
        "select tgrelid::regclass::text as on, tgname as name from pg_trigger where not tgisinternal "
        "and tgparentid = 0 and tgfoid::regproc::text in ('audit.refuse_change', 'audit.refuse_shrink')"
    )
    for trigger in found:
        is_part = trigger["on"].startswith("audit_part.")
        if have == 0 or (is_part and have < LAYERS.index("triggers on partitions")):
            await connection.execute(f"drop trigger {trigger['name']} on {trigger['on']}")
        elif have < LAYERS.index("enable always"):
            await connection.execute(f"alter table {trigger['on']} enable trigger {trigger['name']}")
    await connection.close()


@pytest.fixture(scope="module")
def layered(infra_postgres: str) -> Iterator[dict[str, str]]:
    """The superuser's URL of a database for each layer."""
    with ExitStack() as made:
        urls = {
            layer: made.enter_context(migrated_database(infra_postgres, "audit", migrate_audit)) for layer in LAYERS
        }
        for layer, url in urls.items():
            run(_build(url, layer))
        yield urls


async def _once(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@asynccontextmanager
async def session(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def undone(connection: asyncpg.Connection) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


FINGERPRINT = """
select md5(concat((select string_agg(e::text, '' order by "index") from audit.entry e), (select array_agg(n) from
  audit.node n), (select array_agg(t) from audit.tree_head t), (select array_agg(c) from audit.checkpoint c),
  (select array_agg(k) from audit.kafka_offset k)))
"""


CELLS = [(name, layer) for name, attack in ATTACKS.items() for layer in LAYERS[LAYERS.index(attack.needs) :]]


@pytest.mark.parametrize(("name", "layer"), CELLS)
async def test_each_cell(layered: dict[str, str], name: str, layer: str) -> None:
    attack = ATTACKS[name]
    async with session(layered[layer]) as connection, undone(connection):
        if attack.replica:
            await connection.execute("set local session_replication_role = replica")
        await connection.execute(f"set local search_path = own; set local role {attack.role}")
        if LAYERS.index(layer) >= LAYERS.index(attack.stopped_by):
            with pytest.raises(asyncpg.PostgresError) as stopped:
                await connection.execute(attack.sql)
            assert stopped.value.sqlstate == attack.state
        else:
            before = await _seen(connection)
            await connection.execute(f"set local role {attack.role}; {attack.sql}")
            assert await _seen(connection) != before, "it passed without doing anything"


async def _seen(connection: asyncpg.Connection) -> str:
    """The data, and what guards it, as the superuser sees them; what cannot be read any more has changed, too."""
    await connection.execute("reset role")
    try:
        async with connection.transaction():
            data = await connection.fetchval(FINGERPRINT)
            shapes = await connection.fetchval(
                "select md5(string_agg(oid::regclass::text || audit_guard.shape(oid), '' order by oid)) from pg_class "
                "where relnamespace in ('audit'::regnamespace, 'audit_part'::regnamespace, 'own'::regnamespace)"
            )
            found = f"{data} {shapes}"
    except asyncpg.PostgresError as error:
        found = error.sqlstate
    return found


SERVED = (
    "entry",
    "node",
    "finding",
    "checkpoint",
    "event",
    "retention_policy",
    "hold",
    "hold_release",
    "minimum_index",
    "offset_gap",
)


@pytest.mark.parametrize("role", [SERVICE, WRITER, RETENTION, "hallmark_audit_reader", OWNER])
@pytest.mark.parametrize("table", [*SERVED, "pruned", "tree_head"])
async def test_no_role_changes_what_is_guarded(layered: dict[str, str], table: str, role: str) -> None:
    """Also an empty table is guarded: privileges come before rows, and statement triggers fire without any."""
    async with session(layered[LAYERS[-1]]) as connection:
        for sql in (f"truncate audit.{table}", f"truncate audit.{table} cascade"):
            async with undone(connection):
                await connection.execute(f"set local role {role}")
                with pytest.raises(asyncpg.PostgresError) as stopped:
                    await connection.execute(sql)
                assert stopped.value.sqlstate == (REFUSED if role == OWNER else NOT_ALLOWED)
        if role != OWNER:
            async with undone(connection):
                await connection.execute(f"set local role {role}")
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(f"delete from audit.{table}")


async def test_a_partition_cannot_be_detached_concurrently(layered: dict[str, str]) -> None:
    """That commits in between, so that no event trigger could undo it: the default partition forbids it."""
    async with session(layered[LAYERS[-1]]) as connection:
        await connection.execute(f"set role {OWNER}")
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
            await connection.execute(f"alter table audit.entry detach partition {MONTH} concurrently")


SUPERUSER = (
    "drop schema audit cascade",
    "drop function audit.refuse_change() cascade",
    "create or replace function audit.refuse_change() returns trigger language plpgsql as $$ begin return new; end $$",
    "alter function audit.refuse_shrink() owner to hallmark_audit_owner",
    "alter table audit.entry owner to hallmark_audit",
    f"alter table {MONTH} set schema public",
    "alter table audit.entry set schema public",
    "drop function audit_guard.flaw() cascade",
    "alter table audit_guard.change disable trigger all",
)


@pytest.mark.parametrize("sql", SUPERUSER[:-2])
async def test_a_superuser_too_must_switch_the_guards_off_first(layered: dict[str, str], sql: str) -> None:
    async with session(layered[LAYERS[-1]]) as connection:
        async with undone(connection):
            with pytest.raises(asyncpg.PostgresError) as stopped:
                await connection.execute(sql)
            assert stopped.value.sqlstate == REFUSED
        async with undone(connection):
            for name in EVENT_TRIGGERS:
                await connection.execute(f"alter event trigger {name} disable")
            await connection.execute(sql)


async def test_what_a_superuser_does_the_tree_tells(audit: Harness) -> None:
    """The last column of the table: nothing in the database stops it, the hashes find it."""
    await audit.ledger.append([record(e) for e in story()])
    assert (await audit.get("/v1/log/verify"))["ok"] is True
    await audit.tamper(
        "alter table audit.entry disable trigger all",
        "update audit.entry set leaf = set_byte(leaf, length(leaf) - 1, 0) where index = 4",
    )
    assert (await audit.get("/v1/log/verify"))["first_bad"]["index"] == 4
    missing = await Guards(audit.db).missing()
    assert missing == [*EVENT_TRIGGERS, "audit.entry is not as it was"]


async def test_the_guards_ask_no_setting(layered: dict[str, str]) -> None:
    async with session(layered[LAYERS[-1]]) as connection:
        bodies = await connection.fetch(
            "select proname, prosrc from pg_proc where pronamespace in ('audit'::regnamespace, "
            "'audit_guard'::regnamespace)"
        )
    assert len(bodies) >= 10
    assert not [row["proname"] for row in bodies if "current_setting" in row["prosrc"]]


async def test_others_work_on_in_the_same_database(audit: Harness) -> None:
    async with session(audit.admin_url) as connection:
        await connection.execute(
            "create schema other; create table other.t (a int, b text); create index on other.t (a); "
            "create function other.f() returns trigger language plpgsql as $$ begin return new; end $$; "
            "create trigger x before insert on other.t for each row execute function other.f(); "
            "alter table other.t alter column a type bigint; create temp table brief (a int) on commit drop; "
            "create view other.v as select * from other.t; drop schema other cascade"
        )
    assert await Guards(audit.db).missing() == []


async def test_the_service_appends_as_the_writer(audit: Harness) -> None:
    """Least privilege holds for the very statements that write, in every month."""
    await audit.ledger.append([record(story()[0])])
    await audit.execute("select audit.ensure_partition('2031-05-01')", "select audit.ensure_partition('2031-06-30')")
    async with session(audit.admin_url) as connection:
        sets = await connection.fetchval("select reason from audit_guard.change order by at")
        assert "0007" in sets
        parts = await connection.fetch("select name from audit_guard.partition order by name")
    assert {"entry_2031_05", "entry_2031_06", "entry_default"} <= {row["name"] for row in parts}
    assert await Guards(audit.db).missing() == []


async def test_a_record_of_no_month_is_refused(audit: Harness) -> None:
    async with session(audit.admin_url) as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute("insert into audit.entry values (0, '2001-01-01', 't', 0, 0, '', '')")


async def test_a_migration_changes_guarded_tables_in_the_open(audit: Harness) -> None:
    engine = create_async_engine(sqlalchemy_url(audit.admin_url))

    def migration(connection: sa.Connection) -> None:
        with guards.changed(connection, "0099: a column more"):
            connection.execute(sa.text("alter table audit.entry add column more int"))

    async with engine.begin() as connection:
        await connection.run_sync(migration)
    await engine.dispose()
    assert await Guards(audit.db).missing() == []
    async with session(audit.admin_url) as connection:
        logged = await connection.fetch("select by, reason from audit_guard.change order by at")
        assert [row["reason"] for row in logged][-1] == "0099: a column more"
        with pytest.raises(asyncpg.RestrictViolationError):
            await connection.execute("alter table audit.entry drop column more")
        with pytest.raises(asyncpg.RestrictViolationError):
            await connection.execute("delete from audit_guard.change")
    await audit.execute(f"select audit.ensure_partition('{now():%Y-%m-%d}'::timestamptz + interval '3 months')")
    assert len(await audit.rows(tables.tree_head)) == 1


async def test_another_postgresql_is_told_from_a_change(audit: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words for what is guarded may differ: whoever reads the alarm learns what to do."""
    await audit.tamper("alter table audit.entry add column more int")
    assert await Guards(audit.db).missing() == [*guards.EVENT_TRIGGERS, "audit.entry is not as it was"]
    await audit.execute("update audit_guard.expected set shape = '9.6.2' where name = 'server_version'")
    told = (await Guards(audit.db).missing())[-1]
    assert "and was 9.6.2 when the guards were accepted: compare, then select audit_guard.accept" in told
    await audit.execute("select audit_guard.accept('compared')")
    assert await Guards(audit.db).missing() == list(guards.EVENT_TRIGGERS)
    engine = create_async_engine(sqlalchemy_url(audit.admin_url))
    monkeypatch.setattr(guards, "OLDEST", 99)
    async with engine.begin() as connection:
        with pytest.raises(RuntimeError, match="needs PostgreSQL 99 or newer"):
            await connection.run_sync(guards.require_version)
    await engine.dispose()


async def test_only_a_superuser_can(audit: Harness) -> None:
    async with session(service_url(audit.admin_url)) as connection:
        for sql in ("alter event trigger audit_guard_drop disable", "select audit_guard.accept('mine')"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(sql)
        for role in (OWNER, "postgres"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"set role {role}")


async def _migrate_apart(url: str) -> int:
    """In a process of its own, as operators do it."""
    given = {"HALLMARK_DATABASE_URL": service_url(url), "HALLMARK_ADMIN_DATABASE_URL": url}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "audit", "migrate"), env={**os.environ, **given}, stdout=subprocess.DEVNULL
    )
    return await process.wait()


async def test_databases_of_one_cluster_migrate_side_by_side(infra_postgres: str) -> None:
    """Roles and their memberships are of the cluster: whoever comes second finds them."""
    names = [f"t_{uuid4().hex[:12]}" for _ in range(2)]
    urls = [urlsplit(infra_postgres)._replace(path=f"/{name}").geturl() for name in names]
    for name in names:
        await _once(infra_postgres, f"create database {name}")
    try:
        ended = await asyncio.gather(*(_migrate_apart(url) for url in urls))
        assert ended == [0] * len(urls)
        for url in urls:
            db = Database(service_url(url), name="test")
            assert await Guards(db).missing() == []
            await db.close()
    finally:
        for name in names:
            await _once(infra_postgres, f"drop database {name} with (force)")


async def test_without_a_superuser_all_but_the_event_triggers_is_there(
    infra_postgres: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, role = (f"t_{uuid4().hex[:12]}" for _ in range(2))
    await _once(infra_postgres, f"create role {role} login createrole password 'test'")
    await _once(infra_postgres, f"create database {name} owner {role}")
    # What a superuser made in another database of the cluster, somebody must give to this one.
    await _once(
        infra_postgres,
        f"do $$ declare r text; begin foreach r in array array['{OWNER}', '{WRITER}', 'hallmark_audit_reader', "
        f"'{RETENTION}'] loop if to_regrole(r) is null then execute format('create role %I', r); end if; "
        f"execute format('grant %I to {role} with admin option', r); end loop; end $$",
    )
    parts = urlsplit(infra_postgres)
    url = parts._replace(netloc=f"{role}:test@{parts.hostname}:{parts.port}", path=f"/{name}").geturl()
    try:
        await asyncio.to_thread(migrate_audit, url)
        assert "no superuser" in capsys.readouterr().err
        db = Database(service_url(url), name="test")
        assert await Guards(db).missing() == list(EVENT_TRIGGERS)
        await db.close()
        async with session(url) as connection:
            await connection.execute(CLEAN.partition(";")[2])
            with pytest.raises(asyncpg.RestrictViolationError):
                await connection.execute(f"set role {OWNER}; truncate {MONTH}")
    finally:
        await _once(infra_postgres, f"drop database {name} with (force)")
        await _once(infra_postgres, f"drop owned by {role}; drop role {role}")
