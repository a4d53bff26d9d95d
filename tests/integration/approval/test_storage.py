"""Views are folds, events are immutable, policies have revisions, migrations match the tables."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from tests.integration.approval.conftest import (
    Direct,
    Harness,
    migrations,
    person,
    service_url,
    transition_id,
)

from approval import views
from approval.domain import Ballot
from approval.revisions import shipped
from approval.tables import ModelRow, PolicyRow, RequestRow, StayRow, Table, VersionRow, of
from contracts.approval import Choice
from contracts.lifecycle import Stage, TransitionKind
from contracts.registry import ModelRegistered
from kit.problems import Problem

# One loop for all: the shared service must go on running during the other tests.
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def rows(direct: Direct, *tables: type[Table]) -> list[list[tuple[Any, ...]]]:
    async with direct.db.snapshot() as tx:
        return [sorted(tuple(row) for row in (await tx.execute(sa.select(of(table)))).all()) for table in tables]


async def some_history(direct: Direct) -> None:
    """Requests in every state, refused votes, revised policies."""
    registry = direct.registry
    await direct.revisions.bootstrap()
    await direct.revisions.publish(shipped()[0].text.replace("0.9", "0.92"), "root")
    await registry.publish(ModelRegistered(workspace="default", model="m", tags={"risk": "high"}), "m")
    for version, accuracy in ((1, 0.95), (2, 0.96), (3, 0.5)):
        await registry.register("m", version, accuracy=accuracy)
        await registry.changed(await registry.request("m", version, from_=Stage.DEVELOPMENT, to=Stage.STAGING))
    approved = await registry.request("m", 1)
    with pytest.raises(Problem):
        await direct.commands.vote(transition_id(approved), person("ana", "reviewers"), Ballot(Choice.APPROVE))
    await direct.commands.vote(transition_id(approved), person("ben", "reviewers"), Ballot(Choice.APPROVE, "fine"))
    await registry.changed(approved)
    rejected = await registry.request("m", 2)
    await direct.commands.vote(transition_id(rejected), person("ben", "reviewers"), Ballot(Choice.REJECT, "no"))
    await registry.request("m", 3)
    await registry.refused(await registry.request("m", 2), "request-expired")
    await registry.refused(await registry.request("m", 2), "withdrawn")
    await registry.request("m", 1, from_=Stage.ARCHIVED, kind=TransitionKind.ROLLBACK)
    await registry.request("m", 2)


async def test_views_are_folds(direct: Direct) -> None:
    await some_history(direct)
    before = await rows(direct, PolicyRow, RequestRow)
    statuses = {row[4] for row in before[1]}
    assert statuses == {"open", "approved", "rejected", "expired"}
    async with direct.db.transaction() as tx:
        assert await views.rebuild(tx, direct.events) > 20
    assert await rows(direct, PolicyRow, RequestRow) == before


async def test_copies_are_folds_of_the_registry_and_a_replay_opens_nothing(direct: Direct) -> None:
    sent = []
    send = direct.registry.send

    async def noting(envelope: Any) -> None:
        sent.append(envelope)
        await send(envelope)

    direct.registry.send = noting
    await some_history(direct)
    copied = (ModelRow, VersionRow, StayRow)
    before = await rows(direct, *copied, RequestRow)
    events = await direct.types("default/m")
    async with direct.db.transaction() as tx:
        for table in copied:
            await tx.execute(sa.delete(of(table)))
    for envelope in sent:
        await send(envelope)
    assert await rows(direct, *copied, RequestRow) == before
    assert await direct.types("default/m") == events


@pytest.mark.parametrize("statement", ["update approval.event set type='x'", "delete from approval.event"])
async def test_events_are_immutable(direct: Direct, statement: str) -> None:
    await direct.revisions.bootstrap()
    with pytest.raises(DBAPIError, match=r"permission denied|immutable"):
        async with direct.db.transaction() as tx:
            await tx.execute(sa.text(statement))


async def test_a_failure_in_the_middle_leaves_nothing(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash after `request.opened` was written: the redelivered event opens the request, once."""
    await direct.revisions.bootstrap()
    await direct.registry.register("m", accuracy=0.95)
    project: Callable[..., Awaitable[None]] = views.project
    calls = 0

    async def failing(*given: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ConnectionError("killed")
        await project(*given)

    with monkeypatch.context() as patch:
        patch.setattr(views, "project", failing)
        sent = []
        send = direct.registry.send

        async def noting(envelope: Any) -> None:
            sent.append(envelope)
            await send(envelope)

        direct.registry.send = noting
        with pytest.raises(ConnectionError):
            await direct.registry.request("m")
    assert await direct.types("default/m") == []
    await asyncio.gather(*(send(sent[0]) for _ in range(5)))
    assert await direct.types("default/m") == ["request.opened", "gates.evaluated"]


async def test_replicas_publish_the_shipped_policies_once(direct: Direct) -> None:
    await asyncio.gather(*(direct.revisions.bootstrap() for _ in range(6)))
    async with direct.db.snapshot() as tx:
        found = [(row.name, row.revision) for row in await views.policies(tx)]
    assert found == [("production", 1), ("rollback", 1), ("staging", 1)]


async def test_migrations_match_the_tables(database: str) -> None:
    await asyncio.to_thread(service_url, database)
    await asyncio.to_thread(service_url, database)  # again: idempotent
    check = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "alembic", "check"),
        cwd=migrations().parents[2],
        env={**os.environ, "HALLMARK_ADMIN_DATABASE_URL": database},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await check.communicate()
    assert check.returncode == 0, output.decode()


async def test_policies_over_http(approval: Harness) -> None:
    text = """
kind: PromotionPolicy
metadata: {name: over-http}
spec:
  match: {transition: {to: Archived}, when: 'model.name == "nothing"'}
"""
    ana = await approval.ana.post("/v1/policies", json={"document": text})
    assert (ana.status_code, ana.json()["type"]) == (403, "urn:hallmark:problem:forbidden")
    first = await approval.admin.post("/v1/policies", json={"document": text})
    again = await approval.admin.post("/v1/policies", json={"document": f"# a comment\n{text}"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    second = await approval.admin.post("/v1/policies", json={"document": text.replace("nothing", "none")})
    assert (second.status_code, second.json()["revision"]) == (201, 2)
    back = await approval.admin.post("/v1/policies", json={"document": text})
    assert (back.json()["revision"], back.json()["digest"]) == (3, first.json()["digest"])
    current = {p["name"]: p["revision"] for p in (await approval.ana.get("/v1/policies")).json()["items"]}
    assert current["over-http"] == 3
    revisions = (await approval.ana.get("/v1/policies", params={"name": "over-http"})).json()["items"]
    assert [p["revision"] for p in revisions] == [3, 2, 1]
    bad = await approval.admin.post("/v1/policies", json={"document": text.replace("model.name", "model.nmae")})
    assert (bad.status_code, bad.json()["type"]) == (422, "urn:hallmark:problem:invalid-policy")
    assert [(e["line"], e["field"]) for e in bad.json()["errors"]] == [(5, "spec.match.when")]
    event = await approval.event(lambda e: e.key == "policy:over-http")
    assert (event.subject, event.actor) == ("policy:over-http", "root")
