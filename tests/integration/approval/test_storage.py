"""Views are folds, events are immutable, policies have revisions, migrations match the tables."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from tests.integration.approval.conftest import (
    Direct,
    Harness,
    person,
    transition_id,
)
from tests.support.databases import migrate_service

import approval
from approval import views
from approval.revisions import shipped
from approval.tables import ModelRow, PolicyRow, RequestRow, StayRow, Table, VersionRow, of
from contracts.approval import Choice, PolicyPublished
from contracts.lifecycle import Stage, TransitionKind
from contracts.registry import ModelRegistered
from kit.problems import Problem
from policy.case import Ballot

# One loop for all: the shared service must go on running during the other tests.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.one_broker]


def named(name: str) -> str:
    return next(policy.text for policy in shipped() if policy.name == name)


async def rows(direct: Direct, *tables: type[Table]) -> list[list[Any]]:
    async with direct.db.snapshot() as tx:
        return [sorted((await tx.execute(sa.select(of(table)))).all()) for table in tables]


async def some_history(direct: Direct) -> None:
    """Requests in every state, refused votes, revised policies."""
    registry = direct.registry
    await direct.parts.revisions.bootstrap()
    await direct.publish(named("production").replace("0.9", "0.92"))
    await registry.publish(ModelRegistered(workspace="default", model="m", tags={"risk": "high"}), "m")
    for version, accuracy in ((1, 0.95), (2, 0.96), (3, 0.5)):
        await registry.register("m", version, accuracy=accuracy)
        await registry.changed(await registry.request("m", version, from_=Stage.DEVELOPMENT, to=Stage.STAGING))
    approved = await registry.request("m", 1)
    with pytest.raises(Problem):
        await direct.parts.people.vote(transition_id(approved), person("ana", "reviewers"), Ballot(Choice.APPROVE))
    await direct.parts.people.vote(transition_id(approved), person("ben", "reviewers"), Ballot(Choice.APPROVE, "fine"))
    await registry.changed(approved)
    rejected = await registry.request("m", 2)
    await direct.parts.people.vote(transition_id(rejected), person("ben", "reviewers"), Ballot(Choice.REJECT, "no"))
    await registry.request("m", 3)
    await registry.refused(await registry.request("m", 2), "request-expired")
    await registry.refused(await registry.request("m", 2), "withdrawn")
    await registry.request("m", 1, from_=Stage.ARCHIVED, kind=TransitionKind.ROLLBACK)
    await registry.request("m", 2)


async def test_views_are_folds(direct: Direct) -> None:
    await some_history(direct)
    before = await rows(direct, PolicyRow, RequestRow)
    statuses = {row.status for row in before[1]}
    assert statuses == {"open", "approved", "rejected", "expired", "cancelled"}
    async with direct.db.transaction() as tx:
        assert await views.rebuild(tx, direct.parts.desk.log) > 20
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
    before, requests = await rows(direct, *copied), await rows(direct, RequestRow)
    async with direct.db.transaction() as tx:
        for table in copied:
            await tx.execute(sa.delete(of(table)))
    for envelope in sent:
        await send(envelope)
    assert await rows(direct, *copied) == before
    # Requests that were open are bound to what the copies said on the way; none is opened or decided again.
    shown = [
        [(row.request_id, row.status) for row in found] for found in (requests[0], (await rows(direct, RequestRow))[0])
    ]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("statement", ["update approval.event set type='x'", "delete from approval.event"])
async def test_events_are_immutable(direct: Direct, statement: str) -> None:
    await direct.parts.revisions.bootstrap()
    with pytest.raises(DBAPIError, match=r"permission denied|immutable"):
        async with direct.db.transaction() as tx:
            await tx.execute(sa.text(statement))


async def test_a_failure_in_the_middle_leaves_nothing(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash after `request.opened` was written: the redelivered event opens the request, once."""
    await direct.parts.revisions.bootstrap()
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
    await asyncio.gather(*(direct.parts.revisions.bootstrap() for _ in range(6)))
    async with direct.db.snapshot() as tx:
        found = [(row.name, row.revision) for row in await views.policies(tx)]
    assert found == [("policy-changes", 1), ("production", 1), ("rollback", 1), ("staging", 1)]


async def test_migrations_match_the_tables(database: str) -> None:
    await asyncio.to_thread(migrate_service, "approval", database)  # again: idempotent
    check = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "alembic", "check"),
        cwd=Path(approval.__file__).parents[2],
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
    first = await approval.admin.post("/v1/policies", json={"document": text, "reason": "to try it"})
    assert (first.status_code, first.json()["published"], first.json()["status"]) == (202, False, "open")
    same = await approval.admin.post("/v1/policies", json={"document": text})
    assert same.json() == first.json()
    other = await approval.admin.post("/v1/policies", json={"document": text.replace("nothing", "none")})
    assert (other.status_code, other.json()["type"]) == (409, "urn:hallmark:problem:change-pending")
    request_id, vera = first.json()["request_id"], approval.client("vera", "admins")
    own = await approval.vote(approval.admin, request_id, "approve")
    assert (own.status_code, own.json()["type"]) == (403, "urn:hallmark:problem:own-request")
    agreed = await approval.vote(vera, request_id, "approve", comment="fine")
    assert (agreed.json()["status"], agreed.json()["document"]) == ("approved", text)
    again = await approval.admin.post("/v1/policies", json={"document": f"# a comment\n{text}"})
    assert (again.status_code, again.json()["published"], again.json()["revision"]) == (200, True, 1)
    await approval.publish_policy(text.replace("nothing", "none"))
    await approval.publish_policy(text)
    current = {p["name"]: p["revision"] for p in (await approval.ana.get("/v1/policies")).json()["items"]}
    assert current["over-http"] == 3
    revisions = (await approval.ana.get("/v1/policies", params={"name": "over-http"})).json()["items"]
    assert [p["revision"] for p in revisions] == [3, 2, 1]
    bad = await approval.admin.post("/v1/policies", json={"document": text.replace("model.name", "model.nmae")})
    assert (bad.status_code, bad.json()["type"]) == (422, "urn:hallmark:problem:invalid-policy")
    assert [(e["line"], e["field"]) for e in bad.json()["errors"]] == [(5, "spec.match.when")]
    event = await approval.event(lambda e: e.key == "policy:over-http" and e.type == PolicyPublished.TYPE)
    published = event.payload(PolicyPublished)
    assert (event.subject, published.published_by, published.request_id) == ("policy:over-http", "root", request_id)
    assert [one.name for one in published.approved_by] == ["vera"]
