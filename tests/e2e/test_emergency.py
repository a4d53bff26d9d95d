"""What goes wrong in the world: an emergency, its review, and a version that nobody may use any more."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from tests.support.system import System
from tests.support.waiting import until_now

from hallmark import HallmarkError, VersionRevoked
from hallmark.decisions import verify_record

pytestmark = pytest.mark.one_broker

Artifact = Callable[[str], Path]
README = (Path(__file__).parents[2] / "README.md").read_text()
RULES = """
lifecycle:
  stages: [{name: Lab}, {name: Live, gated: true, holds: 1}, {name: Attic}]
  moves: [{origin: Lab, to: Live}, {origin: Live, to: Attic}]
  initial: Lab
  archive: Attic
"""
POLICY = """
kind: PromotionPolicy
metadata: {{name: live-{workspace}}}
spec:
  match: {{transition: {{to: Live}}, workspaces: [{workspace}]}}
  request: {{fields: {{rollback_to: {{type: model_version}}}}}}
  gates: [{{id: measured, cel: candidate.metrics.auc >= 0.5, never_skip: true}}]
  approvals:
    rules: [{{id: risk, meaning: I accept the risk, from: ['group:risk'], count: 1}}]
  break_glass:
    allowed: ['group:operators']
    skips: [approvals]
    page: ['service:oncall', 'group:risk']
    review: {{from: ['group:risk'], within: 2 business days}}
