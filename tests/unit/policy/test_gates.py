"""CEL gates: what passes, what fails, what is an error; and what a policy author is told."""

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from policy.expressions import MAX_EXPRESSION
from policy.gates import Gate, GateError, check_pattern, compiled, evaluate, fits, holds, variables_of

NOW = datetime(2026, 1, 2, tzinfo=UTC)
INPUTS: dict[str, Any] = {
    "model": {"workspace": "default", "name": "fraud", "owner": "", "description": "", "tags": {"risk": "high"}},
    "request": {"kind": "promotion", "from": "Staging", "to": "Production", "reason": "x", "requested_by": "ana"},
    "candidate": {
        "version": 2,
        "digest": "sha256:00",
        "metrics": {"accuracy": 0.95, "rows": 12000, "flag": True, "p95-ms": 20},
        "parameters": {"depth": 3, "balanced": True, "note": None},
        "tags": {"team": "risk"},
        "stages": ["Staging"],
        "artifact": {"size": 10},
        "trained_at": "2026-01-01T00:00:00Z",
        "training_seconds": None,
        "registered_by": "trainer",
        "registered_at": "2026-01-01T00:00:00+00:00",
        "owner": None,
        "evaluations": [
            {"dataset": {"name": "old-people"}, "metrics": {"auc": 0.7}, "evaluated_at": "2026-01-01T01:00:00+00:00"},
            {"dataset": {"name": "all"}, "metrics": {"auc": 1}, "evaluated_at": "2026-01-01T02:00:00+00:00"},
            # The same moment as 04:00 in UTC, and so the latest of this data set.
            {"dataset": {"name": "old-people"}, "metrics": {"auc": 0.9}, "evaluated_at": "2026-01-01T05:00:00+01:00"},
        ],
        "evaluated_at": "2026-01-01T04:00:00+00:00",
        "evidence": {"model_card": {"title": "card"}},
        "attestations": [{"type": "slsa-provenance", "verified": True}],
        "unsafe": False,
        "revoked": False,
    },
    "baseline": {"version": 1, "metrics": {"accuracy": 0.9}, "stages": ["Production"], "evaluations": []},
}


def said(expression: str, inputs: dict[str, Any] = INPUTS, **options: Any) -> tuple[str, str]:
    given: dict[str, Any] = {"on_no_baseline": "inconclusive", **options}
    criterion = evaluate("p/g", expression, variables_of(inputs, NOW), **given)
    return criterion.result, criterion.message


def metrics(**values: Any) -> dict[str, Any]:
    return {**INPUTS, "candidate": {**INPUTS["candidate"], "metrics": values}}


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("candidate.metrics.accuracy >= 0.9", "pass"),
        ("candidate.metrics.accuracy >= 0.96", "fail"),
        ("candidate.metrics['p95-ms'] <= 20.0", "pass"),
        ("candidate.metrics.rows >= 10000.0", "pass"),  # an int becomes a double
        ("candidate.metrics.rows * 2.0 > 20000.0", "pass"),
        ("candidate.metrics.flag == 1.0", "pass"),  # and so does a bool
        ("candidate.metrics.auc >= 0.5", "error"),
        ("!(candidate.metrics.auc < 0.5)", "error"),  # a missing metric never passes by negation
        ("has(candidate.metrics.auc)", "fail"),
        ("!has(candidate.metrics.auc) || candidate.metrics.auc > 0.5", "pass"),
        ("candidate.metrics.accuracy >= baseline.metrics.accuracy - 0.002", "pass"),
        ("candidate.metrics.accuracy >= baseline.metrics.auc", "error"),
        ("candidate.parameters.depth <= 3", "pass"),
        ("candidate.parameters.note == null", "pass"),
        ("candidate.parameters.depth", "error"),  # not a boolean
        ("candidate.parameters.balanced", "pass"),
        ("candidate.training_seconds < 60.0", "error"),  # null is absent
        ("candidate.owner != ''", "error"),
        ("now - candidate.trained_at < duration('168h')", "pass"),
        ("'Staging' in candidate.stages", "pass"),
        ("request.to in candidate.stages", "fail"),
        ("model.tags.risk == 'high' && !model.name.startsWith('sandbox')", "pass"),
        ("1 / 0 > 1", "error"),
        ("candidate.metrics.all(k, candidate.metrics[k] > 0.5)", "pass"),
        ("candidate.artifact.size < 11", "pass"),
        ("'x'.matches('(')", "error"),
        ("candidate.slices.all(s, s.metrics.auc >= 0.85)", "pass"),
        ("candidate.slices.size() == 2", "pass"),
        ("candidate.evaluations.all(e, e.metrics.auc >= 0.85)", "fail"),
        ("candidate.slices.all(s, s.metrics.f1 >= 0.85)", "error"),
        ("baseline.slices.size() == 0", "error"),  # nothing is known of them
        ("baseline.slices.all(s, s.metrics.auc >= 0.85)", "error"),
        ("baseline.evaluations.all(e, e.metrics.auc >= 0.85)", "error"),
        ("now - candidate.evaluated_at < duration('24h')", "pass"),
        ("candidate.attestations.exists(a, a.type == 'slsa-provenance' && a.verified)", "pass"),
        ("has(candidate.evidence.model_card)", "pass"),
        ("has(candidate.evidence.fairness)", "fail"),
        ("!candidate.unsafe && !candidate.revoked", "pass"),
        ("request.change_class != 'standard'", "error"),  # this request has none
    ],
)
def test_results(expression: str, result: str) -> None:
    if expression in ("candidate.parameters.depth", "candidate.parameters.balanced"):
        with pytest.raises(GateError, match="must give a boolean"):
            compiled(expression)
        result = "error"
    assert said(expression)[0] == result


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "expression", ["candidate.metrics.a < 0.5", "!(candidate.metrics.a < 0.5)", "true", "has(candidate.metrics.a)"]
)
def test_a_number_that_is_none_never_passes(expression: str, value: float) -> None:
    assert said(expression, metrics(a=value)) == ("error", "candidate.metrics.a: not a finite number")


