"""Unit tests of policies: what a file may say, what a failure tells, and the example of the documentation."""

import re
from pathlib import Path

import pytest
from tests.unit.policy.conftest import REVIEW, RISK, asks, document

from policy import trials
from policy.trials import TrialResult, run, run_text

PRODUCTION = document(
    "production",
    gates=[
        {
            "id": "accuracy",
            "cel": "candidate.metrics.accuracy >= 0.9",
            "message": "too low",
            "waivable_by": ["group:leads"],
        },
        {
            "id": "no-regression",
            "cel": "candidate.metrics.accuracy >= baseline.metrics.accuracy - 0.01",
            "on_no_baseline": "pass",
        },
    ],
    **asks(REVIEW),
)
ROLLBACK = document("rollback", {"transition": {"kind": "rollback"}})


def tried(cases: str, *policies: str, given: str = "") -> list[TrialResult]:
    known = {f"{n}.yaml": text for n, text in enumerate(policies or (PRODUCTION,))}
    indented = "\n".join(f"  {line}" for line in cases.strip("\n").splitlines())
    text = f"policies: [{', '.join(known)}]\n{given}cases:\n{indented}\n"
    return run_text("x.test.yaml", text, known.__getitem__)


def one(case: str, *policies: str, given: str = "") -> TrialResult:
    """A case, as lines of a mapping."""
    lines = case.strip("\n").splitlines()
    (found,) = tried("\n".join(["- name: it", *(f"  {line}" for line in lines)]), *policies, given=given)
    return found


def passes(case: str, *policies: str, given: str = "") -> None:
    found = one(case, *policies, given=given)
    assert found.ok, found.text


# -- the documentation --------------------------------------------------------------------------------------------


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    assert trials.__doc__ is not None
    (example,) = re.findall(r"```yaml\n(.*?)```", trials.__doc__, re.DOTALL)
    (tmp_path / "policies").mkdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "policies/production.yaml").write_text(PRODUCTION)
    (tmp_path / "shared/rollback.yaml").write_text(ROLLBACK)
    (tmp_path / "policies/production.test.yaml").write_text(example)
    found = run(tmp_path)
    assert [(result.file, result.ok) for result in found] == [("policies/production.test.yaml", True)] * 3, found
    assert [result.line for result in found] == [5, 9, 14]
    numbers = "candidate.metrics.accuracy = 0.9, baseline.metrics.accuracy = 0.94"
    assert [result.text.splitlines()[0] for result in found] == [
        "approved: approved by ben",
        "waiting (people): production/review: 0 of 1",
        f"rejected: gates failed: production/no-regression: fail, {numbers}",
    ]


# -- what a case may say ------------------------------------------------------------------------------------------

GOOD = "candidate: {metrics: {accuracy: 0.95}}\n"
LOW = "candidate: {metrics: {accuracy: 0.5}}\n"
BEN = "votes: [{by: ben, groups: [reviewers]}]\n"


@pytest.mark.parametrize(
    "case",
    [
        GOOD + BEN + "expect: {verdict: approved, phase: decided, gates: {accuracy: pass}, policies: [production]}",
        GOOD + "expect: {verdict: waiting, phase: people, reason: '^production/review: 0 of 1$'}",
        LOW + BEN + "expect: {phase: gates, gates: {production/accuracy: fail}}",
        BEN + "expect: {verdict: rejected, gates: {production/accuracy: error, no-regression: error}}",
        GOOD + "request: {to: Staging}\nexpect: {verdict: rejected, policies: [], reason: no policy allows}",
        GOOD + "request: {kind: rollback, from: Archived}\nexpect: {verdict: approved, policies: [rollback]}",
        GOOD + "baseline: {metrics: {accuracy: 0.99}}\nexpect: {verdict: rejected, gates: {no-regression: fail}}",
        GOOD + "baseline: null\nexpect: {gates: {no-regression: pass}}",
        LOW
        + (BEN + "waivers: [{gate: accuracy, by: lea, groups: [leads]}]\n")
        + "expect: {gates: {accuracy: waived}, verdict: approved}",
        GOOD + "votes: [{by: author, groups: [reviewers], refused: own-version}]\nexpect: {verdict: waiting}",
        GOOD
        + "votes: [{by: bot, groups: [reviewers], person: false, refused: service-account}]\nexpect: {phase: people}",
        GOOD
        + "votes: [{by: ben, groups: [reviewers], choice: reject, comment: no}]\nexpect: {reason: 'ben rejected: no'}",
        GOOD + "votes: [{by: ben, groups: [reviewers], choice: reject, comment: '', refused: comment-required}]\n"
        "expect: {verdict: waiting}",
        GOOD + "votes: [{by: ben, groups: [reviewers], choice: reject}, {by: bo, groups: [reviewers]}]\n"
        "expect: {verdict: rejected}",
        GOOD + BEN + "frozen: true\nexpect: {phase: frozen}",
        "candidate: {metrics: {accuracy: 1}}\nexpect: {gates: {accuracy: pass}}",
        "candidate: {metrics: {accuracy: 0.95}, unsafe: true}\nexpect: {gates: {registry/unsafe-artifact: fail}}",
    ],
)
def test_cases(case: str) -> None:
    passes(case.replace("comment: no}", "comment: 'no'}"), PRODUCTION, ROLLBACK)


