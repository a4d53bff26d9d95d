"""A service with many open requests, and what PostgreSQL does to read of them."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.integration.approval.conftest import Direct, make_direct, make_settings, service_url, transition_id

from approval import api, lists
from contracts.approval import Choice
from kit import problems
from kit.keys import ensure_key, make_token
from kit.web import Guard
from policy.case import Ballot

FEW, MANY, PAGE = 100, 10_000, 51
GROUPS = ("leads", "reviewers", "risk")
BUSY = "asker-0"  # asked for every tenth
EARLY, SKIPPED = "early", 40  # must not vote on the oldest ones
BIG = frozenset({"request", "standing", "asked"})
ASKED = """
kind: PromotionPolicy
metadata: {name: %s}
spec:
  match: {transition: {to: Production}, models: [%s]}
  approvals:
    rules: [%s]
    delegation: {allowed: true, max: 30d}
"""
# The policy that ships with the service lets nobody delegate.
UNUSED = ASKED % ("production", "unused", "{id: none, meaning: none, from: ['group:none'], count: 1}")
RULE = "{id: %s, meaning: I accept it, from: ['group:%s'], count: 2}"
# Copies of one real request, each a second older than the one before, asked for by one of ten people.
COPIES = """
with copies as (
    select n, 'copy-' || n as id, 'asker-' || mod(n, 10) as who, n * interval '1 second' as age
    from generate_series(1, cast(:count as int)) n
), requests as (
    insert into approval.request
        (request_id, workspace, model, version, kind, status, requested_by, opened_at, state)
    select id, workspace, model, version, kind, status, who, opened_at - age,
        replace(replace(state, request_id, id), '"requested_by":"ana"', '"requested_by":"' || who || '"')
    from approval.request, copies where request_id = :id
), standings as (
    insert into approval.standing (request_id, phase, waits_for, due_at, acted)
    select id, phase, waits_for, due_at, acted from approval.standing, copies where request_id = :id
)
insert into approval.asked (group_name, status, opened_at, request_id, workspace, model, without, delegation)
select group_name, status, opened_at - age, id, workspace, model,
    array_replace(without, 'ana', who) || case when n > :early then array['early'] else '{}' end, delegation
