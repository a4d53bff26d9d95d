"""Gates: CEL over a frozen snapshot. Compiled and type-checked when a policy is saved, evaluated when it is asked.

Metrics are doubles, so that `1` and `1.0` cannot mean different things; a metric that is missing or not finite is an
error, and an error never passes. Cost is bounded by what `policy.cost` tells of the expression and of what it looks at.
"""

import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

from contracts.registry import Criterion
from policy.cost import Size, TooCostly, pattern_size
from policy.expressions import Expression, ExpressionError, Kind, environment, readable

Outcome = Literal["pass", "fail", "inconclusive", "error"]
AHEAD = timedelta(minutes=5)  # by so much the clocks of others may be ahead

_T = Kind
_TEXTS = _T.Map(_T.STRING, _T.STRING)
_ANY = _T.Map(_T.STRING, _T.DYN)
_VERSION: dict[str, Kind] = {
    "version": _T.INT,
    "digest": _T.STRING,
    "metrics": _T.Map(_T.STRING, _T.DOUBLE),
    "parameters": _ANY,
    "tags": _TEXTS,
    "stages": _T.List(_T.STRING),
    "artifact": _ANY,
    "environment": _ANY,
    "lineage": _ANY,
    "signature": _ANY,
    "owner": _T.STRING,
    "notes": _T.STRING,
    "registered_by": _T.STRING,
    "registered_at": _T.TIMESTAMP,
    "trained_at": _T.TIMESTAMP,
    "training_seconds": _T.DOUBLE,
    "evaluations": _T.List(_T.DYN),
    "slices": _T.List(_T.DYN),
    "evaluated_at": _T.TIMESTAMP,
    "evidence": _ANY,
    "attestations": _T.List(_T.DYN),
    "unsafe": _T.BOOL,
    "revoked": _T.BOOL,
}
_MODEL = {"workspace": _T.STRING, "name": _T.STRING, "owner": _T.STRING, "description": _T.STRING, "tags": _TEXTS}
_REQUEST = dict.fromkeys(("kind", "from", "to", "reason", "requested_by", "transition_id", "change_class"), _T.STRING)
_REQUEST |= {"expires_at": _T.TIMESTAMP, "fields": _TEXTS}
_VERSIONS = ("candidate", "baseline")
_GROUPS = {"candidate": _VERSION, "model": _MODEL, "request": _REQUEST}

# Fields are variables with a dotted name: a misspelt one is then caught when the policy is saved.
_WITHOUT_BASELINE = {f"{group}.{name}": kind for group, fields in _GROUPS.items() for name, kind in fields.items()}
_WITHOUT_BASELINE["now"] = _T.TIMESTAMP
_VARIABLES = _WITHOUT_BASELINE | {f"baseline.{name}": kind for name, kind in _VERSION.items()}
_FULL = environment(_VARIABLES)
_FIRST = environment(_WITHOUT_BASELINE)
_MATCHES = _FULL.compile("request.reason.matches(request.to)")
# What an author may count on; a check is made again with what there is to look at.
_USUAL = {
    name: Size.unknown(1_000) if kind == _T.STRING else Size(2_000, 20, 50, 100)
    for name, kind in _VARIABLES.items()
    if kind not in (_T.INT, _T.DOUBLE, _T.BOOL, _T.TIMESTAMP)
}
_METRIC = re.compile(r"\b(candidate|baseline)\.metrics\.([A-Za-z_][A-Za-z0-9_]*)")


GateError = ExpressionError


class Gate:
    """One compiled expression. `compares` tells whether it looks at the baseline; `names`: the variables it names."""

    def __init__(self, expression: str) -> None:
        """Raises GateError."""
        try:
            self._compiled = Expression(expression, _FULL, _USUAL, advice="ask less, or in several gates")
        except GateError as error:
            raise GateError(_hinted(str(error))) from error
        try:
            _FIRST.compile(expression)
            self.compares = False
        except RuntimeError:
            self.compares = True
        self._expression = expression
        self.names = self._compiled.names

    def cost(self, sizes: Mapping[str, Size]) -> int:
        """Steps that it takes at most, with variables of these sizes.

        Raises:
            GateError: more than MAX_COST, or without a bound.
        """
        return self._compiled.cost(sizes)

    def holds(self, variables: Mapping[str, Any]) -> bool:
        """Raises GateError when the expression has no boolean value for these variables, or they are too large."""
        try:
            return self._compiled.holds(variables)
        except GateError as error:
            raise GateError(_hinted(str(error))) from error

    def missing(self, variables: Mapping[str, Any]) -> list[str]:
        """What it takes for granted of the candidate, and is not there."""
        known = variables.get("candidate.metrics", {})
        metrics = (
            f"candidate.metrics.{name}" for name in self._compiled.tree.fields("candidate.metrics") if name not in known
        )
        fields = (name for name in self.names if name.startswith("candidate.") and name not in variables)
        return sorted((*metrics, *fields))

    def shown(self, variables: Mapping[str, Any]) -> str:
        """The metrics it names, with their values, for the record."""
        names = dict.fromkeys(_METRIC.findall(self._expression))
        found = ((f"{who}.metrics.{name}", variables.get(f"{who}.metrics", {}).get(name)) for who, name in names)
        return ", ".join(f"{name} = {value:.6g}" for name, value in found if value is not None)


