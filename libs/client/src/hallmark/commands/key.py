"""`hallmark key`"""

import time
from datetime import UTC, datetime
from typing import Any

import typer

from hallmark.output import Json, client, emit, example, out, table
from hallmark.output import app as noun

app = noun("key", "Keys: what decisions and revocations are checked with.")


@app.command("list", epilog=example("hallmark key list", "hallmark key list --json > keys.json"))
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List the public keys. Keep the JSON (a JWK Set) beside saved decisions: 'decision verify --keys' reads it."""
    with client(ctx) as hallmark:
        found = hallmark.decision_keys()
    rows = [(k.get("kid"), state(k), _at(k.get("nbf")), _at(k.get("exp")), k.get("alg")) for k in found["keys"]]
    columns = ("key", "state", "signs from (UTC)", "until (UTC)", "algorithm")
    emit(as_json, found, lambda: out.print(table(columns, rows)))


def state(key: dict[str, Any]) -> str:
    """What a key of the set is good for now."""
    if revoked := key.get("revoked"):
        return f"revoked: {revoked.get('reason')}" if isinstance(revoked, dict) else "revoked"
    now = time.time()
    if key.get("nbf", 0) > now:
        return "waits"
    return "signed before" if key.get("exp", now + 1) <= now else "signs"


def _at(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