ASKED = "expect: {phase: people}"
EVERYTHING = document(
    "p",
    {"transition": {}, "tags": {"risk": "high"}},
    request={
        "fields": {"ticket": {"required": True}},
        "evidence": ["card"],
        "reason": {"required": True, "min_length": 40},
    },
    gates=[
        {"id": "hook", "webhook": {"url": "https://checks.example.org/x", "secret": "checks"}},
        {"id": "scan", "attestation": {"type": "scan", "from": ["group:ci"]}},
        {"id": "slices", "cel": "candidate.slices.size() == 2 && candidate.slices.all(s, s.metrics.auc > 0.8)"},
        {"id": "fresh", "cel": "now - candidate.evaluated_at < duration('24h')"},
        {"id": "card", "cel": "has(candidate.evidence.card) && has(candidate.evidence.scan)", "level": "warn"},
        {"id": "class", "cel": "request.change_class == 'standard'"},
        {"id": "size", "cel": "candidate.artifact.size == 5 && candidate.parameters.depth == 3"},
        {"id": "stages", "cel": "'Archived' in candidate.stages", "level": "warn"},
    ],
    **asks(
        REVIEW,
        delegation={"allowed": True},
        signature={"reauthenticate_within": "5m", "methods": ["otp"]},
        separation_of_duties={"exclude": ["requester", "version.author", "version.committers", "policy.last_editor"]},
        valid_for="2h",
    ),
    schedule={"windows": [{"tz": "UTC", "from": "11:00", "to": "13:00"}], "min_wait": "2h"},
    break_glass={"allowed": ["group:oncall"], "skips": ["approvals", "schedule"], "page": ["group:risk"],
                 "review": {"from": ["group:risk"]}},
)  # fmt: skip
GIVEN = """\
given:
  request: {fields: {ticket: CHG1, change_class: standard}, policy_editors: [eve]}
  model: {tags: {risk: high}}
  candidate:
    evaluations: [{dataset: a, metrics: {auc: 0.9}}, {dataset: b, metrics: {auc: 1}}]
    evidence: [card]
    attestations: [{type: scan, groups: [ci]}]
    artifact: {size: 5}
    parameters: {depth: 3}
    lineage: {committers: [carl@example.org]}
  answers: {hook: pass}
"""


