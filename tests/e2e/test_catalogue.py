"""What people do with the catalogue, by SDK and command line, on the whole system."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.system import System
from tests.support.waiting import until_now
from typer.testing import CliRunner

from hallmark import HallmarkError
from hallmark import cli as commands
from hallmark.results import Alias, Transition

pytestmark = pytest.mark.one_broker

Artifact = Callable[[str], Path]


def cli(system: System, *words: str, by: str = "ana", groups: tuple[str, ...] = ("ml-engineers",)) -> Any:
    """The JSON that a command prints. Run here: as programs of their own tests/integration/client tries commands."""
    env = {
        "HALLMARK_URL": system.url,
        "HALLMARK_TOKEN": system.token(by, *groups),
        "HALLMARK_WORKSPACE": system.workspace,
    }
    done = CliRunner().invoke(commands.build(), [*words, "--json"], env=env)
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


def test_a_directory_is_registered_found_and_downloaded(system: System, tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "code").mkdir(parents=True)
    (model / "weights.bin").write_bytes(b"w" * 100_000)
    (model / "code" / "score.py").write_text("def score(): ...\n")
    made = cli(system, "version", "register", "churn", str(model), "--metric", "auc=0.9", "--tag", "team=risk")
    assert (made["status"], len(made["content"]["artifact"]["files"])) == ("ready", 2)
    (model / "code" / "score.py").write_text("def score(): return 1\n")
    system.ana.register("churn", model, metrics={"auc": 0.95}, better={"auc": "higher"})

    found = cli(
        system, "search", "versions", "tags.team = 'risk' OR metrics.auc > 0.94", "--order-by", "metrics.auc DESC"
    )
    assert [v["version"] for v in found] == [2, 1]
    assert cli(system, "search", "best", "churn", "auc")["version"] == 2
    compared = cli(system, "version", "compare", "churn", "1", "2")
    assert list(compared["files"]) == ["code/score.py"]
    assert compared["metrics"]["auc"]["best"] == 2
    pinned = cli(system, "serving", "resolve", "churn", "--version", "1", "--download", str(tmp_path / "back"))
    assert (pinned["version"], bool(pinned["pin"])) == (1, True)
    [score] = (tmp_path / "back").rglob("score.py")
    assert score.read_text() == "def score(): ...\n"


def test_aliases_notes_and_names_by_command_line(system: System, artifact: Artifact) -> None:
    for name in ("one", "two"):
        system.ana.register("churn", artifact(name), metrics={"auc": 0.9})
    assert cli(system, "alias", "set", "churn", "champion", "1", "--reason", "first")["version"] == 1
    assert isinstance(system.ana.set_alias("churn", "champion", 2, reason="better", expected=1), Alias)
    with pytest.raises(HallmarkError) as refused:
        system.ana.set_alias("churn", "champion", 1, expected=1)
    assert refused.value.code == "alias-moved"
    assert [m["version"] for m in cli(system, "alias", "history", "churn", "champion")] == [1, 2]
    assert system.ana.resolve("churn", alias="champion").version == 2
    cli(system, "version", "note", "churn", "2", "checked with the desk")
    cli(system, "version", "evaluate", "churn", "2", "--dataset", "may", "--metric", "auc=0.87")
    assert cli(system, "version", "tag", "churn", "2", "--set", "reviewed=yes")["tags"] == {"reviewed": "yes"}
    assert [r["kind"] for r in cli(system, "version", "remarks", "churn", "2")] == ["note", "evaluation"]
    olga: Any = {"by": "olga", "groups": ("operators",)}
    assert cli(system, "model", "rename", "churn", "attrition", **olga)["name"] == "attrition"
    assert system.ana.model("churn").name == "attrition"
    cli(system, "model", "delete", "attrition", "--reason", "over", **olga)
    assert [m["model"] for m in cli(system, "model", "list", "--deleted")] == ["churn"]
    cli(system, "model", "restore", "churn", "--reason", "not over", **olga)
    until_now(
        lambda: (
            {"hallmark.alias.changed.v1", "hallmark.model.renamed.v1"} <= {i.type for i in system.aud.timeline("churn")}
        ),
        60,
        "the audit log has all of it",
    )


def test_a_protected_alias_needs_another_person(system: System, artifact: Artifact, tmp_path: Path) -> None:
    policy = f"""
kind: PromotionPolicy
metadata: {{name: champion-{system.workspace}}}
spec:
  match:
    transition: {{kind: alias, to: "@champion"}}
    when: model.workspace == "{system.workspace}"
  approvals:
    rules: [{{id: second, meaning: I agree, from: ['group:reviewers'], count: 1}}]
"""
    change = system.client("root", "admins").publish_policy(policy)
    assert (change.published, change.status) == (False, "open")
    assert change.request_id is not None
    assert system.client("ada", "admins").approve(change.request_id, "agreed").status == "approved"
    rules = tmp_path / "rules.yaml"
    rules.write_text("protected_aliases: [champion]\n")
    shown = cli(system, "workspace", "configure", str(rules), by="root", groups=("admins",))
    assert shown["protected_aliases"] == ["champion"]
    system.ana.register("churn", artifact("one"))
    asked = system.ana.set_alias("churn", "champion", 1, reason="best")
    assert isinstance(asked, Transition)
    system.ana.request(asked.transition_id, wait=60)
    assert system.ana.transition(asked.transition_id).open
    system.ben.approve(asked.transition_id, "agreed")
    assert system.ana.transition(asked.transition_id, wait=60).applied
    assert system.ana.aliases("churn")[0].version == 1


def test_a_quarantined_version_does_not_leave(system: System, tmp_path: Path) -> None:
    bad = tmp_path / "model.pkl"
    bad.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    made = system.ana.register("churn", bad)
    assert made.status == "quarantined"
    closed = system.ana.request_stage("churn", 1, "Staging", "hope", wait=60)
    assert closed.status == "refused"
    assert ("registry/unsafe-artifact", "fail") in [(c.gate, c.result) for c in closed.criteria]


def test_what_serves_is_seen_and_what_is_stale_is_archived(system: System, artifact: Artifact) -> None:
    for name, auc in (("one", 0.9), ("two", 0.95)):
        system.ana.register("churn", artifact(name), metrics={"auc": auc})
    system.ana.set_alias("churn", "champion", 2)
    system.ana.report_serving("churn", "pod-1", 1, "serving", target="@champion")
    status = cli(system, "serving", "status", "churn")
    assert (status["in_step"], status["targets"][0]["desired"]["version"]) == (False, 2)
    system.ana.report_serving("churn", "pod-1", 2, "serving", target="@champion")
    assert cli(system, "serving", "status", "churn")["in_step"]
    system.ana.resolve("churn", alias="champion")
    assert [u["version"] for u in cli(system, "serving", "usage", "churn")] == [2]
    for version in (1, 2):
        system.ana.evaluate("churn", version, "june", {"auc": 0.6})
    found = cli(system, "serving", "stale", "--metric", "auc", "--floor", "0.8")
    assert [(v["version"], bool(v["serves"])) for v in found] == [(1, False), (2, True)]
    criteria = ("--metric", "auc", "--floor", "0.8", "--reason", "drift")
    assert {v["outcome"] for v in cli(system, "serving", "archive", *criteria)} == {"would-archive", "refused"}
    assert system.ana.version("churn", 1).stage == "Development"
    done = cli(system, "serving", "archive", *criteria, "--yes")
    assert [(v["version"], v["outcome"]) for v in done] == [(1, "done"), (2, "refused")]
    assert system.ana.version("churn", 1).stage == "Archived"
