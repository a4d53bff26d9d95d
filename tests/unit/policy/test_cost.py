"""What expressions may cost: those that explode are refused, those that people write are not, and a step is a step."""

import resource
import subprocess
import sys
import time
from functools import lru_cache
from typing import Any

import pytest

from policy.cost import MAX_COST, TooCostly, pattern_size, size_of
from policy.gates import Gate, GateError, check_pattern

X5 = ".map(x, x + x + x + x)"
MANY = f"[{', '.join(['0'] * 95)}]"
# Where the budget goes that one gate has: each is among the dearest of its kind that are accepted.
NOTES = "x" * 10_000
MADE = [{"dataset": {"name": f"d{n}"}, "metrics": {f"m{k}": 0.5 for k in range(300)}} for n in range(100)]
TEXTS = ", ".join(["'xxxxxxxxxx'"] * 90)
HOURS = " && ".join(["timestamp('2026-01-01T00:00:00Z').getHours('Asia/Tokyo') >= 0"] * 20)
PLAIN = f"{MANY}.all(a, {MANY}.all(b, {' && '.join(['a + 1 > b - 1'] * 60)}))"
NESTED = "['xxxxxxxxxx']"
for name in "abcdefg":
    NESTED += f".all({name}, [{'+'.join([name] * 8)}]"
NESTED += ".size() > 0" + ")" * 7
DEAR: dict[str, tuple[str, dict[str, Any]]] = {
    "texts that grow": ("['xxxxxxxxxx']" + X5 * 8 + ".size() > 0", {}),
    "many texts that grow": (f"[{TEXTS}]" + X5 * 5 + ".size() > 0", {}),
    "lists in lists": ("[[0]]" + ".map(x, [x, x])" * 18 + ".exists(x, x == x)", {}),
    "lists that grow": ("[[0]]" + X5 * 9 + ".exists(x, x != x)", {}),
    "a text that grows in a loop": (
        f"{MANY}.all(a, (candidate.notes + candidate.notes + candidate.notes).size() > 0)",
        {"candidate.notes": NOTES},
    ),
    "a pattern over a text": ("candidate.notes.matches('(x?){300}y')", {"candidate.notes": NOTES}),
    "a pattern in a loop": (f"{MANY}.all(a, !('x' + string(a)).matches('(x?){{100}}y'))", {}),
    "a part in a loop": (f"{MANY}.all(a, !candidate.notes.contains('{'x' * 50}y'))", {"candidate.notes": NOTES}),
    "everything compared": (
        f"[{', '.join(['0'] * 50)}].all(a, candidate.evaluations == candidate.evaluations)",
        {"candidate.evaluations": MADE},
    ),
    "a map in a loop": (
        f"{MANY}.all(a, {MANY}.all(b, candidate.evaluations[5].metrics.m5 > 0.1))",
        {"candidate.evaluations": MADE},
    ),
    "patterns that are compiled": (r"[0, 0, 0, 0].all(a, !'x'.matches(r'(\pL?){25}y'))", {}),
    "times": (f"{MANY}.all(a, {HOURS})", {}),
}


def cost(expression: str, given: dict[str, Any]) -> int:
    gate = Gate(expression)
    return gate.cost({name: size_of(given[name]) for name in gate.names if name in given})


@pytest.mark.parametrize(
    "expression",
    [
        "['xxxxxxxxxx']" + X5 * 13 + ".size() > 0",
        "[[0]]" + ".map(x, [x, x])" * 26 + ".exists(x, x == x)",
        "[[0]]" + X5 * 14 + ".size() > 0",
        # Nested, not chained; and by way of a map.
        NESTED,
        "[{'a': 0}]" + ".map(x, {'a': x, 'b': x})" * 26 + ".exists(x, x == x)",
        f"['{'x' * 500}'].map(a, {'a+' * 9}a).all(a, {MANY}.all(b, !a.matches('(x?){{999}}(x){{900}}y')))",
        f"{MANY}.all(a, {MANY}.all(b, !request.reason.matches('(x?){{99}}y')))",
        f"{MANY}.all(a, {MANY}.all(b, candidate.metrics == candidate.metrics))",
        f"{MANY}.all(a, {MANY}.all(b, !request.reason.contains('{'x' * 900}y')))",
        "request.reason.matches('((x?){100}){100}y')",
        "request.reason.matches(request.to)",
        "request.reason.matches('x' + 'y')",
        r"request.reason.matches(r'\Q)\Ex')",
    ],
)
def test_what_explodes_is_refused_when_the_policy_is_saved(expression: str) -> None:
    with pytest.raises(GateError, match=r"steps|matches needs|repeats too much|invalid repetition|quote"):
        Gate(expression)


