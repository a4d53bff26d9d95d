"""What a running stack says about itself: one file in its data directory, read by `status` and `down`."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from embedded.ports import HOST, write_json

Condition = Literal["waiting", "starting", "ready", "restarting", "stopped"]
Phase = Literal["starting", "ready", "stopping", "stopped", "failed"]


class AlreadyRunningError(RuntimeError):
    """Another process runs a stack on this data directory."""


@dataclass
class Process:
    name: str
    port: int
    log: str
    condition: Condition = "waiting"
    pid: int | None = None
    started_at: float | None = None  # seconds since the epoch
    restarts: int = 0

    def alive(self) -> bool:
        return self.pid is not None and psutil.pid_exists(self.pid)

    def uptime(self) -> float | None:
        """Seconds, or None when it does not run."""
        return time.time() - self.started_at if self.started_at and self.alive() else None


@dataclass
class State:
    data_dir: str
    phase: Phase = "starting"
    kafka: str = ""
    urls: dict[str, str] = field(default_factory=dict)  # service -> base URL
    processes: list[Process] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # what happened, in order; the last ones
    said_count: int = 0  # all that was ever said
    error: str | None = None
    supervisor: int = field(default_factory=os.getpid)
    supervisor_since: float = field(default_factory=lambda: psutil.Process().create_time())

    def running(self) -> bool:
        """True while the supervisor lives; a pid that was given to another program does not count."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.supervisor)
            return abs(process.create_time() - self.supervisor_since) < 1 and process.status() != psutil.STATUS_ZOMBIE
        return False

    @property
    def kafka_bootstrap(self) -> str:
        """Where clients reach the broker; empty before its port is known."""
        return next((f"{HOST}:{process.port}" for process in self.processes if process.name == "kafka"), "")

    def write(self) -> None:
        write_json(path(self.data_dir), asdict(self))


def path(data_dir: Path | str) -> Path:
    return Path(data_dir) / "state.json"


def read(data_dir: Path | str) -> State | None:
    """The last state written in that directory, of a stack that may have ended; None if there was none."""
    try:
        raw = json.loads(path(data_dir).read_text())
    except FileNotFoundError:
        return None
    processes = [Process(**process) for process in raw.pop("processes")]
    return State(**raw, processes=processes)


@contextmanager
def owned(data_dir: Path) -> Iterator[None]:
    """Holds the directory for this process. Raises AlreadyRunningError if another one does."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AlreadyRunningError(f"a stack is already running on {data_dir}") from None
        yield
