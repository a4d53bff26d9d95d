"""Policy documents: everything that may be said, and mistakes named with line and field."""

import json
from datetime import timedelta
from hashlib import sha256

import pytest
import yaml
from tests.unit.policy.conftest import document

from contracts.canonical import canonical_json
from policy.document import parse, timeout
from policy.reader import PolicyError, Reader

# The worked policy of the design (B3), in full but for two lines. `rollout` is another part's. And the design has
# `freezes: [calendar:year-end]`: nobody can define such a calendar, so the days are written out.
WORKED = """\
apiVersion: registry.dev/v1
kind: PromotionPolicy
metadata:
  name: prod-high-risk
  owner: group:model-risk
spec:
  match:
    transition: {to: Production}
    when: 'model.tags.risk == "high" && !model.name.startsWith("sandbox/")'

  request:
    reason: {required: true, min_length: 20}
    fields:
      change_ticket: {required: true, pattern: '^CHG[0-9]{7}$'}
      rollback_to:   {required: true, type: model_version}
    expires_after: 72h
    binds: [version.digest, policy.digest, gates.inputs_digest]
    on_bound_change: void_approvals

  gates:
    - id: auc-no-regression
      cel: 'candidate.metrics.auc >= baseline.metrics.auc - 0.002'
      message: 'AUC dropped more than 0.002 against the current Production version'
    - id: latency-budget
      cel: 'candidate.metrics.latency_p95_ms <= baseline.metrics.latency_p95_ms * 1.10'
      waivable_by: [group:serving-leads]
    - id: enough-eval-data
      cel: 'candidate.metrics.eval_rows >= 10000.0'
    - id: no-weak-slice
      cel: 'candidate.slices.all(s, s.metrics.auc >= 0.85)'
      waivable_by: [group:model-risk]
    - id: eval-is-fresh
      cel: 'now - candidate.evaluated_at < duration("168h")'
    - id: provenance-signed
      cel: 'candidate.attestations.exists(a, a.type == "slsa-provenance" && a.verified)'
      never_skip: true
    - id: model-card-present
      cel: 'has(candidate.evidence.model_card)'
      level: warn
  gate_defaults: {on_error: fail, on_no_baseline: inconclusive, level: block, timeout: 500ms}

  approvals:
    rules:
      - id: technical
        meaning: 'I reviewed the evaluation and the rollback plan'
        from: [group:fraud-owners]
        count: 1
      - id: risk
        meaning: 'I accept the residual model risk for this use'
        from: [group:model-risk]
        count: 2
        when: 'request.change_class != "standard"'
    separation_of_duties:
      exclude: [requester, version.author, version.committers, policy.last_editor]
      one_person_counts_for: one_rule
    deny: {count: 1, from: [group:fraud-owners, group:model-risk], effect: close}
    signature: {reauthenticate_within: 5m, methods: [webauthn, oidc_step_up]}
    delegation: {allowed: true, max: 14d, depth: 1}
    withdraw_until: executed

  schedule:
    windows: [{tz: Europe/Berlin, days: Mon-Thu, from: '09:00', to: '16:00'}]
    freezes: [{name: year-end, tz: Europe/Berlin, from: '2026-12-20', to: '2027-01-06'}]
    min_wait: 30m

  escalation:
    - {after: 4h,  business_hours: true, do: remind}
    - {after: 24h, do: notify, to: [group:fraud-leads]}
    - {after: 48h, do: add_approvers, rule: risk, to: [group:model-risk-leads]}

  validity: {reapprove_every: 180d, on_lapse: alert}

  break_glass:
    allowed: [group:ml-oncall]
    skips: [approvals, schedule, gates]
    reason: {required: true}
    reauthenticate: true
    page: [service:ml-oncall, group:model-risk]
    grants_for: 4h
    review: {from: [group:model-risk], count: 2, within: 2 business days, on_overdue: [page, freeze_model]}
"""
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


