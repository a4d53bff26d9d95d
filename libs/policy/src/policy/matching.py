"""Which policies a request is about: by transition, workspace, model, tags and an expression.

A policy whose `when` cannot be evaluated applies as well, to be safe.
"""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from contracts.approval import PolicyRef
from contracts.registry import Criterion
from policy.document import Policy
from policy.gates import GateError, compiled, holds, variables_of
from policy.spec import Match

InForce = Sequence[tuple[PolicyRef, Policy]]
Inputs = Mapping[str, Any]


def applicable(current: InForce, inputs: Inputs, now: datetime) -> InForce:
    """Those of the policies in force that a request with these inputs is bound to."""
    variables = variables_of(inputs, now)
    return [
        (ref, policy)
        for ref, policy in current
        if _about(policy.spec.match, inputs)
        and (policy.spec.match.when is None or holds(policy.spec.match.when, variables, unless=True))
    ]


def names_now(policy: Policy) -> bool:
    """Whether time alone may change what an expression of the policy says: as far as its text tells."""
    spec = policy.spec
    texts = [spec.match.when, *(gate.cel for gate in spec.gates), *(rule.when for rule in spec.approvals.rules)]
    return any(re.search(r"\bnow\b", text) for text in texts if text is not None)


def _about(match: Match, inputs: Inputs) -> bool:
    request, model = inputs["request"], inputs["model"]
    transition, kind = match.transition, request["kind"]
    return (
        (transition.kind == kind or (transition.kind == "any" and kind != "policy"))
        and _same(transition.to, request["to"])
        and _same(transition.from_stage, request["from"])
        and (not match.workspaces or _fits(model["workspace"], match.workspaces))
        and (not match.models or _fits(model["name"], match.models))
        and ("tags" in absent_of(model) or all(model["tags"].get(name) == value for name, value in match.tags.items()))
    )


def _same(asked: str | None, stage: str) -> bool:
    """As the registry finds stages, and the aliases that it protects: capitals do not matter."""
    return asked is None or asked.lower() == stage.lower()


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def when_of(ref: PolicyRef, policy: Policy, inputs: Inputs, variables: Mapping[str, Any]) -> bool | Criterion:
    """Whether the policy says that it applies; the doubt, where it cannot tell."""
    text, when = "cannot tell whether this policy applies, so it does: ", policy.spec.match.when
    if policy.spec.match.tags and "tags" in absent_of(inputs["model"]):
        text += "the tags of the model are too large"
        return Criterion(gate=f"{ref.name}/tags", expression="", result="error", message=text)
    try:
        return when is None or compiled(when).holds(variables)
    except GateError as error:
        return Criterion(gate=f"{ref.name}/when", expression=when or "", result="error", message=f"{text}{error}")


def absent_of(whole: Mapping[str, Any] | None) -> Sequence[str]:
    """What of a version, a model or a request was too large to be frozen (`policy.bounds`)."""
    return (whole or {}).get("left_out") or ()
