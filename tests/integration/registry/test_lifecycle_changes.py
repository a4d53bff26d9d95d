"""The rules of a workspace change while versions move, and what rollback finds afterwards."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.waiting import until

from contracts.lifecycle import DEFAULT_LIFECYCLE, StageRule
from contracts.registry import RequestTransition
from kit.auth import Access, Principal
from kit.db import Database
from kit.events import Cause
from kit.inbox import Inbox
from registry.artifacts import Artifacts, store_of
from registry.commands import Commands
from registry.tables import event_log, mechanism

from .conftest import Harness
from .test_catalogue import code_of, put
from .test_registry import decide, promote, signed

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.one_broker]
FINDING = {"severity": "unsafe", "code": "cve", "detail": "a hole"}


def lifecycle(*stages: StageRule, **changed: Any) -> dict[str, Any]:
    """The default one with more stages and every move open."""
    changes = {"stages": (*DEFAULT_LIFECYCLE.stages, *stages), "open_moves": True, **changed}
    return {"lifecycle": DEFAULT_LIFECYCLE.model_copy(update=changes).model_dump(mode="json")}


async def test_a_stage_does_not_go_away_while_a_version_enters_it(registry: Harness) -> None:
    """The version's transaction read the old rules and is not committed yet."""
    rules = f"/v1/workspaces/{registry.workspace}"
    await put(registry, rules, lifecycle(StageRule(name="QA")), by="ada")
    await registry.register("fraud")
    given, ada = registry.settings, registry.client("ada", "admins")
    db = Database(given.database_url.get_secret_value(), name="test")
    access, artifacts = Access.load(given.access_file), Artifacts(db, store_of(given))
    replica = Commands(db, event_log(), Inbox(mechanism), access, artifacts, transition_hours=1)
    enter = RequestTransition(workspace=registry.workspace, model="fraud", version=1, to_stage="QA", reason="x")
    ana = Principal("ana", frozenset({"ml-engineers"}), kind="user", issued_at=0, method="token")
    waiting = sa.text("select count(*) from pg_stat_activity where pg_backend_pid() = any(pg_blocking_pids(pid))")
    try:
        async with db.transaction() as tx:
            await replica.apply(tx, enter, ana, Cause(actor="ana"))
            configuring = asyncio.create_task(ada.put(rules, json={}))

            async def blocked() -> bool:
                return configuring.done() or bool(await tx.scalar(waiting))

            await until(blocked)
        assert code_of(await configuring) == "stage-in-use"
    finally:
        await db.close()
    assert (await registry.ana.get("/v1/models/fraud/versions/1")).json()["stage"] == "QA"


async def test_versions_that_never_moved_count_when_their_stage_gets_a_limit(registry: Harness) -> None:
    rules = f"/v1/workspaces/{registry.workspace}"
    for n in (1, 2, 3):
        await registry.register("fraud", f"model {n}".encode())
    stages = (*DEFAULT_LIFECYCLE.stages[1:], StageRule(name="Development", holds=2), StageRule(name="Lab"))
    await put(registry, rules, lifecycle(stages=stages, initial="Lab"), by="ada")
    assert (await registry.register("fraud", b"model 4"))["stage"] == "Lab"
    await registry.request("fraud", 4, "Development")
    found = [v["stage"] for v in (await registry.ana.get("/v1/models/fraud/versions")).json()["items"]]
    assert found == ["Archived", "Archived", "Development", "Development"], "the longest-standing leave"


async def roll_back(registry: Harness) -> dict[str, Any]:
    asked = await registry.olga.post("/v1/models/fraud/rollback", json={"reason": "errors"})
    assert asked.status_code == 202, asked.text
    await decide(registry, signed(registry, asked.json()))
    return await registry.closed(asked.json()["transition_id"])


async def in_production(registry: Harness, *numbers: int) -> None:
    for n in numbers:
        await registry.register("fraud", f"model {n}".encode())
        for stage in ("Staging", "Production"):
            await promote(registry, "fraud", n, stage)


async def test_rollback_passes_over_what_was_found_unsafe(registry: Harness) -> None:
    await in_production(registry, 1, 2, 3)
    scan = {"scanner": "grype", "findings": [FINDING]}
    (await registry.olga.post("/v1/models/fraud/versions/2/scans", json=scan)).raise_for_status()
    assert (await roll_back(registry))["version"] == 1


async def test_a_version_rolled_back_from_is_not_good_for_an_earlier_stay(registry: Harness) -> None:
    """1 was there, gave way to 2, came back, and was rolled back from, by name, to 2."""
    await in_production(registry, 1, 2)
    assert (await roll_back(registry))["version"] == 1
    named = await registry.olga.post("/v1/models/fraud/rollback", json={"reason": "worse", "to_version": 2})
    await decide(registry, signed(registry, named.json()))
    assert (await registry.closed(named.json()["transition_id"]))["status"] == "applied"
    refused = await registry.olga.post("/v1/models/fraud/rollback", json={"reason": "again"})
    assert code_of(refused) == "nothing-to-roll-back-to"


async def test_an_unsafe_version_is_taken_out_of_production(registry: Harness) -> None:
    await in_production(registry, 1)
    scan = {"scanner": "grype", "findings": [FINDING]}
    (await registry.olga.post("/v1/models/fraud/versions/1/scans", json=scan)).raise_for_status()
    path = "/v1/models/fraud/versions/1/transitions"
    out = await registry.olga.post(path, json={"to_stage": "Archived", "reason": "unsafe"})
    assert (out.status_code, out.json()["status"]) == (202, "applied"), out.text
