"""The whole system on one machine: three servers, four services, each watched and started again if it dies."""

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import asyncpg
import psutil

from embedded import services, state
from embedded.infra import RunningInfra, prepare_infra, secret
from embedded.kafka import Choice
from embedded.ports import HOST, is_free
from embedded.process import Child, StartError
from kit.keys import ensure_key, ensure_mldsa44, load_key, make_token
from kit.topics import apply_topics

KEYS = ["auth", "decision", "checkpoint", "serving", "webhook"]
POST_QUANTUM_KEYS = ["checkpoint"]
ACCESS_FILE = Path(__file__).with_name("access.yaml")  # in the repository a link to deploy/access.yaml
STEADY = 60.0  # seconds after which a restart counts as a first one again
MAX_BACKOFF = 30.0


@dataclass(frozen=True)
class Options:
    data_dir: Path = Path(".hallmark")
    kafka: Choice = "auto"
    ports: dict[str, int] = field(default_factory=dict)  # of services (registry, ...) and of servers (postgres, ...)
    env: dict[str, str] = field(default_factory=dict)  # more settings for all services
    fsync: bool = True
    people: bool = False  # with the vault of identities, which that data directory then keeps for good


class Stack:
    """`start` it, use `urls` and `token`, `stop` it; or use it as a context manager.

    Raises (from start): state.AlreadyRunningError, process.StartError, jars.JarsError.
    """

    def __init__(self, options: Options, on_change: Callable[[state.State], None] = lambda _: None) -> None:
        self.data = options.data_dir.resolve()
        self.options = options
        self.ports = {name: options.ports.get(name, port) for name, port in services.PORTS.items()}
        self.urls = {name: f"http://{HOST}:{port}" for name, port in self.ports.items()}
        self.infra: RunningInfra | None = None
        self.services: dict[str, Child] = {}
        self.state = state.State(data_dir=str(self.data), urls=self.urls)
        self._on_change = on_change
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._held = contextlib.ExitStack()
        self._watchers: list[threading.Thread] = []

    def start(self) -> None:
        """Returns when every service is ready. If anything fails, nothing is left running."""
        with self._starting:
            self._held.enter_context(state.owned(self.data))
            try:
                self._start()
            except BaseException as error:
                if self._stopping.is_set():
                    self._end("stopped")
                else:
                    self._end("failed", str(error))
                raise

    def stop(self) -> None:
        """Stops the services, then the servers. May be called while `start` runs: that then raises StartError."""
        self._stopping.set()
        while not self._starting.acquire(timeout=0.1):
            for child in self._children():
                child.stop()  # ends its start; `start` itself cleans up
        try:
            if self.state.phase == "ready":
                self._phase("stopping")
                self._end("stopped")
        finally:
            self._starting.release()

    def token(self, subject: str, groups: Iterable[str]) -> str:
        """A token for that user, signed by the stack's own issuer."""
        return make_token(load_key(self.data / "keys" / "auth.jwk"), subject, list(groups))

    def child(self, name: str) -> Child:
        """postgres, kafka, s3, registry, approval, audit or notifier."""
        return {child.name: child for child in self._children()}[name]

    def _start(self) -> None:
        if taken := [f"{name} {port}" for name, port in self.ports.items() if not is_free(port)]:
            raise StartError(f"ports are taken: {', '.join(taken)}; choose others with --port-{taken[0].split()[0]}")
        servers = {name: port for name, port in self.options.ports.items() if name not in services.PORTS}
        infra = prepare_infra(self.data, self.options.kafka, servers, fsync=self.options.fsync, say=self._say)
        self.infra = infra
        kept = secret(self.data, *self.ports, services.LOG_NAME, services.PEOPLE)
        people = self.options.people or (self.data / services.PEOPLE).exists()
        env = {
            name: services.environment(name, infra.infra, self.data, self.ports, kept, people=people) | self.options.env
            for name in self.ports
        }
        logs = self.data / "logs"
        self.services = {name: services.service(name, env[name], logs / f"{name}.log") for name in env}
        self.state.kafka = infra.infra.kafka_kind
        self.state.processes = [state.Process(c.name, c.port, str(c.log)) for c in self._children()]
        self._files()
        # Side by side, since Kafka takes longest to start and the migrations need PostgreSQL only.
        self._together(lambda work: work(), [lambda: self._database(env), self._broker, self._store])
        self._together(self._bring_up, self.services.values())
        for child in self._children():
            watcher = threading.Thread(target=self._watch, args=(child,), name=f"watch-{child.name}", daemon=True)
            self._watchers.append(watcher)
            watcher.start()
        if self._stopping.is_set():
            raise StartError("stopped while starting")
        self._phase("ready")

    def _files(self) -> None:
        for name in KEYS:
            ensure_key(self.data / "keys", name)
        for name in POST_QUANTUM_KEYS:
            ensure_mldsa44(self.data / "keys", name)
        vault_key = self.data / "keys" / services.VAULT_KEY
        if not vault_key.exists():
            scratch = vault_key.with_suffix(".new")
            scratch.touch(mode=0o600)
            scratch.write_text(secrets.token_hex(32))
            scratch.replace(vault_key)
        if not (self.data / "access.yaml").exists():
            shutil.copyfile(ACCESS_FILE, self.data / "access.yaml")

    def _database(self, env: dict[str, dict[str, str]]) -> None:
        assert self.infra is not None
        self._bring_up(self.infra.postgres)
        asyncio.run(_ensure_database(self.infra.infra.postgres_admin_url))
        self._migrate(services.migration(env, self.infra.infra))
        if self.options.people:  # not before: it is refused where the log has names
            (self.data / services.PEOPLE).touch()

    def _broker(self) -> None:
        assert self.infra is not None
        self._bring_up(self.infra.kafka)
        self._topics()

    def _store(self) -> None:
        assert self.infra is not None
        self._bring_up(self.infra.s3)

    def _topics(self) -> None:
        assert self.infra is not None
        prefix = ({**os.environ} | self.options.env).get("HALLMARK_TOPIC_PREFIX", "")
        made = asyncio.run(apply_topics(self.infra.infra.kafka_bootstrap, prefix=prefix))
        if made:
            self._say(f"kafka: {len(made)} topics made")

    def _migrate(self, what: str) -> None:
        log = self.data / "logs" / "migrate.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "embedded.migrate"], stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT
            )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(what.encode())
        while process.poll() is None:
            if self._stopping.wait(0.05):
                process.kill()
        if process.wait() != 0:
            raise StartError(f"the migrations failed:\n{log.read_text(errors='replace')}")
        self._say("postgres: the schemas are up to date")

    def _bring_up(self, child: Child) -> None:
        self._note(child, "starting")
        if self._stopping.is_set():
            raise StartError("stopped while starting")
        child.start()
        self._note(child, "ready")

    @contextlib.contextmanager
    def _held_still(self) -> Iterator[None]:
        """No service runs meanwhile. Tansu makes a topic that anybody asks for, with four partitions; a consumer that
        joins its group then keeps those four, also when the topic has all of its own."""
        still = []
        for service in filter(Child.alive, self.services.values()):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(service.pid)
                process.suspend()
                still.append(process)
        try:
            yield
        finally:
            for process in still:
                with contextlib.suppress(psutil.Error):
                    process.resume()

    def _watch(self, child: Child) -> None:
        """Starts the child again whenever it ends by itself."""
        tries = 0
        while not self._stopping.wait(0.1):
            if child.alive():
                continue
            if child.started_at and time.time() - child.started_at > STEADY:
                tries = 0
            pause = 0.0 if tries == 0 else min(MAX_BACKOFF, 0.5 * 2 ** (tries - 1))
            tries += 1
            self._say(f"{child.name} ended (code {child.exit_code}); starting it again in {pause:g} s")
            self._note(child, "restarting", restarted=True)
            if self._stopping.wait(pause):
                return
            try:
                if child.name == "kafka" and self.state.kafka == "tansu":
                    with self._held_still():  # it comes back empty
                        self._bring_up(child)
                        self._topics()
                else:
                    self._bring_up(child)
                self._say(f"{child.name} is ready again")
            except Exception as error:  # whatever went wrong, the next round tries again
                if not self._stopping.is_set():
                    self._say(f"{child.name} did not start: {str(error).splitlines()[0]}")

    def _end(self, phase: state.Phase, error: str | None = None) -> None:
        """Services before servers: they still have something to commit."""
        self._stopping.set()
        for group in (list(self.services.values()), self.infra.children() if self.infra else []):
            self._together(self._take_down, group)
        for watcher in self._watchers:
            watcher.join(timeout=5)
        self.state.error = error
        self._phase(phase)
        self._held.close()

    def _take_down(self, child: Child) -> None:
        child.stop()
        self._note(child, "stopped")

    def _children(self) -> list[Child]:
        return [*(self.infra.children() if self.infra else []), *self.services.values()]

    def _together(self, work: Callable[[Any], None], items: Iterable[Any]) -> None:
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(work, items))

    def _note(self, child: Child, condition: state.Condition, *, restarted: bool = False) -> None:
        with self._lock:
            process = next(p for p in self.state.processes if p.name == child.name)
            process.condition = condition
            process.pid = child.pid if child.alive() else None
            process.started_at = child.started_at
            process.restarts += restarted
            self._changed()

    def _say(self, text: str) -> None:
        with self._lock:
            self.state.said = [*self.state.said[-49:], text]
            self.state.said_count += 1
            self._changed()

    def _phase(self, phase: state.Phase) -> None:
        with self._lock:
            self.state.phase = phase
            self._changed()

    def _changed(self) -> None:
        self.state.write()
        self._on_change(self.state)

    def __enter__(self) -> "Stack":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


async def _ensure_database(admin_url: str) -> None:
    connection = await asyncpg.connect(admin_url)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", services.DATABASE):
            await connection.execute(f"CREATE DATABASE {services.DATABASE}")
    finally:
        await connection.close()