"""


@pytest.fixture
def governed(system: System) -> System:
    """A workspace whose stage Live knows emergencies."""
    root, ada = system.client("root", "admins"), system.client("ada", "admins")
    root.configure(yaml.safe_load(RULES))
    change = root.publish_policy(POLICY.format(workspace=system.workspace))
    assert change.request_id is not None
    assert ada.approve(change.request_id, "agreed").status == "approved"
    return system


def hooks(system: System, kind: str) -> list[dict[str, Any]]:
    heard = system.receivers.inbox.hooks
    return [h for h in heard if h["type"] == f"hallmark.{kind}.v1" and h["subject"].startswith(f"{system.workspace}/")]


def subscribed(system: System, command: str) -> dict[str, Any]:
    """The subscription that a command for the shell makes."""
    words = command.replace("<url>", system.receivers.slack_url).split()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("hallmark")), *words[1:], "--json"],
        env={
            "PATH": "/usr/bin:/bin",
            "HALLMARK_URL": system.url,
            "HALLMARK_TOKEN": system.token("olga", "operators"),
            "HALLMARK_WORKSPACE": system.workspace,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def delivered(system: System, subscription: dict[str, Any]) -> list[str]:
    return [one["event_type"] for one in system.olga.deliveries(subscription["subscription_id"])]


def live(system: System, **at: str) -> dict[str, Any]:
    """What the audit service says was in Live, and what has become of it."""
    url = f"{system.aud.services().audit}/v1/models/churn/production"
    headers = {"authorization": f"Bearer {system.token('aud', 'auditors')}"}
    answer = httpx2.get(url, params={"workspace": system.workspace, "stage": "Live", **at}, headers=headers)
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def to_live(system: System, version: int) -> None:
    asked, rita = system.ana.request_stage("churn", version, "Live", "better"), system.client("rita", "risk")
    assert rita.request(asked.transition_id, wait=60).phase == "people"
    rita.approve(asked.transition_id, "read")
    assert system.ana.transition(asked.transition_id, wait=60).applied


def test_an_emergency_is_paged_reviewed_and_its_version_revoked(governed: System, artifact: Artifact) -> None:
    system = governed
    rita = system.client("rita", "risk")
    types = ["hallmark.glass.*", "hallmark.review.*", "hallmark.version.revoked.v1"]
    system.olga.subscribe("webhook", system.receivers.hook_url, types=types, secret=system.receivers.secret)
    [command] = re.findall(r"`(hallmark notify subscribe slack <url> --for [^`]+)`", README)
    oncall = subscribed(system, command)
    others = subscribed(system, "hallmark notify subscribe slack <url> --for group:reviewers")
    assert oncall["types"] == others["types"]
    system.aud.save_search("glass", {"type": ["hallmark.glass.*"]}, alert_above=0)
    alerts = system.aud.subscribe(
        "webhook", system.receivers.hook_url, audience=["user:aud"], secret=system.receivers.secret
    )
    for name in ("one", "two"):
        system.ana.register("churn", artifact(name), metrics={"auc": 0.9})
    to_live(system, 1)

    # Nobody of risk is awake: an operator lets it pass, and says why.
    asked = system.ana.request_stage("churn", 2, "Live", "v1 leaks memory", fields={"rollback_to": "1"})
    assert system.olga.request(asked.transition_id, wait=60).phase == "people"
    with pytest.raises(HallmarkError) as refused:
        system.ben.break_glass(asked.transition_id, "I would like to")
    assert refused.value.code == "not-entitled"
    system.olga.break_glass(asked.transition_id, "payments are down")
    assert system.ana.transition(asked.transition_id, wait=60).applied
    [paged] = until_now(lambda: hooks(system, "glass.broken"), 60, "the people on call were paged")
    assert paged["data"]["glass"]["page"] == ["service:oncall", "group:risk"]
    [text] = until_now(lambda: [said["text"] for said in system.receivers.inbox.slack], 60, "Slack was paged")
    assert text.startswith("churn: v2: EMERGENCY, olga lets it pass without approvals. olga pages service:oncall and")
    record = system.aud.decision_record(asked.transition_id)
    assert record.decision.break_glass is not None
    judged = verify_record(record, system.aud.decision_keys())
    assert judged.verified, judged

    assert (delivered(system, oncall), delivered(system, others)) == (["hallmark.glass.broken.v1"], [])

    # An auditor had the log searched for that, and is told.
    until_now(lambda: system.aud.run_search("glass").alerted, 60, "the search found it")
    told = until_now(lambda: list(system.aud.deliveries(alerts.subscription_id)), 60, "the auditor was told")
    assert [one["event_type"] for one in told] == ["hallmark.search.alerted.v1"]

    # Others look at it afterwards.
    waiting = rita.requests(view="needs-me", workspace=system.workspace)
    assert [(r.request_id, r.phase) for r in waiting] == [(asked.transition_id, "review")]
    reviewed = rita.review(asked.transition_id, "there was no time", justified=True)
    assert [one["reviewer"] for one in reviewed.reviews] == ["rita"]
    until_now(lambda: hooks(system, "review.given"), 60, "the review was told")

    # And the version turns out to be bad.
    order = system.olga.revoke_version("churn", 2, "it answers at random").revocation
    assert order.fallback == 1
    until_now(lambda: system.ana.version("churn", 1).stage == "Live", 60, "its stage returned to v1")
    with pytest.raises(VersionRevoked, match="answers at random"):
        system.ana.resolve("churn", version=2)
    until_now(lambda: hooks(system, "version.revoked"), 60, "the revocation was told")
    assert [len(delivered(system, one)) for one in (oncall, others)] == [len(system.receivers.inbox.slack), 0] == [1, 0]
    assert system.receivers.inbox.bad_signatures == 0
    until_now(lambda: live(system)["version"] == 1, 60, "the audit log has the return")
    said = [item.summary for item in system.aud.timeline("churn")]
    for words in (
        "olga broke the glass past approvals: payments are down",
        "rita found the emergency justified: there was no time; the review is closed",
        "olga revoked churn v2, which nobody may use any more: it answers at random",
    ):
        assert [text for text in said if text.startswith(words)], words


def test_whoever_asks_what_was_there_is_told_that_it_was_revoked(governed: System, artifact: Artifact) -> None:
    system = governed
    system.ana.register("churn", artifact("one"), metrics={"auc": 0.9})
    to_live(system, 1)
    until_now(lambda: live(system)["version"] == 1, 60, "the audit log has it")
    at = live(system)["at"]
    system.olga.revoke_version("churn", 1, "trained on leaked labels")
    until_now(lambda: live(system)["version"] is None, 60, "it left, for nothing to return to")
    then = live(system, at=at)
    assert (then["version"], then["revoked"]["by"], then["revoked"]["reason"]) == (
        1,
        "olga",
        "trained on leaked labels",
    )
    assert then["revoked"]["at"] > at