@pytest.mark.parametrize("choice", ["inconclusive", "fail", "pass"])
def test_without_a_baseline(choice: str) -> None:
    first = {**INPUTS, "baseline": None}
    comparing = "candidate.metrics.accuracy >= baseline.metrics.accuracy"
    assert said(comparing, first, on_no_baseline=choice)[0] == choice
    assert said("candidate.metrics.accuracy >= 0.9", first, on_no_baseline=choice)[0] == "pass"
    assert said("[1.0].all(baseline, baseline > 0.5)", first)[0] == "pass"  # a name of its own


@pytest.mark.parametrize("choice", ["inconclusive", "fail", "pass"])
@pytest.mark.parametrize(
    ("expression", "missing"),
    [
        ("candidate.metrics.auc >= baseline.metrics.auc", "candidate.metrics.auc"),
        ("candidate.metrics.auc >= 0.9 && candidate.metrics.auc >= baseline.metrics.auc", "candidate.metrics.auc"),
        ("candidate.metrics.accuracy < 0.9 && candidate.metrics['f 1'] > baseline.metrics.f1", "candidate.metrics.f 1"),
        ("baseline.slices.all(s, s.metrics.auc < candidate.metrics.auc)", "candidate.metrics.auc"),
        (
            "[candidate.metrics.auc, {'b': candidate.metrics.b}.b].all(m, m > baseline.metrics.m)",
            "candidate.metrics.auc",
        ),
        ("candidate.training_seconds <= baseline.training_seconds", "candidate.training_seconds"),
    ],
)
def test_without_a_baseline_what_is_missing_is_still_missing(choice: str, expression: str, missing: str) -> None:
    result, message = said(expression, {**INPUTS, "baseline": None}, on_no_baseline=choice)
    assert (result, message.startswith(missing), "missing" in message) == ("error", True, True)
    options = {"on_no_baseline": choice, "on_error": "inconclusive"}
    assert said(expression, {**INPUTS, "baseline": None}, **options)[0] == "inconclusive"


@pytest.mark.parametrize(
    "expression",
    [
        "!has(candidate.metrics.auc) || candidate.metrics.auc >= baseline.metrics.auc",
        "!('auc' in candidate.metrics) || candidate.metrics['auc'] >= baseline.metrics.auc",
        "candidate.metrics.accuracy > baseline.metrics.accuracy && model.name != 'candidate.metrics.auc'",
        "candidate.metrics.all(k, candidate.metrics[k] > baseline.metrics[k])",
        "candidate.metrics.accuracy >= baseline.metrics.auc",
    ],
)
def test_without_a_baseline_what_is_asked_for_may_be_missing(expression: str) -> None:
    assert said(expression, {**INPUTS, "baseline": None}, on_no_baseline="pass")[0] == "pass"


