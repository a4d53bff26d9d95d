"""How much a request is judged by: as much as any event about it can carry, with room for votes and the signature.

What is larger is left out and named in `left_out` of its version, model or request. An expression that looks at it is
an error then, and passes nothing; a policy that cannot tell whether it applies does.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from contracts.canonical import canonical_json
from policy.evidence import VERSIONS, Whose, marked, shown
from policy.gates import AHEAD
from policy.matching import InForce, applicable

# Bytes of canonical JSON. The registry takes versions of 500,000 bytes.
VERSION_BYTES = 550_000
EVALUATIONS_BYTES = 200_000
EVIDENCE_BYTES = 100_000
MODEL_BYTES = 100_000
REQUEST_BYTES = 100_000

_VERSION = [
    *("artifact", "better", "environment", "evaluations", "lineage", "metrics", "notes", "owner", "parameters"),
    *("signature", "stages", "tags"),
]
_PARTS: dict[str, tuple[int, Sequence[str]]] = {
    "candidate": (VERSION_BYTES, _VERSION),
    "baseline": (VERSION_BYTES, _VERSION),
    "model": (MODEL_BYTES, ("description", "owner", "tags")),
    "request": (REQUEST_BYTES, ("fields",)),
}
# What is needed of a part that is left out: to know the version, and who must not vote.
_NEEDED = {"artifact": ("digest", "size", "filename", "media_type"), "lineage": ("committers",)}
_EVIDENCE = ("evidence", "attestations")
Fields = dict[str, Any]


def heard(evaluations: Sequence[Fields], at: datetime) -> tuple[list[Fields], tuple[str, ...]]:
    """The evaluations that fit, in their order, and what can be judged by no more for the others.

    Those go first that a later one of the same data set has superseded at that time; without them the slices are still
    what they were.
    """
    kept, left = list(evaluations), sum(map(_size, evaluations)) - EVALUATIONS_BYTES
    if left <= 0:
        return kept, ()
    made = [one for one in kept if _date(one) <= at + AHEAD]
    latest = {one["dataset"]["name"]: id(one) for one in sorted(made, key=_date)}
    for one in [one for one in made if id(one) != latest[one["dataset"]["name"]]]:
        if left > 0:
            kept, left = [other for other in kept if other is not one], left - _size(one)
    if left <= 0:
        return kept, ("evaluations",)
    while left > 0:
        left -= _size(kept.pop(0))
    return kept, ("evaluated_at", "evaluations", "slices")


def frozen(inputs: Mapping[str, Any], current: InForce, at: datetime) -> tuple[InForce, Fields]:
    """Those of the policies in force that apply to a transition, and the inputs that they judge it by."""
    whole = {**inputs, **{name: _fitted(inputs[name], *_PARTS[name]) for name in _PARTS if inputs[name] is not None}}
    for whose in VERSIONS:
        if whole[whose] is not None:
            whole[whose] = marked(whole[whose], inputs["request"]["requested_by"])
    without = set[Whose]()
    while True:
        found: Fields = {**whole}
        found.update((whose, _without(whole[whose], _EVIDENCE)) for whose in without)
        policies = applicable(current, found, at)
        for whose in VERSIONS:
            if found[whose] is not None and whose not in without:
                found[whose] = shown(found[whose], whose, [policy for _, policy in policies])
        large = {whose for whose in VERSIONS if found[whose] is not None and _evidence(found[whose]) > EVIDENCE_BYTES}
        if not large:
            return policies, found
        without |= large  # policies may apply that did not, and look at more


def _fitted(whole: Fields, limit: int, parts: Sequence[str]) -> Fields:
    """As much as `limit` allows: the largest parts go first."""
    found, sizes = whole, {name: _size(whole[name]) for name in parts if whole.get(name) is not None}
    over = sum(_size(value) for name, value in whole.items() if name not in _EVIDENCE) - limit
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        if over > 0:
            found = _without(found, (name,))
            over -= sizes[name] - _size(found[name])
    return found


def _without(whole: Fields, parts: Sequence[str]) -> Fields:
    rest = {name: {n: whole[name][n] for n in _NEEDED[name]} if name in _NEEDED else None for name in parts}
    return {**whole, **rest, "left_out": sorted({*whole.get("left_out", ()), *parts})}


def _evidence(version: Fields) -> int:
    return sum(_size(version[name]) for name in _EVIDENCE)


def _size(value: Any) -> int:
    return len(canonical_json(value))


def _date(evaluation: Fields) -> datetime:
    return datetime.fromisoformat(evaluation["evaluated_at"])
