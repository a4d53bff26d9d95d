"""The commands of approval on the whole system: what one person types, and what another sees of it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.waiting import until_now

from embedded.stack import Stack
from hallmark import Client

pytestmark = [pytest.mark.xdist_group("house"), pytest.mark.timeout(300)]
Hallmark = Callable[..., tuple[int, Any]]
ANA, BEN, OLGA, ROOT, EVA = "ana:ml-engineers", "ben:reviewers", "olga:operators", "root:admins", "eva:admins"


@pytest.fixture
def hallmark(house: Stack, ana: Client, tmp_path: Path) -> Hallmark:
    """Runs a command as somebody; gives its exit code and its JSON, or what it said on stderr."""

    def hallmark(who: str, *arguments: str, as_json: bool = True) -> tuple[int, Any]:
        subject, groups = who.split(":")
        environment = {
            **os.environ,
            "HALLMARK_URL": house.urls["registry"],
            "HALLMARK_TOKEN": house.token(subject, groups.split(",")),
            "HALLMARK_WORKSPACE": ana.workspace,
            "HALLMARK_CACHE_DIR": str(tmp_path / f"cache-{subject}"),
            "COLUMNS": "250",
        }
        command = [sys.executable, "-m", "hallmark.cli", *arguments, *(["--json"] if as_json else [])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        if not as_json:
            return done.returncode, done.stdout + done.stderr
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

    return hallmark


@pytest.fixture
def staged(hallmark: Hallmark, model_file: Path) -> str:
    """A model whose version 1 is in Staging."""
    assert hallmark(ANA, "version", "register", "fraud", str(model_file), "--metric", "accuracy=0.95")[0] == 0
    assert hallmark(ANA, "stage", "request", "fraud", "1", "Staging", "--reason", "try", "--wait", "30")[0] == 0
    return "fraud"


def ask(hallmark: Hallmark, model: str) -> str:
    """The id of an open request for Production."""
    words = ("stage", "request", model, "1", "Production", "--reason", "beats the present one", "--wait", "0")
    return heard_of(hallmark, *hallmark(ANA, *words))


def heard_of(hallmark: Hallmark, code: int, asked: Any) -> str:
    assert code == 3, asked
    request_id = str(asked["transition_id"])
    until_now(lambda: hallmark(ANA, "request", "show", request_id)[0] == 0, 60)
    return request_id


def test_a_request_is_read_voted_on_decided_and_verified_offline(
    hallmark: Hallmark, staged: str, ana: Client, tmp_path: Path
) -> None:
    code, would = hallmark(BEN, "policy", "explain", staged, "1", "--to", "Production", "--reason", "better")
    assert (code, would["would"]["phase"]) == (0, "people")
    assert [rule["from"] for rule in would["rules"]] == [["group:reviewers"]]
    request_id = ask(hallmark, staged)

    code, waiting = hallmark(BEN, "request", "list", "--needs-me", "--workspace", ana.workspace)
    assert (code, [one["request_id"] for one in waiting]) == (0, [request_id])
    code, asked = hallmark(ANA, "request", "list", "--asked", "--status", "pending", "--workspace", ana.workspace)
    assert (code, [one["request_id"] for one in asked]) == (0, [request_id])
    code, shown = hallmark(ANA, "request", "show", request_id)
    assert (shown["you"]["may_vote"], shown["you"]["code"]) == (False, "own-request")
    code, told = hallmark(ANA, "request", "show", request_id, as_json=False)
    assert "You may not vote: ana asked for this" in told
    assert "production/review" in told
    code, error = hallmark(ANA, "request", "approve", request_id)
    assert code == 4
    assert "own-request" in error

    assert hallmark(ANA, "request", "comment", request_id, "May data is in")[0] == 0
    assert hallmark(BEN, "request", "show", request_id)[1]["you"]["may_vote"]
    code, voted = hallmark(BEN, "request", "approve", request_id, "--comment", "sound")
    assert (code, voted["votes"][0]["voter"]) == (0, "ben")
    code, ended = hallmark(ANA, "request", "watch", request_id, "--wait", "30")
    assert (code, ended["status"], ended["comments"][0]["text"]) == (0, "approved", "May data is in")
    code, error = hallmark(BEN, "request", "withdraw-vote", request_id)
    assert code == 4
    code, manifest = hallmark(ANA, "request", "manifest", request_id, as_json=False)
    assert "ben: approve" in manifest
    assert "I reviewed the evaluation" in manifest

    assert hallmark(ANA, "decision", "show", request_id)[1]["decision"]["verdict"] == "approved"
    record, keys = str(tmp_path / "decision.json"), tmp_path / "keys.json"
    assert hallmark(ANA, "decision", "save", request_id, record)[0] == 0
    keys.write_text(json.dumps(hallmark(ANA, "key", "list")[1]))
    verify = ("decision", "verify", record, "--keys", str(keys), "--offline")
    code, verified = hallmark(ANA, *verify)
    assert (code, verified["verified"]) == (0, True), verified
    Path(record).write_text(Path(record).read_text().replace("0.95", "0.99"))
    code, verified = hallmark(ANA, *verify)
    assert (code, verified["verified"]) == (1, False)
    assert {"inputs"} <= {check["name"] for check in verified["checks"] if check["result"] == "failed"}


def test_a_vote_does_not_bind_to_what_changed_after_it_was_read(
    hallmark: Hallmark, staged: str, model_file: Path
) -> None:
    request_id = ask(hallmark, staged)
    before = hallmark(BEN, "request", "show", request_id)[1]["request_digest"]
    assert hallmark(ANA, "version", "tag", staged, "1", "--set", "reviewed=no")[0] == 0
    again = ("cid:reviewers", "request", "show", request_id)
    until_now(lambda: hallmark(*again)[1]["request_digest"] != before, 60)
    code, error = hallmark(BEN, "request", "approve", request_id)
    assert code == 4
    assert "request-changed" in error
    assert hallmark(BEN, "request", "show", request_id)[0] == 0
    assert hallmark(BEN, "request", "reject", request_id, "--comment", "not reviewed")[1]["status"] == "rejected"
    assert hallmark(ANA, "request", "watch", request_id)[0] == 4


TEAM = """kind: PromotionPolicy
metadata: {{name: {name}}}
spec:
  match: {{transition: {{kind: alias, to: '@champion'}}, workspaces: [{workspace}]}}
  gates:
    - {{id: latency, cel: 'candidate.metrics.latency < 10.0', waivable_by: ['group:leads']}}
  approvals:
    rules: [{{id: risk, meaning: I accept the risk, from: ['group:risk'], count: 1}}]
    delegation: {{allowed: true}}
  break_glass:
    allowed: ['group:operators']
    page: ['group:risk']
    review: {{from: ['group:risk']}}