from approval.asked, copies where request_id = :id
"""
Row = tuple[datetime, str]


async def waiting_for(
    tx: AsyncConnection,
    groups: Iterable[str],
    subject: str,
    email: str | None = None,
    *,
    limit: int,
    after: Row | None = None,
) -> list[Row]:
    """The inbox of somebody who may read everything."""
    caller = lists.Voice(subject, frozenset(groups), email)
    page = await lists.inbox(tx, lists.readable([lists.EVERY]), [caller], limit=limit, after=after)
    return [*page.places]


@dataclass
class Inbox:
    """The service with `count` copies of an open request that waits for `GROUPS`; and, younger, with the one they were
    made of, and with `rare`, which waits for reviewers and `security`."""

    direct: Direct
    count: int
    rare: str = ""

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[list[tuple[str, Any]]]:
        """The statements that the database is asked meanwhile, with their parameters."""
        heard: list[tuple[str, Any]] = []

        def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            heard.append((statement, parameters))

        engine = self.direct.db.engine.sync_engine
        sa.event.listen(engine, "before_cursor_execute", note)
        try:
            yield heard
        finally:
            sa.event.remove(engine, "before_cursor_execute", note)

    async def page(
        self,
        tx: AsyncConnection,
        groups: Iterable[str] = ("reviewers",),
        subject: str = "ben",
        after: Row | None = None,
    ) -> list[Row]:
        return await waiting_for(tx, groups, subject, limit=PAGE, after=after)

    async def work(self, act: Callable[[AsyncConnection], Awaitable[Any]]) -> "Work":
        """What PostgreSQL does for the one statement of that act."""
        async with self.direct.db.snapshot() as tx:
            async with self.watch() as heard:
                await act(tx)
            [(statement, parameters)] = heard
            return await self.explained(tx, statement, parameters)

    async def explained(self, tx: AsyncConnection, statement: str, parameters: Any) -> "Work":
        if self.count == FEW:  # a table so small is rather read from end to end, which is no measure for a large one
            for name in ("seqscan", "bitmapscan", "sort", "hashjoin", "mergejoin"):
                await tx.execute(sa.text(f"set local enable_{name} = off"))
        explain = f"explain (analyze, buffers, format json) {statement}"
        for _ in range(2):  # the first one fills the caches
            found: Any = (await tx.exec_driver_sql(explain, parameters)).scalar()
        root = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
        scans = [node for node in _nodes(root) if node.get("Relation Name") in BIG]
        return Work(
            buffers=root["Shared Hit Blocks"] + root["Shared Read Blocks"],
            rows=round(sum(map(_touched, scans))),
            sequential=frozenset(n["Relation Name"] for n in scans if n["Node Type"] == "Seq Scan"),
        )

    def client(self, subject: str, *groups: str) -> httpx2.AsyncClient:
        """Of the routes of requests."""
        direct, app = self.direct, FastAPI()
        parts, guard = direct.parts, Guard(direct.settings)
        problems.install(app)
        callers = api.Callers(guard, parts.desk)
        app.include_router(api.requests(parts.desk, callers, parts.people, parts.emergencies, parts.revisions))
        token = make_token(ensure_key(direct.settings.access_file.parent, "auth"), subject, [*groups])
        headers = {"authorization": f"Bearer {token}"}
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://approval", headers=headers)

    async def answer(self, who: httpx2.AsyncClient, **query: Any) -> tuple[list[dict[str, Any]], list[tuple[str, Any]]]:
        """What `GET /v1/requests` gives, and the statements that it took."""
        async with self.watch() as heard:
            response = await who.get("/v1/requests", params=query)
        assert response.status_code == 200, response.text
        return response.json()["items"], heard

    async def answer_work(self, who: httpx2.AsyncClient, **query: Any) -> "Work":
        """What PostgreSQL does for all statements of that answer."""
        _, heard = await self.answer(who, **query)
        async with self.direct.db.snapshot() as tx:
            return sum([await self.explained(tx, *one) for one in heard], Work())


@dataclass(frozen=True)
class Work:
    """`rows` of large tables that were read, passed over ones too; `sequential`: the tables read from end to end."""

    buffers: int = 0
    rows: int = 0
    sequential: frozenset[str] = frozenset()

    def __add__(self, other: "Work") -> "Work":
        return Work(self.buffers + other.buffers, self.rows + other.rows, self.sequential | other.sequential)


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _touched(node: dict[str, Any]) -> float:
    passed = sum(node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
    return float(node["Actual Loops"] * (node["Actual Rows"] + passed))


async def filled(owner: str, directory: Path, count: int) -> Inbox:
    """`owner`: the superuser's address of a database that nothing is in."""
    direct = make_direct(make_settings(service_url(owner), directory, settle_seconds=0.1))
    inbox = Inbox(direct, count)
    await direct.publish(UNUSED)
    await direct.publish(ASKED % ("many", "many", ", ".join(RULE % (g, g) for g in GROUPS)))
    await direct.publish(ASKED % ("rare", "rare", ", ".join(RULE % (g, g) for g in ("reviewers", "security"))))
    for model in ("many", "rare"):
        await direct.registry.register(model, accuracy=0.95)
    real = transition_id(await direct.registry.request("many", expires_in=80 * 3600))
    await direct.parts.people.vote(real, await direct.person("bo", "risk"), Ballot(Choice.APPROVE))
    inbox.rare = transition_id(await direct.registry.request("rare", expires_in=80 * 3600))
    async with direct.db.transaction() as tx:
        await tx.execute(sa.text(COPIES), {"count": count, "early": count - SKIPPED, "id": real})
    connection = await asyncpg.connect(owner)
    await connection.execute("vacuum analyze")
    await connection.close()
    return inbox
