"""The stack the demo plays on: the one left running by an earlier demo, or a new one."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from embedded import services, state
from embedded.demo.tell import Unexpected
from embedded.ports import HOST, free_port, write_json
from kit.keys import load_key, make_token

START_SECONDS = 300.0
STOP_SECONDS = 60.0


@dataclass(frozen=True)
class House:
    """What the story needs to know of the stack.

    `fresh`: this run started it. `ours`: this run stops it, unless it is told to keep it.
    """

    registry_url: str
    kafka: str
    kafka_bootstrap: str
    auth_key: Path
    smtp_port: int
    supervisor: int
    fresh: bool
    ours: bool
    facts: Path

    def token(self, subject: str, group: str, kind: str = "person") -> str:
        return make_token(load_key(self.auth_key), subject, [group], kind=kind, ttl_seconds=3600)

    def keep(self) -> None:
        """The user wants it: later runs leave it alone."""
        write_json(self.facts, {"supervisor": self.supervisor, "smtp_port": self.smtp_port, "kept": True})

    def stop(self) -> None:
        """Stops the stack as `hallmark down` does."""
        try:
            supervisor = psutil.Process(self.supervisor)
            supervisor.terminate()
            supervisor.wait(STOP_SECONDS)
        except psutil.NoSuchProcess:
            return
        except psutil.TimeoutExpired:
            supervisor.kill()


def enter(data: Path, kafka: str, show: Callable[[str], None]) -> House:
    """The running stack of that data directory, or a new one. `show` gets a line about what is being waited for.

    Raises:
        Unexpected: it does not start, or one runs there that the demo did not start.
    """
    facts = data / "demo.json"
    known = state.read(data)
    if known is not None and known.running():
        begun = json.loads(facts.read_text()) if facts.exists() else {}
        if begun.get("supervisor") != known.supervisor:
            raise Unexpected(f"a stack runs on {data} that was not started by the demo; stop it: hallmark down")
        # One that nobody asked to keep was left by a demo that was killed: it is ours to stop.
        ours = not begun.get("kept", False)
        return _house(data, _ready(data, known.supervisor, show), begun["smtp_port"], fresh=False, ours=ours)
    smtp_port = free_port()
    child = _start(data, kafka, smtp_port)
    write_json(facts, {"supervisor": child.pid, "smtp_port": smtp_port})
    try:
        return _house(data, _ready(data, child.pid, show, child), smtp_port, fresh=True, ours=True)
    except BaseException:
        child.terminate()
        child.wait(STOP_SECONDS)
        raise


def _start(data: Path, kafka: str, smtp_port: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "embedded", "up", "--foreground", "--data-dir", str(data), "--kafka", kafka]
    taken: list[int] = []
    # Not the usual ports: a demo that is kept must not stand in the way of `hallmark up`.
    for name in services.PORTS:
        taken.append(free_port(taken))
        command += [f"--port-{name}", str(taken[-1])]
    environment = {
        **os.environ,
        "HALLMARK_SMTP_HOST": HOST,
        "HALLMARK_SMTP_PORT": str(smtp_port),
        "HALLMARK_WEBHOOK_ALLOW": "127.0.0.0/8",
        "COLUMNS": "200",
    }
    log = data / "logs" / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        # A session of its own: Ctrl-C is for the demo, which then stops it in order.
        return subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=environment
        )


def _ready(
    data: Path, supervisor: int, show: Callable[[str], None], child: "subprocess.Popen[bytes] | None" = None
) -> state.State:
    deadline = time.monotonic() + START_SECONDS
    while True:
        ended = child is not None and child.poll() is not None
        known = state.read(data)
        mine = known is not None and known.supervisor == supervisor
        if known is not None and mine:
            if known.phase == "ready":
                return known
            waited_for = [process.name for process in known.processes if process.condition != "ready"]
            show(f"starting {', '.join(waited_for)}")
        if ended or time.monotonic() > deadline:
            why = known.error if known is not None and mine else None
            log = (data / "logs" / "up.log").read_text(errors="replace")[-2000:]
            raise Unexpected(f"the stack did not start: {why or log}")
        time.sleep(0.1)


def _house(data: Path, known: state.State, smtp_port: int, *, fresh: bool, ours: bool) -> House:
    return House(
        registry_url=known.urls["registry"],
        kafka=known.kafka,
        kafka_bootstrap=known.kafka_bootstrap,
        auth_key=data / "keys" / "auth.jwk",
        smtp_port=smtp_port,
        supervisor=known.supervisor,
        fresh=fresh,
        ours=ours,
        facts=data / "demo.json",
    )
