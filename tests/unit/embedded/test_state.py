"""The state file, the lock on a data directory, and what the commands say when nothing runs."""

import io
import json
import multiprocessing
import os
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from embedded import state
from embedded.cli import register
from embedded.view import duration, table

app = typer.Typer()
register(app)


def command(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


def example(directory: Path) -> state.State:
    process = state.Process("kafka", 9092, "kafka.log", "ready", pid=os.getpid(), started_at=1.0, restarts=2)
    return state.State(data_dir=str(directory), phase="ready", kafka="tansu", processes=[process], said=["hello"])


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = example(tmp_path)
    written.write()
    assert state.read(tmp_path) == written


def test_there_is_no_state_where_nothing_ever_ran(tmp_path: Path) -> None:
    assert state.read(tmp_path) is None


def test_a_supervisor_that_lives_is_told_from_a_pid_given_to_another(tmp_path: Path) -> None:
    known = example(tmp_path)
    assert known.running()
    known.supervisor_since -= 3600
    assert not known.running()


def test_the_supervisor_of_a_finished_process_does_not_run(tmp_path: Path) -> None:
    known = example(tmp_path)
    finished = multiprocessing.get_context("spawn").Process(target=int)
    finished.start()
    assert finished.pid is not None
    known.supervisor = finished.pid
    finished.join()
    assert not known.running()


def test_a_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    with (
        state.owned(tmp_path),
        pytest.raises(state.AlreadyRunningError, match="already running"),
        state.owned(tmp_path),
    ):
        pass
    with state.owned(tmp_path):
        pass


def test_status_fails_where_nothing_runs(tmp_path: Path) -> None:
    code, text = command("status", "--data-dir", str(tmp_path), "--json")
    assert code == 1
    assert json.loads(text) == {"running": False}


def test_down_is_content_where_nothing_runs(tmp_path: Path) -> None:
    known = example(tmp_path)
    known.supervisor_since -= 3600  # a stack that was killed, its pid since given to us
    known.write()
    code, text = command("down", "--data-dir", str(tmp_path))
    assert code == 0
    assert "nothing runs" in text


def test_status_fails_when_one_process_is_not_healthy(tmp_path: Path) -> None:
    known = example(tmp_path)
    known.processes[0].pid = None
    known.write()
    code, text = command("status", "--data-dir", str(tmp_path), "--json")
    assert code == 1
    assert json.loads(text)["processes"][0]["healthy"] is False


def test_a_token_needs_a_stack_that_made_the_key(tmp_path: Path) -> None:
    code, text = command("token", "create", "--subject", "ana", "--data-dir", str(tmp_path))
    assert code == 1
    assert "hallmark up" in text


def test_status_says_where_kafka_is(tmp_path: Path) -> None:
    known = example(tmp_path)
    known.urls = {"registry": "http://127.0.0.1:8801"}
    known.write()
    assert "export HALLMARK_KAFKA_BOOTSTRAP=127.0.0.1:9092" in command("status", "--data-dir", str(tmp_path))[1]
    report = json.loads(command("status", "--data-dir", str(tmp_path), "--json")[1])
    assert report["kafka_bootstrap"] == "127.0.0.1:9092"


@pytest.mark.parametrize(("restarts", "text"), [(0, None), (1, "1 restart)"), (2, "2 restarts)")])
def test_restarts_are_counted_in_english(restarts: int, text: str | None) -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(table([state.Process("kafka", 9092, "kafka.log", "ready", restarts=restarts)]))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert (text in shown) if text else ("restart" not in shown)


def test_a_time_to_live_that_is_none_is_wrong_usage(tmp_path: Path) -> None:
    code, text = command("token", "create", "--subject", "ana", "--ttl", "abc", "--data-dir", str(tmp_path))
    assert code == 2
    assert "--ttl" in text
    assert "kit.keys" not in text


def test_two_services_on_one_port_are_wrong_usage(tmp_path: Path) -> None:
    code, text = command("up", "--port-registry", "9000", "--port-approval", "9000", "--data-dir", str(tmp_path))
    assert code == 2
    assert "9000" in text
    assert not (tmp_path / "state.json").exists()


@pytest.mark.parametrize("what", ["up", "demo"])
def test_an_unknown_broker_is_wrong_usage(tmp_path: Path, what: str) -> None:
    code, text = command(what, "--kafka", "rabbit", "--data-dir", str(tmp_path))
    assert code == 2
    assert "apache" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59, "59s"), (90, "1m 30s"), (3600, "1h 0m"), (90061, "1d 1h")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
