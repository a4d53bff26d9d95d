"""Policy documents: mistakes are named with line and field; the shipped ones are good."""

import json
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256

import pytest
import yaml
from tests.unit.approval.conftest import asked

from approval.matching import requirements
from approval.policy import PolicyError, parse
from approval.revisions import shipped
from contracts.approval import PolicyRef
from contracts.lifecycle import Stage, TransitionKind

GOOD = """\
apiVersion: registry.dev/v1
kind: PromotionPolicy
metadata:
  name: strict
  owner: group:risk
spec:
  match:
    transition: {from: Staging, to: Production}
    when: 'model.name.startsWith("fraud")'
  request:
    expires_after: 24h
  gates:
    - id: accuracy
      cel: 'candidate.metrics.accuracy >= 0.9'
      message: too low
      level: warn
  approvals:
    rules:
      - id: review
        meaning: I reviewed it
        from: ['group:reviewers']
        count: 2
    separation_of_duties:
      exclude: [requester, version.author]
"""


def test_a_good_one() -> None:
    policy = parse(GOOD)
    assert policy.name == "strict"
    assert policy.expires_after == timedelta(hours=24)
    assert [(r.id, r.groups, r.count) for r in policy.rules] == [("strict/review", frozenset({"reviewers"}), 2)]


def test_anybody_can_compute_the_digest() -> None:
    canonical = json.dumps(yaml.safe_load(GOOD), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert parse(GOOD).digest == f"sha256:{sha256(canonical.encode()).hexdigest()}"
    assert parse("# a comment\n" + GOOD).digest == parse(GOOD).digest
    assert parse(GOOD.replace("0.9", "0.91")).digest != parse(GOOD).digest


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "message"),
    [
        ("0.9'", "1'", 14, "spec.gates.0.cel", "write 1.0, not 1"),
        ("metrics.accuracy", "metric.accuracy", 14, "spec.gates.0.cel", "undeclared reference"),
        ("model.name", "baseline.metrics.a > 0.1 && model.name", 9, "spec.match.when", "may not look at 'baseline'"),
        ("count: 2", "count: '2'", 22, "spec.approvals.rules.0.count", "valid integer"),
        ("count: 2", "count: 0", 22, "spec.approvals.rules.0.count", "greater than or equal to 1"),
        ("count: 2", "cuont: 2", 22, "spec.approvals.rules.0.cuont", "unknown field"),
        ("count: 2", "count: 2\n        count: 3", 23, "spec.approvals.rules.0", "'count' is given twice"),
        (
            "count: 2",
            "count: 2\n      - {id: review, meaning: x, from: ['group:a']}",
            18,
            "spec.approvals.rules",
            "differ",
        ),
        ("24h", "3 days", 11, "spec.request.expires_after", "pattern"),
        ("24h", "0h", 11, "spec.request.expires_after", "pattern"),
        ("[requester, version.author]", "[requester]", 24, "separation_of_duties.exclude", "four eyes"),
        ("[requester, version.author]", "[]", 24, "separation_of_duties.exclude", "four eyes"),
        ("to: Production", "to: in production", 8, "spec.match.transition.to", "should match"),
        ("kind: PromotionPolicy\n", "", 1, "kind", "missing"),
        ("name: strict", "name: 2026-01-01", 4, "metadata.name", "in quotes"),
        ("name: strict", "name: yes", 4, "metadata.name", "valid string"),
        ("name: strict", "name: a/b", 4, "metadata.name", "pattern"),
        ("'group:reviewers'", "reviewers", 21, "spec.approvals.rules.0.from.0", "pattern"),
        ("['group:reviewers']", "[]", 21, "spec.approvals.rules.0.from", "at least 1"),
        ("level: warn", "level: .nan", 16, "spec.gates.0.level", "in quotes"),
        ("id: accuracy", "id: !!python/name:os.system x", 13, "", "not YAML"),
        ("gates:", "gates: &g", 1, "", ""),
        ("  gates:", "  escalation: []\n  gates:", 12, "spec.escalation", "unknown field"),
    ],
)
def test_mistakes(old: str, new: str, line: int, field: str, message: str) -> None:
    text = GOOD.replace(old, new, 1)
    if not message:
        parse(text)  # an anchor that nobody uses does no harm
        return
    with pytest.raises(PolicyError) as error:
        parse(text)
    mistake = error.value.mistakes[0]
    assert (mistake.line, message in mistake.message) == (line, True), str(error.value)
    assert mistake.field.endswith(field)


