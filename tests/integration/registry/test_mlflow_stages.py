"""Stages and aliases through MLflow's own client, in an open workspace and in a governed one."""

import asyncio
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from tests.support.mlflow_client import Mlflow, refused

from contracts.approval import Verdict
from contracts.lifecycle import DEFAULT_LIFECYCLE
from contracts.registry import AliasChanged, StageChanged, StageRequested

from .conftest import Harness
from .mlflow_fixtures import address, configure, mlflow, open_lifecycle  # noqa: F401
from .test_registry import decide, promote, signed

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.one_broker,
    pytest.mark.filterwarnings("ignore:.*is deprecated since 2.9.0:FutureWarning"),
]
INVALID, MISSING, DENIED = "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED"
OPEN = {"lifecycle": open_lifecycle().model_dump(mode="json")}


async def register(registry: Harness, count: int, model: str = "m") -> None:
    for _ in range(count):
        await registry.register(model)


async def asked_for(registry: Harness) -> dict[str, Any]:
    """The transition that waits, as soon as there is one."""
    event = await registry.event(lambda e: e.type == StageRequested.TYPE)
    transition_id = event.payload(StageRequested).transition_id
    document: dict[str, Any] = (await registry.ana.get(f"/v1/transitions/{transition_id}")).json()
    return document


