"""Search over HTTP, and its plans over 100,000 versions."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ClauseElement, Executable
from tests.integration.registry.search_rows import many
from tests.support.databases import migrated_database, role_url
from tests.support.searching import START, WORKSPACE, Row, fill

from embedded.fixtures import server_directory
from kit import problems
from kit.db import Database
from kit.keys import ensure_key, make_token
from kit.settings import Settings
from kit.web import Guard
from registry.search import cursor, query
from registry.search.columns import Frame
from registry.search.fields import Scope
from registry.search.rare import rarest
from registry.search.routes import router
from registry.tables import VersionRow, t

LARGE = "large"
MODELS, EACH = 1_000, 100
MOST_ROWS = 10_000  # that any step of a plan may handle: a tenth of the versions
PAGE = 50
ACCESS = """
roles:
  - {group: readers, role: viewer}
  - {group: some, role: viewer, model: "m[12]"}
  - {group: some, role: contributor, model: m4}
  - {group: elsewhere, role: viewer, workspace: large}
"""


@pytest.fixture(scope="module")
def database(infra_postgres: str) -> Iterator[tuple[str, str]]:
    """The URLs of the registry's role and of the superuser."""
    with migrated_database(infra_postgres, "registry") as database:
        yield role_url(database, "registry"), database


@dataclass
class Searched:
    db: Database
    rows: dict[Scope, list[Row]]
    directory: Path
    app: FastAPI

    def client(self, *groups: str) -> httpx2.AsyncClient:
        token = make_token(ensure_key(self.directory, "auth"), "ana", list(groups))
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app),
            base_url="http://registry/v1/search",
            headers={"authorization": f"Bearer {token}"},
        )

    async def get(self, path: str, *groups: str, **params: Any) -> Any:
        response = await self.client(*groups or ("readers",)).get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    async def problem(self, path: str, *groups: str, **params: Any) -> Any:
        response = await self.client(*groups or ("readers",)).get(path, params=params)
        assert response.headers["content-type"] == problems.MEDIA_TYPE
        return response.json()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def searched(database: tuple[str, str]) -> AsyncIterator[Searched]:
    url, _ = database
    db, admin = (Database(u, name="test", statement_timeout_ms=120_000) for u in database)
    async with db.transaction() as tx:
        rows = await fill(tx)
        await many(tx, LARGE, models=MODELS, each=EACH)
    async with admin.transaction() as tx:
        await tx.execute(sa.text("analyze"))
    await admin.close()
    with server_directory() as directory:
        ensure_key(directory, "auth")
        (directory / "access.yaml").write_text(ACCESS)
        settings = Settings(
            database_url=url,
            kafka_bootstrap="unused",
            port=0,
            auth_jwks=str(directory / "auth.jwks.json"),
            access_file=directory / "access.yaml",
        )
        app = FastAPI()
        problems.install(app)
        app.include_router(router(db, Guard(settings)))
        yield Searched(db, rows, directory, app)
    await db.close()


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


async def test_a_version_is_answered_with_what_people_compare(searched: Searched) -> None:
    answer = await searched.get("/versions", workspace=LARGE, filter="name = 'model-00007' and alias = 'champion'")
    assert answer["next"] is None
    (item,) = answer["items"]
    assert (item["workspace"], item["model"], item["name"], item["version"]) == (LARGE, *["model-00007"] * 2, EACH)
    assert (item["stage"], item["status"], item["aliases"]) == ("Production", "ready", ["champion"])
    assert item["metrics"] == {"auc": 0.5}
    assert item["parameters"] == {"lr": "0.1"}
    assert {*item} == {
        *(
            "workspace",
            "model",
            "name",
            "version",
            "stage",
            "status",
            "status_detail",
            "revocation",
            "aliases",
            "digest",
        ),
        *("artifact_digest", "source_path", "metrics", "parameters", "tags", "run_id", "owner", "registered_by"),
        *("registered_at", "updated_at", "description"),
    }