def test_every_mistake_is_named() -> None:
    with pytest.raises(PolicyError) as error:
        parse(GOOD.replace("count: 2", "count: 0").replace("level: warn", "level: maybe").replace("24h", "x"))
    assert [m.line for m in error.value.mistakes] == [11, 16, 22]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "text", "[" * 5000, "- " * 3000, "a: b: c", "\x00", "a: 1\n---\nb: 2", "? [1]\n: 2", "1: 2",
     "a: &x [1]\nb: *x", "!tag {}", 'kind: "\\ud800"', "x" * 20_000, "a: .inf", "a: !!binary aGk=", "a: 1e400"],
)  # fmt: skip
def test_no_policy_at_all(text: str) -> None:
    with pytest.raises(PolicyError):
        parse(text)


def chosen(*texts: str, variables: Mapping[str, object] | None = None, **changes: object) -> tuple[list[str], bool]:
    policies = [parse(text) for text in texts]
    current = [(PolicyRef(name=p.name, revision=1, digest=p.digest), p) for p in policies]
    needed = requirements(current, asked(**changes), variables or {"model.name": "fraud", "candidate.stages": []})
    return [p.name for p in needed.policies], needed.passed


def policy(name: str, match: str, rest: str = "") -> str:
    return f"kind: PromotionPolicy\nmetadata: {{name: {name}}}\nspec:\n  match: {match}\n{rest}"


def test_every_match_applies() -> None:
    to = policy("to", "{transition: {to: Production}}")
    other = policy("other", "{transition: {to: Staging}}")
    named = policy("named", "{transition: {from: Staging}, when: 'model.name == \"fraud\"'}")
    unnamed = policy("unnamed", "{transition: {}, when: 'model.name == \"churn\"'}")
    assert chosen(to, other, named, unnamed) == (["to", "named"], True)
    assert chosen(other, unnamed) == ([], False)


def test_a_rollback_is_matched_by_name_only() -> None:
    texts = (policy("to", "{transition: {to: Production}}"), policy("back", "{transition: {kind: rollback}}"))
    assert chosen(*texts, kind=TransitionKind.ROLLBACK) == (["back"], True)
    assert chosen(policy("any", "{transition: {kind: any}}"), kind=TransitionKind.ROLLBACK) == (["any"], True)


def test_a_policy_in_doubt_applies_but_lets_nothing_through() -> None:
    doubtful = policy("doubtful", "{transition: {to: Production}, when: 'model.tags.risk == \"high\"'}")
    assert chosen(doubtful) == ([], False)
    assert chosen(policy("to", "{transition: {to: Production}}"), doubtful) == (["to", "doubtful"], True)


def test_a_warning_does_not_block() -> None:
    gate = "  gates: [{id: g, cel: 'false', level: %s}]"
    match = "{transition: {to: Production}}"
    assert chosen(policy("p", match, gate % "warn")) == (["p"], True)
    assert chosen(policy("p", match, gate % "block")) == (["p"], False)


def test_the_shipped_policies() -> None:
    texts = [p.text for p in shipped()]
    seen: dict[str, object] = {
        "candidate.metrics": {"accuracy": 0.95},
        "candidate.stages": ["Staging"],
        "request.to": "Production",
    }
    assert chosen(*texts, variables=seen) == (["production"], True)
    assert chosen(*texts, variables={**seen, "candidate.metrics": {}}) == (["production"], False)
    assert chosen(*texts, variables=seen, to_stage=Stage.STAGING) == (["staging"], True)
    assert chosen(*texts, variables=seen, kind=TransitionKind.ROLLBACK) == (["rollback"], False)
    there = {**seen, "candidate.stages": ["Production", "Staging"]}
    assert chosen(*texts, variables=there, kind=TransitionKind.ROLLBACK) == (["rollback"], True)
    assert chosen(*texts, variables=there, to_stage=Stage.ARCHIVED) == ([], False)
    production = next(p for p in shipped() if p.name == "production")
    assert [(r.groups, r.count) for r in production.rules] == [(frozenset({"reviewers"}), 1)]
