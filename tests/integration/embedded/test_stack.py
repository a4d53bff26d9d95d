"""`hallmark up`, `status` and `down` over the real services; what is killed comes back."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.waiting import until_now

from embedded import jars, kafka, services
from embedded.fixtures import server_directory
from embedded.ports import free_port

KIND = "tansu" if jars.missing() else "apache"
pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("stack")]


def hallmark(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "embedded", *words], capture_output=True, text=True, timeout=240, check=False
    )


def status(data: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(hallmark("status", "--data-dir", str(data), "--json").stdout)
    return answer


def processes(data: Path) -> dict[str, dict[str, Any]]:
    return {process["name"]: process for process in status(data)["processes"]}


def left(data: Path) -> list[str]:
    """The processes that still have to do with the data directory."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "environ"]):
        about = " ".join(process.info["cmdline"] or []) + (process.info["environ"] or {}).get(
            "HALLMARK_ACCESS_FILE", ""
        )
        if str(data) in about and process.info["pid"] != os.getpid():
            found.append(about)
    return found


def up(data: Path, ports: list[str]) -> dict[str, Any]:
    done = hallmark("up", "--detach", "--json", "--data-dir", str(data), "--kafka", KIND, *ports)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def ports() -> list[str]:
    picked: list[int] = []
    for _ in services.PORTS:
        picked.append(free_port(picked))
    return [word for name, port in zip(services.PORTS, picked, strict=True) for word in (f"--port-{name}", str(port))]


@pytest.fixture(scope="module")
def data(ports: list[str]) -> Iterator[Path]:
    """A running stack; the tests below use it in turn."""
    with server_directory() as directory:
        up(directory, ports)
        yield directory
        hallmark("down", "--data-dir", str(directory))
        assert left(directory) == []


def test_everything_is_healthy(data: Path) -> None:
    done = hallmark("status", "--data-dir", str(data))
    assert done.returncode == 0
    report = status(data)
    assert report["phase"] == "ready"
    assert [process["name"] for process in report["processes"]] == ["postgres", "kafka", "s3", *services.PORTS]
    assert all(
        process["healthy"] and process["pid"] and process["uptime_seconds"] > 0 for process in report["processes"]
    )


def test_a_second_up_on_the_same_directory_is_refused(data: Path, ports: list[str]) -> None:
    for how in ("--detach", "--foreground"):
        done = hallmark("up", how, "--data-dir", str(data), *ports)
        assert done.returncode == 1
        assert "already running" in done.stderr
    assert hallmark("status", "--data-dir", str(data)).returncode == 0


def test_a_second_stack_on_the_same_ports_is_refused_and_told_why(data: Path, tmp_path: Path, ports: list[str]) -> None:
    done = hallmark("up", "--data-dir", str(tmp_path), *ports)
    assert done.returncode == 1
    assert "ports are taken" in done.stderr
    assert "--port-registry" in done.stderr


def test_a_token_is_printed(data: Path) -> None:
    done = hallmark("token", "create", "--data-dir", str(data), "--subject", "ana", "--group", "ml-engineers")
    assert done.returncode == 0
    assert len(done.stdout.strip().split(".")) == 3


def test_access_and_keys_are_made_once(data: Path) -> None:
    assert "ml-engineers" in (data / "access.yaml").read_text()
    for name in ("auth", "decision", "checkpoint"):
        assert (data / "keys" / f"{name}.jwk").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["registry", "kafka", "postgres", "s3"])
def test_what_is_killed_is_started_again(data: Path, name: str) -> None:
    before = processes(data)[name]
    os.kill(before["pid"], signal.SIGKILL)
    until_now(lambda: processes(data)[name]["pid"] not in (None, before["pid"]), 120)
    until_now(lambda: hallmark("status", "--data-dir", str(data)).returncode == 0, 120)
    after = processes(data)[name]
    assert after["restarts"] == before["restarts"] + 1
    assert after["port"] == before["port"]


def test_nothing_outlives_a_supervisor_that_is_killed_and_up_works_again(data: Path, ports: list[str]) -> None:
    os.kill(status(data)["supervisor"], signal.SIGKILL)
    until_now(lambda: left(data) == [], 120)
    assert status(data) == {"running": False}
    before = json.loads((data / "ports.json").read_text())
    report = up(data, ports)
    assert report["phase"] == "ready"
    assert json.loads((data / "ports.json").read_text()) == before
    assert kafka.answers(before["kafka"])


def test_down_leaves_nothing_behind(data: Path) -> None:
    done = hallmark("down", "--data-dir", str(data))
    assert done.returncode == 0, done.stdout + done.stderr
    assert left(data) == []
    assert hallmark("status", "--data-dir", str(data)).returncode == 1


def test_an_interrupt_while_it_starts_leaves_nothing_behind(server_dir: Path, ports: list[str]) -> None:
    with (server_dir / "out").open("w") as out:
        words = ["up", "--data-dir", str(server_dir / "d"), "--kafka", "tansu", *ports]
        process = subprocess.Popen([sys.executable, "-m", "embedded", *words], stdout=out, stderr=out)
    until_now(lambda: "postgres" in (server_dir / "out").read_text())
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, (server_dir / "out").read_text()
    assert left(server_dir / "d") == []