"""


def test_policies_are_changed_under_the_rules_in_force(hallmark: Hallmark, ana: Client, tmp_path: Path) -> None:
    name, file = f"team-{ana.workspace}", tmp_path / "team.yaml"
    file.write_text(TEAM.format(name=name, workspace=ana.workspace))
    assert hallmark(ROOT, "policy", "check", str(file), "--by-service")[1][0]["name"] == name
    code, asked = hallmark(ROOT, "policy", "publish", str(file), "--reason", "risk must agree")
    assert (code, asked["published"]) == (3, False)
    request_id = asked["request_id"]
    code, shown = hallmark(EVA, "request", "show", request_id, as_json=False)
    assert "waivable_by: ['group:leads']" in shown
    assert request_id in [one["request_id"] for one in hallmark(EVA, "request", "list", "--needs-me")[1]]
    assert hallmark(ROOT, "request", "approve", request_id)[0] == 4
    assert hallmark(ROOT, "request", "withdraw", request_id)[1]["status"] == "cancelled"
    request_id = hallmark(ROOT, "policy", "publish", str(file))[1]["request_id"]
    assert hallmark(EVA, "request", "approve", request_id)[0] == 0
    code, told = hallmark(ROOT, "policy", "publish", str(file))
    assert (code, told["published"], told["request_id"]) == (0, True, None)
    assert hallmark(ANA, "policy", "show", name)[1]["document"] == file.read_text()
    assert [one["revision"] for one in hallmark(ANA, "policy", "list", "--name", name)[1]] == [1]
    assert hallmark(ANA, "policy", "publish", str(file))[0] == 4
    file.write_text(file.read_text().replace("count: 1", "count: 0"))
    for words in (("check",), ("check", "--by-service"), ("publish",), ("simulate",)):
        code, told = hallmark(ROOT, "policy", *words, str(file), as_json=False)
        assert code == 1, told
        assert told.startswith(f"{file}:8: spec.approvals.rules.0.count: "), told


@pytest.fixture
def team(hallmark: Hallmark, ana: Client, tmp_path: Path) -> str:
    """The policy of the workspace's champions: risk must agree, leads may waive, operators may break the glass."""
    name, file, rules = f"team-{ana.workspace}", tmp_path / "team.yaml", tmp_path / "rules.yaml"
    rules.write_text("protected_aliases: [champion]\n")
    assert hallmark(ROOT, "workspace", "configure", str(rules))[0] == 0
    file.write_text(TEAM.format(name=name, workspace=ana.workspace))
    request_id = hallmark(ROOT, "policy", "publish", str(file))[1]["request_id"]
    assert hallmark(EVA, "request", "approve", request_id)[0] == 0
    return name