def test_messages_show_the_numbers() -> None:
    assert said("candidate.metrics.accuracy >= 0.96", message="too low") == (
        "fail",
        "too low; candidate.metrics.accuracy = 0.95",
    )
    assert said("candidate.metrics.auc >= 0.96", message="too low")[1] == 'too low; Key not found in map : "auc"'


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("candidate.metric.accuracy > 0.9", "1:17: undeclared reference to 'candidate.metric.accuracy'"),
        ("candidat.metrics.a > 0.9", "undeclared reference"),
        ("candidate.metrics.a >= 1", "metrics are doubles: write 1.0, not 1"),
        ("candidate.metrics.a * 2 >= 1.0", "metrics are doubles"),
        ("candidate.metrics.a", "gives DOUBLE, but must give a boolean"),
        ("candidate.metrics", "must give a boolean"),
        ("1", "gives INT"),
        ("dyn(true)", "gives DYN"),
        ("candidate.tags.team > 1", "no matching overload"),
        ("candidate.metrics.a >", "Syntax error"),
        ("", "Syntax error"),
        ("(" * 200 + "true" + ")" * 200, "recursion"),
        ("true || " * MAX_EXPRESSION + "true", "longer than"),
        ("env('HOME') == ''", "undeclared reference"),
    ],
)
def test_what_an_author_is_told(expression: str, text: str) -> None:
    with pytest.raises(GateError, match=text.replace("(", r"\(").replace("*", r"\*")):
        Gate(expression)


def evaluated(*moments: str) -> dict[str, Any]:
    made = [{"dataset": {"name": m}, "metrics": {"auc": 0.9}, "evaluated_at": m} for m in moments]
    latest = max(moments, key=datetime.fromisoformat)
    return {**INPUTS, "candidate": {**INPUTS["candidate"], "evaluations": made, "evaluated_at": latest}}


@pytest.mark.parametrize(
    ("moments", "fresh", "slices"),
    [
        (("2026-01-01T23:00:00Z",), "pass", 1),
        (("2026-01-02T00:04:00Z",), "pass", 1),  # a clock that is a little ahead
        (("2026-01-02T00:06:00Z",), "error", None),
        (("2030-01-01T00:00:00Z",), "error", None),
        (("2025-12-31T00:00:00Z", "2030-01-01T00:00:00Z"), "fail", 1),
        (("2026-01-01T23:00:00+00:00", "2026-01-02T01:00:00+09:00"), "pass", 2),  # the former is the later
    ],
)
def test_what_is_dated_in_the_future_is_not_fresh(moments: tuple[str, ...], fresh: str, slices: int | None) -> None:
    given = evaluated(*moments)
    assert said("now - candidate.evaluated_at < duration('4h')", given)[0] == fresh
    assert said(f"candidate.slices.size() == {slices or 0}", given)[0] == ("pass" if slices else "error")
    future = {**INPUTS, "candidate": {**INPUTS["candidate"], "trained_at": "2030-01-01T00:00:00Z"}}
    assert said("now - candidate.trained_at < duration('168h')", future)[0] == "error"


@pytest.mark.parametrize("choice", ["error", "inconclusive"])
def test_trouble_is_what_the_policy_makes_of_it(choice: str) -> None:
    assert said("candidate.metrics.auc >= 0.5", on_error=choice)[0] == choice
    assert said("candidate.metrics.accuracy >= 0.96", on_error=choice)[0] == "fail"  # a failure is no trouble
    assert said("true", metrics(a=math.nan), on_error=choice)[0] == choice


def test_now_is_no_part_of_the_inputs() -> None:
    fresh = "now - candidate.trained_at < duration('168h')"
    results = [
        evaluate("p/g", fresh, variables_of(INPUTS, datetime(2026, 1, day, tzinfo=UTC)), on_no_baseline="fail").result
        for day in (7, 8, 9)
    ]
    assert results == ["pass", "fail", "fail"]


@pytest.mark.parametrize(
    ("pattern", "text", "outcome"),
    [
        ("CHG[0-9]{7}", "CHG1234567", True),
        ("^CHG[0-9]{7}$", "CHG1234567", True),
        ("CHG[0-9]{7}", "xCHG1234567", False),
        ("CHG[0-9]{7}", "CHG12345678", False),
        ("CHG[0-9]{7}", "CHG1234567\n", False),
        ("a|b", "ab", False),
        ("(a+)+", "a" * 10_000 + "!", False),  # RE2: linear, whatever the pattern
    ],
)
def test_a_pattern_matches_the_whole_text(pattern: str, text: str, outcome: bool) -> None:
    assert fits(pattern, text) is outcome


def test_what_is_no_pattern() -> None:
    with pytest.raises(GateError):
        check_pattern("(")
    with pytest.raises(GateError):
        check_pattern(r"(?=x)")
    with pytest.raises(GateError):
        check_pattern("a)|(b")  # within brackets it would be one, and match "axyz"


def test_a_condition_that_cannot_be_evaluated() -> None:
    variables = variables_of(INPUTS, NOW)
    assert holds("model.tags.none == 'x'", variables, unless=True)
    assert not holds("model.tags.none == 'x'", variables, unless=False)
    assert not holds("model.tags.risk == 'low'", variables, unless=True)
