"""The README's code runs as it stands, and its tables are true."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.support.system import System
from typer.testing import CliRunner

from contracts.topics import TOPICS
from hallmark import HallmarkError, cli

pytestmark = pytest.mark.one_broker

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
DOCUMENTS = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
RULES, POLICY = DOCUMENTS


def environment(system: System, directory: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "HALLMARK_URL": system.url,
        "HALLMARK_CACHE_DIR": str(directory / "cache"),
        "HALLMARK_TOKEN": system.token("ana", "ml-engineers"),
        "HALLMARK_KAFKA_BOOTSTRAP": system.bootstrap,
        "ADMIN_TOKEN": system.token("root", "admins"),
        "HALLMARK_WORKSPACE": system.workspace,
    }


def test_the_code_runs_as_it_stands(system: System, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    train(source)
    (tmp_path / "fraud.yaml").write_text(POLICY)
    printed = []
    for snippet in SNIPPETS:
        done = subprocess.run(
            [sys.executable, "-c", snippet],
            cwd=tmp_path,
            env=environment(system, tmp_path),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout.strip())
        if printed[-1] == "open":
            approve(system)  # what the README asks of a reviewer at this point
    assert printed[:3] == ["churn version 1 is registered", "open", "serving version 2"]
    assert printed[3].splitlines() == ["champion is version 2", "[0.0, 0.020000000000000018]"]
    assert re.fullmatch(r"policy fraud revision \d+: open", printed[4])
    agree(system)
    assert printed[5:] == [""]  # the receiver, which hears nothing here: tests/integration/notifier has it hear


def test_the_rules_are_accepted_as_they_stand(system: System) -> None:
    shown = system.client("root", "admins").configure(yaml.safe_load(RULES))
    assert [stage["name"] for stage in shown.lifecycle["stages"]] == ["Lab", "Canary", "Live", "Attic"]
    assert shown.protected_aliases == ["champion"]


def test_the_operators_commands_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    named = sorted({*re.findall(r"`python -m ((?:registry|audit) [\w-]+)", README)})
    assert len(named) > 4
    for service, command in (words.split() for words in named):
        monkeypatch.setattr(sys, "argv", [service, command, "--help"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(service, run_name="__main__")
        assert ended.value.code == 0, (service, command)


def approve(system: System) -> None:
    """What the SDK's `approve` does is what `hallmark request approve` does."""
    [request] = [r for r in system.ben.requests("open") if r.workspace == system.workspace]
    system.ben.approve(request.request_id, "reviewed")
    assert system.ana.transition(request.request_id, wait=60).applied


def agree(system: System) -> None:
    """What the README says of administrators."""
    root, ada = system.client("root", "admins"), system.client("ada", "admins")
    [change] = [r for r in ada.requests("open", view="needs-me") if (r.kind, r.model) == ("policy", "fraud")]
    with pytest.raises(HallmarkError) as refused:
        root.approve(change.request_id)
    assert refused.value.code == "own-request"
    assert ada.approve(change.request_id, "agreed").status == "approved"
    assert system.ana.policy("fraud").document == POLICY


def test_the_commands_exist() -> None:
    hallmark = Path(sys.executable).with_name("hallmark")
    subprocess.run([str(hallmark), "token", "create", "--help"], capture_output=True, timeout=60, check=True)
    commands = cli.build()  # what that program runs; a process for each would take half a minute
    for command in (
        *("up", "status", "down", "token create", "request approve", "stage rollback", "notify subscribe"),
        *(
            "notify deliveries",
            "notify rotate",
            "notify keys",
            "audit verify",
            "search versions",
            "version compare",
            "alias set",
            "serving stale",
            "serving export",
            "serving status",
            "serving wait",
            "serving keys",
        ),
        *("workspace configure", "policy check", "policy test", "policy simulate", "policy explain", "request list"),
        *("request waive", "request break-glass", "request review", "delegation grant", "evidence attach"),
        *("version revoke", "decision verify"),
        *("audit explain", "audit production", "model timeline", "audit retention set", "audit hold place"),
        *("audit search save", "audit search run", "audit search list"),
    ):
        assert f"hallmark {command}" in README
        told = CliRunner().invoke(commands, [*command.split(), "--help"])
        assert told.exit_code == 0, told.output
    targets = subprocess.run(["make", "-pn"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False).stdout
    for target in re.findall(r"\bmake ([a-z-]+)", README):
        assert f"\n{target}:" in targets, target


def test_the_table_of_topics_is_true() -> None:
    rows = dict(re.findall(r"^\| `(hallmark\.[a-z.]+)` \| ([a-z ]+) \|", README, re.MULTILINE))
    assert rows == {topic.name: topic.writer or "any producer" for topic in TOPICS}


def train(target: Path) -> None:
    """The smallest real ONNX model."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    x, y = load_iris(return_X_y=True)
    x = x.astype("float32")
    model = LogisticRegression(max_iter=200).fit(x, y)
    target.write_bytes(to_onnx(model, x[:1], options={"zipmap": False}).SerializeToString())