@pytest.fixture
def champion(hallmark: Hallmark, model_file: Path, team: str) -> str:
    """The id of an open request to make a version the champion."""
    metrics = ("--metric", "accuracy=0.95", "--metric", "latency=5")
    assert hallmark(ANA, "version", "register", "fraud", str(model_file), *metrics)[0] == 0
    words = ("alias", "set", "fraud", "champion", "1", "--reason", "best on May data", "--wait", "0")
    request_id = heard_of(hallmark, *hallmark(ANA, *words))
    shown = hallmark(ANA, "request", "show", request_id)[1]
    assert shown["status"] == "open", shown
    return request_id


def day(ahead: int) -> str:
    return (datetime.now(UTC) + timedelta(days=ahead)).date().isoformat()


def test_delegates_vote_for_those_who_are_away(hallmark: Hallmark, champion: str) -> None:
    rita, carla = "rita:risk", "carla:reviewers"
    code, error = hallmark(rita, "delegation", "grant", "carla", "--until", day(200))
    assert code == 4
    assert "90 days" in error
    code, made = hallmark(rita, "delegation", "grant", "carla", "--until", day(6), "--reason", "vacation")
    assert (code, made["delegator"], made["delegate"]) == (0, "rita", "carla")
    assert champion in [one["request_id"] for one in hallmark(carla, "request", "list", "--needs-me")[1]]
    assert hallmark(carla, "request", "show", champion)[1]["you"]["on_behalf_of"] == ["rita"]
    assert hallmark(carla, "request", "approve", champion)[0] == 4
    code, voted = hallmark(carla, "request", "approve", champion, "--for", "rita")
    assert (code, [(vote["voter"], vote["on_behalf_of"]) for vote in voted["votes"]]) == (0, [("carla", "rita")])
    assert hallmark(ANA, "request", "watch", champion, "--wait", "30")[0] == 0
    assert hallmark(rita, "delegation", "end", made["delegation_id"])[1]["ended_by"] == "rita"
    assert hallmark(carla, "delegation", "list")[1][0]["ended_at"] is not None


def test_the_directory_tells_who_is_in_which_groups(hallmark: Hallmark) -> None:
    """It takes away what tokens say: it gives nothing by itself."""
    assert hallmark(ROOT, "member", "set", "nora", "--group", "risk")[1]["groups"] == []
    assert hallmark("rudi:risk,reviewers", "delegation", "grant", "carla", "--until", day(6))[0] == 0
    assert hallmark(ROOT, "member", "show", "rudi")[1]["groups"] == ["reviewers", "risk"]
    code, made = hallmark(ROOT, "member", "set", "rudi", "--group", "risk", "--group", "leads")
    assert (code, made["groups"], made["told_by"]) == (0, ["risk"], "root")
    assert hallmark("rudi:risk,reviewers", "member", "show", "rudi")[1]["groups"] == ["risk"]
    assert hallmark("carla:analysts", "member", "show", "rudi")[0] == 4
    assert hallmark(ROOT, "member", "set", "rudi", "--no-groups")[1]["groups"] == []


def test_an_emergency_is_broken_into_and_reviewed(hallmark: Hallmark, champion: str) -> None:
    reason = ("--reason", "losses since noon")
    code, error = hallmark(OLGA, "request", "break-glass", champion, *reason)
    assert code == 2
    assert "--yes" in error
    assert hallmark(BEN, "request", "break-glass", champion, *reason, "--yes")[0] == 4
    code, passed = hallmark(OLGA, "request", "break-glass", champion, *reason, "--yes")
    assert code == 0, (passed, hallmark(ANA, "request", "show", champion))
    assert passed["emergency"]["by"] == "olga"
    assert hallmark(ANA, "request", "watch", champion, "--wait", "30")[0] == 0
    assert champion in [one["request_id"] for one in hallmark("rita:risk", "request", "list", "--needs-me")[1]]
    review = ("request", "review", champion, "--justified", "--comment", "9 k an hour")
    assert hallmark(OLGA, *review)[0] == 4
    code, reviewed = hallmark("rita:risk", *review)
    assert (code, reviewed["reviews"][0]["justified"]) == (0, True)


