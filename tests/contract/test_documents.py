"""The API documents under deploy/api are the services' own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.topics import TOPICS

ROOT = Path(__file__).parents[2]
API = ROOT / "deploy" / "api"


def test_the_documents_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "documents.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("service", ["registry", "approval", "audit", "notifier"])
def test_every_operation_says_what_its_errors_look_like(service: str) -> None:
    document = json.loads((API / f"{service}.openapi.json").read_text())
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary"), (method, path)
            for code in ("422", "4XX", "5XX"):
                [(kind, content)] = operation["responses"][code]["content"].items()
                assert kind == "application/problem+json", (method, path)
                assert content == {"schema": {"$ref": "#/components/schemas/ProblemBody"}}, (method, path)
    problem = document["components"]["schemas"]["ProblemBody"]
    assert {*problem["required"]} == {"type", "title", "status", "detail"}


PUBLIC = {
    "registry": {"/.well-known/hallmark.json", "/v1/keys/serving"},
    "approval": {
        "/.well-known/jwks.json",
        "/v1/requests/{request_id}/gates/{gate}/answers",
        "/v1/slack/interactivity",
        "/v1/slack/commands",
    },
    "audit": {"/checkpoint", "/keys", "/v1/log/verifier", "/v1/log/minimum-index", "/v1/log/policy"},
    "notifier": {
        "/v1/webhook-keys",
        "/v1/unsubscribe/{subscription_id}/{token}",
        "/v1/confirm/{subscription_id}/{token}",
    },
}


@pytest.mark.parametrize("service", PUBLIC)
def test_all_operations_but_the_public_ones_take_a_token(service: str) -> None:
    document = json.loads((API / f"{service}.openapi.json").read_text())
    [scheme] = document["security"]
    assert document["components"]["securitySchemes"][next(iter(scheme))]["scheme"] == "bearer"
    open_ = {p for p, found in document["paths"].items() if any(one.get("security") == [] for one in found.values())}
    assert open_ == PUBLIC[service] | {"/asyncapi.json", "/healthz", "/readyz"}


@pytest.mark.parametrize(
    ("service", "method", "path", "codes"),
    [
        ("approval", "post", "/v1/policies", {"200", "201", "202"}),
        ("approval", "post", "/v1/evidence", {"200", "201"}),
        ("registry", "put", "/v1/models/{model}/aliases/{alias}", {"200", "202"}),
        ("registry", "get", "/v1/models/{model}/resolve", {"200", "304"}),
        ("notifier", "get", "/readyz", {"200", "503"}),
        ("notifier", "get", "/healthz", {"200", "503"}),
    ],
)
def test_every_outcome_is_written_down(service: str, method: str, path: str, codes: set[str]) -> None:
    document = json.loads((API / f"{service}.openapi.json").read_text())
    found = document["paths"][path][method]["responses"]
    assert found.keys() == codes | {"422", "4XX", "5XX"}
    schemas = [found[code]["content"]["application/json"]["schema"] for code in codes - {"304", "503"}]
    assert all(schema.get("$ref") == schemas[0].get("$ref") for schema in schemas)


@pytest.mark.parametrize("service", ["registry", "approval", "audit", "notifier"])
def test_asyncapi_names_what_a_service_says_and_hears(service: str) -> None:
    document = json.loads((API / f"{service}.asyncapi.json").read_text())
    said = {name.removeprefix("send:") for name in document["operations"] if name.startswith("send:")}
    heard = {name.removeprefix("receive:") for name in document["operations"] if name.startswith("receive:")}
    assert said == {t.name for t in TOPICS if t.writer == service}
    assert heard == {t.name for t in TOPICS if service in t.readers}
    for channel in document["channels"].values():
        assert channel["messages"]