@pytest.mark.parametrize(
    "case",
    [
        BEN + "expect: {verdict: approved, gates: {stages: fail}}",
        "candidate: {stages: [Staging, Archived]}\nexpect: {gates: {p/stages: pass}, phase: people}",
        BEN + "opened_at: '2026-01-14T11:00:00Z'\nexpect: {phase: schedule}",
        BEN + "at: '2026-01-14T14:00:00Z'\nexpect: {phase: schedule, reason: '2026-01-15T11:00'}",
        "votes: [{by: ben, groups: [reviewers], at: '2026-01-14T09:59:59Z'}]\nexpect: {phase: people}",
        "votes: [{by: ben, groups: [reviewers], at: '2026-01-14T10:00:00Z'}]\nexpect: {verdict: approved}",
        "votes: [{by: ben, groups: [reviewers], signed_in: 6m, refused: authentication-too-old}]\n" + ASKED,
        "votes: [{by: ben, groups: [reviewers], method: pwd, refused: authentication-too-weak}]\n" + ASKED,
        "votes: [{by: x, email: Carl@Example.org, groups: [reviewers], refused: own-commits}]\nexpect: {phase: people}",
        "votes: [{by: eve, groups: [reviewers], refused: own-policy}]\nexpect: {phase: people}",
        "votes: [{by: ben, on_behalf_of: rita, groups: [reviewers]}]\nexpect: {verdict: approved}",
        "votes: [{by: ben, groups: [reviewers], rule: p/none, refused: not-an-approver}]\nexpect: {phase: people}",
        "request: {fields: {ticket: ''}}\nexpect: {verdict: rejected, reason: ticket is missing}",
        "request: {reason: short}\nexpect: {verdict: rejected, reason: at least 40}",
        "candidate: {evidence: []}\nexpect: {phase: gates, reason: 'evidence is missing: card'}",
        "candidate: {attestations: [{type: scan, groups: [ci], result: fail}]}\nexpect: {gates: {scan: fail}}",
        "candidate: {attestations: [{type: scan, groups: [others]}]}\nexpect: {gates: {scan: pending}}",
        "answers: {hook: fail}\nexpect: {verdict: rejected, gates: {hook: fail}}",
        "break_glass: {by: olga, groups: [oncall]}\nexpect: {verdict: approved, reason: '^emergency: olga'}",
        "break_glass: {by: olga, groups: [others], refused: not-entitled}\nexpect: {phase: people}",
        "model: {tags: {risk: low}}\nexpect: {policies: []}",
    ],
)
def test_everything_that_a_case_may_say(case: str) -> None:
    passes(case, EVERYTHING, given=GIVEN)


def test_a_change_of_policy() -> None:
    text = document("changes", {"transition": {"kind": "policy"}, "models": ["prod*"]}, **asks(REVIEW))
    passes("request: {kind: policy}\nmodel: {name: production}\n" + BEN + "expect: {verdict: approved}", text)
    passes("request: {kind: policy}\nmodel: {name: staging}\nexpect: {verdict: rejected}", text)


def test_an_alias() -> None:
    text = document("p", {"transition": {"kind": "alias", "to": "@champion"}})
    passes("request: {kind: alias, to: '@champion'}\nexpect: {verdict: approved}", text)


TIMED = document(
    "p",
    **asks(REVIEW),
    request={"expires_after": "4h"},
    escalation=[
        {"after": "1h", "do": "remind"},
        {"after": "2h", "do": "add_approvers", "rule": "review", "to": ["group:leads"]},
    ],
)
OPENED = "opened_at: '2026-01-14T08:00:00Z'\n"


def by(who: str, group: str, at: str, refused: str = "") -> str:
    told = f", refused: {refused}" if refused else ""
    return f"votes: [{{by: {who}, groups: [{group}], at: '2026-01-14T{at}Z'{told}}}]\n"


@pytest.mark.parametrize(
    "case",
    [
        OPENED + "expect: {verdict: expired, phase: people, escalated: [remind, add_approvers]}",
        OPENED + "expect: {reason: '^not decided before 2026-01-14T12:00:00.00:00: p/review: 0 of 1'}",
        OPENED + "at: '2026-01-14T11:59:59Z'\nexpect: {verdict: waiting}",
        OPENED + "at: '2026-01-14T09:30:00Z'\nexpect: {escalated: [remind]}",
        OPENED + "at: '2026-01-14T08:30:00Z'\nexpect: {escalated: []}",
        OPENED + by("ben", "reviewers", "11:59:59") + "expect: {verdict: approved}",
        OPENED + by("ben", "reviewers", "12:00:00", "request-expired") + "expect: {verdict: expired}",
        OPENED + by("lea", "leads", "09:59:00", "not-an-approver") + "expect: {verdict: expired}",
        OPENED + by("lea", "leads", "10:00:00") + "expect: {verdict: approved}",
        # Without the time of opening, time does nothing.
        "expect: {verdict: waiting, escalated: []}",
        by("lea", "leads", "11:59:00", "not-an-approver") + "expect: {verdict: waiting}",
    ],
)
def test_what_time_does(case: str) -> None:
    passes(case, TIMED)


