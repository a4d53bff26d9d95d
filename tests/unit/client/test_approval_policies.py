"""`hallmark policy`: published, checked, tested, explained and tried on the past."""

import json
from pathlib import Path

import pytest
from tests.support.fake_approval import CHANGE, ID, ONE, POLICY, Run, Service, problem

from hallmark import engine


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "production.yaml"
    path.write_text(POLICY_TEXT)
    return path


POLICY_TEXT = """kind: PromotionPolicy
metadata: {name: production}
spec:
  match: {transition: {to: Production}}
"""


def test_policies_are_listed_and_shown(run: Run, service: Service) -> None:
    service.answers["GET /v1/policies"] = (200, {"items": [POLICY, {**POLICY, "revision": 1}], "next": None})
    assert "production" in run("policy", "list")[1]
    code, out, err = run("policy", "show", "production", "--revision", "1")
    assert (code, out) == (0, POLICY["document"])
    assert "revision 1, by root" in err
    code, _, err = run("policy", "show", "production", "--revision", "9")
    assert code == 1
    assert "revisions 1 to 2" in err
    service.answers["GET /v1/policies"] = (200, {"items": [], "next": None})
    assert "hallmark policy list" in run("policy", "show", "nothing")[2]


@pytest.mark.parametrize("status", [200, 201])
def test_a_policy_in_force_is_exit_0(run: Run, service: Service, file: Path, status: int) -> None:
    made = {"name": "production", "revision": 3, "digest": ONE, "published": True, "request_id": None}
    service.answers["POST /v1/policies"] = (status, {**made, "status": "approved"})
    code, out, _ = run("policy", "publish", str(file), "--reason", "stricter")
    assert code == 0
    assert "production revision 3 is in force" in out
    assert service.sent("POST /v1/policies") == {"document": POLICY_TEXT, "reason": "stricter"}


def test_a_policy_that_others_must_agree_to_is_exit_3_and_says_who(run: Run, service: Service, file: Path) -> None:
    made = {"name": "production", "revision": 3, "digest": ONE, "published": False, "request_id": ID, "status": "open"}
    service.answers["POST /v1/policies"] = (202, made)
    service.answers[f"GET /v1/requests/{ID}"] = (200, CHANGE)
    code, out, _ = run("policy", "publish", str(file))
    assert code == 3
    assert "1 more of admins must agree" in out
    assert f"hallmark request approve {ID}" in out


@pytest.mark.parametrize(("status", "code"), [("approved", 0), ("rejected", 4), ("open", 3)])
def test_publish_waits_for_those_who_must_agree(run: Run, service: Service, file: Path, status: str, code: int) -> None:
    made = {"name": "production", "revision": 3, "digest": ONE, "published": False, "request_id": ID, "status": "open"}
    service.answers["POST /v1/policies"] = (202, made)
    service.answers[f"GET /v1/requests/{ID}"] = [(200, CHANGE), (200, {**CHANGE, "status": status})]
    found, out, _ = run("policy", "publish", str(file), "--wait", "0.3", "--json")
    told = json.loads(out)
    assert (found, told["published"], told["status"]) == (code, status == "approved", status)


def test_what_the_service_finds_wrong_is_told_like_a_compiler(run: Run, service: Service, file: Path) -> None:
    errors = [{"line": 4, "field": "spec.match", "message": "missing"}]
    refusal = (422, problem("invalid-policy", "line 4, spec.match: missing", errors=errors))
    for call, words in (
        ("POST /v1/policies", ("publish", str(file))),
        ("POST /v1/policies/simulate", ("simulate", str(file))),
        ("POST /v1/policies/check", ("check", "--by-service", str(file))),
    ):
        service.answers[call] = refusal
        code, out, _ = run("policy", *words)
        assert (code, out) == (1, f"{file}:4: spec.match: missing\n")


