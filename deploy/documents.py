"""Writes the OpenAPI and AsyncAPI documents of every service, and the JSON Schema of policies, to deploy/api; with
--check, says which are stale.

The services serve the same documents at /openapi.json and /asyncapi.json.
"""

import importlib
import json
import sys
import tempfile
from pathlib import Path

from fastapi import FastAPI

from contracts import asyncapi
from kit.keys import ensure_key
from kit.settings import Settings
from policy import schema

SERVICES = ("registry", "approval", "audit", "notifier")
TARGET = Path(__file__).parent / "api"


def settings_class(service: str) -> type[Settings]:
    module = importlib.import_module(f"{service}.settings")
    return next(
        c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Settings) and c is not Settings
    )


def build(service: str, scratch: Path) -> FastAPI:
    """The service's application with settings that point nowhere: nothing connects before start-up."""
    keys = {name: ensure_key(scratch, name) for name in ("auth", "decision", "checkpoint", "serving", "webhook")}
    access = scratch / "access.yaml"
    access.write_text("roles: []\n")
    given = {
        "database_url": "postgresql://nobody@127.0.0.1:1/none",
        "kafka_bootstrap": "127.0.0.1:1",
        "auth_jwks": str(scratch / "auth.jwks.json"),
        "access_file": str(access),
        "s3_endpoint": "http://127.0.0.1:1",
        "s3_access_key": "none",
        "s3_secret_key": "none",
        **{f"{name}_key": str(scratch / f"{name}.jwk") for name in keys},
        **{f"{name}_jwks": str(scratch / f"{name}.jwks.json") for name in keys},
    }
    kind = settings_class(service)
    settings = kind.model_validate({name: value for name, value in given.items() if name in kind.model_fields})
    app = importlib.import_module(f"{service}.app").build(settings)
    assert isinstance(app, FastAPI)
    return app


def documents() -> dict[str, str]:
    """File name -> text."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for service in SERVICES:
            app = build(service, Path(scratch))
            found[f"{service}.openapi.json"] = app.openapi()
            found[f"{service}.asyncapi.json"] = asyncapi.document(service, app.version)
    found[schema.ID] = schema.policy_schema()
    return {name: json.dumps(document, indent=1, sort_keys=True) + "\n" for name, document in found.items()}


def stale() -> list[str]:
    return [
        name
        for name, text in documents().items()
        if not (TARGET / name).exists() or (TARGET / name).read_text() != text
    ]


if __name__ == "__main__":
    if "--check" in sys.argv:
        if names := stale():
            sys.exit(f"stale, run `make schemas`: {', '.join(names)}")
    else:
        TARGET.mkdir(exist_ok=True)
        for name, text in documents().items():
            (TARGET / name).write_text(text)
        sys.stdout.write(f"documents of {len(SERVICES)} services in {TARGET.name}\n")
