"""The commands of approval: what they send, what they print, and how they end."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from hallmark import Client, cli, engine, output
from hallmark.commands import decision, delegation, evidence, key, member, policy, request, version

ID = "019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b"
ONE, TWO = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
AT = "2026-03-04T05:06:07.890+00:00"
REQUEST: dict[str, Any] = {
    "request_id": ID,
    "kind": "promotion",
    "workspace": "default",
    "model": "fraud",
    "version": 3,
    "from_stage": "Staging",
    "to_stage": "Production",
    "status": "open",
    "phase": "people",
    "waits_for": "production/review: 0 of 2",
    "requested_by": "ana",
    "reason": "beats v2",
    "fields": {"change_ticket": "CHG0000042"},
    "policies": [{"name": "production", "revision": 2, "digest": ONE}],
    "gates": [{"gate": "production/auc", "expression": "candidate.metrics.auc > 0.9", "result": "pass", "message": ""}],
    "rules": [
        {"id": "production/review", "from": ["group:reviewers"], "count": 2, "meaning": "I reviewed it", "have": 0}
    ],
    "votes": [],
    "request_digest": ONE,
    "inputs_digest": TWO,
    "opened_at": AT,
    "expires_at": "2026-03-07T05:06:07+00:00",
    "you": {"may_vote": True, "code": None, "detail": None, "on_behalf_of": [], "voted": False},
}
VOTE = {
    "voter": "ben",
    "choice": "approve",
    "rule": "production/review",
    "meaning": "I reviewed it",
    "comment": "[fine]",
    "at": AT,
    "auth_method": "oidc",
    "request_digest": ONE,
    "on_behalf_of": "bea",
}
POLICY = {
    "name": "production",
    "revision": 2,
    "digest": ONE,
    "document": "kind: PromotionPolicy\nmetadata: {name: production}\n",
    "published_by": "root",
    "published_at": AT,
}
CHANGE: dict[str, Any] = {
    **REQUEST,
    "fields": {},
    "kind": "policy",
    "workspace": "*",
    "model": "production",
    "from_stage": "revision 2",
    "to_stage": "revision 3",
    "waits_for": "policy-changes/agree: 0 of 1",
    "rules": [{"id": "policy-changes/agree", "from": ["group:admins"], "count": 1, "meaning": "agree", "have": 0}],
    "document": "kind: PromotionPolicy\nmetadata: {name: production, owner: risk}\n",
}
Answer = tuple[int, Any] | Callable[[httpx2.Request], httpx2.Response]


@dataclass
class Service:
    """Answers by method and path; a list of answers is given one by one, the last for ever. `asked` is what came."""

    answers: dict[str, Answer | list[Answer]] = field(default_factory=dict)
    asked: list[httpx2.Request] = field(default_factory=list)

    def __call__(self, asked: httpx2.Request) -> httpx2.Response:
        if asked.url.path == "/.well-known/hallmark.json":
            return httpx2.Response(200, json=dict.fromkeys(("registry", "approval"), "http://a"))
        self.asked.append(asked)
        given = self.answers[f"{asked.method} {asked.url.path}"]
        answer = (given.pop(0) if len(given) > 1 else given[0]) if isinstance(given, list) else given
        if callable(answer):
            return answer(asked)
        status, body = answer
        if isinstance(body, str):
            return httpx2.Response(status, text=body)
        return httpx2.Response(status, json=body)

    def sent(self, call: str) -> dict[str, Any]:
        """The body of the last such call."""
        [*_, last] = [one for one in self.asked if f"{one.method} {one.url.path}" == call]
        found: dict[str, Any] = json.loads(last.content)
        return found


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def service() -> Service:
    return Service({f"GET /v1/requests/{ID}": (200, REQUEST)})


@pytest.fixture
def run(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.setenv("HALLMARK_CACHE_DIR", str(tmp_path / "cache"))

    def client(_: object) -> Client:
        return Client("http://r", "t", retry_for=0, transport=httpx2.MockTransport(service))

    monkeypatch.setattr(output.Caller, "client", client)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hallmark", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        told = capsys.readouterr()
        code = exit_.value.code
        return code if isinstance(code, int) else 0, told.out, told.err

    return run


def problem(code: str, detail: str, **more: Any) -> dict[str, Any]:
    return {"type": f"urn:hallmark:problem:{code}", "detail": detail, **more}


# -- reading requests ---------------------------------------------------------------------------------------------


def test_the_list_asks_for_a_view_of_all_workspaces_and_says_what_each_waits_for(run: Run, service: Service) -> None:
    service.answers["GET /v1/requests"] = (200, {"items": [REQUEST, CHANGE], "next": None})
    code, out, err = run("request", "list", "--needs-me", "--status", "open", "--model", "fraud")
    assert (code, err) == (0, "")
    assert dict(service.asked[-1].url.params) == {
        "view": "needs-me",
        "status": "open",
        "model": "fraud",
        "limit": "50",
    }
    assert "fraud version 3" in out
    assert "policy production revision 3" in out
    assert "production/review: 0 of 2" in out


@pytest.mark.parametrize(
    "words", [("request", "list", "--workspace", "team"), ("--workspace", "team", "request", "list")]
)
def test_a_workspace_that_is_named_narrows_the_list(run: Run, service: Service, words: tuple[str, ...]) -> None:
    service.answers["GET /v1/requests"] = (200, {"items": [], "next": None})
    assert run(*words)[0] == 0
    assert service.asked[-1].url.params["workspace"] == "team"


def test_a_workspace_of_the_environment_does_not_hide_what_waits_elsewhere(
    run: Run, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HALLMARK_WORKSPACE", "team")
    service.answers["GET /v1/requests"] = (200, {"items": [], "next": None})
    run("request", "list", "--asked")
    assert "workspace" not in service.asked[-1].url.params


def test_only_as_many_are_listed_as_wanted_and_the_rest_is_told(run: Run, service: Service) -> None:
    def answer(asked: httpx2.Request) -> httpx2.Response:
        count, first = int(asked.url.params["limit"]), int(asked.url.params.get("after", 0))
        items = [{**REQUEST, "request_id": str(n)} for n in range(first + 1, min(first + count, 450) + 1)]
        more = len(items) == count and items[-1]["request_id"] != "450"
        return httpx2.Response(200, json={"items": items, "next": items[-1]["request_id"] if more else None})

    service.answers["GET /v1/requests"] = answer
    code, out, err = run("request", "list", "--limit", "2", "--json")
    assert (code, [one["request_id"] for one in json.loads(out)]) == (0, ["1", "2"])
    assert "--after 2" in err
    assert [
        one["request_id"] for one in json.loads(run("request", "list", "--limit", "1", "--after", "2", "--json")[1])
    ] == ["3"]
    code, out, err = run("request", "list", "--limit", "0", "--json")
    assert (len(json.loads(out)), err) == (450, "")


def test_two_views_at_once_are_wrong_usage(run: Run) -> None:
    code, _, err = run("request", "list", "--needs-me", "--asked")
    assert code == 2
    assert "choose one" in err


def test_show_tells_all_of_a_request(run: Run, service: Service) -> None:
    full = {
        **REQUEST,
        "votes": [VOTE],
        "past_votes": [{"vote": {**VOTE, "voter": "cid"}, "why": "the request has changed since"}],
        "refusals": [{"voter": "ana", "choice": "approve", "code": "own-request", "detail": "ana asked for this"}],
        "waivers": [{"gate": "production/latency", "by": "lea", "reason": "batch only", "at": AT}],
        "comments": [{"author": "dan", "text": "[bold]why[/bold]?", "at": AT}],
        "escalations": [{"step": "production/1", "action": "add_approvers", "to": ["group:leads"], "rule": "review"}],
        "emergency": {
            "by": "olga",
            "reason": "losses",
            "skips": ["approvals"],
            "until": AT,
            "review": ["risk"],
            "review_count": 2,
            "review_by": AT,
        },
        "reviews": [{"reviewer": "rita", "justified": False, "comment": "no need", "at": AT}],
        "you": {"may_vote": False, "code": "own-request", "detail": "ana asked for this", "on_behalf_of": ["bea"]},
    }
    service.answers[f"GET /v1/requests/{ID}"] = (200, full)
    code, out, _ = run("request", "show", ID)
    assert code == 0
    for text in (
        "fraud version 3: Staging -> Production: open",
        "waits for people: production/review: 0 of 2",
        "asked by ana at 2026-03-04 05:06:07 UTC: beats v2",
        "change_ticket: CHG0000042",
        "production (revision 2)",
        "0 of 2",
        "ben for bea",
        "[fine]",
        "the request has changed since",
        "ana asked for this [own-request]",
        "batch only",
        "[bold]why[/bold]?",
        "group:leads",
        "olga broke the glass: losses",
        "unjustified",
        f"votes bind to {ONE}",
        "You may not vote: ana asked for this",
        "You may vote for bea",
    ):
        assert text in out, text


def test_show_of_a_change_of_a_policy_tells_what_it_changes(run: Run, service: Service) -> None:
    service.answers[f"GET /v1/requests/{ID}"] = (200, CHANGE)
    service.answers["GET /v1/policies"] = (200, {"items": [{**POLICY, "revision": 3}, POLICY], "next": None})
    code, out, _ = run("request", "show", ID)
    assert code == 0
    assert "-metadata: {name: production}\n+metadata: {name: production, owner: risk}" in out


def test_watch_tells_each_change_and_ends_with_the_request(run: Run, service: Service) -> None:
    voted = {**REQUEST, "votes": [VOTE], "waits_for": "production/review: 1 of 2"}
    ended = {**REQUEST, "status": "rejected", "phase": "decided", "waits_for": ""}
    service.answers[f"GET /v1/requests/{ID}"] = [(200, REQUEST), (200, voted), (200, ended)]
    code, out, _ = run("request", "watch", ID)
    assert code == 4
    assert [line for line in out.splitlines() if "waits for" not in line] == [
        "fraud version 3: Staging -> Production: open",
        "fraud version 3: Staging -> Production: open",
        "fraud version 3: Staging -> Production: rejected",
    ]


@pytest.mark.parametrize(("status", "code"), [("approved", 0), ("open", 3), ("expired", 4), ("cancelled", 4)])
def test_watch_ends_with_a_code_for_scripts(run: Run, service: Service, status: str, code: int) -> None:
    service.answers[f"GET /v1/requests/{ID}"] = (200, {**REQUEST, "status": status})
    found, out, _ = run("request", "watch", ID, "--wait", "0", "--json")
    assert (found, json.loads(out)["status"]) == (code, status)


# -- acting on requests -------------------------------------------------------------------------------------------


def test_a_vote_binds_to_the_digest_that_was_shown(run: Run, service: Service) -> None:
    service.answers[f"POST /v1/requests/{ID}/votes"] = (200, {**REQUEST, "votes": [VOTE]})
    run("request", "show", ID)
    code, out, _ = run("request", "approve", ID, "--comment", "sound", "--rule", "production/review", "--for", "bea")
    assert code == 0
    assert service.sent(f"POST /v1/requests/{ID}/votes") == {
        "choice": "approve",
        "comment": "sound",
        "request_digest": ONE,
        "rule": "production/review",
        "on_behalf_of": "bea",
    }
    assert "your vote to approve is recorded" in out


@pytest.mark.parametrize("act", [("approve", ID), ("waive", ID, "production/auc", "--reason", "r")])
def test_what_changed_after_it_was_shown_is_not_signed(run: Run, service: Service, act: tuple[str, ...]) -> None:
    run("request", "show", ID)
    service.answers[f"GET /v1/requests/{ID}"] = (200, {**REQUEST, "request_digest": TWO})
    code, _, err = run("request", *act)
    assert code == 4
    assert "request-changed" in err
    assert f"hallmark request show {ID}" in " ".join(err.split())
    assert service.asked[-1].method == "GET"
    service.answers[f"POST /v1/requests/{ID}/votes"] = (200, REQUEST)
    run("request", "show", ID)
    assert run("request", "approve", ID)[0] == 0
    assert service.sent(f"POST /v1/requests/{ID}/votes")["request_digest"] == TWO


def test_the_name_of_the_policy_may_be_left_out_where_it_is_clear(run: Run, service: Service) -> None:
    for act in ("votes", "waivers"):
        service.answers[f"POST /v1/requests/{ID}/{act}"] = (200, REQUEST)
    assert run("request", "approve", ID, "--rule", "review")[0] == 0
    assert service.sent(f"POST /v1/requests/{ID}/votes")["rule"] == "production/review"
    assert run("request", "waive", ID, "auc", "--reason", "r")[0] == 0
    assert service.sent(f"POST /v1/requests/{ID}/waivers")["gate"] == "production/auc"
    for words in (("approve", ID, "--rule", "risk"), ("waive", ID, "latency", "--reason", "r")):
        code, _, err = run("request", *words)
        assert code == 2
        assert "production/" in err


def test_a_digest_that_is_given_is_what_is_signed(run: Run, service: Service) -> None:
    service.answers[f"POST /v1/requests/{ID}/votes"] = (409, problem("request-changed", "read it again"))
    code, _, err = run("request", "reject", ID, "--comment", "leak", "--digest", TWO)
    assert code == 4
    assert "read it again" in err
    assert service.sent(f"POST /v1/requests/{ID}/votes")["request_digest"] == TWO


def test_a_rejection_has_to_say_why(run: Run) -> None:
    code, _, err = run("request", "reject", ID)
    assert code == 2
    assert "--comment" in err


def test_a_vote_is_withdrawn_with_a_reason(run: Run, service: Service) -> None:
    service.answers[f"DELETE /v1/requests/{ID}/votes"] = (200, REQUEST)
    assert run("request", "withdraw-vote", ID, "--reason", "new data")[0] == 0
    assert service.asked[-1].url.params["reason"] == "new data"


def test_comments_waivers_and_reviews_are_sent(run: Run, service: Service) -> None:
    for act in ("comments", "waivers", "reviews"):
        service.answers[f"POST /v1/requests/{ID}/{act}"] = (200, REQUEST)
    assert run("request", "comment", ID, "what of June?")[0] == 0
    assert service.sent(f"POST /v1/requests/{ID}/comments") == {"text": "what of June?"}
    assert run("request", "waive", ID, "production/auc", "--reason", "batch only")[0] == 0
    assert service.sent(f"POST /v1/requests/{ID}/waivers") == {
        "gate": "production/auc",
        "reason": "batch only",
        "request_digest": ONE,
    }
    assert run("request", "review", ID, "--unjustified", "--comment", "no need")[0] == 0
    assert service.sent(f"POST /v1/requests/{ID}/reviews") == {"justified": False, "comment": "no need"}
    assert run("request", "review", ID, "--comment", "which?")[0] == 2


def test_the_glass_is_broken_only_when_it_is_meant(run: Run, service: Service) -> None:
    service.answers[f"POST /v1/requests/{ID}/break-glass"] = (200, {**REQUEST, "status": "approved"})
    code, _, err = run("request", "break-glass", ID, "--reason", "losses")
    assert code == 2
    assert "--yes" in err
    assert [one.method for one in service.asked] == ["GET"]
    assert run("request", "break-glass", ID, "--reason", "losses", "--yes")[0] == 0
    assert service.sent(f"POST /v1/requests/{ID}/break-glass") == {"reason": "losses"}


def test_a_transition_is_not_withdrawn_but_cancelled(run: Run, service: Service) -> None:
    service.answers[f"POST /v1/requests/{ID}/withdraw"] = (409, problem("not-a-policy", "cancel it in the registry"))
    code, _, err = run("request", "withdraw", ID)
    assert code == 4
    assert f"hallmark stage cancel {ID}" in " ".join(err.split())
    service.answers[f"POST /v1/requests/{ID}/withdraw"] = (200, {**CHANGE, "status": "cancelled"})
    assert "cancelled" in run("request", "withdraw", ID)[1]


def test_the_manifest_is_printed_as_it_came(run: Run, service: Service) -> None:
    text = "Signatures\n  ben: approve [x]\n"
    service.answers[f"GET /v1/requests/{ID}/manifest"] = (200, text)
    assert run("request", "manifest", ID)[:2] == (0, text)
    assert json.loads(run("request", "manifest", ID, "--json")[1])["manifest"] == text


# -- policies -----------------------------------------------------------------------------------------------------


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


def test_a_file_that_is_no_text_is_explained(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "model.bin"
    bad.write_bytes(b"\xff\xfe\x00")
    code, _, err = run("policy", "check", str(bad))
    assert code == 1
    assert "cannot be read" in err


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
            "opens_at": AT,
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
        "2026-03-04 05:06:07 UTC",
        "oncall may skip approvals",
    ):
        assert text in out, text


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


# -- people and revocations ---------------------------------------------------------------------------------------


def test_a_date_is_a_whole_day_and_a_time_is_itself(run: Run, service: Service) -> None:
    made = {"delegation_id": "d-1", "delegator": "ben", "delegate": "carla", "starts": AT, "ends": AT}
    service.answers["POST /v1/delegations"] = (201, made)
    grant = ("delegation", "grant", "carla", "--until")
    code, out, _ = run(*grant, "2026-12-31", "--from", "2026-12-24", "--reason", "vacation")
    assert code == 0
    assert "carla may vote for ben" in out
    assert service.sent("POST /v1/delegations") == {
        "delegate": "carla",
        "starts": "2026-12-24T00:00:00+00:00",
        "ends": "2027-01-01T00:00:00+00:00",
        "reason": "vacation",
    }
    run(*grant, "2026-12-31T18:00+01:00", "--for", "bea")
    sent = service.sent("POST /v1/delegations")
    assert (sent["ends"], sent["delegator"]) == ("2026-12-31T18:00:00+01:00", "bea")
    code, _, err = run(*grant, "friday")
    assert code == 2
    assert "2026-12-31" in err


def test_delegations_are_listed_and_ended(run: Run, service: Service) -> None:
    made = {"delegation_id": "d-1", "delegator": "ben", "delegate": "carla", "starts": AT, "ends": AT}
    ended = {**made, "ended_at": AT, "ended_by": "root"}
    service.answers["GET /v1/delegations"] = (200, {"items": [made, ended], "next": None})
    out = run("delegation", "list")[1]
    assert "over" in out
    assert "ended by root" in out
    assert "of" not in service.asked[-1].url.params
    run("delegation", "list", "--all")
    assert service.asked[-1].url.params["of"] == "all"
    service.answers["DELETE /v1/delegations/d-1"] = (200, ended)
    assert "carla votes for ben no more" in run("delegation", "end", "d-1")[1]


def test_members_are_shown_and_set(run: Run, service: Service) -> None:
    known = {"subject": "a/b", "groups": ["risk"], "person": True, "told_by": "root", "at": AT}
    service.answers["GET /v1/members/a/b"] = (200, known)
    assert "risk" in run("member", "show", "a/b")[1]
    assert service.asked[-1].url.raw_path.startswith(b"/v1/members/a%2Fb")
    service.answers["PUT /v1/members/a/b"] = (200, known)
    assert run("member", "set", "a/b", "--group", "risk", "--group", "reviewers")[0] == 0
    assert service.sent("PUT /v1/members/a/b") == {"groups": ["risk", "reviewers"], "person": True}
    assert run("member", "set", "a/b", "--no-groups", "--service")[0] == 0
    assert service.sent("PUT /v1/members/a/b") == {"groups": [], "person": False}
    assert run("member", "set", "a/b")[0] == 2
    assert run("member", "set", "a/b", "--no-groups", "--group", "x")[0] == 2


def test_a_version_is_revoked_only_when_it_is_meant(run: Run, service: Service) -> None:
    revocation = {
        "revocation_id": "v-1",
        "workspace": "default",
        "model": "fraud",
        "version": 4,
        "digest": ONE,
        "artifact_digest": ONE,
        "revoked_by": "olga",
        "reason": "leak",
        "fallback": 3,
        "revoked_at": AT,
    }
    service.answers["POST /v1/revocations"] = (201, {"revocation": revocation, "jws": "a.b.c"})
    words = ("version", "revoke", "fraud", "4", "--reason", "leak")
    code, _, err = run(*words)
    assert code == 2
    assert "--yes" in err
    assert service.asked == []
    code, out, _ = run(*words, "--fallback", "3", "--yes")
    assert code == 0
    assert "its stage returns to version 3" in out
    body = {"workspace": "default", "model": "fraud", "version": 4, "reason": "leak", "fallback": 3}
    assert service.sent("POST /v1/revocations") == body


def test_keys_are_listed_with_what_they_are_good_for(run: Run, service: Service) -> None:
    keys = {
        "keys": [
            {"kid": "now", "alg": "EdDSA"},
            {"kid": "old", "alg": "EdDSA", "exp": 1_000_000_000},
            {"kid": "next", "alg": "EdDSA", "nbf": 9_000_000_000},
            {"kid": "stolen", "alg": "EdDSA", "revoked": {"revoked_at": 1, "reason": "compromised"}},
        ]
    }
    service.answers["GET /.well-known/jwks.json"] = (200, keys)
    out = run("key", "list")[1]
    found = {line.split()[0]: " ".join(line.split()[1:3]) for line in out.splitlines()[1:]}
    assert found == {
        "now": "signs -",
        "old": "signed before",
        "next": "waits 2255-03-14",
        "stolen": "revoked: compromised",
    }
    assert json.loads(run("key", "list", "--json")[1]) == keys


# -- help ---------------------------------------------------------------------------------------------------------


def commands() -> list[list[str]]:
    nouns = (request, policy, decision, delegation, member, evidence, key)
    named = [
        [str(noun.app.info.name), command.name or getattr(command.callback, "__name__", "")]
        for noun in nouns
        for command in noun.app.registered_commands
    ]
    return [*named, ["version", "revoke"]]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_help_has_an_example(command: list[str]) -> None:
    told = CliRunner().invoke(cli.build(), [*command, "--help"])
    assert told.exit_code == 0, told.output
    assert f"Example: hallmark {' '.join(command)}" in " ".join(told.output.split())


def test_the_command_is_built_once() -> None:
    assert cli.build() is cli.build()
    assert [one.name for one in version.app.registered_commands].count("revoke") == 1