def mistakes(text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(PolicyError) as error:
        parse(text)
    return [(m.line, m.field, m.message) for m in error.value.mistakes]


def test_the_worked_policy_of_the_design() -> None:
    policy = parse(WORKED)
    spec = policy.spec
    assert policy.name == "prod-high-risk"
    assert policy.document.metadata.owner == "group:model-risk"
    assert [gate.id for gate in spec.gates][-1] == "model-card-present"
    assert spec.request.fields["rollback_to"].type == "model_version"
    assert spec.approvals.rules[1].count == 2
    assert spec.approvals.deny.groups == ("group:fraud-owners", "group:model-risk")
    assert spec.approvals.signature.methods == ("webauthn", "oidc_step_up")
    assert spec.escalation[2].rule == "risk"
    assert spec.break_glass is not None
    assert spec.break_glass.review.within == "2 business days"
    assert spec.validity is not None
    assert timeout(spec.gate_defaults.timeout) == timedelta(milliseconds=500)


def test_nothing_said_in_the_worked_policy_is_lost() -> None:
    """What is dumped again holds everything that was written."""
    written = yaml.safe_load(WORKED)
    read = parse(WORKED).document.model_dump(mode="json", by_alias=True)

    def lost(given: object, known: object, path: str = "") -> list[str]:
        if isinstance(given, dict) and isinstance(known, dict):
            return [place for name in given for place in lost(given[name], known.get(name, lost), f"{path}.{name}")]
        if isinstance(given, list) and isinstance(known, list):
            pairs = zip(given, known, strict=True)
            return [place for n, (a, b) in enumerate(pairs) for place in lost(a, b, f"{path}.{n}")]
        return [] if given == known else [path]

    assert lost(written, read) == []


def test_anybody_can_compute_the_digest() -> None:
    canonical = json.dumps(yaml.safe_load(GOOD), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert parse(GOOD).digest == f"sha256:{sha256(canonical.encode()).hexdigest()}"
    assert parse("# a comment\n" + GOOD).digest == parse(GOOD).digest
    assert parse(GOOD.replace("0.9", "0.91")).digest != parse(GOOD).digest
    assert canonical_json(yaml.safe_load(GOOD)) == canonical.encode()


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "message"),
    [
        ("0.9'", "1'", 14, "spec.gates.0.cel", "write 1.0, not 1"),
        ("metrics.accuracy", "metric.accuracy", 14, "spec.gates.0.cel", "undeclared reference"),
        ("model.name", "baseline.metrics.a > 0.1 && model.name", 9, "spec.match.when", "may not look at 'baseline'"),
        ("count: 2", "count: '2'", 22, "spec.approvals.rules.0.count", "valid integer"),
        ("count: 2", "count: 0", 22, "spec.approvals.rules.0.count", "greater than or equal to 1"),
        ("count: 2", "cuont: 2", 22, "spec.approvals.rules.0.cuont", "unknown field"),
        ("count: 2", "when: 'baseline.version > 1'", 22, "spec.approvals.rules.0.when", "may not look at 'baseline'"),
        ("count: 2", "count: 2\n        count: 3", 23, "spec.approvals.rules.0", "'count' is given twice"),
        (
            "count: 2",
            "count: 2\n      - {id: review, meaning: x, from: ['group:a']}",
            18,
            "spec.approvals.rules",
            "ids must differ: review",
        ),
        ("24h", "3 days", 11, "spec.request.expires_after", "pattern"),
        ("24h", "0h", 11, "spec.request.expires_after", "pattern"),
        ("[requester, version.author]", "[requester]", 24, "separation_of_duties.exclude", "four eyes"),
        ("[requester, version.author]", "[]", 24, "separation_of_duties.exclude", "four eyes"),
        ("to: Production", "to: in production", 8, "spec.match.transition.to", "should match"),
        ("kind: PromotionPolicy\n", "", 1, "kind", "missing"),
        ("kind: PromotionPolicy", "kind: Other", 2, "kind", "PromotionPolicy"),
        ("registry.dev/v1", "registry.dev/v2", 1, "apiVersion", "registry.dev/v1"),
        ("name: strict", "name: 2026-01-01", 4, "metadata.name", "in quotes"),
        ("name: strict", "name: 0.5", 4, "metadata.name", "in quotes"),
        ("name: strict", "name: yes", 4, "metadata.name", "valid string"),
        ("name: strict", "name: a/b", 4, "metadata.name", "pattern"),
        ("'group:reviewers'", "reviewers", 21, "spec.approvals.rules.0.from.0", "pattern"),
        ("['group:reviewers']", "[]", 21, "spec.approvals.rules.0.from", "at least 1"),
        ("level: warn", "level: .nan", 16, "spec.gates.0.level", "in quotes"),
        ("level: warn", "never_skip: true\n      level: warn", 13, "spec.gates.0", "must block"),
        ("level: warn", "never_skip: true\n      waivable_by: ['group:a']", 13, "spec.gates.0", "cannot be waived"),
        ("level: warn", "never_skip: true\n      asks: ['group:a']", 13, "spec.gates.0", "cannot be waived"),
        ("level: warn", "attestation: {type: scan, from: ['group:ci']}", 13, "spec.gates.0", "exactly one of"),
        ("cel: 'candidate.metrics.accuracy >= 0.9'", "on_error: fail", 13, "spec.gates.0", "exactly one of"),
        ("level: warn", "timeout: 500us", 16, "spec.gates.0.timeout", "pattern"),
        ("level: warn", "timeout: 500ms", 13, "spec.gates.0", "timeout is for webhooks and attestations"),
        ("id: accuracy", "id: when", 13, "spec.gates.0.id", "the policy's own condition"),
        ("name: strict", "name: registry", 4, "metadata.name", "choose another name"),
        ("count: 2", "count: 010", 22, "spec.approvals.rules.0.count", "plain number"),
        ("count: 2", "count: 0x2", 22, "spec.approvals.rules.0.count", "plain number"),
        ("count: 2", "count: 0b11", 22, "spec.approvals.rules.0.count", "plain number"),
        ("count: 2", "count: 1_0", 22, "spec.approvals.rules.0.count", "plain number"),
        ("count: 2", "count: +2", 22, "spec.approvals.rules.0.count", "plain number"),
        ("count: 2", "count: 1:30", 22, "spec.approvals.rules.0.count", "plain number"),
        ("too low", "too\x07low", 15, "", "U+0007"),
        ("too low", "too \u202elow", 15, "", "U+202E"),
        ("too low", '"too \\u202elow"', 15, "spec.gates.0.message", "U+202E"),
        ("too low", '"too \\x1blow"', 15, "spec.gates.0.message", "U+001B"),
        ("too low", "too low # \u2066", 15, "", "U+2066"),
        ("message", '"mess\\u200eage"', 15, "spec.gates.0", "U+200E"),
        (
            "  gates:",
            "  schedule: {freezes: [calendar:year-end]}\n  gates:",
            12,
            "spec.schedule.freezes.0",
            "{name: year-end, tz: Europe/Berlin, from: '2026-12-20', to: '2027-01-06'}",
        ),
        ("id: accuracy", "id: !!python/name:os.system x", 13, "", "not YAML"),
        (
            "expires_after: 24h",
            "fields: {t: {pattern: '('}}",
            11,
            "spec.request.fields.t.pattern",
            "missing ): ^(?:()$",
        ),
        ("expires_after: 24h", "fields: {t: {pattern: 'a)|(b'}}", 11, "spec.request.fields.t.pattern", "unexpected )"),
        ("expires_after: 24h", "binds: [version.digest]", 11, "spec.request.binds", "votes always bind to"),
        ("  gates:", "  escalation: [{after: 1h, do: notify}]\n  gates:", 12, "spec.escalation.0", "notify needs 'to'"),
        (
            "  gates:",
            "  escalation: [{after: 1h, do: add_approvers, rule: none, to: ['group:a']}]\n  gates:",
            12,
            "spec.escalation.0.rule",
            "there is no rule none",
        ),
        (
            "  gates:",
            "  escalation: [{after: 1h, do: add_approvers, to: ['group:a']}]\n  gates:",
            12,
            "spec.escalation.0",
            "needs 'rule'",
        ),
        (
            "  gates:",
            "  escalation: [{after: 1h, do: add_approvers, rule: review, to: ['user:x']}]\n  gates:",
            12,
            "spec.escalation.0",
            "only groups",
        ),
        ("  gates:", "  rollout: {}\n  gates:", 12, "spec.rollout", "unknown field"),
        (
            "  gates:",
            "  schedule: {windows: [{tz: Europe/Berlin, from: '09:00', to: 16:00}]}\n  gates:",
            12,
            "spec.schedule.windows.0.to",
            "in quotes",
        ),
        (
            "  gates:",
            "  break_glass: {allowed: ['group:a'], page: ['group:b']}\n  gates:",
            12,
            "spec.break_glass.review",
            "missing",
        ),
    ],
)
def test_mistakes(old: str, new: str, line: int, field: str, message: str) -> None:
    assert old in GOOD
    found = mistakes(GOOD.replace(old, new, 1))
    assert found[0][0] == line, found
    assert found[0][1].endswith(field)
    assert message.removesuffix(": ^(?:()$") in found[0][2]


