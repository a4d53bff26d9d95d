"""The pipelines under deploy/ci, run as their runners would run them, against the whole system."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.receiver import Receiver

from embedded.stack import Stack
from hallmark import Client

pytestmark = [pytest.mark.xdist_group("house"), pytest.mark.timeout(300)]
CI = Path(__file__).parents[3] / "deploy/ci"
ACTION = yaml.safe_load((CI / "github/action.yml").read_text())
GITLAB = yaml.safe_load((CI / "gitlab.yml").read_text())[".hallmark"]
PROMOTE = next(step for step in ACTION["runs"]["steps"] if step.get("id") == "promote")
Job = Callable[..., tuple[int, str, str]]


@pytest.fixture
def environment(house: Stack, ana: Client, model_file: Path, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "HALLMARK_URL": house.urls["registry"],
        "HALLMARK_TOKEN": house.token("ci", ["ml-engineers"]),
        "HALLMARK_WORKSPACE": ana.workspace,
        "MODEL": "fraud",
        "ARTIFACT": str(model_file),
        "METRICS": "accuracy=0.94 auc=0.9",
        "WAIT": "60",
        "GITHUB_ACTION_PATH": str(CI / "github"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "COMMENT": str(tmp_path / "comment.md"),
    }


@pytest.fixture
def github(environment: dict[str, str], tmp_path: Path) -> Job:
    """The step of the action as its runner does it: (exit code, outputs, comment)."""

    def job(**settings: str) -> tuple[int, str, str]:
        (tmp_path / "output").write_text("")
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", PROMOTE["run"]]
        done = subprocess.run(
            command, env=environment | settings, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        comment = tmp_path / "comment.md"
        return (
            done.returncode,
            (tmp_path / "output").read_text(),
            comment.read_text() if comment.exists() else done.stderr,
        )

    return job


def test_a_pipeline_registers_compares_asks_and_is_gated(
    github: Job, ana: Client, ben: Client, tmp_path: Path, model_file: Path
) -> None:
    (tmp_path / "evaluation.json").write_text('{"auc": 0.9}')
    code, output, comment = github(EVALUATION="evaluation.json", RUN="run-1", PARAMS="depth=3", REASON="$(touch x)`id`")
    assert (code, output.splitlines()[:2]) == (0, ["version=1", "status=applied"])
    assert "Nothing is in Production" in comment
    assert (tmp_path / "summary").read_text() == comment
    assert not (tmp_path / "x").exists()
    made = ana.version("fraud", 1)
    assert (made.stage, made.metrics, made.tags["ci_run"]) == ("Staging", {"accuracy": 0.94, "auc": 0.9}, "run-1")
    assert [e.type for e in ana.evidence("fraud", 1)] == ["evaluation"]

    code, output, comment = github(STAGE="Production", RUN="run-1", WAIT="2")
    assert (code, "status=open" in output) == (3, True), "the second attempt goes on with the same version"
    assert github(STAGE="Production", RUN="run-1", WAIT="0", ALLOW_AWAITING="true")[0] == 4, "it is asked for already"
    request = output.split("transition=")[1].strip()
    ben.approve(request, "fine")
    assert ana.transition(request, wait=60).applied
    assert [v.version for v in ana.versions("fraud")] == [1]

    model_file.write_bytes(b"worse")
    code, output, comment = github(RUN="run-2", METRICS="accuracy=0.5 auc=0.8")
    assert (code, "version=2" in output) == (0, True)
    assert "v2 against v1" in comment
    assert "| accuracy | 0.94 | 0.5 (-0.4400) |" in comment.replace("**", "")
    code, output, comment = github(RUN="run-2", STAGE="Production")
    assert (code, "status=refused" in output, "Production: **refused**" in comment) == (4, True, True)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"ARTIFACT": "gone.onnx"}, "gone.onnx"),
        ({"METRICS": "accuracy"}, "NAME=VALUE"),
        ({"METRICS": "accuracy=high"}, "METRICS"),
        ({"HALLMARK_URL": "http://127.0.0.1:9"}, "hallmark up"),
        ({"MODEL": ""}, "set MODEL"),
    ],
)
def test_a_pipeline_that_is_set_up_wrongly_says_how(github: Job, settings: dict[str, str], told: str) -> None:
    code, output, err = github(**settings)
    assert (code, output) == (1, "")
    assert told in err


def test_gitlabs_job_comments_on_the_merge_request(environment: dict[str, str], ana: Client, tmp_path: Path) -> None:
    script = [line for line in GITLAB["script"] if "pip install" not in line]
    assert len(script) == len(GITLAB["script"]) - 1
    gitlab = Receiver()
    try:
        settings: dict[str, Any] = {
            **environment,
            **GITLAB["variables"],
            "HALLMARK_PROMOTE": str(CI / "promote.py"),
            "CI_PROJECT_ID": "7",
            "CI_PIPELINE_ID": "9",
            "CI_PROJECT_PATH": "team/fraud",
            "CI_COMMIT_SHA": "c0ffee",
            "CI_MERGE_REQUEST_IID": "3",
            "CI_API_V4_URL": gitlab.url,
            "GITLAB_TOKEN": "secret",
        }
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", "\n".join(script)],
            env=settings,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        gitlab.stop()
    assert done.returncode == 0, done.stderr
    [note] = gitlab.hits
    assert (note.path, note.headers["private-token"]) == ("/projects/7/merge_requests/3/notes", "secret")
    assert "fraud: v1" in note.document["body"]
    assert (tmp_path / "hallmark.env").read_text().startswith("version=1\nstatus=applied\n")
    assert ana.version("fraud", 1).tags == {"ci_run": "gitlab-7-9"}
    assert next(ana.transitions("fraud")).reason == "team/fraud c0ffee"


def test_inputs_reach_scripts_through_the_environment_only() -> None:
    steps = ACTION["runs"]["steps"]
    assert all("${{" not in step["run"] for step in steps)
    used = {
        name
        for step in steps
        for text in (str(step.get("env")), str(step.get("if")))
        for name in ACTION["inputs"]
        if f"inputs.{name} " in text or f"inputs.{name}}}" in text
    }
    assert used == set(ACTION["inputs"])
    known = (CI / "promote.py").read_text()
    told = {name for name in PROMOTE["env"] if name not in ("ALLOW_AWAITING",)}
    assert {name for name in told if name not in known} == set()
