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
            assert "application/problem+json" in operation["responses"]["4XX"]["content"], (method, path)


@pytest.mark.parametrize("service", ["registry", "approval", "audit", "notifier"])
def test_asyncapi_names_what_a_service_says_and_hears(service: str) -> None:
    document = json.loads((API / f"{service}.asyncapi.json").read_text())
    said = {name.removeprefix("send:") for name in document["operations"] if name.startswith("send:")}
    heard = {name.removeprefix("receive:") for name in document["operations"] if name.startswith("receive:")}
    assert said == {t.name for t in TOPICS if t.writer == service}
    assert heard == {t.name for t in TOPICS if service in t.readers}
    for channel in document["channels"].values():
        assert channel["messages"]
