"""Prompts through MLflow's own client: models whose versions hold a text."""

import httpx2
import pytest
from mlflow.tracking import MlflowClient
from tests.support.mlflow_client import Mlflow

from .conftest import Harness
from .mlflow_fixtures import address, mlflow  # noqa: F401

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.one_broker]


async def test_prompts(registry: Harness, mlflow: Mlflow) -> None:  # noqa: F811
    def walk(client: MlflowClient) -> None:
        client.create_registered_model("model")
        first = client.register_prompt("greet", "Hello {{name}}!", "first words", {"author": "ana"})
        chat = [{"role": "user", "content": "Hi {{name}}"}]
        second = client.register_prompt("greet", chat, "as a chat")
        assert (first.version, second.version) == (1, 2)
        found = client.load_prompt("prompts:/greet/1")
        assert (found.template, found.commit_message, found.tags) == (
            "Hello {{name}}!",
            "first words",
            {"author": "ana"},
        )
        assert found.format(name="Bob") == "Hello Bob!"
        assert client.load_prompt("prompts:/greet/2").template == chat
        assert client.load_prompt("prompts:/none/1", allow_missing=True) is None
        client.set_prompt_alias("greet", "production", 1)
        assert client.load_prompt("prompts:/greet@production").version == 1
        client.set_prompt_tag("greet", "team", "desk")
        client.set_prompt_version_tag("greet", "1", "checked", "yes")
        prompt = client.get_prompt("greet")
        assert prompt is not None
        assert prompt.tags["team"] == "desk"
        assert client.load_prompt("prompts:/greet/1").tags == {"author": "ana", "checked": "yes"}
        assert [p.name for p in client.search_prompts()] == ["greet"]
        assert [m.name for m in client.search_registered_models()] == ["model"], "a prompt is no model"
        assert client.search_model_versions("name = 'greet'") == []
        client.delete_prompt_version("greet", "2")
        assert client.load_prompt("prompts:/greet/2", allow_missing=True) is None
        client.delete_prompt_alias("greet", "production")
        assert client.load_prompt("prompts:/greet@production", allow_missing=True) is None

    await mlflow.run(walk)
    tags = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
    headers = {"authorization": f"Bearer {mlflow.token('ana', 'ml-engineers')}", "x-mlflow-workspace": mlflow.workspace}
    async with httpx2.AsyncClient(base_url=mlflow.address, headers=headers) as plain:
        body = {"name": "greet", "source": "/etc/passwd", "tags": tags}
        answer = await plain.post("/api/2.0/mlflow/model-versions/create", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "Invalid prompt source" in answer.json()["message"]
    native = (await registry.ana.get("/v1/models/greet/versions/1")).json()
    assert native["content"]["tags"]["mlflow.prompt.text"] == "Hello {{name}}!", "fixed at registration"