async def test_an_open_workspace_moves_at_once(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    await configure(registry, **OPEN)
    await register(registry, 3)

    def walk(client: MlflowClient) -> None:
        assert client.get_model_version("m", "1").current_stage == "None"
        before = client.get_registered_model("m").last_updated_timestamp
        assert client.transition_model_version_stage("m", 1, "production").current_stage == "Production"
        assert client.get_registered_model("m").last_updated_timestamp > before
        assert client.transition_model_version_stage("m", 2, "Production").current_stage == "Production"
        assert client.get_model_version("m", "1").current_stage == "Production", "several may share a stage"
        moved = client.transition_model_version_stage("m", 3, "Production", archive_existing_versions=True)
        assert (moved.version, moved.current_stage) == ("3", "Production")
        stages = {v.version: v.current_stage for v in client.search_model_versions("name = 'm'")}
        assert stages == {"1": "Archived", "2": "Archived", "3": "Production"}
        assert client.transition_model_version_stage("m", 3, "Production").current_stage == "Production"
        client.transition_model_version_stage("m", 1, "Production")
        client.transition_model_version_stage("m", 3, "Production", archive_existing_versions=True)
        assert client.get_model_version("m", "1").current_stage == "Archived", "it was there already; the other goes"
        assert client.transition_model_version_stage("m", 3, "None").current_stage == "None"

    await mlflow.run(walk)
    assert not any(e.type == StageRequested.TYPE for e in registry.heard)
    left = [e.payload(StageChanged) for e in registry.heard if e.type == StageChanged.TYPE]
    third = [(c.version, c.superseded_by, c.transition_id == left[4].transition_id) for c in left[2:5]]
    assert third == [(1, 3, True), (2, 3, True), (3, None, True)], "one transition: the others leave, then it enters"


async def test_calls_that_mlflow_refuses(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    await configure(registry, **OPEN)
    await register(registry, 1)

    def walk(client: MlflowClient) -> None:
        move = client.transition_model_version_stage
        stages = "None, Staging, Production, Archived"
        refused(INVALID, f"Invalid Model Version stage: QA. Value must be one of {stages}.", move, "m", 1, "QA")
        refused(MISSING, "Model Version (name=m, version=2) not found", move, "m", 2, "Staging")
        refused(MISSING, "Registered Model with name=x not found", move, "x", 1, "Staging")
        for stage in ("None", "Archived"):
            refused(INVALID, "is not an Active stage", move, "m", 1, stage, archive_existing_versions=True)
        for version in ("a", "1.5"):
            refused(INVALID, f"Parameter 'version' must be an integer, got '{version}'.", move, "m", version, "Staging")
        refused(MISSING, "not found", client.get_model_version, "m", "1000000000000")
        refused(MISSING, "not found", client.get_model_version, "m", "-1")

    await mlflow.run(walk)


async def test_latest_versions(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    await configure(registry, **OPEN)
    stages = ("Archived", "Production", "Archived", "Production", "Staging", "Staging", "None")
    await register(registry, len(stages))

    def walk(client: MlflowClient) -> None:
        for version, stage in enumerate(stages, 1):
            if stage != "None":
                client.transition_model_version_stage("m", version, stage)

        def latest(named: list[str] | None) -> dict[str, str]:
            return {v.current_stage: v.version for v in client.get_latest_versions("m", named)}

        assert latest(["None"]) == {"None": "7"}
        assert latest(["staging"]) == {"Staging": "6"}
        assert latest(["None", "Staging"]) == {"None": "7", "Staging": "6"}
        every = {"Production": "4", "Staging": "6", "Archived": "3", "None": "7"}
        assert latest(None) == latest([]) == every
        assert {v.current_stage: v.version for v in client.get_registered_model("m").latest_versions} == every
        [found] = client.search_registered_models()
        assert {v.current_stage: v.version for v in found.latest_versions} == every
        refused(INVALID, "Invalid Model Version stage", client.get_latest_versions, "m", ["QA"])
        refused(MISSING, "not found", client.get_latest_versions, "x")

    await mlflow.run(walk)


async def test_aliases(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    await register(registry, 2)

    def walk(client: MlflowClient) -> None:
        assert (client.get_registered_model("m").aliases, client.get_model_version("m", "1").aliases) == ({}, [])
        client.set_registered_model_alias("m", "test_alias", "1")
        client.set_registered_model_alias("m", "another-one", "1")
        assert client.get_registered_model("m").aliases == {"test_alias": "1", "another-one": "1"}
        found = client.get_model_version_by_alias("m", "test_alias")
        assert found == client.get_model_version("m", "1")
        assert found.aliases == ["another-one", "test_alias"]
        [listed] = client.search_model_versions("version_number = 1")
        assert listed.aliases == found.aliases, "MLflow's own search leaves them out"
        client.set_registered_model_alias("m", "test_alias", "2")
        client.set_registered_model_alias("m", "test_alias", "2")
        assert client.get_model_version_by_alias("m", "test_alias").version == "2"
        assert client.get_model_version_by_alias("m", "latest").version == "2"
        client.delete_registered_model_alias("m", "test_alias")
        client.delete_registered_model_alias("m", "test_alias")
        assert client.get_registered_model("m").aliases == {"another-one": "1"}
        by_alias = client.get_model_version_by_alias
        refused(INVALID, "Registered model alias test_alias not found.", by_alias, "m", "test_alias")
        set_alias = client.set_registered_model_alias
        for alias in ("latest", "LATEST"):
            refused(INVALID, "'latest' alias name (case insensitive) is reserved.", set_alias, "m", alias, "1")
        refused(INVALID, "Version alias name 'v1' is reserved.", set_alias, "m", "v1", "1")
        refused(INVALID, "Invalid alias name: 'a b'", set_alias, "m", "a b", "1")
        refused(INVALID, "exceeds the maximum length", set_alias, "m", "a" * 256, "1")
        refused(MISSING, "Model Version (name=m, version=9) not found", set_alias, "m", "x", "9")
        refused(MISSING, "Registered Model with name=none not found", set_alias, "none", "x", "1")
        refused(MISSING, "Registered Model with name=none not found", by_alias, "none", "x")
        refused(MISSING, "not found", client.delete_registered_model_alias, "none", "x")
        client.create_registered_model("empty")
        refused(MISSING, "Latest version not found for model empty.", by_alias, "empty", "latest")

    await mlflow.run(walk)
    await registry.event(lambda e: e.key == registry.stream("empty"))
    moves = [e.payload(AliasChanged) for e in registry.heard if e.type == AliasChanged.TYPE]
    assert [(m.alias, m.version, m.previous) for m in moves] == [
        ("test_alias", 1, None),
        ("another-one", 1, None),
        ("test_alias", 2, 1),
    ]


async def test_version_tags(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    await register(registry, 1)

    def walk(client: MlflowClient) -> None:
        for key, value in {"key": "value", "numeric value": 12345, "empty": ""}.items():
            client.set_model_version_tag("m", "1", key, value)
        assert client.get_model_version("m", "1").tags == {"key": "value", "numeric value": "12345", "empty": ""}
        client.delete_model_version_tag("m", "1", "key")
        client.delete_model_version_tag("m", "1", "never set")
        assert client.get_model_version("m", "1").tags == {"numeric value": "12345", "empty": ""}
        refused(MISSING, "version=2) not found", client.set_model_version_tag, "m", "2", "k", "v")
        refused(MISSING, "version=2) not found", client.delete_model_version_tag, "m", "2", "k")
        refused(INVALID, "Names may only contain", client.set_model_version_tag, "m", "1", "a$b", "x")

    await mlflow.run(walk)


async def test_a_governed_stage_is_entered_when_the_policy_decides_in_time(
    registry: Harness,
    mlflow: Mlflow,  # noqa: F811
) -> None:
    await register(registry, 1)
    call = asyncio.create_task(mlflow.run(lambda c: c.transition_model_version_stage("m", 1, "Staging")))
    asked = await asked_for(registry)
    assert (asked["requested_by"], asked["to_stage"], asked["status"]) == ("ana", "Staging", "open")
    await decide(registry, signed(registry, asked))
    assert (await call).current_stage == "Staging"


async def test_a_governed_stage_says_where_its_request_is(
    registry: Harness,
    mlflow: Mlflow,  # noqa: F811
) -> None:
    await register(registry, 1)
    await promote(registry, "m", 1, "Staging")

    def walk(client: MlflowClient) -> str:
        move = client.transition_model_version_stage
        text = refused(DENIED, "waits for approval", move, "m", 1, "Production", archive_existing_versions=True)
        assert client.get_model_version("m", "1").current_stage == "Staging"
        return text

    text = await mlflow.run(walk)
    [asked] = [e.payload(StageRequested) for e in registry.heard if e.type == StageRequested.TYPE][-1:]
    place = text.split("waits for approval: ")[1].split(". ")[0]
    assert place == f"{registry.settings.registry_url}/v1/transitions/{asked.transition_id}"
    # Asked again, the same request is waited for.
    again = asyncio.create_task(mlflow.run(lambda c: c.transition_model_version_stage("m", 1, "Production")))
    document = (await registry.ana.get(f"/v1/transitions/{asked.transition_id}")).json()
    await decide(registry, signed(registry, document))
    assert (await again).current_stage == "Production"
    assert sum(e.type == StageRequested.TYPE for e in registry.heard) == 2, "Staging, and once Production"


async def test_a_refusal_says_why(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    await register(registry, 1)

    def walk(client: MlflowClient) -> str:
        return refused(DENIED, "was refused: too risky", client.transition_model_version_stage, "m", 1, "Staging")

    call = asyncio.create_task(mlflow.run(walk))
    asked = await asked_for(registry)
    await decide(registry, signed(registry, asked, verdict=Verdict.REJECTED, reason="too risky"))
    assert f"/v1/transitions/{asked['transition_id']}" in await call


async def test_rules_of_a_governed_workspace(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    await register(registry, 1)

    def walk(client: MlflowClient) -> None:
        move = client.transition_model_version_stage
        refused("RESOURCE_CONFLICT", "cannot go from Development to Production", move, "m", 1, "Production")
        refused(INVALID, "Staging is gated", move, "m", 1, "Staging", archive_existing_versions=True)
        assert move("m", 1, "Archived").current_stage == "Archived"
        assert move("m", 1, "None").current_stage == "None"

    await mlflow.run(walk)
    assert not any(e.type == StageRequested.TYPE for e in registry.heard)


async def test_a_protected_alias_waits_too(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    rules = {"lifecycle": DEFAULT_LIFECYCLE.model_dump(mode="json"), "protected_aliases": ["champion"]}
    await configure(registry, **rules)
    await register(registry, 1)
    call = asyncio.create_task(mlflow.run(lambda c: c.set_registered_model_alias("m", "champion", "1")))
    asked = await asked_for(registry)
    assert asked["to_stage"] == "@champion"
    assert (await registry.ana.get("/v1/models/m/aliases/champion")).status_code == 404
    await decide(registry, signed(registry, asked))
    await call
    found = await mlflow.run(lambda c: c.get_model_version_by_alias("m", "champion"))
    assert found.version == "1"

    def operators_only(client: MlflowClient) -> None:
        refused(DENIED, "may not roll back", client.delete_registered_model_alias, "m", "champion")

    await mlflow.run(operators_only, "ana", "ml-engineers")