async def test_a_model_is_answered_with_its_newest_in_each_stage(searched: Searched) -> None:
    answer = await searched.get("/models", workspace=LARGE, filter="name = 'model-00007'")
    (item,) = answer["items"]
    newest = {"Production": EACH, "Staging": EACH - 1, "Archived": EACH - 5, "Development": EACH - 2}
    assert item["stages"] == newest
    assert item["aliases"] == {"champion": EACH}
    assert (item["name"], item["versions"], item["owner"]) == ("model-00007", EACH, "team-7")


async def test_the_best_comes_first(searched: Searched) -> None:
    params = {"workspace": LARGE, "filter": "tags.team = 'team-3'", "order_by": "metrics.auc desc", "limit": 3}
    answer = await searched.get("/versions", **params)
    best = """select m.model, m.version from registry.metric m join registry.tag t using (workspace, model, version)
        where workspace = 'large' and m.name = 'auc' and t.name = 'team' and t.value = 'team-3'
        order by m.value desc, model desc, version desc limit 3"""
    async with searched.db.snapshot() as tx:
        expected = [tuple(row) for row in await tx.execute(sa.text(best))]
    assert [(item["model"], item["version"]) for item in answer["items"]] == expected


@pytest.mark.parametrize("scope", Scope)
async def test_pages_give_every_living_row_once(searched: Searched, scope: Scope) -> None:
    found: list[Any] = []
    params: dict[str, Any] = {"limit": 4, "order_by": ["tags.k desc", "owner"]}
    while True:
        answer = await searched.get(f"/{scope}", **params)
        keys = ("model", "version") if scope is Scope.VERSIONS else ("model",)
        found += [tuple(item[key] for key in keys) for item in answer["items"]]
        if answer["next"] is None:
            break
        params["after"] = answer["next"]
    assert sorted(found) == sorted(row.identity for row in searched.rows[scope])
    assert ("m5",) not in {row[:1] for row in found}


async def test_rows_that_come_between_two_pages_move_nothing(searched: Searched) -> None:
    """Newest first: what is registered meanwhile is neither repeated nor pushes anything aside."""
    first = await searched.get("/versions", limit=5)
    table = t(VersionRow)
    old = sa.select(table).where(table.c.workspace == WORKSPACE, table.c.model == "m1").limit(1)
    async with searched.db.transaction() as tx:
        row = dict((await tx.execute(old)).mappings().one())
        new = {"version": 99, "registered_at": START.replace(year=2030)}
        await tx.execute(sa.insert(table).values(**row | new))
    try:
        rest = await searched.get("/versions", limit=500, after=first["next"])
        again = await searched.get("/versions", limit=1)
    finally:
        async with searched.db.transaction() as tx:
            await tx.execute(sa.delete(table).where(table.c.workspace == WORKSPACE, table.c.version == 99))
    found = [(item["model"], item["version"]) for item in first["items"] + rest["items"]]
    assert sorted(found) == sorted(row.identity for row in searched.rows[Scope.VERSIONS])
    assert again["items"][0]["version"] == 99


@pytest.mark.parametrize(
    ("filter_text", "position", "says"),
    [
        ("metrics.auc >> 0.9", 13, "expected a text in quotes or a number"),
        ("stage = Production", 8, "put it in quotes"),
        ("name = 'x' AND tags.a = 'never closed", 24, "never closed"),
        ("colour = 'red'", 0, "no field 'colour'"),
        ("name = 'x' or\n  version_number like '1'", 36, "integer"),
        ("metrics.auc > 'high'", 14, "without quotes"),
        ("created_at > 'yesterday'", 13, "not a time"),
        ("name like '50\\'", 10, "backslash"),
        ("name = 'x\0'", 9, "U+0000"),
        ("NOT " * 40 + "name = 'x'", 120, "nested"),
        (" OR ".join(["name = 'x'"] * 51), 50 * 14, "comparisons"),
        ("x" * 4_001, 4_000, "longer"),
    ],
)
async def test_a_bad_filter_is_refused_at_the_character(
    searched: Searched, filter_text: str, position: int, says: str
) -> None:
    problem = await searched.problem("/versions", filter=filter_text)
    assert (problem["status"], problem["type"]) == (400, "urn:hallmark:problem:bad-filter")
    assert problem["position"] == position
    assert says in problem["detail"]
    line, caret = problem["detail"].splitlines()[-2:]
    assert caret.endswith("^")
    if position < len(filter_text) and filter_text[position].isprintable():
        assert line[len(caret) - 1] == filter_text[position]


