"""What a request must bring: the form that policies want filled in, and evidence of the types they name."""

from contracts.approval import PolicyRef
from contracts.lifecycle import REGISTRY
from policy.document import Policy
from policy.evidence import counts
from policy.gates import fits
from policy.matching import InForce, Inputs, absent_of


def mistakes_of(policies: InForce, inputs: Inputs) -> tuple[str, ...]:
    """The registry, which asks on its own for a revoked version to be replaced, has nobody to fill in a form."""
    if inputs["request"]["requested_by"] == REGISTRY:
        return ()
    if absent := absent_of(inputs["request"]):
        return (f"the {' and '.join(absent)} of the request are too large",)
    return tuple(mistake for ref, policy in policies for mistake in _mistaken(ref, policy, inputs))


def _mistaken(ref: PolicyRef, policy: Policy, inputs: Inputs) -> list[str]:
    asked, spec = inputs["request"], policy.spec.request
    found = []
    reason = asked["reason"].strip()
    if (reason or spec.reason.required) and len(reason) < spec.reason.min_length:
        found.append(f"{ref.name}: the reason must have at least {spec.reason.min_length} characters")
    given = asked.get("fields") or {}
    for name, field in spec.fields.items():
        value = given.get(name)
        if value is None or value == "":
            if field.required:
                found.append(f"{ref.name}: the field {name} is missing")
        elif field.pattern is not None and not fits(field.pattern, value):
            found.append(f"{ref.name}: the field {name} is not like {field.pattern}")
        elif field.type == "model_version" and not _is_version(value):
            found.append(f"{ref.name}: the field {name} is not the number of a version")
        elif field.type == "url" and not value.startswith(("http://", "https://")):
            found.append(f"{ref.name}: the field {name} is not an http address")
    return found


def evidence_missing(policies: InForce, inputs: Inputs) -> tuple[str, ...]:
    found = (inputs.get("candidate") or {}).get("evidence") or {}
    have = {kind for kind, one in found.items() if counts(one)}
    wanted = (kind for _, policy in policies for kind in policy.spec.request.evidence)
    return tuple(dict.fromkeys(kind for kind in wanted if kind not in have))


def _is_version(value: str) -> bool:
    return value.isascii() and value.isdecimal() and 0 < int(value) <= 2_147_483_647


def way_back(inputs: Inputs) -> int | None:
    value = (inputs["request"].get("fields") or {}).get("rollback_to", "")
    return int(value) if _is_version(value) else None
