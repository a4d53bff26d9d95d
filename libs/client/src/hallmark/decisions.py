"""A decision checked from its record alone: who signed it, and whether its inputs, policies and votes lead to it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from contracts.approval import RequestDecided
from hallmark import engine
from hallmark.errors import HallmarkError
from hallmark.results import Result

Record = RequestDecided | Mapping[str, Any]


class Check(Result):
    """One thing that was looked at. `not checkable`: the record alone cannot tell. `text` is a sentence for people."""

    name: str
    result: Literal["ok", "failed", "not checkable"]
    text: str


class Verification(Result):
    """`verified`: nothing failed. The other fields are None when the record holds no decision that can be read."""

    verified: bool
    checks: list[Check]
    decision_id: str | None = None
    request_id: str | None = None
    about: str | None = None
    verdict: str | None = None


def verify_record(record: Record, keys: Mapping[str, Any]) -> Verification:
    """Judges a decision again. `keys`: the JWK Set of those who may have signed it. Asks nobody.

    Raises:
        HallmarkError: code `no-policy-engine`.
    """
    engine.require()
    from policy.judge import judge

    found = judge(record, keys)
    checks = [Check(name=check.name, result=check.result, text=check.text) for check in found.checks]
    decision = found.decision
    if decision is None:
        return Verification(verified=False, checks=checks)
    return Verification(
        verified=found.ok,
        checks=checks,
        decision_id=decision.decision_id,
        request_id=decision.transition_id,
        about=f"{decision.model} version {decision.version}: {decision.from_stage} -> {decision.to_stage}",
        verdict=str(decision.verdict),
    )


def read_record(path: Path) -> dict[str, Any]:
    """A record that `hallmark decision save` wrote, whatever was done to it since.

    Raises:
        HallmarkError: code `invalid-file`.
    """
    found = _json(path)
    if "decision" not in found or "jws" not in found:
        raise HallmarkError("invalid-file", f"{path} is no record of a decision; hallmark decision save writes one")
    return found


def read_keys(path: Path) -> dict[str, Any]:
    """A JWK Set, as `hallmark key list --json` prints it. Raises HallmarkError, code `invalid-file`."""
    found = _json(path)
    if not isinstance(found.get("keys"), list):
        raise HallmarkError("invalid-file", f"{path} holds no keys; hallmark key list --json prints them")
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise HallmarkError("invalid-file", f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise HallmarkError("invalid-file", f"{path} is no JSON object")
    return found
