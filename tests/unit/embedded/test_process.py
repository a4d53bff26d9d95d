"""Children: ready before `start` returns, and nothing left after `stop`, `kill` or the parent's own death."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest
from tests.support.waiting import until_now

from embedded.process import Child, StartError, http_ok

# Starts a grandchild in the group and one that leaves it (as PostgreSQL's backends do), then says so.
FAMILY = """
import os, subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
pids = [os.getpid(), subprocess.Popen(sleeper).pid, subprocess.Popen(sleeper, start_new_session=True).pid]
open("pids.new", "w").write(" ".join(map(str, pids)))
os.replace("pids.new", "pids")
time.sleep(600)
"""


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def make(directory: Path, code: str, **options: object) -> Child:
    (directory / "pids").unlink(missing_ok=True)
    return Child(
        name="child",
        command=[sys.executable, "-c", code],
        log=directory / "logs" / "child.log",
        port=0,
        cwd=directory,
        **({"ready": lambda _: (directory / "pids").exists()} | options),  # type: ignore[arg-type]
    )


def pids(directory: Path) -> list[int]:
    return [int(pid) for pid in (directory / "pids").read_text().split()]


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Child]:
    child = make(tmp_path, FAMILY)
    yield child
    child.kill()


@pytest.mark.parametrize("end", [Child.stop, Child.kill])
def test_nothing_of_the_family_is_left(family: Child, tmp_path: Path, end: Callable[[Child], None]) -> None:
    family.start()
    members = pids(tmp_path)
    assert len(members) == 3
    assert family.pid == members[0]
    assert not any(gone(pid) for pid in members)
    end(family)
    assert all(gone(pid) for pid in members)
    assert not family.alive()


def test_what_ignores_the_stop_signal_is_killed_after_the_grace(tmp_path: Path) -> None:
    child = make(tmp_path, "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAMILY, grace=0.3)
    child.start()
    began = time.monotonic()
    child.stop()
    assert time.monotonic() - began >= 0.3
    assert child.exit_code == -signal.SIGKILL
    assert all(gone(pid) for pid in pids(tmp_path))


def test_the_family_of_a_child_that_died_by_itself_is_ended_too(family: Child, tmp_path: Path) -> None:
    family.start()
    assert family.pid is not None
    in_group = pids(tmp_path)[1]
    os.kill(family.pid, signal.SIGKILL)
    until_now(lambda: not family.alive())
    family.stop()
    assert gone(in_group)


def test_start_and_stop_can_be_repeated(family: Child) -> None:
    family.start()
    first = family.pid
    family.start()  # it runs: nothing to do
    assert family.pid == first
    family.stop()
    family.stop()
    family.start()
    assert family.alive()
    assert family.pid != first
    family.kill()
    family.start()
    assert family.alive()


def test_a_child_that_ends_while_starting_shows_its_last_words(tmp_path: Path) -> None:
    child = make(tmp_path, "import sys; sys.exit('the disk is on fire')")
    with pytest.raises(StartError, match="code 1 while starting") as caught:
        child.start()
    assert "the disk is on fire" in str(caught.value)


def test_a_child_that_never_is_ready_is_not_left_running(tmp_path: Path) -> None:
    child = make(tmp_path, FAMILY, ready=lambda _: False, ready_timeout=1.0)
    with pytest.raises(StartError, match="not ready after 1 s"):
        child.start()
    assert not child.alive()


def test_a_start_ends_when_another_thread_stops_it(tmp_path: Path) -> None:
    child = make(tmp_path, FAMILY, ready=lambda _: False, ready_timeout=60.0)
    errors: list[StartError] = []

    def start() -> None:
        try:
            child.start()
        except StartError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    until_now(child.alive)
    child.stop()
    thread.join(10)
    assert "stopped while starting" in str(errors[0])
    assert not child.alive()


def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    parent = f"""
import sys, time
from pathlib import Path
from embedded.process import Child
directory = Path({str(tmp_path)!r})
child = Child("child", [sys.executable, "-c", {FAMILY!r}], directory / "log", 0,
              lambda _: (directory / "pids").exists(), cwd=directory)
child.start()
print("started", flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    leader, in_group, outside = pids(tmp_path)
    process.kill()
    process.wait()
    process.stdout.close()
    until_now(lambda: gone(leader) and gone(in_group))
    os.kill(outside, signal.SIGKILL)  # one that left the group is beyond the reaper's reach


def test_children_outlive_the_thread_that_started_them(family: Child) -> None:
    thread = threading.Thread(target=family.start)
    thread.start()
    thread.join()
    time.sleep(0.3)  # what this is about would happen at once: PR_SET_PDEATHSIG goes by threads
    assert family.alive()


@pytest.mark.parametrize(
    ("status", "body", "pid", "ready"),
    [
        (200, b'{"ready": true, "pid": 7}', 7, True),
        (200, b'{"ready": true, "pid": 7}', 8, False),
        (200, b'{"ready": true}', 7, False),
        (200, b"[7]", 7, False),
        (200, b"hello", 7, False),
        (503, b'{"ready": false, "pid": 7}', 7, False),
    ],
)
def test_only_the_childs_own_answer_counts(status: int, body: bytes, pid: int, ready: bool) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert http_ok(f"http://127.0.0.1:{server.server_port}/readyz", pid) is ready
        finally:
            server.shutdown()
