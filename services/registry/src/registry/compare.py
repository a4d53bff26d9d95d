"""What differs between versions. Pure."""

from typing import Any

from contracts.model import Artifact

Document = dict[str, Any]


def compare(versions: list[Document]) -> Document:
    """Metrics with their difference to the first version, and what else is not the same in all of them.

    Returns `{"versions": [n...], "stages": [...], "statuses": [...], "aliases": [...],
    "metrics": {name: {"values": [...], "differences": [...], "better": "higher" | "lower" | null, "best": n | null}},
    "parameters": {name: [...]}, "signature": {...}, "lineage": {...}, "environment": {...}, "artifact": {...},
    "files": {path: [digest...]}}`; a missing value is null. `best` is the version with the best value, where a
    direction is declared and the best one is not shared.
    """
    contents = [v["content"] for v in versions]
    numbers = [v["version"] for v in versions]
    return {
        "versions": numbers,
        "stages": [v["stage"] for v in versions],
        "statuses": [v["status"] for v in versions],
        "aliases": [v["aliases"] for v in versions],
        "metrics": _metrics(numbers, contents),
        "signature": _differing([_columns(c["signature"]) for c in contents]),
        "files": _differing([_files(c["artifact"]) for c in contents]),
        "artifact": _differing([_flat({k: v for k, v in c["artifact"].items() if k != "files"}) for c in contents]),
        **{part: _differing([_flat(c[part]) for c in contents]) for part in ("parameters", "lineage", "environment")},
    }


def _metrics(numbers: list[int], contents: list[Document]) -> Document:
    found = {}
    for name in sorted(set().union(*(c["metrics"] for c in contents))):
        values = [c["metrics"].get(name) for c in contents]
        first = values[0]
        # The newest version that declares a direction has the word.
        better = next((c["better"][name] for c in reversed(contents) if name in c.get("better", {})), None)
        found[name] = {
            "values": values,
            "differences": [None if v is None or first is None else v - first for v in values],
            "better": better,
            "best": _best(numbers, values, better),
        }
    return found


def _best(numbers: list[int], values: list[float | None], better: str | None) -> int | None:
    present = [(value, number) for value, number in zip(values, numbers, strict=True) if value is not None]
    if better is None or not present:
        return None
    top = (max if better == "higher" else min)(value for value, _ in present)
    holders = [number for value, number in present if value == top]
    return holders[0] if len(holders) == 1 else None


def _columns(signature: Document) -> Document:
    """By side and name, so that a column that moved is not shown as changed."""
    return {
        f"{side}.{column['name']}": f"{column['dtype']}{column['shape'] or ''}"
        for side in ("inputs", "outputs")
        for column in signature[side]
    }


def _files(artifact: Document) -> Document:
    return {part.path: part.digest for part in Artifact.model_validate(artifact, strict=False).parts()}


def _differing(parts: list[Document]) -> Document:
    names = sorted(set().union(*parts))
    rows = {name: [part.get(name) for part in parts] for name in names}
    return {name: values for name, values in rows.items() if any(v != values[0] for v in values[1:])}


def _flat(part: Document, prefix: str = "") -> Document:
    """Nested names with dots. Named things in lists (data sets, feature stores) are told apart by their name."""
    found: Document = {}
    for name, value in part.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for place, item in enumerate(value):
                found |= _flat(item, f"{prefix}{name}.{item.get('name') or item.get('id') or place}.")
        else:
            found[prefix + name] = value
    return found