def test_policies_are_checked_without_a_service(run: Run, service: Service, file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("kind: PromotionPolicy\nmetadata: {name: Bad}\nspec:\n  match: {}\n  gate: []\n")
    code, out, _ = run("policy", "check", str(file), str(bad))
    assert code == 1
    lines = out.splitlines()
    assert lines[0].startswith(f"{file}: policy production, sha256:")
    assert {line.partition(": ")[0] for line in lines[1:]} == {f"{bad}:2", f"{bad}:4", f"{bad}:5"}
    assert f"{bad}:5: spec.gate: unknown field" in lines
    assert run("policy", "check", str(file))[0] == 0
    assert service.asked == []
    code, out, _ = run("policy", "check", str(bad), "--json")
    assert (code, json.loads(out)[0]["valid"], json.loads(out)[0]["errors"][0]["line"]) == (1, False, 2)


def test_without_the_engine_policies_are_checked_by_the_service(
    run: Run, service: Service, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "installed", lambda: False)
    service.answers["POST /v1/policies/check"] = (200, {"name": "production", "digest": ONE})
    assert run("policy", "check", str(file))[:2] == (0, f"{file}: policy production, {ONE}\n")
    for words in (("decision", "verify", ID), ("policy", "test", str(file.parent))):
        code, _, err = run(*words)
        assert code == 1
        assert "hallmark-registry[policy]" in err


def test_a_file_that_cannot_be_read_keeps_nobody_from_the_others(run: Run, file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "model.bin"
    bad.write_bytes(b"\xff\xfe\x00")
    code, out, _ = run("policy", "check", str(bad), str(tmp_path), str(tmp_path / "none.yaml"), str(file))
    lines = out.splitlines()
    assert (code, len(lines)) == (1, 4)
    assert all("cannot be read" in line for line in lines[:3]), lines
    assert lines[3].startswith(f"{file}: policy production")
    code, out, _ = run("policy", "check", str(bad), str(file), "--json")
    assert (code, [one["valid"] for one in json.loads(out)]) == (1, [False, True])
    for words in (("policy", "publish", str(bad)), ("policy", "simulate", str(bad))):
        code, _, err = run(*words)
        assert (code, "cannot be read" in " ".join(err.split())) == (1, True)


def test_the_schema_is_printed(run: Run, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run("policy", "schema")
    assert (code, service.asked) == (0, [])
    checked_in = Path(__file__).parents[3] / "deploy" / "api" / "promotion-policy.schema.json"
    assert json.loads(out) == json.loads(checked_in.read_text())
    monkeypatch.setattr(engine, "installed", lambda: False)
    assert "hallmark-registry[policy]" in run("policy", "schema")[2]


CASES = """policies: [production.yaml]
cases:
  - name: anything enters
    expect: {verdict: approved}
  - name: nobody is asked
    expect: {verdict: rejected}
"""


def test_tests_of_policies_tell_which_case_failed_and_where(
    run: Run, service: Service, file: Path, tmp_path: Path
) -> None:
    tests = tmp_path / "production.test.yaml"
    tests.write_text(CASES)
    code, out, _ = run("policy", "test", str(tmp_path))
    assert code == 1
    failure, summary = out.splitlines()
    assert failure.startswith(f"{tests}:5: FAILED: nobody is asked: verdict: expected rejected, found approved")
    assert summary == "1 passed, 1 failed, in 1 file"
    code, out, _ = run("policy", "test", str(tests), "--all", "--json")
    assert (code, json.loads(out)["failed"]) == (1, 1)
    tests.write_text(CASES.replace("rejected", "approved"))
    assert run("policy", "test", str(tmp_path))[:2] == (0, "2 passed, 0 failed, in 1 file\n")
    assert f"{tests}:3: ok: anything enters" in run("policy", "test", str(tests), "--all")[1]
    assert service.asked == []


def test_tests_are_no_policies_and_no_tests_are_no_success(run: Run, file: Path, tmp_path: Path) -> None:
    code, _, err = run("policy", "test", str(tmp_path))
    assert code == 1
    assert "no *.test.yaml" in " ".join(err.split())
    tests = tmp_path / "production.test.yaml"
    tests.write_text(CASES)
    code, out, err = run("policy", "check", str(file), str(tests))
    assert (code, len(out.splitlines())) == (0, 1)
    assert "is no policy but a test" in " ".join(err.split())
    code, out, err = run("policy", "check", str(tests), "--json")
    assert (code, out) == (1, "")
    assert "no policy among these files" in " ".join(err.split())


def test_explain_tells_what_it_would_take(run: Run, service: Service) -> None:
    service.answers["POST /v1/policies/explain"] = (
        200,
        {
            "policies": [{"name": "production", "revision": 2, "digest": ONE}],
            "mistakes": ["production: the field change_ticket is missing"],
            "missing_evidence": ["model_card"],
            "gates": [
                {
                    "gate": "production/latency",
                    "expression": "true",
                    "result": "fail",
                    "message": "slow",
                    "blocks": True,
                    "waivable_by": ["leads or risk"],
                    "never_skip": False,
                }
            ],
            "rules": [{"id": "production/review", "groups": ["group:reviewers"], "count": 2, "meaning": "I reviewed"}],
            "excluded": [{"who": "ana", "why": "ana asked for this"}],
            "reauthenticate_within_seconds": 300.0,
            "methods": ["webauthn"],
            "deny": [{"from": ["group:board"], "count": 1}],
            "delegation_max_seconds": 1209600.0,
            "valid_for_seconds": 86400.0,
            "escalation": [
                {"at": "2999-01-02T03:04:05+00:00", "action": "notify", "to": ["group:heads"], "rule": None}
            ],
            "windows": [{"policy": "p", "tz": "UTC", "days": "Mon-Thu", "from": "09:00", "to": "16:00"}],
            "freezes": [{"policy": "p", "name": "fair", "tz": "UTC", "from": "2999-05-01", "to": "2999-05-09"}],
            "opens_at": "2999-03-04T05:06:07+00:00",
            "min_wait_seconds": 1800.0,
            "expires_after_seconds": 259200.0,
            "emergency": {"allowed": ["oncall"], "skips": ["approvals"]},
            "would": {"verdict": "rejected", "phase": "decided", "reason": "the field change_ticket is missing"},
        },
    )
    code, out, _ = run("policy", "explain", "fraud", "3", "--to", "Production", "--reason", "better", "--field", "a=b")
    assert code == 0
    assert service.sent("POST /v1/policies/explain") == {
        "workspace": "default",
        "model": "fraud",
        "version": 3,
        "to": "Production",
        "reason": "better",
        "fields": {"a": "b"},
    }
    for text in (
        "fraud version 3 -> Production: would be rejected: the field change_ticket is missing",
        "hallmark evidence attach fraud 3 --type model_card",
        "leads or risk",
        "reviewers",
        "ana asked for this",
        "signed in within 5 minutes by webauthn",
        "30 minutes",
        "3 days",
        "2999-03-04 05:06:07 UTC",
        "oncall may skip approvals",
        "board",
        "by delegations of at most 14 days",
        "2999-01-02 03:04:05 UTC",
        "heads",
        "Mon-Thu 09:00-16:00 UTC",
        "fair: 2999-05-01 to 2999-05-09 UTC",
    ):
        assert text in out, text


def test_explain_tells_that_no_sign_in_is_good_enough(run: Run, service: Service) -> None:
    would = {"verdict": None, "phase": "people", "reason": "p/review: 0 of 1"}
    for methods, told in (([], True), (None, False)):
        service.answers["POST /v1/policies/explain"] = (200, {"methods": methods, "would": would})
        out = run("policy", "explain", "fraud", "3", "--to", "Production")[1]
        assert ("by nobody: the policies agree on no sign-in" in out) is told


def test_simulate_tells_what_would_be_decided_otherwise(run: Run, service: Service, file: Path) -> None:
    item = {"request_id": ID, "workspace": "default", "model": "fraud", "version": 3, "to_stage": "Production"}
    item |= {"decided": "approved", "would": "rejected", "reason": "gates failed", "differs": True}
    same = {**item, "request_id": "r-2", "would": "approved", "differs": False}
    told = {"looked_at": 20, "applied_to": 2, "differing": 1, "items": [item, same]}
    service.answers["POST /v1/policies/simulate"] = (200, told)
    code, out, _ = run("policy", "simulate", str(file), "--last", "20")
    assert code == 0
    assert service.sent("POST /v1/policies/simulate") == {"document": POLICY_TEXT, "last": 20}
    assert "of the last 20 decided requests it applies to 2; it would have decided 1 otherwise" in out
    assert ID in out
    assert "r-2" not in out
    assert "r-2" in run("policy", "simulate", str(file), "--all")[1]
