"""Registered models through MLflow's own client: what MLflow's upstream tests look at, and what ours adds."""

import base64
import time
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from mlflow.entities.model_registry import RegisteredModel
from mlflow.tracking import MlflowClient
from tests.support.mlflow_client import Mlflow, refused

from contracts.registry import ModelRegistered, ModelRenamed, ModelUpdated, Tags

from .conftest import Harness
from .mlflow_fixtures import address, mlflow  # noqa: F401

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.one_broker]
INVALID = "INVALID_PARAMETER_VALUE"
MISSING = "RESOURCE_DOES_NOT_EXIST"


def now() -> int:
    return int(time.time() * 1000)


async def test_create_and_get(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    tags = {"key": "value", "another key": "some other value", "numeric value": 12345}

    def walk(client: MlflowClient) -> tuple[RegisteredModel, RegisteredModel]:
        began = now()
        made = client.create_registered_model("CreateRMTest", tags, "what it is for")
        found = client.get_registered_model("CreateRMTest")
        assert began <= found.creation_timestamp <= found.last_updated_timestamp <= now()
        refused("RESOURCE_ALREADY_EXISTS", "already exists", client.create_registered_model, "CreateRMTest")
        return made, found

    made, found = await mlflow.run(walk)
    assert dict(made) == dict(found)
    assert found.tags == {"key": "value", "another key": "some other value", "numeric value": "12345"}
    assert (found.description, found.latest_versions, found.aliases) == ("what it is for", [], {})
    event = await registry.event(lambda e: e.type == ModelRegistered.TYPE)
    assert (event.actor, event.payload(ModelRegistered).model) == ("ana", "CreateRMTest")
    native = (await registry.ana.get("/v1/models/CreateRMTest")).json()
    assert (native["registered_by"], native["description"]) == ("ana", "what it is for")


async def test_what_mlflow_leaves_empty_is_filled(mlflow: Mlflow) -> None:  # noqa: F811
    """Its entity has no attribute for `user_id`; its answer has."""
    await mlflow.run(lambda client: client.create_registered_model("m"))
    async with httpx2.AsyncClient(base_url=mlflow.address) as plain:
        headers = {"authorization": f"Bearer {mlflow.token('ana', 'people')}", "x-mlflow-workspace": mlflow.workspace}
        path = "/api/2.0/mlflow/registered-models/get?name=m"
        document = (await plain.get(path, headers=headers)).json()["registered_model"]
    assert document["user_id"] == "ana"
    assert isinstance(document["creation_timestamp"], int), "a number, not a text as protobuf writes it"
    assert document.keys() == {"name", "creation_timestamp", "last_updated_timestamp", "user_id"}, "no empty fields"


async def test_rename_and_update(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    def walk(client: MlflowClient) -> None:
        first = client.create_registered_model("UpdateRMTest")
        began = now()
        client.rename_registered_model("UpdateRMTest", "UpdateRMTest 2")
        found = client.get_registered_model("UpdateRMTest 2")
        assert (found.creation_timestamp, found.description) == (first.creation_timestamp, "")
        assert began <= found.last_updated_timestamp <= now()
        assert client.update_registered_model("UpdateRMTest 2", "This is a test").description == "This is a test"
        client.rename_registered_model("UpdateRMTest 2", "UpdateRMTest 4")
        for former in ("UpdateRMTest", "UpdateRMTest 2"):
            for call in (client.get_registered_model, client.delete_registered_model):
                refused(MISSING, f"Registered Model with name={former} not found", call, former)
            refused(MISSING, "not found", client.update_registered_model, former, "x")
            refused(MISSING, "not found", client.rename_registered_model, former, "y")
        client.rename_registered_model("UpdateRMTest 4", "UpdateRMTest 4")
        client.create_registered_model("other")
        refused("RESOURCE_ALREADY_EXISTS", "already", client.rename_registered_model, "UpdateRMTest 4", "other")
        assert client.update_registered_model("UpdateRMTest 4", "").description == ""

    await mlflow.run(walk)
    await registry.event(lambda e: e.type == ModelUpdated.TYPE and e.payload(ModelUpdated).description == "")
    renamed = [e.payload(ModelRenamed).name for e in registry.heard if e.type == ModelRenamed.TYPE]
    assert renamed == ["UpdateRMTest 2", "UpdateRMTest 4"], "one event for each, none for the name it has"


async def test_delete(mlflow: Mlflow) -> None:  # noqa: F811
    def walk(client: MlflowClient) -> None:
        client.create_registered_model("DeleteRMTest")
        client.delete_registered_model("DeleteRMTest")
        for call in (client.get_registered_model, client.delete_registered_model):
            refused(MISSING, "Registered Model with name=DeleteRMTest not found", call, "DeleteRMTest")
        refused(MISSING, "not found", client.rename_registered_model, "DeleteRMTest", "something else")
        assert client.search_registered_models() == []

    await mlflow.run(walk)


async def test_tags(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    def walk(client: MlflowClient) -> None:
        client.create_registered_model("m")
        for key, value in {"key": "value", "numeric value": 12345, "empty": ""}.items():
            client.set_registered_model_tag("m", key, value)
        client.set_registered_model_tag("m", "key", "another")
        tags = client.get_registered_model("m").tags
        assert tags == {"key": "another", "numeric value": "12345", "empty": ""}
        client.delete_registered_model_tag("m", "key")
        client.delete_registered_model_tag("m", "never set")
        assert client.get_registered_model("m").tags == {"numeric value": "12345", "empty": ""}
        refused(INVALID, "Missing value for required parameter 'key'", client.set_registered_model_tag, "m", "", "x")
        refused(INVALID, "Names may only contain", client.set_registered_model_tag, "m", "a$b", "x")
        refused(INVALID, "must not resolve to other names", client.set_registered_model_tag, "m", "../x", "x")
        refused(INVALID, "'key' exceeds the maximum length", client.set_registered_model_tag, "m", "k" * 251, "x")
        refused(INVALID, "'value' exceeds", client.set_registered_model_tag, "m", "k", "v" * 100_001)
        refused(MISSING, "name=none not found", client.set_registered_model_tag, "none", "k", "v")
        refused(MISSING, "name=none not found", client.delete_registered_model_tag, "none", "k")

    await mlflow.run(walk)
    removed = Tags(remove=("key",))
    await registry.event(lambda e: e.type == ModelUpdated.TYPE and e.payload(ModelUpdated).tags == removed)
    assert sum(e.type == ModelUpdated.TYPE for e in registry.heard) == 5, "no event where nothing changed"


async def test_names(mlflow: Mlflow) -> None:  # noqa: F811
    def walk(client: MlflowClient) -> None:
        for name in ("a/b", "a:b"):
            refused(INVALID, "Names cannot contain '/' or ':'", client.create_registered_model, name)
        refused(INVALID, "must not resolve to other names", client.create_registered_model, "..")
        for name in ("", "  "):
            refused(INVALID, "Missing value for required parameter 'name'", client.create_registered_model, name)
        refused(INVALID, "model", client.create_registered_model, "n" * 257)
        assert client.create_registered_model("Ein Modell äöü (v2)").name == "Ein Modell äöü (v2)"

    await mlflow.run(walk)


def pages(search: Any, *args: Any, **named: Any) -> list[list[str]]:
    found, token = [], None
    while True:
        page = search(*args, **named, page_token=token)
        found.append([model.name for model in page])
        if not (token := page.token):
            return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", range(29)),
        ("name LIKE '%7'", [7, 17, 27]),
        ("name ILIKE '%rm%00%'", range(10)),
        ("name LIKE '%rm%00%'", []),
        ("name = 'badname'", []),
        ("attribute.name = 'CreateRMsearch023'", [23]),
        ("name IN ('CreateRMsearch001', 'CreateRMsearch002')", [1, 2]),
        ("name != 'CreateRMsearch000' AND name LIKE '%rch00%' and tags.odd = 'yes'", [1, 3, 5, 7, 9]),
        ("tag.`odd` ILIKE 'YE_' AND name NOT IN ('CreateRMsearch001') AND name LIKE '%00%'", [3, 5, 7, 9]),
        ('tags."odd" != "no" AND name LIKE \'%00%\'', [1, 3, 5, 7, 9]),
    ],
)
async def test_search(searched: Mlflow, text: str, expected: Any) -> None:
    names = [f"CreateRMsearch{n:03}" for n in expected]

    def walk(client: MlflowClient) -> None:
        for size in (1, 8, 100):
            found = pages(client.search_registered_models, text, max_results=size)
            assert [name for page in found for name in page] == names
            assert [len(page) for page in found[:-1]] == [size] * (len(found) - 1)

    await searched.run(walk)


@pytest_asyncio.fixture(loop_scope="module")
async def searched(registry: Harness, mlflow: Mlflow) -> Mlflow:  # noqa: F811
    for n in range(29):
        body = {"name": f"CreateRMsearch{n:03}", "tags": {"odd": "yes"} if n % 2 else {}}
        assert (await registry.ana.post("/v1/models", json=body)).status_code == 201
    return mlflow


async def test_prompts_are_no_models(mlflow: Mlflow) -> None:  # noqa: F811
    """Unless somebody asks for them; what lacks the tag is a model, whichever way that is asked."""
    tag = "mlflow.prompt.is_prompt"
    headers = {"authorization": f"Bearer {mlflow.token('ana', 'ml-engineers')}", "x-mlflow-workspace": mlflow.workspace}
    await mlflow.run(lambda client: client.create_registered_model("model"))
    async with httpx2.AsyncClient(base_url=mlflow.address, headers=headers) as plain:
        made = {"name": "prompt", "tags": [{"key": tag, "value": "true"}]}  # the client has a call of its own for that
        assert (await plain.post("/api/2.0/mlflow/registered-models/create", json=made)).status_code == 200
        for text, expected in (
            ("", "model"),
            (f"tags.`{tag}` != 'true'", "model"),
            (f"name LIKE '%' AND tags.`{tag}` = 'false'", "model"),
            (f"tags.`{tag}` = 'true'", "prompt"),
            (f"name LIKE '%' AND tags.`{tag}` = 'true'", "prompt"),
        ):
            answer = await plain.get("/api/2.0/mlflow/registered-models/search", params={"filter": text})
            assert [found["name"] for found in answer.json()["registered_models"]] == [expected], text


async def test_order(mlflow: Mlflow) -> None:  # noqa: F811
    def walk(client: MlflowClient) -> None:
        for name in ("b", "a", "c"):
            client.create_registered_model(name)
        client.set_registered_model_tag("a", "k", "v")

        def order(*clauses: str) -> list[str]:
            return [model.name for model in client.search_registered_models(order_by=list(clauses))]

        assert order() == order("name ASC") == ["a", "b", "c"]
        assert order("name DESC") == ["c", "b", "a"]
        assert order("last_updated_timestamp") == order("timestamp asc") == ["b", "c", "a"]
        assert order("last_updated_timestamp DESC", "name") == ["a", "c", "b"]
        for clause in ("creation_timestamp", "tags.k", "name sideways", "name, timestamp", "description"):
            refused(INVALID, "order", client.search_registered_models, order_by=[clause])
        refused(INVALID, "duplicate", client.search_registered_models, order_by=["name", "name DESC"])

    await mlflow.run(walk)


async def test_searches_that_mlflow_refuses(mlflow: Mlflow) -> None:  # noqa: F811
    def walk(client: MlflowClient) -> None:
        for text in (
            "name = 'a' OR name = 'b'",
            "NOT name = 'a'",
            "name = 'a' AND (name = 'b' AND name = 'c')",
            "name",
            "name = a",
            "name > 'a'",
            "alias = 'champion'",
            "description = 'x'",
            "run_id = 'x'",
            "metrics.auc > 0.9",
            "tags.x IN ('a')",
            "name IS NULL",
        ):
            refused(INVALID, "", client.search_registered_models, text)
        refused(INVALID, "at most 1000", client.search_registered_models, max_results=1001)
        refused(INVALID, "positive", client.search_registered_models, max_results=-1)
        refused(INVALID, "cursor", client.search_registered_models, page_token="bm9uc2Vuc2U=")

    await mlflow.run(walk)


async def test_bearer_and_basic(mlflow: Mlflow) -> None:  # noqa: F811
    token = mlflow.token("bob", "people")
    basic = {"MLFLOW_TRACKING_TOKEN": "", "MLFLOW_TRACKING_USERNAME": "bob"}
    await mlflow.run(lambda client: client.create_registered_model("m"))
    for settings in ({"MLFLOW_TRACKING_TOKEN": token}, {**basic, "MLFLOW_TRACKING_PASSWORD": token}):
        found = await mlflow.run(lambda client: client.get_registered_model("m"), **settings)
        assert found.name == "m"

        def denied(client: MlflowClient) -> None:
            refused("PERMISSION_DENIED", "bob may not", client.create_registered_model, "x")

        await mlflow.run(denied, **settings)
    wrong: tuple[dict[str, str], ...] = (
        {"MLFLOW_TRACKING_TOKEN": "nonsense"},
        {"MLFLOW_TRACKING_TOKEN": ""},
        {**basic, "MLFLOW_TRACKING_PASSWORD": "nonsense"},
    )
    for settings in wrong:
        await mlflow.run(lambda c: refused("UNAUTHENTICATED", "", c.get_registered_model, "m"), **settings)
    async with httpx2.AsyncClient(base_url=mlflow.address) as plain:
        for given in (
            "Basic !",
            "Basic " + base64.b64encode(b"no colon").decode(),
            "Basic " + base64.b64encode(b":").decode(),
        ):
            answer = await plain.get("/api/2.0/mlflow/registered-models/get?name=m", headers={"authorization": given})
            assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHENTICATED"), given
            assert "Basic" in answer.headers["www-authenticate"]


async def test_who_may_read_no_model_learns_nothing(mlflow: Mlflow) -> None:  # noqa: F811
    await mlflow.run(lambda client: client.create_registered_model("secret"))

    def walk(client: MlflowClient) -> None:
        for name in ("secret", "nothing"):
            refused("PERMISSION_DENIED", "", client.get_registered_model, name)
            refused("PERMISSION_DENIED", "", client.delete_registered_model, name)
        assert client.search_registered_models() == []

    await mlflow.run(walk, "eve", "churn-only")


async def test_malformed_calls(mlflow: Mlflow) -> None:  # noqa: F811
    headers = {"authorization": f"Bearer {mlflow.token('ana', 'ml-engineers')}", "x-mlflow-workspace": mlflow.workspace}
    async with httpx2.AsyncClient(base_url=mlflow.address + "/api/2.0/mlflow/registered-models", headers=headers) as c:
        for body in (b"", b"{}", b"null", b"[]", b"nonsense", b'{"name": 5}', b'{"name": null}', b'{"name": ["a"]}'):
            answer = await c.post("/create", content=body)
            assert (answer.status_code, answer.json()["error_code"]) == (400, INVALID), body
        for tags in ('"x"', '["x"]', '[{"key": 1}]', '[{"value": "v"}]', '[{"key": "k", "value": 1}]'):
            answer = await c.post("/create", content=f'{{"name": "m", "tags": {tags}}}'.encode())
            assert (answer.status_code, answer.json()["error_code"]) == (400, INVALID), tags
        assert (await c.get("/get", params={"name": "m"})).status_code == 404, "none of them made anything"
        answer = await c.get("/search", params={"max_results": "many"})
        assert answer.json()["error_code"] == INVALID
        answer = await c.get("/search", headers={"x-mlflow-workspace": "../x"})
        assert (answer.status_code, answer.json()["error_code"]) == (400, INVALID)
        doubled = await c.post("/create", json='{"name": "m"}')
        assert doubled.json()["registered_model"]["name"] == "m", "older clients write JSON twice"