def test_what_a_case_says_goes_before_what_is_given() -> None:
    given = "given: {candidate: {metrics: {accuracy: 0.5, auc: 0.7}}, votes: [{by: ben, groups: [reviewers]}]}\n"
    gates = [{"id": "both", "cel": "candidate.metrics.accuracy > 0.9 && candidate.metrics.auc > 0.6"}]
    text = document("p", gates=gates, **asks(REVIEW))
    passes("candidate: {metrics: {accuracy: 0.95}}\nexpect: {verdict: approved}", text, given=given)
    passes("expect: {verdict: rejected}", text, given=given)
    passes("candidate: {metrics: {accuracy: 0.95}}\nvotes: []\nexpect: {phase: people}", text, given=given)


# -- failures -----------------------------------------------------------------------------------------------------

GATES = "production/accuracy, production/no-regression"
OWN = "own-request (requester asked for this; another person must vote)"
WAIVABLE = "production/accuracy is fail: somebody of leads may waive it"
CASE = "policies: [p.yaml]\ncases:\n  - name: a\n    expect: {phase: people}\n"
TWICE = "  - {name: a, expect: {phase: people}}\n"


@pytest.mark.parametrize(
    ("case", "lines"),
    [
        (
            GOOD + "expect: {verdict: approved}",
            ["verdict: expected approved, found waiting (people: production/review: 0 of 1)"],
        ),
        (
            GOOD + BEN + "expect: {verdict: rejected, phase: people, reason: nobody}",
            [
                "verdict: expected rejected, found approved (decided: approved by ben)",
                "phase: expected people, found decided: approved by ben",
                "reason: expected to find 'nobody' in 'approved by ben'",
            ],
        ),
        (
            "candidate: {metrics: {accuracy: 0.5}}\nexpect: {gates: {accuracy: pass, nothing: fail}}",
            [
                "gates: expected accuracy to be pass, found fail: too low; candidate.metrics.accuracy = 0.5",
                f"gates: expected nothing to be fail, found no such gate; there are {GATES}",
            ],
        ),
        (GOOD + "expect: {policies: [other]}", ["policies: expected other, found production"]),
        (
            GOOD + "votes: [{by: requester, groups: [reviewers]}]\nexpect: {verdict: waiting}",
            [f"the vote of requester is refused: {OWN}"],
        ),
        (
            GOOD + "votes: [{by: requester, groups: [reviewers], refused: own-version}]\nexpect: {verdict: waiting}",
            [
                f"the vote of requester: expected to be refused with own-version, found {OWN}",
            ],
        ),
        (
            GOOD + "votes: [{by: ben, groups: [reviewers], refused: own-request}]\nexpect: {verdict: approved}",
            ["the vote of ben: expected to be refused with own-request, found that it is taken"],
        ),
        (
            GOOD + "votes: [{by: ben, groups: [reviewers], at: '2026-02-01T00:00:00Z'}]\nexpect: {phase: settling}",
            ["the vote of ben is cast after the case is judged"],
        ),
        (
            LOW + "waivers: [{gate: accuracy, by: lea, groups: [others]}]\nexpect: {verdict: approved}",
            [
                f"verdict: expected approved, found waiting (gates: {WAIVABLE})",
                "note: the waiver of production/accuracy by lea has no effect",
            ],
        ),
        (GOOD + "answers: {hook: pass}\nexpect: {phase: people}", ["answers: there is no gate hook"]),
        (
            GOOD + "break_glass: {by: olga}\nexpect: {phase: people}",
            ["the emergency of olga is refused: no-break-glass (the policies of this request know no emergency)"],
        ),
    ],
)
def test_what_a_failure_tells(case: str, lines: list[str]) -> None:
    found = one(case)
    assert not found.ok
    assert found.text.splitlines() == lines