def test_an_anchor_that_nobody_uses_does_no_harm() -> None:
    parse(GOOD.replace("gates:", "gates: &g", 1))


def test_lines_may_end_as_on_windows() -> None:
    assert parse(GOOD.replace("\n", "\r\n")).digest == parse(GOOD).digest


UNSURE = {"id": "unsure", "cel": "candidate.metrics.auc >= baseline.metrics.auc"}
HOPES = {"id": "hopes", "cel": "candidate.metrics.auc > 0.5", "on_error": "inconclusive"}


@pytest.mark.parametrize("gate", [UNSURE, HOPES], ids=["no baseline", "an error"])
def test_somebody_is_asked_about_what_is_inconclusive(gate: dict[str, object]) -> None:
    ((line, field, message),) = mistakes(document("p", gates=[{"id": "a", "cel": "true"}, gate]))
    assert (line, field) == (1, "spec.gates.1")
    assert message.endswith("nobody is asked then: name them in 'asks', or have a rule")
    rules = {"rules": [{"id": "r", "meaning": "m", "from": ["group:a"]}]}
    parse(document("p", gates=[gate], approvals=rules))
    parse(document("p", gates=[gate], gate_defaults={"asks": ["group:a"]}))
    for more in ({"asks": ["group:a"]}, {"waivable_by": ["group:a"]}, {"level": "warn"}, {"never_skip": True}):
        parse(document("p", gates=[{**gate, **more}]))
    parse(document("p", gates=[{**gate, "on_no_baseline": "pass", "on_error": "fail"}]))


