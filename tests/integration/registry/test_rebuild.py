"""`registry rebuild`: the views are what the events say, found out and mended while the service runs (law 2)."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa
from tests.support.waiting import until

from kit.db import Database, digests
from registry.rebuild import Rebuilt, rebuild
from registry.settings import RegistrySettings
from registry.tables import VIEWS, event_log, t

from .conftest import Harness
from .test_registry import promote

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.one_broker]
NAMES = [t(row).name for row in VIEWS]


@pytest_asyncio.fixture(loop_scope="module")
async def db(settings: RegistrySettings) -> AsyncIterator[Database]:
    database = Database(settings.database_url.get_secret_value(), name="test")
    yield database
    await database.close()


async def again(db: Database) -> Rebuilt:
    return await rebuild(db, event_log(), lambda _: None)


async def history(registry: Harness) -> None:
    """Something in every view but the usage of servers."""
    rules = {"protected_aliases": ["champion"], "naming": "[a-z]+"}
    (await registry.client("ada", "admins").put(f"/v1/workspaces/{registry.workspace}", json=rules)).raise_for_status()
    for n in (1, 2):
        await registry.register(
            "churn", f"model {n}".encode(), metrics={"auc": 0.5}, parameters={"a": 1.0}, tags={"k": "v"}
        )
        for stage in ("Staging", "Production"):
            await promote(registry, "churn", n, stage)
    back = {"to_stage": "Development", "reason": "test"}
    (await registry.olga.post("/v1/models/churn/versions/1/transitions", json=back)).raise_for_status()
    ana = registry.ana
    for name, version in (("best", 1), ("best", 2), ("other", 1)):
        (await ana.put(f"/v1/models/churn/aliases/{name}", json={"version": version})).raise_for_status()
    (await ana.delete("/v1/models/churn/aliases/other", params={"reason": "x"})).raise_for_status()
    (await ana.post("/v1/models/churn/versions/1/notes", json={"text": "x"})).raise_for_status()
    (await ana.patch("/v1/models/churn", json={"tags": {"set": {"tier": "1"}}})).raise_for_status()
    (await registry.olga.post("/v1/models/churn/rename", json={"name": "attrition"})).raise_for_status()
    body = {"server": "s1", "target": "Production", "version": 2, "state": "serving"}
    (await ana.post("/v1/models/churn/serving", json=body)).raise_for_status()


async def test_the_views_are_what_their_events_say(registry: Harness, db: Database) -> None:
    await history(registry)
    async with db.snapshot() as tx:
        before = await digests(tx, "registry", NAMES)
        for row in VIEWS:
            assert await tx.scalar(sa.select(sa.func.count()).select_from(t(row))), f"nothing in {t(row).name}"
        events = await tx.scalar(sa.select(sa.func.count()).select_from(event_log().tables.event))
    found = await again(db)
    assert (found.differing, found.events) == ((), events)
    assert found.digests == before


async def test_a_rebuild_while_people_write(registry: Harness, db: Database) -> None:
    artifact = await registry.upload(b"model")
    over = asyncio.Event()
    written = 0

    async def write(name: str) -> None:
        nonlocal written
        client, n = registry.ana, 0
        while not over.is_set():
            n += 1
            made = await client.post(f"/v1/models/{name}/versions", json={"artifact": artifact})
            assert made.status_code == 201, made.text
            for path, body in (("notes", {"text": "x"}), ("transitions", {"to_stage": "Staging", "reason": "x"})):
                answer = await client.post(f"/v1/models/{name}/versions/{n}/{path}", json=body)
                assert answer.status_code in (201, 202, 409), answer.text
            moved = await client.put(f"/v1/models/{name}/aliases/newest", json={"version": n})
            assert moved.status_code in (200, 409), moved.text
            written += 1

    writers = [asyncio.create_task(write(f"m{n}")) for n in range(4)]
    try:
        for _ in range(3):
            before = written
            found = await again(db)
            assert found.differing == ()
            await until(lambda before=before: written >= before + 4, what="they went on")  # type: ignore[misc]
    finally:
        over.set()
        await asyncio.gather(*writers)
    assert (await again(db)).differing == ()  # compared while writers wait: verifications may still be under way


DAMAGE = {
    "version": "update registry.version set stage = 'Production' where workspace = :w and version = 1",
    "alias": "delete from registry.alias where workspace = :w",
    "metric": "insert into registry.metric values (:w, 'churn', 1, 'made up', 1.0)",
    "model": "update registry.model set versions = 7 where workspace = :w",
    "event_of_nobody": "insert into registry.name values (:w, 'bogus', 'churn')",
}


@pytest.mark.parametrize("what", DAMAGE)
async def test_a_damaged_view_is_named_and_mended(registry: Harness, db: Database, what: str) -> None:
    await registry.register("churn", metrics={"auc": 0.5})
    (await registry.ana.put("/v1/models/churn/aliases/best", json={"version": 1})).raise_for_status()
    async with db.snapshot() as tx:
        before = await digests(tx, "registry", NAMES)
    async with db.transaction() as tx:
        assert (await tx.execute(sa.text(DAMAGE[what]), {"w": registry.workspace})).rowcount >= 1
    found = await again(db)
    assert found.differing == ({"event_of_nobody": "name"}.get(what, what),)
    async with db.snapshot() as tx:
        assert await digests(tx, "registry", NAMES) == before == found.digests
    assert (await again(db)).differing == ()
    assert (await registry.ana.get("/v1/models/churn/aliases/best")).json()["version"] == 1


async def test_readers_see_the_old_views_or_the_new_ones(registry: Harness, db: Database) -> None:
    """Two tables are damaged in one transaction and mended in one: no reader sees one without the other."""
    await registry.register("churn")
    (await registry.ana.put("/v1/models/churn/aliases/best", json={"version": 1})).raise_for_status()
    async with db.transaction() as tx:
        for statement in (
            "update registry.version set stage = 'Broken' where workspace = :w",
            "update registry.alias set set_by = 'Broken' where workspace = :w",
        ):
            await tx.execute(sa.text(statement), {"w": registry.workspace})
    query = sa.text(
        "select (select stage from registry.version where workspace = :w),"
        " (select set_by from registry.alias where workspace = :w)"
    )
    seen: list[Any] = []

    async def read() -> None:
        while True:
            async with db.snapshot() as tx:
                seen.append(tuple((await tx.execute(query, {"w": registry.workspace})).one()))
            answer = await registry.ana.get("/v1/models/churn/versions/1")
            assert answer.status_code == 200, answer.text

    reader = asyncio.create_task(read())

    def mended() -> bool:
        assert not reader.done(), reader
        return seen[-1:] == [("Development", "ana")]

    try:
        assert (await again(db)).differing == ("version", "alias")
        await until(mended)
    finally:
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader
    assert set(seen) == {("Broken", "Broken"), ("Development", "ana")}


async def test_the_command_works_under_the_role_of_the_service(
    registry: Harness, db: Database, settings: RegistrySettings
) -> None:
    await registry.register("churn")
    async with db.transaction() as tx:
        role = (
            await tx.execute(sa.text("select current_user::text, rolsuper from pg_roles where rolname = current_user"))
        ).one()
        await tx.execute(
            sa.text("update registry.version set stage = 'x' where workspace = :w"), {"w": registry.workspace}
        )
    assert tuple(role) == ("hallmark_registry", False)
    given = settings.model_dump(mode="json", exclude_none=True)
    secrets = {n: getattr(settings, n).get_secret_value() for n in ("database_url", "s3_access_key", "s3_secret_key")}
    env = {f"HALLMARK_{n.upper()}": v if isinstance(v, str) else json.dumps(v) for n, v in {**given, **secrets}.items()}
    env["HALLMARK_REFERENCE_BUCKETS"] = ""
    for expected in (["version"], []):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "registry", "rebuild", "--json"),
            env={**os.environ, **env},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        found = json.loads(out)
        assert found["differing"] == expected
        assert found["events"] > 0
        assert set(found["digests"]) == set(NAMES)
