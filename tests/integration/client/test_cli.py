"""The command line as a script uses it: exit codes, JSON, other people's tokens."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedded.stack import Stack
from hallmark import Client

pytestmark = [pytest.mark.xdist_group("house"), pytest.mark.timeout(300)]
Hallmark = Callable[..., tuple[int, Any]]


@pytest.fixture
def hallmark(house: Stack, ana: Client) -> Hallmark:
    def hallmark(who: str, group: str, *arguments: str) -> tuple[int, Any]:
        environment = {
            **os.environ,
            "HALLMARK_URL": house.urls["registry"],
            "HALLMARK_TOKEN": house.token(who, [group]),
            "HALLMARK_WORKSPACE": ana.workspace,
        }
        command = [sys.executable, "-m", "hallmark.cli", *arguments, "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

    return hallmark


def test_from_registration_to_proof(hallmark: Hallmark, model_file: Path, tmp_path: Path) -> None:
    register = ("version", "register", "fraud", str(model_file))
    code, made = hallmark("ana", "ml-engineers", *register, "--metric", "accuracy=0.93", "--param", "depth=3")
    assert (code, made["version"], made["content"]["parameters"]) == (0, 1, {"depth": 3})
    code, moved = hallmark(
        "ana", "ml-engineers", "stage", "request", "fraud", "1", "Staging", "--reason", "try", "--wait", "30"
    )
    assert (code, moved["status"]) == (0, "applied")
    code, asked = hallmark(
        "ana", "ml-engineers", "stage", "request", "fraud", "1", "Production", "--reason", "good", "--wait", "2"
    )
    assert (code, asked["status"]) == (3, "open")
    request_id = asked["transition_id"]
    code, error = hallmark("ana", "ml-engineers", "request", "approve", request_id)
    assert code == 4
    assert "own-request" in error or "forbidden" in error
    code, voted = hallmark("ben", "reviewers", "request", "approve", request_id, "--comment", "fine")
    assert (code, voted["votes"][0]["voter"]) == (0, "ben")
    code, found = hallmark("ana", "ml-engineers", "request", "list", "--status", "open")
    assert (code, [r for r in found if r["request_id"] == request_id]) == (0, [])
    log = tmp_path / "log.ndjson"
    code, exported = hallmark("aud", "auditors", "audit", "export", str(log))
    assert code == 0
    code, verified = hallmark("aud", "auditors", "audit", "verify", str(log), "--key", exported["key"])
    assert (code, verified["verified"]) == (0, True)
    text = log.read_text()
    place = text.rindex('"leaf":"') + 20
    log.write_text(text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :])
    code, verified = hallmark("aud", "auditors", "audit", "verify", str(log), "--key", exported["key"])
    assert (code, verified["verified"], verified["index"]) == (4, False, text[:place].count("\n") - 1)


def test_a_gate_that_fails_is_exit_4(hallmark: Hallmark, model_file: Path) -> None:
    hallmark("ana", "ml-engineers", "version", "register", "weak", str(model_file), "--metric", "accuracy=0.5")
    ask = ("stage", "request", "weak", "1")
    hallmark("ana", "ml-engineers", *ask, "Staging", "--reason", "try", "--wait", "30")
    code, refused = hallmark("ana", "ml-engineers", *ask, "Production", "--reason", "please", "--wait", "30")
    assert (code, refused["status"]) == (4, "refused")
    assert refused["criteria"][0]["result"] == "fail"


def test_what_does_not_exist_is_exit_1(hallmark: Hallmark) -> None:
    code, error = hallmark("ana", "ml-engineers", "model", "show", "nothing")
    assert code == 1
    assert "model-not-found" in error


def test_a_service_that_is_away_is_exit_1_and_says_what_to_do(house: Stack) -> None:
    environment = {**os.environ, "HALLMARK_URL": "http://127.0.0.1:9", "HALLMARK_TOKEN": "t"}
    done = subprocess.run(
        [sys.executable, "-m", "hallmark.cli", "model", "list"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "hallmark up" in done.stderr
    assert "Traceback" not in done.stderr