def test_every_mistake_is_named() -> None:
    text = GOOD.replace("count: 2", "count: 0").replace("level: warn", "level: maybe").replace("24h", "x")
    assert [line for line, _, _ in mistakes(text)] == [11, 16, 22]


@pytest.mark.parametrize(
    ("old", "new", "line", "field"),
    [
        ("expires_after: 24h", "binds: [foo]", 11, "spec.request.binds"),
        ("expires_after: 24h", "binds: 3", 11, "spec.request.binds"),
        ("['group:reviewers']", "[reviewers, risk]", 21, "spec.approvals.rules.0.from.0"),
        ("['group:reviewers']", "[]", 21, "spec.approvals.rules.0.from"),
        ("    transition: {from: Staging, to: Production}\n", "", 7, "spec.match.transition"),
    ],
)
def test_a_mistake_names_a_field_of_the_document_and_is_told_once(old: str, new: str, line: int, field: str) -> None:
    told = mistakes(GOOD.replace(old, new, 1))
    assert (line, field) == told[0][:2]
    fields = [field for _, field, _ in told]
    assert len(fields) == len({*fields})
    assert ("not 0" in told[-1][2]) == (new == "[]")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("gates", [{"id": "g", "cel": "true"}]),
        ("request", {"fields": {"ticket": {"required": True}}}),
        ("request", {"evidence": ["model_card"]}),
        ("unsafe_artifact", {"waivable_by": ["group:a"]}),
        ("validity", {"reapprove_every": "90d"}),
        ("break_glass", {"allowed": ["group:a"], "page": ["group:a"], "review": {"from": ["group:a"]}}),
    ],
)
def test_a_policy_about_policies_asks_nothing_that_a_policy_cannot_have(part: str, value: object) -> None:
    """Else nobody could ever change a policy again."""
    about = {"transition": {"kind": "policy"}}
    parse(document("changes", about))
    ((_, field, message),) = mistakes(document("changes", about, **{part: value}))
    assert field == ".".join(["spec", part, *(value if part == "request" and isinstance(value, dict) else ())])
    assert message == "a policy about policies cannot have it"


@pytest.mark.parametrize("match", [{"when": "true"}, {"tags": {"a": "b"}}])
def test_a_policy_about_policies_is_matched_by_name_only(match: dict[str, object]) -> None:
    ((_, field, message),) = mistakes(document("changes", {"transition": {"kind": "policy"}, **match}))
    assert (field, message) == (f"spec.match.{next(iter(match))}", "a policy about policies cannot have it")


def test_what_a_policy_about_policies_cannot_have_is_named_where_it_stands() -> None:
    text = GOOD.replace("{from: Staging, to: Production}", "{kind: policy}")
    assert [(line, field) for line, field, _ in mistakes(text)] == [(9, "spec.match.when"), (12, "spec.gates")]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "text", "[" * 5000, "- " * 3000, "a: b: c", "\x00", "a: 1\n---\nb: 2", "? [1]\n: 2", "1: 2",
     "a: &x [1]\nb: *x", "!tag {}", 'kind: "\\ud800"', "x" * 20_000, "a: .inf", "a: !!binary aGk=", "a: 1e400",
     "{a: 1, b: " * 30, "a: !!int x", "a: !!timestamp x", "a: !!bool x", "a: !!int ''", "a: !!float x",
     "!!bool x: 1", "a: !!null [1]", "a: !!map 1", "a: !!seq {}", "a: !!str [1]"],
)  # fmt: skip
def test_no_policy_at_all(text: str) -> None:
    with pytest.raises(PolicyError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.95", 0.95), ("-1.5", -1.5), ("1.0e-3", 0.001), ("12", 12), ("1e5", "1e5"), ("'0.5'", "0.5")],
)
def test_numbers_where_they_are_wanted(text: str, value: object) -> None:
    assert Reader(numbers=True).read(f"a: {text}")[0] == {"a": value}


@pytest.mark.parametrize("text", [".nan", ".inf", "-.inf", "1_000.5", "190:20:30.15", "1.", "2026-01-01"])
def test_numbers_that_are_none(text: str) -> None:
    with pytest.raises(PolicyError, match="in quotes"):
        Reader(numbers=True).read(f"a: {text}")
