"""Which policies apply to a request, and what they ask together: every match applies, the union holds.

No match is a refusal (fail closed). A policy whose `when` cannot be evaluated applies as well, to be safe, but does
not count as the match that lets a request through.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from approval.gates import GateError, compiled, evaluate
from approval.policy import Policy, TransitionMatch
from contracts.approval import PolicyRef
from contracts.registry import Criterion, Transition


@dataclass(frozen=True)
class Requirements:
    """`passed` is False when no policy matches. `expires_after` is the shortest that was asked for."""

    policies: tuple[PolicyRef, ...]
    gates: tuple[Criterion, ...]
    passed: bool
    expires_after: timedelta | None


def requirements(
    current: Sequence[tuple[PolicyRef, Policy]], asked: Transition, variables: Mapping[str, Any]
) -> Requirements:
    """What the current policies want of this transition, gates already evaluated."""
    refs: list[PolicyRef] = []
    gates: list[Criterion] = []
    passed, matched = True, False
    expiries: list[timedelta] = []
    for ref, policy in current:
        spec = policy.document.spec
        if not _about(spec.match.transition, asked):
            continue
        doubt = None
        if spec.match.when is not None:
            try:
                if not compiled(spec.match.when).holds(variables):
                    continue
            except GateError as error:
                text = f"cannot tell whether this policy applies, so it does: {error}"
                doubt = Criterion(gate=f"{ref.name}/when", expression=spec.match.when, result="error", message=text)
        matched = matched or doubt is None
        refs.append(ref)
        gates += [doubt] if doubt else []
        expiries += [policy.expires_after] if policy.expires_after else []
        for gate in spec.gates:
            said = evaluate(
                f"{ref.name}/{gate.id}",
                gate.cel,
                variables,
                message=gate.message or "",
                on_no_baseline=gate.on_no_baseline,
            )
            gates.append(said)
            passed = passed and (said.result == "pass" or gate.level == "warn")
    if not matched:
        return Requirements((), tuple(gates), False, None)
    return Requirements(tuple(refs), tuple(gates), passed, min(expiries, default=None))


def _about(match: TransitionMatch, asked: Transition) -> bool:
    return (
        match.kind in ("any", asked.kind)
        and match.to in (None, asked.to_stage)
        and match.from_stage in (None, asked.from_stage)
    )
