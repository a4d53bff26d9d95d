"""What differs between versions. Pure."""

from typing import Any

Document = dict[str, Any]


def compare(versions: list[Document]) -> Document:
    """Metrics with their difference to the first version, and what else is not the same in all of them.

    Returns `{"versions": [n...], "metrics": {name: {"values": [...], "differences": [...]}}, "parameters": {...},
    "signature": {...}, "lineage": {...}, "environment": {...}, "artifact": {...}}`; a missing value is null.
    """
    contents = [v["content"] for v in versions]
    return {
        "versions": [v["version"] for v in versions],
        "stages": [v["stage"] for v in versions],
        "metrics": _metrics([c["metrics"] for c in contents]),
        **{
            part: _differing([_flat(c[part]) for c in contents])
            for part in ("parameters", "signature", "lineage", "environment", "artifact")
        },
    }


def _metrics(metrics: list[dict[str, float]]) -> Document:
    found = {}
    for name in sorted(set().union(*metrics)):
        values = [m.get(name) for m in metrics]
        first = values[0]
        found[name] = {
            "values": values,
            "differences": [None if v is None or first is None else v - first for v in values],
        }
    return found


def _differing(parts: list[Document]) -> Document:
    names = sorted(set().union(*parts))
    rows = {name: [part.get(name) for part in parts] for name in names}
    return {name: values for name, values in rows.items() if any(v != values[0] for v in values[1:])}


def _flat(part: Document, prefix: str = "") -> Document:
    found: Document = {}
    for name, value in part.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
