"""Versions through MLflow's own client: what MLflow's upstream tests look at, and what ours adds."""

import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient
from tests.support.mlflow_client import Mlflow, refused

from contracts.model import address_digest
from contracts.registry import VersionDeleted, VersionRegistered
from kit.db import Database
from registry.rebuild import rebuild
from registry.tables import event_log

from .conftest import Harness
from .mlflow_fixtures import address, configure, mlflow, open_lifecycle  # noqa: F401

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.one_broker,
    pytest.mark.filterwarnings("ignore:.*is deprecated since 2.9.0:FutureWarning"),
]
INVALID, MISSING = "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"


async def test_create_and_query(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    tags = {"key": "value", "another key": "some other value", "numeric value": 12345}
    kept = {"key": "value", "another key": "some other value", "numeric value": "12345"}

    def walk(client: MlflowClient) -> None:
        before = client.create_registered_model("m").last_updated_timestamp
        link = "http://tracker/#/runs/run_id_1"
        made = client.create_model_version("m", "runs:/run_id_1/model", "run_id_1", tags, link, "what it does")
        found = client.get_model_version("m", "1")
        assert (made.version, made.name, made.tags, made.status) == ("1", "m", kept, "READY")
        assert made == found
        assert (found.source, found.run_id, found.run_link) == ("runs:/run_id_1/model", "run_id_1", link)
        assert (found.description, found.user_id, found.current_stage) == ("what it does", "ana", "None")
        model = client.get_registered_model("m")
        assert model.latest_versions == [found]
        assert model.last_updated_timestamp == found.creation_timestamp >= before
        second = client.create_model_version("m", "runs:/run_id_1/another_model", "run_id_1")
        third = client.create_model_version("m", "s3://bucket/a/model", "run_id_2")
        assert client.search_model_versions("source_path = 'runs:/run_id_1/model'") == [found]
        assert client.search_model_versions("run_id = 'run_id_1'") == [second, found]
        assert client.search_model_versions("name = 'm'") == [third, second, found]
        assert client.get_model_version_download_uri("m", "1") == "runs:/run_id_1/model"
        refused(MISSING, "Registered Model with name=x not found", client.create_model_version, "x", "s3://b/m", "r")
        refused(MISSING, "version=9) not found", client.get_model_version_download_uri, "m", "9")

    await mlflow.run(walk)
    event = await registry.event(lambda e: e.type == VersionRegistered.TYPE)
    registered = event.payload(VersionRegistered)
    assert (event.actor, registered.registered_by, registered.digest) == ("ana", "ana", registered.content.digest())
    artifact, run = registered.content.artifact, registered.content.lineage.run
    assert (artifact.external, artifact.digest) == (True, address_digest("runs:/run_id_1/model"))
    assert run is not None
    assert (run.system, run.id, run.url) == ("mlflow", "run_id_1", "http://tracker/#/runs/run_id_1")
    native = (await registry.ana.get("/v1/models/m/versions/1")).json()
    assert (native["status"], native["registered_by"], native["run_id"]) == ("ready", "ana", "run_id_1")


async def test_what_is_outside_is_served_by_its_address(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    def walk(client: MlflowClient) -> None:
        client.create_registered_model("m")
        client.create_model_version("m", "s3://bucket/a/model", "run")
        client.set_registered_model_alias("m", "champion", "1")

    await mlflow.run(walk)
    found = (await registry.ana.get("/v1/models/m/resolve", params={"alias": "champion"})).json()
    assert (found["version"], found["files"], found["download_url"]) == (1, [], None)
    assert (found["artifact"]["filename"], found["artifact"]["external"]) == ("s3://bucket/a/model", True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"digest": "sha256:" + "0" * 64}, "digest of its address"),
        ({"size": 3}, "size 0"),
        ({"source": "s3://bucket/model"}, "neither files nor a source"),
    ],
)
async def test_an_external_artifact_is_nothing_but_its_address(
    registry: Harness, change: dict[str, Any], said: str
) -> None:
    whole = {"digest": address_digest("runs:/1/m"), "size": 0, "filename": "runs:/1/m", "external": True}
    refusal = await registry.ana.post("/v1/models/m/versions", json={"artifact": whole | change})
    assert refusal.status_code == 422
    assert said in refusal.text
    assert (await registry.ana.post("/v1/models/m/versions", json={"artifact": whole})).json()["status"] == "ready"


