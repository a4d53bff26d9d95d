"""Holds one server for a test run: `python -m embedded.keeper KIND LOCKS`.

Every pytest worker that uses the server holds a shared lock on a file for as long as it lives. When the
keeper can take that lock for itself nobody is left, however they ended, and it removes server and data.
"""

import fcntl
import importlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from embedded import kafka, postgres, s3
from embedded.ports import free_port, write_json

Facts = dict[str, str]
PATIENCE = 0.2  # seconds between two looks at the lock


@dataclass(frozen=True)
class Provided:
    facts: Facts  # what a client needs to reach the server
    stop: Callable[[], None]


def provide(kind: str, data: Path) -> Provided:
    """Starts one server; `kind` is postgres, s3, kafka-tansu or kafka-apache. The seam for other providers."""
    stack = os.environ.get("HALLMARK_TEST_STACK", "embedded")
    if stack == "embedded" or kind == "kafka-tansu":  # Tansu comes as a package only
        return _embedded(kind, data)
    provided: Provided = importlib.import_module(f"embedded.{stack}").provide(kind, data)
    return provided


def _embedded(kind: str, data: Path) -> Provided:
    log = data / f"{kind}.log"
    if kind == "postgres":
        port = free_port()
        child = postgres.postgres(data / "postgres", port, "test", log, fsync=False)
        facts = {"url": postgres.admin_url(port, "test")}
    elif kind == "s3":
        ports = _ports(s3.PORTS)
        child = s3.s3(data / "s3", ports, "test-secret", log)
        facts = {
            "endpoint": s3.endpoint(ports),
            "access_key": s3.ACCESS_KEY,
            "secret_key": "test-secret",
        }
    else:
        ports = _ports(kafka.PORTS)
        broker = kafka.choose("apache" if kind == "kafka-apache" else "tansu")
        child = kafka.kafka(broker, data / "kafka", ports, log)
        facts = {"bootstrap": f"127.0.0.1:{ports['kafka']}", "kind": broker}
    child.start()
    return Provided(facts, child.kill)  # nothing of it is wanted any more


def _ports(names: list[str]) -> dict[str, int]:
    ports: dict[str, int] = {}
    for name in names:
        ports[name] = free_port(ports.values())
    return ports


@contextmanager
def locked(path: Path, how: int) -> Iterator[None]:
    """Holds a lock on the file while the block runs."""
    with path.open("a") as file:
        fcntl.flock(file, how)
        yield


def main(kind: str, locks: Path) -> None:
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    data = Path(tempfile.mkdtemp(prefix="hallmark-test-"))
    facts = locks / f"{kind}.json"
    provided: Provided | None = None
    try:
        provided = provide(kind, data)
        write_json(facts, provided.facts)
        with (locks / f"{kind}.users").open("a") as users:
            while not stopped.wait(PATIENCE):
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break  # and keep it: whoever comes now waits until we are gone
                except OSError:
                    continue
            facts.unlink(missing_ok=True)
            provided.stop()
    finally:
        if provided is not None:
            provided.stop()
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