@pytest.mark.parametrize(
    "order", ["metrics.auc up", "name, name", "colour", "name, alias, owner, stage, run_id, tags.a"]
)
async def test_a_bad_order_is_refused(searched: Searched, order: str) -> None:
    problem = await searched.problem("/versions", order_by=order)
    assert (problem["status"], problem["type"]) == (400, "urn:hallmark:problem:bad-order")


async def test_a_cursor_belongs_to_its_query(searched: Searched) -> None:
    params: dict[str, Any] = {"limit": 2, "order_by": "metrics.auc desc", "filter": "not tags.k = 'a'"}
    after = (await searched.get("/versions", **params))["next"]
    await searched.get("/versions", **params, after=after)
    for other in ({"filter": ""}, {"order_by": "metrics.auc"}, {"workspace": LARGE}, {"model": "m1"}):
        problem = await searched.problem("/versions", **params | other, after=after)
        assert (problem["status"], problem["type"]) == (400, "urn:hallmark:problem:bad-cursor")
        assert "another query" in problem["detail"]
    for broken in ("", "!", "bnVsbA", after[:-3], after + "A", "W10"):
        problem = await searched.problem("/versions", **params, after=broken)
        assert (problem["status"], problem["type"]) == (400, "urn:hallmark:problem:bad-cursor")


async def test_only_models_that_the_caller_may_read_are_found(searched: Searched) -> None:
    mine = {"m1", "m2", "m4"}
    expected = [row.identity for row in searched.rows[Scope.VERSIONS] if row.identity[0] in mine]
    assert len(expected) > 4
    first = await searched.get("/versions", "some", limit=4, order_by="name")
    rest = await searched.get("/versions", "some", limit=500, order_by="name", after=first["next"])
    assert len(first["items"]) == 4
    assert [(item["model"], item["version"]) for item in first["items"] + rest["items"]] == sorted(expected)
    assert {item["model"] for item in (await searched.get("/models", "some"))["items"]} == mine
    for path, params in (("/models", {}), ("/versions", {}), ("/versions", {"model": "m3"})):
        group = "some" if params else "elsewhere"
        assert (await searched.problem(path, group, **params))["status"] == 403


async def test_one_model_by_any_of_its_names(searched: Searched) -> None:
    expected = [row.identity for row in searched.rows[Scope.VERSIONS] if row.identity[0] == "m3"]
    for name in ("m3", "renamed"):
        answer = await searched.get("/versions", model=name, order_by="version_number")
        assert [(item["model"], item["version"]) for item in answer["items"]] == expected
        assert {item["name"] for item in answer["items"]} == {"renamed"}
    assert (await searched.problem("/versions", model="nobody"))["status"] == 404
    assert (await searched.get("/versions", model="m5"))["items"] == []


class Explain(Executable, ClauseElement):
    inherit_cache = False

    def __init__(self, statement: sa.Select[Any]) -> None:
        self.statement = statement


@compiles(Explain)
def _explain(element: Explain, compiler: Any, **options: Any) -> str:
    return "explain (analyze, buffers, format json) " + str(compiler.process(element.statement, **options))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


async def plans(searched: Searched, search: query.Search, start: list[Any] | None = None) -> list[dict[str, Any]]:
    """The plans of one page, as they ran."""
    found, rows = [], 0
    async with searched.db.snapshot() as tx:
        stages = await query.prepare(tx, search.workspace)
        rare = await rarest(tx, Frame(search.scope, search.workspace), stages, search.filter)
        for statement, _ in query.statements(search, stages, start, rare, limit=PAGE + 1 - rows):
            answer = await tx.scalar(Explain(statement))
            plan = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
            rows += plan["Actual Rows"]
            found.append(plan)
            if rows > PAGE:
                break
    return found


