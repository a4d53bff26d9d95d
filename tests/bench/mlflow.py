"""The registry's MLflow API beside MLflow's own server, on the same PostgreSQL. A measurement, not a test.

python -m tests.bench.mlflow MLFLOW [ROUNDS] [SECONDS]     (3 rounds of 2 seconds for each measurement when absent)

MLFLOW is the `mlflow` command of another virtual environment; its server runs with its default workers, ours is one
process. The load comes from a process of its own. In each round the two take turns; what is told are medians. Ends
with status 1 when an operation is not at least 4 times as fast as MLflow's at 8 callers, or when a read of a model with
10,000 versions takes more than twice as long as with 100.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from tests.bench.mlflow_load import API, OPERATIONS, version

from contracts.lifecycle import Lifecycle, StageRule
from embedded.fixtures import S3, new_bucket, new_database
from embedded.infra import Infra, start_infra
from embedded.ports import free_port
from embedded.process import Child
from kit.keys import ensure_key, make_token
from kit.loop import run_loop
from kit.migrations import migrate
from kit.topics import apply_topics
from registry import app

AT_ONCE, JUDGED = (1, 8, 32), 8
LEAST, MOST_GROWTH = 4.0, 2.0
FEW, MANY = 100, 10_000
MODELS = [f"model{n:03}" for n in range(max(AT_ONCE))]
PLAIN = {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": ""}
READS = ("get by alias", "get latest versions", "get registered model", "search versions", "search models")


@dataclass
class Server:
    name: str
    port: int
    headers: dict[str, str] = field(default_factory=dict)

    async def call(self, method: str, path: str, **given: Any) -> Any:
        async with httpx2.AsyncClient(timeout=60, headers=self.headers) as http:
            answer = await http.request(method, f"http://127.0.0.1:{self.port}{path}", json=given)
        answer.raise_for_status()
        return answer.json()


class Load:
    """The process that calls."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def measure(self, server: Server, operation: str, models: list[str], at_once: int, seconds: float) -> Any:
        asked = {
            "port": server.port,
            "headers": server.headers,
            "operation": operation,
            "models": models,
            "at_once": at_once,
            "seconds": seconds,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        return json.loads(await self._process.stdout.readline())


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


@contextmanager
def child(name: str, port: int, path: str, log: Path, *command: str, **environment: str) -> Iterator[None]:
    """A server that answers at `path`, ended with all that it started, also when this process is killed."""
    url = f"http://127.0.0.1:{port}{path}"
    running = Child(
        name=name,
        command=command,
        log=log,
        port=port,
        ready=lambda _: answers(url),
        env={**os.environ, **environment},
        ready_timeout=180,
    )
    running.start()
    try:
        yield
    finally:
        running.stop()


@asynccontextmanager
async def ours(directory: Path, infra: Infra) -> AsyncIterator[Server]:
    parts = urlsplit(infra.postgres_admin_url)
    url = parts._replace(netloc=f"hallmark_registry:pw@{parts.hostname}:{parts.port}").geturl()
    scripts = Path(app.__file__).parent / "migrations"
    await asyncio.to_thread(migrate, "registry", scripts, database_url=url, admin_database_url=infra.postgres_admin_url)
    await apply_topics(infra.kafka_bootstrap)
    for name in ("auth", "decision", "serving"):
        ensure_key(directory, name)
    (directory / "access.yaml").write_text("roles:\n  - {group: admins, role: admin}\n")
    token = make_token(ensure_key(directory, "auth"), "bench", ["admins"], ttl_seconds=24 * 3600)
    server = Server("hallmark", free_port(), {"authorization": f"Bearer {token}", "x-mlflow-workspace": "bench"})
    store = S3(infra.s3_endpoint, infra.s3_access_key, infra.s3_secret_key)
    log = directory / "registry.log"
    with new_bucket(store) as bucket:
        settings = {
            "DATABASE_URL": url,
            "KAFKA_BOOTSTRAP": infra.kafka_bootstrap,
            "AUTH_JWKS": str(directory / "auth.jwks.json"),
            "ACCESS_FILE": str(directory / "access.yaml"),
            "DECISION_JWKS": str(directory / "decision.jwks.json"),
            "SERVING_KEY": str(directory / "serving.jwk"),
            "S3_ENDPOINT": infra.s3_endpoint,
            "S3_ACCESS_KEY": infra.s3_access_key,
            "S3_SECRET_KEY": infra.s3_secret_key,
            "S3_BUCKET": bucket,
            "PORT": str(server.port),
            "LOG_LEVEL": "warning",
        }
        given = {f"HALLMARK_{name}": value for name, value in settings.items()}
        with child(server.name, server.port, "/readyz", log, sys.executable, "-m", "registry", "serve", **given):
            stages = tuple(StageRule(name=name) for name in ("Development", "Staging", "Production", "Archived"))
            lifecycle = Lifecycle(stages=stages, initial="Development", archive="Archived", open_moves=True)
            await server.call("PUT", "/v1/workspaces/bench", lifecycle=lifecycle.model_dump(mode="json"))
            yield server


@asynccontextmanager
async def theirs(command: str, directory: Path, infra: Infra) -> AsyncIterator[Server]:
    server, log = Server("mlflow", free_port()), directory / "mlflow.log"
    with new_database(infra.postgres_admin_url) as url:
        driver = url.replace("postgresql://", "postgresql+psycopg2://")
        arguments = ["server", "--backend-store-uri", driver, "--host", "127.0.0.1", "--port", str(server.port)]
        arguments += ["--default-artifact-root", str(directory / "artifacts")]
        with child(server.name, server.port, "/health", log, command, *arguments, **PLAIN):
            yield server


async def fill(server: Server, name: str, versions: int) -> None:
    await server.call("POST", f"{API}/registered-models/create", name=name)
    await more(server, name, range(versions))
    await server.call("POST", f"{API}/registered-models/alias", name=name, alias="champion", version="1")


async def more(server: Server, name: str, turns: range) -> None:
    async with httpx2.AsyncClient(timeout=60, headers=server.headers) as http:
        for turn in turns:
            _, path, given = version(name, turn)
            (await http.post(f"http://127.0.0.1:{server.port}{API}{path}", json=given)).raise_for_status()


async def compare(load: Load, servers: list[Server], rounds: int, seconds: float) -> bool:
    """A table of rates. Says whether each operation is fast enough where it is judged."""
    say(f"{'calls a second':22}" + "".join(f"{f'{n} at once':>30}" for n in AT_ONCE))
    good = True
    for operation in OPERATIONS:
        line = ""
        for at_once in AT_ONCE:
            rates: dict[str, list[float]] = {server.name: [] for server in servers}
            for turn in range(rounds):
                for server in servers if turn % 2 else servers[::-1]:
                    found = await load.measure(server, operation, MODELS, at_once, seconds)
                    rates[server.name].append(found["rate"])
            we, they = (statistics.median(rates[server.name]) for server in servers)
            times = statistics.median(a / b for a, b in zip(*rates.values(), strict=True))
            good &= at_once != JUDGED or times >= LEAST
            line += f"{we:12.0f} /{they:6.0f} = {times:5.1f} x"
        say(f"{operation:22}{line}")
    return good


async def growth(load: Load, server: Server, seconds: float) -> bool:
    """How long reads take in models with few versions and with many, one after the other, in turns."""
    await fill(server, "few", FEW)
    await fill(server, "many", MANY)
    good = True
    for operation in READS:
        times: dict[str, list[float]] = {"few": [], "many": []}
        for _ in range(3):
            for model, found in times.items():
                found.append((await load.measure(server, operation, [model], 1, seconds / 2))["p50"])
        few, many = (1e3 * statistics.median(found) for found in times.values())
        good &= many / few <= MOST_GROWTH
        say(f"{operation:22}{few:8.2f} ms with {FEW} versions, {many:8.2f} ms with {MANY}: {many / few:.2f} x")
    return good


async def measure(directory: Path, infra: Infra, command: str, rounds: int, seconds: float) -> bool:
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(ours(directory, infra)),
            await stack.enter_async_context(theirs(command, directory, infra)),
        ]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bench.mlflow_load"), stdin=PIPE, stdout=PIPE, stderr=None
        )
        load = Load(process)
        try:
            for server in servers:
                for model in MODELS:
                    await fill(server, model, 3)
                for operation in OPERATIONS:  # warm: connections, caches
                    await load.measure(server, operation, MODELS, JUDGED, 0.5)
            faster = await compare(load, servers, rounds, seconds)
            return await growth(load, servers[0], seconds) and faster
        finally:
            process.kill()
            await process.wait()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(command: str, rounds: int = 3, seconds: float = 2.0) -> bool:
    told = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    say(f"beside {told}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="hallmark-bench-") as name, start_infra(name, "apache") as running:
        return run_loop(measure(Path(name), running.infra, command, rounds, seconds))


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1], *map(int, sys.argv[2:3]), *map(float, sys.argv[3:4])))