def test_a_gate_without_its_policy_must_be_one() -> None:
    texts = [document(name, gates=[{"id": "g", "cel": "true"}]) for name in ("a", "b")]
    assert not one("expect: {gates: {g: pass}}", *texts).ok
    passes("expect: {gates: {a/g: pass, b/g: pass}}", *texts)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "document: empty"),
        ("[]", 1, "document: "),
        ("policies: [p.yaml]\n", 1, "cases: missing"),
        ("policies: [p.yaml]\ncases: []\n", 2, "cases: Tuple should have at least 1 item"),
        ("policies: []\ncases: [{name: a, expect: {verdict: approved}}]\n", 1, "policies: Tuple should have at least"),
        ("policies: [p.yaml]\ncases:\n  - name: a\n", 3, "cases.0.expect: missing"),
        ("policies: [p.yaml]\ncases:\n  - name: a\n    expect: {}\n", 4, "cases.0.expect: say what is expected"),
        ("policies: [p.yaml]\ncases:\n  - name: a\n    expect: {gates: {}}\n", 4, "cases.0.expect: say what"),
        ("policies: [p.yaml]\ncases:\n  - name: a\n    expect: {verdict: null}\n", 4, "cases.0.expect: say what"),
        ("policies: [p.yaml]\ncases:\n  - name: a\n    expect: {reason: ''}\n", 4, "cases.0.expect.reason: String"),
        (
            "policies: [p.yaml]\ncases:\n  - name: a\n    expect: {verdict: aproved}\n",
            4,
            "cases.0.expect.verdict: Input should be 'approved', 'rejected', 'expired' or 'waiting'",
        ),
        (
            "policies: [p.yaml]\ncases:\n  - name: a\n    expect: {reason: '('}\n",
            4,
            "cases.0.expect.reason: no regular expression: missing )",
        ),
        (
            "policies: [p.yaml]\ncases:\n  - name: a\n    expect:\n      phase: people\n    votse: []\n",
            6,
            "cases.0.votse: unknown field",
        ),
        (
            "policies: [p.yaml]\ncases:\n  - name: a\n    expect: {phase: people}\n    votes:\n      - groups: [x]\n",
            6,
            "cases.0.votes.0.by: missing",
        ),
        (
            CASE + "    candidate:\n      metrics:\n        auc: high\n",
            7,
            "cases.0.candidate.metrics.auc: Input should be a valid number",
        ),
        (
            "policies: [p.yaml]\ncases:\n  - name: a\n    expect: {phase: people}\n    at: 2026-01-14\n",
            5,
            "cases.0.at: write it in quotes",
        ),
        (
            "policies: [p.yaml]\ncases:\n  - name: a\n    expect: {phase: people}\n    at: '2026-01-14T12:00:00'\n",
            5,
            "cases.0.at: Input should have timezone info",
        ),
        (
            "policies: [p.yaml]\ngiven: {candidate: {metrics: {a: .nan}}}\ncases: []\n",
            2,
            "given.candidate.metrics.a: write it in quotes",
        ),
        (
            "policies: [p.yaml]\ncases:\n" + TWICE + TWICE,
            1,
            "document: two cases are called 'a'",
        ),
        (
            "policies: [p.yaml, none.yaml]\ncases: [{name: a, expect: {phase: people}}]\n",
            1,
            "none.yaml: ",
        ),
        (
            "policies: [p.yaml, p.yaml]\ncases: [{name: a, expect: {phase: people}}]\n",
            1,
            "two of the policies are called p",
        ),
        (
            "policies:\n  - bad.yaml\ncases: [{name: a, expect: {phase: people}}]\n",
            2,
            "bad.yaml: line 1, spec: missing",
        ),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, line: int, message: str) -> None:
    (tmp_path / "p.yaml").write_text(document("p"))
    (tmp_path / "bad.yaml").write_text("{kind: PromotionPolicy, metadata: {name: x}}")
    (tmp_path / "a.test.yaml").write_text(text)
    (found,) = run(tmp_path)
    assert (found.file, found.case, found.ok, found.line) == ("a.test.yaml", "", False, line), found
    assert found.text.startswith(message), found.text


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(document("p", **asks(RISK)))
    (tmp_path / "deep").mkdir()
    case = "cases: [{name: a, expect: {phase: people}}, {name: b, expect: {phase: gates}}]\n"
    (tmp_path / "deep/b.test.yaml").write_text("policies: [../p.yaml]\n" + case)
    (tmp_path / "a.test.yaml").write_bytes(b"\xff")
    (tmp_path / "other.yaml").write_text("x")
    found = run(tmp_path)
    assert [(r.file, r.case, r.ok) for r in found] == [
        ("a.test.yaml", "", False),
        ("deep/b.test.yaml", "a", True),
        ("deep/b.test.yaml", "b", False),
    ]
    assert [r.case for r in run(tmp_path / "deep/b.test.yaml")] == ["a", "b"]
    assert run(tmp_path / "deep" / "none")[0].text.startswith("cannot be read")
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty") == []
