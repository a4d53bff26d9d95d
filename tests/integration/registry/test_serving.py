"""Resolve, pins, reports, usage and stale against a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import sqlalchemy as sa
from tests.support.serving import House, Pen, digest_of, running, settings_for

from contracts.lifecycle import DEFAULT_LIFECYCLE, StageRule
from contracts.registry import ModelDeleted, ModelRenamed, ModelRestored, WorkspaceConfigured
from hallmark import pins
from kit.db import Database
from registry.serving.resolve import QUERIES
from registry.settings import RegistrySettings


@pytest.fixture(scope="module")
def settings(infra_postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistrySettings]:
    with settings_for(infra_postgres, tmp_path_factory.mktemp("serving")) as settings:
        yield settings


@pytest_asyncio.fixture
async def house(settings: RegistrySettings) -> AsyncIterator[House]:
    async with running(settings) as house:
        yield house


@pytest.fixture
def pen(house: House) -> Pen:
    return Pen(house.db)


@pytest_asyncio.fixture
async def server(house: House, pen: Pen) -> AsyncIterator[httpx2.AsyncClient]:
    async with house.client(pen) as client:
        yield client


async def code(client: httpx2.AsyncClient, path: str, **params: Any) -> tuple[int, str]:
    response = await client.get(path, params=params)
    return response.status_code, str(response.json()["type"]).rsplit(":", 1)[1]


async def backdate(db: Database, pen: Pen, days: int = 100) -> None:
    """Makes everything in the workspace so many days older."""
    async with db.transaction() as tx:
        for table, column in (("version", "registered_at"), ("tenure", "entered_at"), ("usage", "last_at")):
            await tx.execute(
                sa.text(
                    f"update registry.{table} set {column} = {column} - make_interval(days => :days) "
                    "where workspace = :workspace"
                ),
                {"days": days, "workspace": pen.workspace},
            )


async def test_a_stage_an_alias_and_a_version_are_resolved(pen: Pen, server: httpx2.AsyncClient) -> None:
    await pen.model("m", 2, metrics={"auc": 0.9})
    await pen.move("m", 1, "Development", "Staging")
    entered = await pen.promote("m", 1)
    pointed = await pen.alias("m", "champion", 2)
    stage = (await server.get("/v1/models/m/resolve", params={"stage": "pRODuction"})).json()
    assert (stage["version"], stage["target"], stage["sequence"]) == (1, "Production", entered)
    assert (stage["status"], stage["stage"], stage["metrics"]) == ("ready", "Production", {"auc": 0.9})
    assert stage["files"] == [
        {"path": "model.onnx", "digest": digest_of("m/1"), "size": 3, "url": stage["download_url"]}
    ]
    assert stage["artifact"]["digest"] == digest_of("m/1")
    assert digest_of("m/1").removeprefix("sha256:") in stage["download_url"]
    alias = (await server.get("/v1/models/m/resolve", params={"alias": "champion"})).json()
    assert (alias["version"], alias["target"], alias["sequence"]) == (2, "@champion", pointed)
    version = (await server.get("/v1/models/m/resolve", params={"version": 2})).json()
    assert (version["version"], version["target"], version["stage"]) == (2, "version:2", "Development")


def test_the_document_says_what_a_watch_answers(house: House) -> None:
    paths = house.app.openapi()["paths"]
    assert list(paths["/v1/models/{model}/watch"]["get"]["responses"]["200"]["content"]) == ["text/event-stream"]
    assert "304" in paths["/v1/models/{model}/resolve"]["get"]["responses"]


async def test_every_file_of_a_directory_has_an_address(pen: Pen, server: httpx2.AsyncClient) -> None:
    paths = [f"part-{n:03}" for n in range(30)]
    await pen.model("m", 1, files=paths)
    answer = (await server.get("/v1/models/m/resolve", params={"version": 1})).json()
    assert [file["path"] for file in answer["files"]] == paths
    assert len({file["url"] for file in answer["files"]}) == 30


async def test_what_cannot_be_resolved_says_why(pen: Pen, server: httpx2.AsyncClient) -> None:
    path = "/v1/models/m/resolve"
    assert await code(server, path, stage="Production") == (404, "model-not-found")
    await pen.model("m", 1)
    await pen.version("m", 2, status="pending")
    await pen.version("m", 3, status="rejected")
    await pen.version("m", 4, status="quarantined")
    assert await code(server, path, stage="Production") == (404, "nothing-in-stage")
    assert await code(server, path, stage="Nowhere") == (422, "unknown-stage")
    assert await code(server, path, alias="champion") == (404, "alias-not-found")
    assert await code(server, path, version=9) == (404, "version-not-found")
    assert await code(server, path, version=2) == (409, "version-not-ready")
    assert await code(server, path, version=3) == (409, "version-rejected")
    assert await code(server, path, version=4) == (409, "version-quarantined")
    assert await code(server, path) == (422, "invalid-request")
    assert await code(server, path, stage="Production", version=1) == (422, "invalid-request")
    allowed = await server.get(path, params={"version": 4, "allow_quarantined": True})
    assert "unsafe" in allowed.json()["warning"]
    # In an open stage only what is ready counts.
    assert (await server.get(path, params={"stage": "development"})).json()["version"] == 1
    await pen.write("m", ModelDeleted(workspace=pen.workspace, model="m", reason="r"))
    assert await code(server, path, version=1) == (410, "model-deleted")
    await pen.write("m", ModelRestored(workspace=pen.workspace, model="m", reason="r"))
    assert (await server.get(path, params={"version": 1})).status_code == 200


async def test_a_waived_version_is_served_with_a_warning(pen: Pen, server: httpx2.AsyncClient) -> None:
    await pen.model("m", 0)
    await pen.version("m", 1, status="quarantined")
    await pen.promote("m", 1, origin="Development")
    answer = (await server.get("/v1/models/m/resolve", params={"stage": "Production"})).json()
    assert (answer["version"], answer["status"]) == (1, "quarantined")
    assert "unsafe" in answer["warning"]


async def test_any_name_the_model_had_leads_to_it(pen: Pen, server: httpx2.AsyncClient) -> None:
    await pen.model("old", 1)
    await pen.write("old", ModelRenamed(workspace=pen.workspace, model="old", former="old", name="new"))
    for name in ("old", "new"):
        answer = (await server.get(f"/v1/models/{name}/resolve", params={"version": 1})).json()
        assert (answer["model"], answer["name"], answer["version"]) == ("old", "new", 1)


async def test_a_stage_of_several_gives_the_newest_and_names_the_others(pen: Pen, server: httpx2.AsyncClient) -> None:
    lifecycle = DEFAULT_LIFECYCLE.model_copy(
        update={"stages": (*DEFAULT_LIFECYCLE.stages, StageRule(name="Canary", gated=True, holds=3))}
    )
    await pen.write("-", WorkspaceConfigured(workspace=pen.workspace, lifecycle=lifecycle))
    await pen.model("m", 3)
    for version in (2, 3, 1):
        await pen.move("m", version, "Development", "Canary")
    answer = await server.get("/v1/models/m/resolve", params={"stage": "canary"})
    assert (answer.json()["version"], answer.json()["also"], answer.json()["target"]) == (1, [3, 2], "Canary")
    await pen.move("m", 3, "Canary", "Archived")
    changed = await server.get(
        "/v1/models/m/resolve", params={"stage": "canary"}, headers={"if-none-match": answer.headers["etag"]}
    )
    assert (changed.status_code, changed.json()["version"], changed.json()["also"]) == (200, 1, [2])


async def test_the_etag_holds_until_the_answer_changes(pen: Pen, server: httpx2.AsyncClient) -> None:
    await pen.model("m", 2)
    await pen.promote("m", 1, origin="Development")
    first = await server.get("/v1/models/m/resolve", params={"stage": "Production"})
    assert first.headers["cache-control"] == "private, no-store"
    headers = {"if-none-match": f'"other", W/{first.headers["etag"]}'}
    same = await server.get("/v1/models/m/resolve", params={"stage": "Production"}, headers=headers)
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first.headers["etag"])
    await pen.promote("m", 2, former=1, origin="Development")
    new = await server.get("/v1/models/m/resolve", params={"stage": "Production"}, headers=headers)
    assert (new.status_code, new.json()["version"]) == (200, 2)


async def test_an_acknowledged_change_is_answered_at_once(pen: Pen, server: httpx2.AsyncClient) -> None:
    await pen.model("m", 2)
    await pen.alias("m", "live", 1)
    stop = asyncio.Event()

    async def ask() -> int:
        asked = 0
        while not stop.is_set():
            await server.get("/v1/models/m/resolve", params={"alias": "live"})
            asked += 1
        return asked

    askers = [asyncio.create_task(ask()) for _ in range(8)]
    now = 1
    for _ in range(40):
        now, before = 3 - now, now
        await pen.alias("m", "live", now, before)
        answer = await server.get("/v1/models/m/resolve", params={"alias": "live"})
        assert answer.json()["version"] == now
    stop.set()
    assert sum(await asyncio.gather(*askers)) > 0


async def test_nobody_without_the_role_learns_anything(house: House, pen: Pen) -> None:
    await pen.model("m", 1)
    async with house.client(pen, "eve", "strangers") as eve:
        for path in ("resolve", "watch", "serving", "usage"):
            assert await code(eve, f"/v1/models/m/{path}", stage="Production") == (403, "forbidden")
            assert await code(eve, f"/v1/models/absent/{path}", stage="Production") == (403, "forbidden")
        assert (await eve.get("/v1/stale")).status_code == 403
        assert (await eve.post("/v1/stale/archive", json={})).status_code == 403


async def test_a_pin_verifies_offline_and_nothing_in_it_can_be_changed(
    house: House, pen: Pen, server: httpx2.AsyncClient
) -> None:
    await pen.model("m", 1)
    await pen.promote("m", 1, origin="Development")
    answer = (await server.get("/v1/models/m/resolve", params={"stage": "Production"})).json()
    jwks = (await server.get("/v1/keys/serving")).json()
    assert "d" not in jwks["keys"][0]
    claims = pins.verify(answer["pin"], jwks)
    for name in ("workspace", "model", "target", "version", "digest", "sequence"):
        assert getattr(claims, name) == answer[name]
    assert claims.artifact_digest == answer["artifact"]["digest"]


# -- reports ---------------------------------------------------------------------------------------------------------


async def test_desired_and_actual_stand_side_by_side(pen: Pen, server: httpx2.AsyncClient) -> None:
    await pen.model("m", 2)
    await pen.promote("m", 1, origin="Development")
    said = {"server": "pod-1", "target": "production", "version": 1, "state": "serving"}
    first = await server.post("/v1/models/m/serving", json=said)
    assert (first.json()["recorded"], first.json()["target"]) == (True, "Production")
    again = await server.post("/v1/models/m/serving", json=said)
    assert again.json()["recorded"] is False
    shown = (await server.get("/v1/models/m/serving")).json()
    (production,) = shown["targets"]
    assert shown["in_step"] is True
    assert (production["desired"]["version"], production["actual"][0]["server"]) == (1, "pod-1")
    await pen.promote("m", 2, former=1, origin="Development")
    shown = (await server.get("/v1/models/m/serving")).json()
    by_target = {target["target"]: target for target in shown["targets"]}
    assert shown["in_step"] is False
    assert by_target["Production"]["actual"][0]["in_step"] is False
    await server.post("/v1/models/m/serving", json=said | {"version": 2, "state": "failed", "detail": "no memory"})
    assert (await server.get("/v1/models/m/serving")).json()["in_step"] is False
    await server.post("/v1/models/m/serving", json=said | {"state": "stopped"})
    assert (await server.get("/v1/models/m/serving")).json()["in_step"] is True


async def test_a_report_must_name_what_exists_and_an_auditor_makes_none(
    house: House, pen: Pen, server: httpx2.AsyncClient
) -> None:
    await pen.model("m", 1)
    said = {"server": "s", "target": "Production", "version": 7, "state": "loaded"}
    assert (await server.post("/v1/models/m/serving", json=said)).status_code == 404
    unknown = await server.post("/v1/models/m/serving", json=said | {"version": 1, "target": "Nowhere"})
    assert unknown.status_code == 422
    async with house.client(pen, "axel", "auditors") as axel:
        assert (await axel.get("/v1/models/m/serving")).status_code == 200
        assert (await axel.post("/v1/models/m/serving", json=said | {"version": 1})).status_code == 403


# -- usage -----------------------------------------------------------------------------------------------------------


async def test_usage_counts_who_and_survives_the_end(
    settings: RegistrySettings, house: House, pen: Pen, server: httpx2.AsyncClient
) -> None:
    await pen.model("m", 2)
    async with house.client(pen, "bob") as bob:
        for client, version in ((server, 1), (server, 1), (server, 2), (bob, 1)):
            await client.get("/v1/models/m/resolve", params={"version": version})
    seen: list[tuple[int, str, str, int]] = []
    after = ""
    while after is not None:
        page = (await server.get("/v1/models/m/usage", params={"limit": 1, "after": after})).json()
        seen += [(u["version"], u["principal"], u["how"], u["count"]) for u in page["items"]]
        after = page["next"]
    assert seen == [(1, "bob", "resolve", 1), (1, "server-1", "resolve", 2), (2, "server-1", "resolve", 1)]
    async with running(settings) as other, other.client(pen) as client:
        await client.get("/v1/models/m/resolve", params={"version": 1})
    # The other process wrote at its end what it had counted.
    items = (await server.get("/v1/models/m/usage")).json()["items"]
    assert {(u["principal"], u["count"]) for u in items if u["version"] == 1} == {("bob", 1), ("server-1", 3)}


# -- stale -----------------------------------------------------------------------------------------------------------


async def test_stale_is_what_nobody_uses_or_what_fell_below_the_floor(
    house: House, pen: Pen, server: httpx2.AsyncClient
) -> None:
    await pen.model("m", 3)
    await pen.model("errors", 2, better={"rmse": "lower"})
    await server.get("/v1/models/m/resolve", params={"version": 2})
    await house.serving.usage.flush()
    assert (await server.get("/v1/stale")).json() == {"items": [], "next": None}
    await backdate(house.db, pen)
    await server.get("/v1/models/m/resolve", params={"version": 3})
    await house.serving.usage.flush()
    found: list[dict[str, Any]] = []
    after = ""
    while after is not None:
        page = (await server.get("/v1/stale", params={"limit": 1, "after": after})).json()
        found += page["items"]
        after = page["next"]
    assert [(i["model"], i["version"]) for i in found] == [("errors", 1), ("errors", 2), ("m", 1), ("m", 2)]
    assert [i["last_used_at"] is not None for i in found] == [False, False, False, True]
    await pen.evaluate("m", 1, auc=0.9)
    await pen.evaluate("m", 2, auc=0.7)
    await pen.evaluate("m", 3, auc=0.9)
    await pen.evaluate("m", 3, ago=timedelta(days=2), auc=0.1)  # told later, measured earlier
    await pen.evaluate("errors", 1, rmse=3.0)
    await pen.evaluate("errors", 2, rmse=1.0)
    poor = (await server.get("/v1/stale", params={"metric": "auc", "floor": 0.8})).json()["items"]
    assert [(i["model"], i["version"], i["reason"]) for i in poor] == [("m", 2, "auc is 0.7, below 0.8")]
    poor = (await server.get("/v1/stale", params={"metric": "rmse", "floor": 2})).json()["items"]
    assert [(i["model"], i["version"], i["reason"]) for i in poor] == [("errors", 1, "rmse is 3, above 2")]
    assert (await server.get("/v1/stale", params={"metric": "auc"})).status_code == 422
    staged = await server.get("/v1/stale", params={"stage": "staging"})
    assert staged.json()["items"] == []
    assert (await server.get("/v1/stale", params={"stage": "nowhere"})).status_code == 422


async def test_archiving_is_dry_first_and_spares_what_serves(house: House, pen: Pen) -> None:
    await pen.model("m", 4)
    await pen.model("stubborn", 1)
    await pen.promote("m", 1, origin="Development")
    await pen.alias("m", "champion", 2)
    await backdate(house.db, pen)
    async with house.client(pen, "server-1") as viewer, house.client(pen, "ana", "ml-engineers") as ana:
        dry = (await ana.post("/v1/stale/archive", json={"unused_days": 30})).json()
        assert dry["dry_run"] is True
        assert [(i["version"], i["outcome"]) for i in dry["items"] if i["model"] == "m"] == [
            (1, "refused"),
            (2, "refused"),
            (3, "would-archive"),
            (4, "would-archive"),
        ]
        assert house.archived == []
        forbidden = (await viewer.post("/v1/stale/archive", json={"dry_run": False})).json()["items"]
        assert {i.get("code") for i in forbidden} == {"in-use", "forbidden"}
        assert house.archived == []
        done = (await ana.post("/v1/stale/archive", json={"dry_run": False, "reason": "nobody uses it"})).json()
        outcome = {(i["model"], i["version"]): (i["outcome"], i.get("code")) for i in done["items"]}
        assert outcome == {
            ("m", 1): ("refused", "in-use"),
            ("m", 2): ("refused", "in-use"),
            ("m", 3): ("done", None),
            ("m", 4): ("done", None),
            ("stubborn", 1): ("refused", "move-not-allowed"),
        }
        assert house.archived == [("m", 3), ("m", 4)]
        left = (await ana.get("/v1/stale")).json()["items"]
        assert [(i["model"], i["version"]) for i in left] == [("m", 1), ("m", 2), ("stubborn", 1)]
        page = (await ana.post("/v1/stale/archive", json={"include_serving": True, "limit": 1})).json()
        assert (page["items"][0]["outcome"], page["next"]) == ("would-archive", "1:m")


@pytest.mark.parametrize("kind", ["stage", "alias", "version"])
async def test_resolve_is_one_query_on_indexes(house: House, pen: Pen, kind: str) -> None:
    """Nothing in it has to be searched through, however many models, versions and tenures there are."""
    query: Any = QUERIES[kind]
    asked: dict[str, Any] = {"workspace": "w", "model": "m", "name": "1", "unsafe": False, "most": 1}
    if kind == "stage":
        asked["lifecycle"] = DEFAULT_LIFECYCLE.model_dump_json()
    async with house.db.transaction() as tx:
        await tx.execute(sa.text("set local enable_seqscan = off"))
        plan = "\n".join((await tx.scalars(sa.text(f"explain {query.element.text}"), asked)).all())
    assert "Seq Scan" not in plan, plan
    assert "Index" in plan
    seen: list[str] = []
    sa.event.listen(house.db.engine.sync_engine, "before_cursor_execute", lambda _, __, text, *more: seen.append(text))
    await pen.model("m", 1)
    await pen.alias("m", "a1", 1)
    await pen.promote("m", 1, origin="Development")
    seen.clear()
    names: dict[str, dict[str, str | int]] = {
        "stage": {"stage": "Production"},
        "alias": {"alias": "a1"},
        "version": {"version": 1},
    }
    async with house.client(pen) as client:
        assert (await client.get("/v1/models/m/resolve", params=names[kind])).status_code == 200
    assert len([text for text in seen if "registry.name" in text]) == 1
    assert not [text for text in seen if "registry.model" in text and "registry.name" not in text]
