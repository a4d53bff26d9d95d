"""The inbox with 10,000 open requests: as many rows are touched as with 100, and as many queries made."""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from tests.integration.approval.conftest import Direct, transition_id

from approval import standing, views

# Copies of one real request, each a second older than the one before; `who`: whom each was asked for by.
COPIES = """
with copies as (
    select n, 'copy-' || n as id, 'asker-' || n as who, n * interval '1 second' as age
    from generate_series(cast(:first as int), cast(:last as int)) n
), requests as (
    insert into approval.request
        (request_id, workspace, model, version, kind, status, requested_by, opened_at, freezes, state)
    select id, workspace, model, version, kind, status, who, opened_at - age, freezes,
        replace(replace(state, request_id, id), '"requested_by":"ana"', '"requested_by":"' || who || '"')
    from approval.request, copies where request_id = :id
), standings as (
    insert into approval.standing (request_id, phase, waits_for, due_at, barred, heard)
    select id, phase, waits_for, due_at, array[who, 'trainer'], heard
    from approval.standing, copies where request_id = :id
)
insert into approval.asked (group_name, opened_at, request_id)
select group_name, opened_at - age, id from approval.asked, copies where request_id = :id
"""


async def filled(direct: Direct, owner: str) -> Callable[[int, int], Awaitable[None]]:
    """One open request of real making; gives what copies it."""
    await direct.parts.revisions.bootstrap()
    await direct.registry.register("m", accuracy=0.95)
    request_id = transition_id(await direct.registry.request("m", expires_in=80 * 3600))
    assert [v async for v in _rows(direct, "select group_name from approval.asked")] == ["reviewers"]

    async def copy(first: int, last: int) -> None:
        async with direct.db.transaction() as tx:
            await tx.execute(sa.text(COPIES), {"first": first, "last": last, "id": request_id})
        connection = await asyncpg.connect(owner)
        await connection.execute("vacuum analyze")
        await connection.close()

    return copy


async def _rows(direct: Direct, query: str) -> Any:
    async with direct.db.snapshot() as tx:
        for row in await tx.execute(sa.text(query)):
            yield row[0]


class Watch:
    """The statements that a database is asked, with their parameters."""

    def __init__(self, direct: Direct) -> None:
        self.heard: list[tuple[str, Any]] = []
        sa.event.listen(direct.db.engine.sync_engine, "before_cursor_execute", self._note)

    def _note(self, connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().lower().startswith(("select", "with")):
            self.heard.append((statement, parameters))


async def plan(direct: Direct, work: Callable[[Any], Awaitable[Any]]) -> dict[str, Any]:
    """How PostgreSQL carries out the last statement of that work: the kinds of scans, and what they touch."""
    watch = Watch(direct)
    async with direct.db.snapshot() as tx:
        await work(tx)
        statement, parameters = watch.heard[-1]
        for _ in range(2):  # the first one fills the caches
            explained = await tx.exec_driver_sql(f"explain (analyze, buffers, format json) {statement}", parameters)
            found = explained.scalar()
    root = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    nodes = list(_nodes(root))
    return {
        "buffers": root["Shared Hit Blocks"] + root["Shared Read Blocks"],
        "rows": sum(node["Actual Rows"] * node["Actual Loops"] for node in nodes if "Relation Name" in node),
        "scans": {(node["Node Type"], node["Relation Name"]) for node in nodes if "Relation Name" in node},
    }


def _nodes(node: dict[str, Any]) -> Any:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


async def test_measure(direct: Direct, database: str) -> None:
    copy = await filled(direct, database)
    async def inbox(tx: Any, groups=("reviewers",), subject="ben", **given: Any) -> Any:
        return await standing.inbox(tx, groups, subject, None, limit=51, **given)
    for first, last in ((1, 100), (101, 10_000)):
        await copy(first, last)
        print(last, await plan(direct, inbox))
        print(last, await plan(direct, lambda tx: inbox(tx, ("reviewers", "risk", "leads"))))
        async with direct.db.snapshot() as tx:
            rows = await inbox(tx)
            assert len(rows) == 51
        print(last, await plan(direct, lambda tx: inbox(tx, after=rows[-1])))
        print(last, "trainer", await plan(direct, lambda tx: inbox(tx, subject="trainer")))