@lru_cache(maxsize=2_000)
def compiled(expression: str) -> Gate:
    """Raises GateError."""
    return Gate(expression)


def holds(expression: str, variables: Mapping[str, Any], *, unless: bool) -> bool:
    """What a condition says; `unless` when it cannot be evaluated."""
    try:
        return compiled(expression).holds(variables)
    except GateError:
        return unless


def fits(pattern: str, text: str) -> bool:
    """Whether the pattern (RE2) matches the whole text. Raises GateError when it is no pattern."""
    return _matches(f"^(?:{pattern})$", text)


def check_pattern(pattern: str) -> None:
    """Raises GateError unless it is a pattern on its own, of a bounded cost: `a)|(b` is one only in the brackets of
    `fits`."""
    _matches(pattern, "")
    try:
        pattern_size(pattern)
    except TooCostly as error:
        raise GateError(str(error)) from error


def _matches(pattern: str, text: str) -> bool:
    found = _MATCHES.eval(data={"request.reason": text, "request.to": pattern})
    if found.type() != _T.BOOL:
        raise GateError(readable(str(found.value())))
    return bool(found.value())


def evaluate(
    name: str,
    expression: str,
    variables: Mapping[str, Any],
    *,
    message: str = "",
    on_no_baseline: Outcome,
    on_error: Outcome = "error",
) -> Criterion:
    """What one gate says of the snapshot. Never raises: trouble is `on_error`."""

    def said(result: Outcome, *notes: str) -> Criterion:
        text = "; ".join(note for note in notes if note)[:9_000]
        return Criterion(gate=name, expression=expression, result=result, message=text)

    try:
        gate = compiled(expression)
        broken = sorted(_not_finite(variables))
        if broken:
            return said(on_error, message, f"{', '.join(broken)}: not a finite number")
        if gate.compares and not any(name.startswith("baseline.") for name in variables):
            if missing := gate.missing(variables):
                return said(on_error, message, f"{', '.join(missing)}: missing")
            return said(on_no_baseline, message if on_no_baseline != "pass" else "", "nothing to compare with yet")
        shown = gate.shown(variables)
        return said("pass", shown) if gate.holds(variables) else said("fail", message, shown)
    except GateError as error:
        return said(on_error, message, str(error))


def variables_of(inputs: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """CEL variables of frozen inputs. What is null is left out, so that using it is an error.

    `slices` of a version are what its evaluations found last, for each of their data sets. Without an evaluation both
    are left out: `all` of nothing must not pass. A version's times that are yet to come are left out, too: nothing is
    the fresher for a wrong clock. So is what was too large to be frozen (`policy.bounds`).
    """
    variables: dict[str, Any] = {"now": now}
    for group in ("candidate", "baseline", "model", "request"):
        fields = dict(inputs.get(group) or {})
        if group in _VERSIONS:
            fields |= _evaluated(fields.get("evaluations") or (), now)
        for name in fields.get("left_out") or ():
            fields[name] = None
        for name, kind in (_VERSION if group == "baseline" else _GROUPS[group]).items():
            value = fields.get(name)
            if value is not None and not (kind == _T.TIMESTAMP and group in _VERSIONS and _to_come(value, now)):
                variables[f"{group}.{name}"] = _coerced(name, kind, value)
    return variables


def _coerced(name: str, kind: Kind, value: Any) -> Any:
    if name == "metrics":
        return {metric: float(number) for metric, number in value.items()}
    if name in ("evaluations", "slices"):
        return [{**one, "metrics": _coerced("metrics", kind, one.get("metrics") or {})} for one in value]
    if kind == _T.TIMESTAMP:
        return datetime.fromisoformat(value)
    return float(value) if kind == _T.DOUBLE else value


def _evaluated(evaluations: Any, now: datetime) -> dict[str, Any]:
    """The evaluations that have been made by now, and the latest of each data set."""
    made = [one for one in evaluations if not _to_come(one["evaluated_at"], now)]
    newest = sorted(made, key=lambda one: datetime.fromisoformat(one["evaluated_at"]))
    slices = list({one["dataset"]["name"]: one for one in newest}.values())
    at = newest[-1]["evaluated_at"] if newest else None
    return {"evaluations": made or None, "slices": slices or None, "evaluated_at": at}


def _to_come(moment: str, now: datetime) -> bool:
    return datetime.fromisoformat(moment) > now + AHEAD


def _not_finite(variables: Mapping[str, Any]) -> list[str]:
    return [
        f"{group}.{name}"
        for group in ("candidate.metrics", "baseline.metrics")
        for name, number in variables.get(group, {}).items()
        if not math.isfinite(number)
    ]


def _hinted(text: str) -> str:
    """With a hint where a plain number meets a metric."""
    return text + (" (metrics are doubles: write 1.0, not 1)" if "double, int" in text or "int, double" in text else "")
