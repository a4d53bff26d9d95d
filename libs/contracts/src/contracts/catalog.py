"""Every message by its type, and the JSON Schemas generated from them.

python -m contracts.catalog DIRECTORY          write the schemas
"""

import json
import sys
from pathlib import Path
from typing import Any

from contracts import approval, audit, notifier, registry
from contracts.payload import Message

MESSAGES: dict[str, type[Message]] = {
    message.TYPE: message
    for message in (*registry.COMMANDS, *registry.EVENTS, *approval.EVENTS, *notifier.EVENTS, *audit.EVENTS)
}


def schema_of(message: type[Message]) -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"{message.TYPE}.json"} | (
        message.model_json_schema(mode="validation")
    )


def schema_files() -> dict[str, str]:
    """File name -> text, as checked in under `libs/contracts/schemas`."""
    return {f"{name}.json": json.dumps(schema_of(m), indent=1, sort_keys=True) + "\n" for name, m in MESSAGES.items()}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for name, text in schema_files().items():
        (target / name).write_text(text)
    sys.stdout.write(f"{len(MESSAGES)} schemas in {target}\n")