@pytest.mark.parametrize(
    "expression",
    [
        'model.tags.risk == "high" && !model.name.startsWith("sandbox/")',
        "candidate.metrics.auc >= baseline.metrics.auc - 0.002",
        "candidate.metrics.latency_p95_ms <= baseline.metrics.latency_p95_ms * 1.10",
        "candidate.metrics.eval_rows >= 10000.0",
        "candidate.slices.all(s, s.metrics.auc >= 0.85)",
        'now - candidate.evaluated_at < duration("168h")',
        'candidate.attestations.exists(a, a.type == "slsa-provenance" && a.verified)',
        "has(candidate.evidence.model_card)",
        'request.change_class != "standard"',
        # Each slice against the same one of the version it replaces.
        "candidate.slices.all(s, baseline.slices.exists(b, b.dataset == s.dataset && s.metrics.auc >= b.metrics.auc))",
        'candidate.metrics.all(k, !k.startsWith("slice/") || candidate.metrics[k] >= baseline.metrics[k] - 0.01)',
        'candidate.slices.filter(s, s.dataset.name.matches("^(old|new)-")).map(s, s.metrics.auc).all(auc, auc > 0.8)',
        'request.reason.matches("(?i)[A-Z]{3}[0-9]{6}-[0-9]{4}") || request.fields.ticket.startsWith("CHG")',
        'model.name + "/" + request.to != "fraud/Production"',
        r'request.reason.matches("^\\pL[\\pL\\pN ]{10,}$")',
    ],
)
def test_what_people_write_is_accepted(expression: str) -> None:
    Gate(expression)


@pytest.mark.parametrize("kind", DEAR)
def test_a_step_is_a_step(kind: str) -> None:
    """What is accepted takes no longer for a step than plain sums do, within a factor, and hardly any memory."""
    plain = plain_step()
    expression, given = DEAR[kind]
    steps = cost(expression, given)
    assert steps > MAX_COST / 1_000, "not dear at all"
    assert steps <= MAX_COST
    assert _seconds(expression, given) / steps < 25 * plain


@lru_cache(maxsize=1)
def plain_step() -> float:
    return _seconds(PLAIN, {}) / cost(PLAIN, {})


def _seconds(expression: str, given: dict[str, Any]) -> float:
    gate, best = Gate(expression), float("inf")
    for _ in range(3):
        start = time.process_time()
        gate.holds(given)
        best = min(best, time.process_time() - start)
    return best


def test_the_dearest_take_hardly_any_memory() -> None:
    """In a process of its own, since memory that was had once is not given back."""
    code = "from tests.unit.policy.test_cost import DEAR, peak; print(peak())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 100 << 20


def peak() -> int:
    """By how many bytes the process grows."""
    gates = [(Gate(expression), given) for expression, given in DEAR.values()]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for gate, given in gates:
        gate.holds(given)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10


def test_what_there_is_to_look_at_counts() -> None:
    """An expression that was accepted is an error where the inputs are too large for it."""
    gate = Gate("candidate.slices.all(a, candidate.slices.all(b, a.dataset == b.dataset))")
    few = [{"dataset": {"name": f"d{n}"}, "metrics": {"auc": 1.0}} for n in range(2)]
    assert gate.holds({"candidate.slices": few}) is False
    with pytest.raises(GateError, match="steps"):
        gate.holds({"candidate.slices": MADE})


@pytest.mark.parametrize(
    ("pattern", "size"),
    [("abc", 4), ("x{10}", 12), ("(x{10}){10}", 133), ("a{3}b{4}", 10), ("(a|b){2}", 13), (r"\{5\}x", 7)],
)
def test_the_size_of_a_pattern(pattern: str, size: int) -> None:
    assert pattern_size(pattern) == size


@pytest.mark.parametrize("pattern", ["(x{100}){100}", "x{999}" * 20, r"(\pL{50}){10}", r"\Qx\E"])
def test_patterns_of_fields_are_bounded_too(pattern: str) -> None:
    with pytest.raises((TooCostly, GateError)):
        pattern_size(pattern)
    with pytest.raises(GateError):
        check_pattern(pattern)


def test_ordinary_patterns_of_fields() -> None:
    for pattern in (
        "CHG[0-9]{7}",
        "[A-Z]{2,10}-[0-9]{1,8}",
        r"https://[a-z.]{1,99}/\S*",
        r"(?i)\bINC\d{8}\b",
        ".{20,}",
    ):
        check_pattern(pattern)