FLAT = [
    ("", ""),
    ("tags.team = 'team-3'", ""),
    ("tags.incident = 'INC-3'", ""),
    ("tags.team = 'nobody'", ""),
    ("NOT tags.team = 'team-3'", ""),
    ("metrics.auc >= 0.99", ""),
    ("metrics.auc >= 0.5", ""),
    ("metrics.loss < 2", ""),
    ("params.seed = 'nothing'", ""),
    ("params.lr = '0.3'", ""),
    ("stage = 'production'", ""),
    ("alias = 'champion'", ""),
    ("status = 'quarantined'", ""),
    ("run_id = 'nothing'", ""),
    ("source_path = 'file-1.onnx'", ""),
    ("created_by = 'user-7'", ""),
    ("created_at >= '2024-01-02' AND created_at < '2024-01-02T00:01:00'", ""),
    ("name = 'model-00500'", ""),
    ("owner = 'team-3'", ""),
    ("tags.team = 'nobody' OR params.seed = 'nothing'", ""),
    ("", "metrics.auc DESC"),
    ("tags.team = 'team-3'", "metrics.auc DESC"),
    ("tags.incident = 'INC-3'", "metrics.auc DESC"),
    ("stage = 'staging' AND metrics.auc > 0.9", "metrics.auc DESC"),
    ("stage = 'production'", "metrics.auc DESC"),
    ("tags.team = 'team-3' AND metrics.auc > 0.9 AND params.lr = '0.3'", "metrics.loss"),
    ("", "metrics.none DESC"),
    ("", "updated_at DESC"),
    ("", "created_by"),
    ("", "stage"),
    ("", "status DESC"),
    ("", "run_id"),
    ("", "source_path DESC"),
    ("", "params.seed"),
    ("", "tags.team DESC"),
    ("", "alias"),
    ("", "name"),
    ("", "name, version_number DESC"),
    ("", "version_number DESC"),
]


def check_flat(found: list[dict[str, Any]]) -> None:
    assert found
    for plan in found:
        for node in nodes(plan):
            handled = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            assert handled <= MOST_ROWS, json.dumps(plan, indent=1)
            large = node.get("Relation Name") in ("version", "metric", "parameter", "tag")
            assert not (large and node["Node Type"] == "Seq Scan"), json.dumps(plan, indent=1)


@pytest.mark.parametrize(("filter_text", "order"), FLAT)
async def test_cost_is_flat(searched: Searched, filter_text: str, order: str) -> None:
    """No step handles more than a tenth of the versions, and none reads a large table from end to end."""
    search = query.read(Scope.VERSIONS, LARGE, filter_text, order)
    check_flat(await plans(searched, search))


@pytest.mark.parametrize("order", ["", "metrics.auc DESC", "updated_at", "params.seed DESC", "stage", "name", "run_id"])
async def test_a_page_deep_inside_costs_no_more(searched: Searched, order: str) -> None:
    search = query.read(Scope.VERSIONS, LARGE, "", order)
    async with searched.db.snapshot() as tx:
        stages = await query.prepare(tx, LARGE)
        statement, _ = query.statements(search, stages)[0]
        row = list((await tx.execute(statement.limit(1).offset(40_000))).one())
    check_flat(await plans(searched, search, row))
    page = await searched.get(
        "/versions", workspace=LARGE, order_by=order, limit=1, after=cursor.encode(search.digest, row)
    )
    assert (page["items"][0]["model"], page["items"][0]["version"]) != tuple(row[-2:])


async def test_many_searches_at_once(searched: Searched) -> None:
    """The settings of one search's transaction do not stay on its connection."""
    await asyncio.gather(*(searched.get("/versions", workspace=LARGE, filter="metrics.auc > 0.9") for _ in range(20)))
    async with searched.db.engine.connect() as connection:
        assert await connection.scalar(sa.text("show plan_cache_mode")) == "auto"
