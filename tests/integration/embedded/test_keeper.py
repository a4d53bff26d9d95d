"""The keeper of a test run's servers: one for all workers, gone when the last of them has gone."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.waiting import until_now

from embedded import kafka

USER = """
import sys
from pathlib import Path
from embedded.fixtures import acquire
print(acquire("kafka-tansu", Path(sys.argv[1]))["bootstrap"], flush=True)
sys.stdin.read()
"""


def worker(locks: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(locks)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def says(process: "subprocess.Popen[str]") -> int:
    """The port of the broker that the worker was given."""
    assert process.stdout is not None
    return int(process.stdout.readline().split(":")[1])


def end(process: "subprocess.Popen[str]", *, kill: bool = False) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    if kill:
        process.kill()
    process.stdin.close()
    process.wait(20)
    process.stdout.close()


def test_workers_share_one_server_and_the_last_one_ends_it(tmp_path: Path) -> None:
    workers = [worker(tmp_path) for _ in range(3)]  # all at once: one of them starts it
    (port,) = {says(process) for process in workers}
    end(workers[0], kill=True)
    end(workers[1])
    time.sleep(1.0)  # several looks of the keeper at its lock
    assert kafka.answers(port), "it must live while one worker does"
    end(workers[2], kill=True)
    until_now(lambda: not kafka.answers(port))
    until_now(lambda: not (tmp_path / "kafka-tansu.json").exists())


def test_who_comes_while_it_ends_gets_a_new_one(tmp_path: Path) -> None:
    for _ in range(2):
        process = worker(tmp_path)
        assert kafka.answers(says(process))
        end(process)


def test_a_server_that_cannot_start_is_said_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedded.fixtures import acquire

    monkeypatch.setenv("CALF_TANSU_BIN", str(tmp_path / "nowhere"))
    with pytest.raises(RuntimeError, match="nowhere"):
        acquire("kafka-tansu", tmp_path)


def test_the_facts_are_all_a_client_needs(infra_locks: Path, infra_postgres: str) -> None:
    assert json.loads((infra_locks / "postgres.json").read_text()) == {"url": infra_postgres}
