"""A supervised child: its own process group, a log file, a readiness condition, a sure end."""

import contextlib
import json
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

LOG_TAIL = 20  # lines of the log shown when a start fails


class StartError(RuntimeError):
    """A child did not become ready. The message says which, why, and shows the end of its log."""


@dataclass
class Child:
    """One program. `start`, `stop` and `kill` may be called from any thread, in any state."""

    name: str
    command: Sequence[str]
    log: Path
    port: int
    ready: Callable[["Child"], bool]
    before: Callable[[], None] = lambda: None  # runs before each start: make or mend the data directory
    after: Callable[[], None] = lambda: None  # runs after each end: remove what it leaves elsewhere
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 10.0  # seconds between the stop signal and SIGKILL
    ready_timeout: float = 60.0
    started_at: float | None = field(default=None, init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _stop_asked: bool = field(default=False, init=False, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        """None while it runs (or was never started); negative: ended by that signal."""
        return self._process.poll() if self._process else None

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts it and returns when it is ready. Raises StartError; then nothing is left running."""
        with self._lock:
            if self.alive():
                return
            if self._process is not None:
                self._end(self._tree())  # it died; what it started may not have
            self.before()
            self._spawn()
            try:
                self._wait_ready()
            except BaseException:
                self.kill()
                raise

    def stop(self) -> None:
        """Asks it to stop; kills what is left after the grace. A start under way in another thread fails."""
        self._stop_asked = True
        with self._lock:
            self._stop_asked = False
            if self._process is None:
                return
            tree = self._tree()
            if self.alive():
                self._process.send_signal(self.stop_signal)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(self.grace)
            self._end(tree)

    def kill(self) -> None:
        """SIGKILL to the whole group and to every descendant (PostgreSQL's leave the group)."""
        with self._lock:
            if self._process is not None:
                self._end(self._tree())

    def _spawn(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # A user that root steps down to has no business with root's groups.
        groups: Sequence[str | int] | None = [] if self.user else None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                list(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if self.env is None else dict(self.env),
                cwd=self.cwd,
                user=self.user,
                group=group_of(self.user),
                extra_groups=groups,
                start_new_session=True,
            )
        self.started_at = time.time()
        _reaper.add(self._process.pid, self.stop_signal)

    def _wait_ready(self) -> None:
        end = time.monotonic() + self.ready_timeout
        while True:
            if (code := self.exit_code) is not None:
                raise StartError(f"{self.name} ended with code {code} while starting\n{self._tail()}")
            if self._stop_asked:
                raise StartError(f"{self.name} was stopped while starting")
            if self.ready(self):
                return
            if time.monotonic() > end:
                raise StartError(f"{self.name} was not ready after {self.ready_timeout:.0f} s\n{self._tail()}")
            time.sleep(0.05)

    def _tree(self) -> list[psutil.Process]:
        """Its descendants; of a dead process, what is left of its group."""
        if self._process is None:
            return []
        if self.alive():
            with contextlib.suppress(psutil.NoSuchProcess):
                return psutil.Process(self._process.pid).children(recursive=True)
        return [process for process in psutil.process_iter() if _group_id(process) == self._process.pid]

    def _end(self, tree: list[psutil.Process]) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says EPERM for zombies
            os.killpg(self._process.pid, signal.SIGKILL)
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        wait_gone(tree)
        _reaper.remove(self._process.pid)
        self.after()

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
        return "\n".join([f"the end of {self.log}:", *(f"  {line}" for line in lines)])


def _group_id(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except OSError:
        return None


def wait_gone(processes: list[psutil.Process], timeout: float = 10.0) -> None:
    """Waits for the end of killed processes that are not our children; a zombie has ended."""
    end = time.monotonic() + timeout
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                if time.monotonic() > end:
                    return
                time.sleep(0.01)


def http_ready(url: str) -> Callable[[Child], bool]:
    """Ready when a GET of the URL answers 200, and the answer is the child's own."""

    def ready(child: Child) -> bool:
        return http_ok(url, child.pid)

    return ready


def http_ok(url: str, pid: int | None, timeout: float = 2.0) -> bool:
    """True when it answers 200 and names that process: another one may listen on the port."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:  # noqa: S310 - our own address
            said = json.load(answer)
            return answer.status == 200 and isinstance(said, dict) and said.get("pid") == pid
    except (OSError, ValueError):
        return False


def group_of(user: str | None) -> int | None:
    """The user's own group: with root's, files that are closed to their group would be closed to it."""
    return pwd.getpwnam(user).pw_gid if user else None


class _Reaper:
    """The parent's side of reaper.py; one per process, started with the first child."""

    def __init__(self) -> None:
        self._owner = 0
        self._pipe: IO[bytes] | None = None
        self._lock = threading.Lock()

    def add(self, pid: int, number: signal.Signals) -> None:
        self._write(f"+ {pid} {number:d}\n")

    def remove(self, pid: int) -> None:
        self._write(f"- {pid}\n")

    def _write(self, line: str) -> None:
        with self._lock:
            if self._pipe is None or self._owner != os.getpid():  # a forked copy needs one of its own
                self._owner = os.getpid()
                script = Path(__file__).with_name("reaper.py")
                self._process = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-I", "-S", str(script)], stdin=subprocess.PIPE, start_new_session=True
                )
                self._pipe = self._process.stdin
            assert self._pipe is not None
            # If the reaper was killed, the children merely lose their second guard.
            with contextlib.suppress(BrokenPipeError):
                self._pipe.write(line.encode())
                self._pipe.flush()


_reaper = _Reaper()