async def test_sources_that_mlflow_refuses(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    def walk(client: MlflowClient) -> None:
        client.create_registered_model("m")

        def create(source: str, run_id: str | None = None, model_id: str | None = None) -> ModelVersion:
            return client.create_model_version("m", source, run_id, model_id=model_id)

        for source in ("/etc/passwd", "file:///etc/passwd", "./model", "a/../b"):
            refused(INVALID, "To use a local path as a model version source", create, source)
        for source in (
            "s3://bucket/../model",
            "s3://bucket/%2e%2e/model",
            "s3://bucket/%252e%252e/model",
            "s3://bucket/a\\..\\b",
            "https://host/a?b=../c",
            "file:///runs/../etc",
        ):
            refused(INVALID, "Relative paths are not allowed", create, source, "run")
        for source, run_id in (("runs:/other/model", "run"), ("runs:/run/model", None), ("runs:/run", "run")):
            refused(INVALID, "run_id", create, source, run_id)
        refused(INVALID, "model_id", create, "models:/m-123", None, "m-456")
        refused(INVALID, "model_id", create, "models:/m-123")
        refused(INVALID, "run_id", create, "mlflow-artifacts:/1/run/artifacts")
        refused(MISSING, "name=none not found", create, "models:/none/1")
        refused(MISSING, "version=7) not found", create, "models:/m/7")
        refused(INVALID, "Missing value for required parameter 'source'", create, "")
        refused(INVALID, "'source' exceeds the maximum length", create, "s3://bucket/" + "a" * 600)
        assert client.search_model_versions("") == [], "none of them made anything"
        made = create("models:/m-123", None, "m-123")
        assert (made.version, made.source, made.run_id) == ("1", "models:/m-123", None)
        assert create("file:///runs/run/model", "run").run_id == "run"
        assert create("s3://bucket/m").run_id is None

    await mlflow.run(walk)
    native = (await registry.ana.get("/v1/models/m/versions/1")).json()
    assert native["content"]["lineage"]["run"]["version"] == "m-123", "the logged model is in the lineage"
    path = "/api/2.0/mlflow/model-versions/get?name=m&version=1"
    async with httpx2.AsyncClient(base_url=mlflow.address) as plain:
        headers = {"authorization": f"Bearer {mlflow.token('ana', 'people')}", "x-mlflow-workspace": mlflow.workspace}
        said = (await plain.get(path, headers=headers)).json()["model_version"]
    assert (said["model_id"], "run_id" in said) == ("m-123", False)


async def test_copy(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    await registry.register("own")

    def walk(client: MlflowClient) -> None:
        client.create_registered_model("m")
        source = client.create_model_version("m", "s3://b/model", "run", {"hello": "world"}, description="dummy")
        client.set_registered_model_alias("m", "test_alias", "1")
        copy = client.copy_model_version("models:/m@test_alias", "production")
        assert (copy.name, copy.version) == ("production", "1")
        copy = client.copy_model_version("models:/production/1", "production")
        copy = client.get_model_version("production", copy.version)
        assert (copy.source, copy.description, copy.tags) == ("models:/production/1", "dummy", {"hello": "world"})
        assert copy.run_id == "run"
        assert client.get_model_version_download_uri("production", "2") == source.source
        client.rename_registered_model("m", "another")
        assert client.get_model_version_download_uri("production", "2") == source.source
        refused(INVALID, "in the registry's own store", client.get_model_version_download_uri, "own", "1")

    await mlflow.run(walk)


async def test_search_in_pages_and_orders(mlflow: Mlflow) -> None:  # noqa: F811
    def walk(client: MlflowClient) -> None:
        made = []
        names = [f"CreateRMsearchForMV{n:03}" for n in range(9)]
        for name in names:
            client.create_registered_model(name)
        for name in names + names[:4]:
            time.sleep(0.002)
            made.append(client.create_model_version(name, "runs:/run_id/model", "run_id"))
        made.reverse()

        def keys(text: str = "", size: int = 100, order: list[str] | None = None) -> list[tuple[str, str]]:
            found, token = [], None
            while True:
                page = client.search_model_versions(text, size, order, token)
                found += [(v.name, v.version) for v in page]
                if not (token := page.token):
                    return found

        expected = [(v.name, v.version) for v in made]
        for size in (1, 8, 100):
            assert keys(size=size) == expected
            assert keys("name LIKE '%2' AND version_number >= 1", size) == [k for k in expected if k[0].endswith("2")]
        by_name = sorted(expected, key=lambda k: (k[0], int(k[1])), reverse=True)
        assert keys(order=["name DESC"], size=3) == by_name
        assert keys(order=["version_number DESC"], size=3) == sorted(expected, key=lambda k: (-int(k[1]), k[0]))
        assert keys(order=["creation_timestamp"], size=3) == expected[::-1]
        assert keys("version_number > 1") == [k for k in expected if k[1] == "2"]
        for text in ("stage = 'Staging'", "source_path IN ('a')", "version_number = 'x'", "run_id > 'a'", "a OR b"):
            refused(INVALID, "Invalid filter", client.search_model_versions, text)
        refused(INVALID, "order", client.search_model_versions, order_by=["run_id"])

    await mlflow.run(walk)


async def test_the_workflow_of_the_documentation(
    registry: Harness,
    mlflow: Mlflow,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Log, register, Staging, Production with archive_existing_versions, load, predict. Runs are elsewhere."""
    await configure(registry, lifecycle=open_lifecycle().model_dump(mode="json"))
    import mlflow as library

    def workflow(_: MlflowClient) -> list[float]:
        library.set_tracking_uri(f"sqlite:///{tmp_path}/tracking.db")
        library.set_registry_uri(mlflow.address)
        try:
            library.set_experiment(
                experiment_id=library.create_experiment("seed", artifact_location=(tmp_path / "runs").as_uri())
            )
            client = MlflowClient()
            for factor in (2, 3):
                model = tmp_path / f"model{factor}"
                model.mkdir()
                (model / "MLmodel").write_text("flavors: {}\n")  # a flavour of one's own needs no library
                (model / "factor.txt").write_text(str(factor))
                with library.start_run() as run:
                    library.log_artifacts(str(model), "model")
                made = library.register_model(f"runs:/{run.info.run_id}/model", "seed")
                assert (made.version, made.run_id) == (str(factor - 1), run.info.run_id)
                client.transition_model_version_stage("seed", made.version, "Staging")
                client.transition_model_version_stage(
                    "seed", made.version, "Production", archive_existing_versions=True
                )
            assert client.get_model_version("seed", "1").current_stage == "Archived"
            client.set_registered_model_alias("seed", "champion", "1")
            found = []
            for place in ("models:/seed/Production", "models:/seed@champion", "models:/seed/2", "models:/seed/latest"):
                [file] = Path(library.artifacts.download_artifacts(place)).glob("*.txt")
                found.append(float(file.read_text()) * 7)
            return found
        finally:
            library.set_registry_uri("")
            library.set_tracking_uri("")

    assert await mlflow.run(workflow) == [21.0, 14.0, 21.0, 21.0]


async def test_update_and_delete(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    await configure(registry, lifecycle=open_lifecycle().model_dump(mode="json"))

    def walk(client: MlflowClient) -> None:
        client.create_registered_model("m")
        for _ in range(3):
            client.create_model_version("m", "s3://b/model", "run", description="as registered")
        client.set_registered_model_alias("m", "best", "3")
        client.transition_model_version_stage("m", "3", "Production")
        before = client.get_registered_model("m")
        described = client.update_model_version("m", "3", "what we know now")
        assert described == client.get_model_version("m", "3")
        assert (described.description, described.last_updated_timestamp) > ("what we know now", 0)
        after = client.get_registered_model("m")
        assert after.last_updated_timestamp == before.last_updated_timestamp, "a description is the version's own"
        client.delete_model_version("m", "3")
        gone = client.get_registered_model("m")
        assert gone.last_updated_timestamp > after.last_updated_timestamp
        assert (gone.aliases, [v.version for v in gone.latest_versions]) == ({}, ["2"])
        assert [v.version for v in client.search_model_versions("name = 'm'")] == ["2", "1"]
        for call, args in (
            (client.get_model_version, ()),
            (client.delete_model_version, ()),
            (client.update_model_version, ("x",)),
            (client.transition_model_version_stage, ("Staging",)),
            (client.set_model_version_tag, ("k", "v")),
            (client.get_model_version_download_uri, ()),
        ):
            refused(MISSING, "Model Version (name=m, version=3) not found", call, "m", "3", *args)
        refused(MISSING, "version=3) not found", client.set_registered_model_alias, "m", "best", "3")
        assert client.get_model_version_by_alias("m", "latest").version == "2"
        assert client.create_model_version("m", "s3://b/model", "run").version == "4", "no number is given twice"

    await mlflow.run(walk)
    native = (await registry.ana.get("/v1/models/m/versions/3")).json()
    assert native["deleted_at"] is not None
    assert (native["stage"], native["description"]) == ("Archived", "what we know now")
    assert native["content"]["notes"] == "as registered"
    for asked, code in (({"version": 3}, "version-deleted"), ({"stage": "Archived"}, "nothing-in-stage")):
        said = await registry.ana.get("/v1/models/m/resolve", params=asked)
        assert said.json()["type"].endswith(f":{code}"), said.text
    search = "/v1/search/versions", "/v1/search/models"
    found = [(await registry.ana.get(path, params={"filter": "stage = 'Archived'"})).json() for path in search]
    assert [page["items"] for page in found] == [[], []], "neither the version nor its model for its sake"
    back = await registry.olga.post("/v1/models/m/versions/3/restore", json={"reason": "mistake"})
    assert (back.status_code, back.json()["deleted_at"], back.json()["aliases"]) == (200, None, [])
    event = await registry.event(lambda e: e.type == VersionDeleted.TYPE)
    assert (event.actor, event.subject) == ("ana", f"{registry.workspace}/m/3")


async def test_a_deleted_model_begins_anew(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    await configure(registry, lifecycle=open_lifecycle().model_dump(mode="json"))

    def walk(client: MlflowClient) -> None:
        client.create_registered_model("old", {"a": "b"}, "first")
        client.rename_registered_model("old", "m")
        for _ in range(2):
            client.create_model_version("m", "s3://b/model", "run")
        client.set_registered_model_alias("m", "best", "1")
        client.transition_model_version_stage("m", "1", "Production")
        first = client.get_registered_model("m")
        client.delete_registered_model("m")
        refused(MISSING, "name=m not found", client.get_registered_model, "m")
        made = client.create_registered_model("m", {"c": "d"}, "second")
        assert (made.tags, made.description, made.aliases, made.latest_versions) == ({"c": "d"}, "second", {}, [])
        assert made.creation_timestamp > first.last_updated_timestamp
        assert client.search_model_versions("name = 'm'") == []
        assert [m.name for m in client.search_registered_models("tags.c = 'd'")] == ["m"]
        assert client.search_registered_models("tags.a = 'b'") == []
        assert client.create_model_version("m", "s3://b/model", "run").version == "3"
        refused("RESOURCE_ALREADY_EXISTS", "already exists", client.create_registered_model, "m")

    await mlflow.run(walk)
    assert (await registry.ana.get("/v1/models/m/resolve", params={"stage": "Production"})).status_code == 404
    events = [e.type.split(".", 1)[1] for e in registry.heard if e.key == registry.stream("old")]
    assert events[-4:] == ["alias.removed.v1", "stage.changed.v1", "model.recreated.v1", "version.registered.v1"]


async def test_views_are_folds(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    def walk(client: MlflowClient) -> None:
        client.create_registered_model("m")
        client.create_model_version("m", "s3://bucket/a/model", "run")
        client.transition_model_version_stage("m", "1", "Archived")

    await mlflow.run(walk)
    db = Database(registry.settings.database_url.get_secret_value(), name="test")
    try:
        assert (await rebuild(db, event_log())).differing == ()
    finally:
        await db.close()


async def test_who_may_not_register_makes_nothing(mlflow: Mlflow) -> None:  # noqa: F811
    await mlflow.run(lambda client: client.create_registered_model("m"))

    def walk(client: MlflowClient) -> None:
        refused("PERMISSION_DENIED", "bob may not", client.create_model_version, "m", "s3://b/m", "run")
        assert client.search_model_versions("") == []

    await mlflow.run(walk, "bob", "people")
    made = await mlflow.run(lambda client: client.create_model_version("m", "s3://b/m", "run"))
    for groups in ("people", "ml-engineers"):
        await mlflow.run(
            lambda client: refused("PERMISSION_DENIED", "bob may not", client.delete_model_version, "m", "1"),
            "bob",
            groups,
        )
    assert await mlflow.run(lambda client: client.get_model_version("m", "1")) == made
    async with httpx2.AsyncClient(base_url=mlflow.address) as plain:
        answer = await plain.post("/api/2.0/mlflow/model-versions/create", json={"name": "m", "source": "s3://b/m"})
        assert answer.json()["error_code"] == "UNAUTHENTICATED"