def test_a_gate_is_waived_by_those_who_may(hallmark: Hallmark, staged: str, team: str) -> None:
    """The version has no latency, so the gate is an error."""
    would = hallmark(ANA, "policy", "explain", staged, "1", "--to", "@champion", "--reason", "better")[1]
    [gate] = would["gates"]
    assert (gate["gate"], gate["result"], gate["waivable_by"]) == (f"{team}/latency", "error", ["leads"])
    words = ("alias", "set", staged, "champion", "1", "--reason", "best on May data", "--wait", "0")
    request_id = heard_of(hallmark, *hallmark(ANA, *words))
    waive = ("request", "waive", request_id, f"{team}/latency", "--reason", "batch use only")
    assert hallmark(BEN, *waive)[0] == 4
    code, waived = hallmark("lea:leads,reviewers", *waive)
    assert (code, waived["phase"], waived["waivers"][0]["by"]) == (0, "people", "lea")


def test_evidence_is_attached_and_comes_back(hallmark: Hallmark, staged: str, tmp_path: Path) -> None:
    card, copy = tmp_path / "card.txt", tmp_path / "copy.txt"
    card.write_bytes(os.urandom(20_000))
    attach = ("evidence", "attach", staged, "1", "--type", "model_card", "--title", "Model card")
    code, made = hallmark(ANA, *attach, "--file", str(card))
    assert (code, made["size"], made["media_type"]) == (0, 20_000, "text/plain")
    code, finding = hallmark(ANA, *attach, "--result", "pass", "--url", "https://ci.example.org/812")
    assert (code, finding["result"]) == (0, "pass")
    assert [one["evidence_id"] for one in hallmark(BEN, "evidence", "list", staged, "1")[1]] == [
        finding["evidence_id"],
        made["evidence_id"],
    ]
    assert hallmark(BEN, "evidence", "save", made["evidence_id"], str(copy))[0] == 0
    assert copy.read_bytes() == card.read_bytes()
    assert hallmark("ada:nobody", *attach, "--result", "pass")[0] == 4


def test_a_revoked_version_is_nobodys_any_more(hallmark: Hallmark, staged: str) -> None:
    revoke = ("version", "revoke", staged, "1", "--reason", "trained on leaked labels")
    assert hallmark(OLGA, *revoke)[0] == 2
    assert hallmark(BEN, *revoke, "--yes")[0] == 4
    code, ordered = hallmark(OLGA, *revoke, "--yes")
    assert (code, ordered["revocation"]["revoked_by"]) == (0, "olga")
    show = (ANA, "version", "show", staged, "1")
    until_now(lambda: hallmark(*show)[1]["status"] == "revoked", 60)


def test_a_policy_is_tried_on_past_requests(hallmark: Hallmark, staged: str, tmp_path: Path) -> None:
    request_id = ask(hallmark, staged)
    assert hallmark(BEN, "request", "approve", request_id)[0] == 0
    stricter = tmp_path / "stricter.yaml"
    stricter.write_text(hallmark(ANA, "policy", "show", "production")[1]["document"].replace("0.9'", "0.99'"))
    code, told = hallmark(ROOT, "policy", "simulate", str(stricter), "--last", "500")
    assert code == 0
    [mine] = [item for item in told["items"] if item["request_id"] == request_id]
    assert (mine["decided"], mine["would"], mine["differs"]) == ("approved", "rejected", True)


def test_what_does_not_exist_is_told(hallmark: Hallmark) -> None:
    for words, code in (
        (("request", "show", "nothing"), "request-not-found"),
        (("decision", "show", "nothing"), "request-not-found"),
        (("policy", "show", "nothing"), "policy-not-found"),
        (("policy", "explain", "nothing", "1", "--to", "Production"), "version-not-found"),
        (("delegation", "end", "nothing"), "delegation-not-found"),
        (("evidence", "save", "nothing", "x"), "evidence-not-found"),
        (("version", "revoke", "nothing", "1", "--reason", "r", "--yes"), "version-not-found"),
    ):
        found, error = hallmark(ROOT, *words)
        assert found == 1, words
        assert code in error
