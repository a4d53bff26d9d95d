"""Pytest fixtures: real PostgreSQL, Kafka and S3, started on first use, shared by all xdist workers.

Use `database`, `bucket`, `topic_prefix` and `kafka` in a test: each gives it a corner of its own in a shared
server. A test that stops or kills a server starts its own with `embedded.start_infra`.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from _pytest.nodeid import NodeId

from embedded import jars, s3
from embedded.keeper import Facts, locked

START_TIMEOUT = 600.0  # the first start of Apache Kafka may have to fetch its jars


@dataclass(frozen=True)
class Kafka:
    bootstrap: str  # host:port
    kind: str  # tansu or apache

    @property
    def idempotence(self) -> bool:
        """Whether producers may be idempotent: Tansu refuses."""
        return self.kind != "tansu"


@dataclass(frozen=True)
class S3:
    endpoint: str
    access_key: str
    secret_key: str


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kafka",
        choices=["tansu", "apache", "both"],
        default="both",
        help="the brokers that tests with the fixture `kafka` run against",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "one_broker: what is tested has nothing to do with the kind of the broker")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kafka" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--kafka")
        kinds = ["tansu", "apache"] if asked == "both" else [asked]
        if metafunc.definition.get_closest_marker("one_broker") is not None:
            kinds = kinds[-1:]
        if os.environ.get("HALLMARK_TEST_STACK") == "containers":
            kinds = ["apache"]
        metafunc.parametrize("kafka", kinds, indirect=True, scope="session")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Makes `--dist loadgroup` group: pytest-xdist 3.8 writes the group where pytest 9.2 no longer reads it.

    Without a group of its own, a test belongs to its file and broker: what a module shares is started once.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            params = item.callspec.params if hasattr(item, "callspec") else {}
            broker = params.get("kafka") or params.get("running") or ""
            item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}/{item.path.stem} {broker}".strip()))
    result = yield
    for item in items:
        grouped = item.__dict__.get("_nodeid")
        if grouped is not None and grouped != item.nodeid:
            item._id = NodeId.parse(grouped)
    return result


def acquire(kind: str, locks: Path) -> Facts:
    """The facts of a shared server, started if nobody uses it yet. It lives until this process ends.

    Raises RuntimeError with the keeper's output if it does not start.
    """
    locks.mkdir(parents=True, exist_ok=True)
    users = (locks / f"{kind}.users").open("a")
    _held.append(users)  # never closed: the lock ends with the process, even when it is killed
    facts = locks / f"{kind}.json"
    with locked(locks / f"{kind}.start", fcntl.LOCK_EX):
        fcntl.flock(users, fcntl.LOCK_SH)
        if not facts.exists():
            _start_keeper(kind, locks, facts)
    loaded: Facts = json.loads(facts.read_text())
    return loaded


_held: list[object] = []


def _start_keeper(kind: str, locks: Path, facts: Path) -> None:
    log = locks / f"{kind}.log"
    with log.open("wb") as out:
        keeper = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "embedded.keeper", kind, str(locks)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for pytest; the keeper goes when pytest has gone
        )
    end = time.monotonic() + START_TIMEOUT
    while not facts.exists():
        if keeper.poll() is not None or time.monotonic() > end:
            keeper.kill()
            raise RuntimeError(f"{kind} did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.05)
    keeper.returncode = 0  # it outlives us on purpose: no ResourceWarning for that


@pytest.fixture(scope="session")
def infra_locks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory through which the workers of one run share their servers."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "infra"


@contextlib.contextmanager
def server_directory() -> Iterator[Path]:
    """A directory for servers of a test's own, removed afterwards. Not one of pytest's: as root PostgreSQL
    runs as another user, and every pytest run that starts meanwhile closes /tmp/pytest-of-root to others.
    """
    with tempfile.TemporaryDirectory(prefix="hallmark-test-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@pytest.fixture
def server_dir() -> Iterator[Path]:
    """As `server_directory`, for one test."""
    with server_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
def infra_postgres(infra_locks: Path) -> str:
    """The superuser's URL of the shared PostgreSQL, database `postgres`."""
    return acquire("postgres", infra_locks)["url"]


@pytest.fixture(scope="session")
def infra_s3(infra_locks: Path) -> S3:
    """The shared S3 store."""
    return S3(**acquire("s3", infra_locks))


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, infra_locks: Path) -> Kafka:
    """The shared broker; the test runs once for each kind (option --kafka). Topics are not auto-created."""
    kind = request.param
    if (
        kind == "apache"
        and os.environ.get("HALLMARK_TEST_STACK") != "containers"
        and (why := jars.missing()) is not None
    ):
        pytest.skip(f"Apache Kafka cannot run here: {why}")
    return Kafka(**acquire(f"kafka-{kind}", infra_locks))


@contextlib.contextmanager
def new_database(postgres: str, template: str = "template1") -> Iterator[str]:
    """The superuser's URL of a new database, empty or a copy of `template`, dropped at the end."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    run(_execute(postgres, f"CREATE DATABASE {name} TEMPLATE {template}"))
    try:
        yield urlsplit(postgres)._replace(path=f"/{name}").geturl()
    finally:
        run(_execute(postgres, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


@contextlib.contextmanager
def new_bucket(store: S3) -> Iterator[str]:
    """The name of a new empty bucket, removed with its objects at the end."""
    client = s3.client(store.endpoint, store.access_key, store.secret_key)
    name = f"t-{uuid.uuid4().hex[:12]}"
    client.make_bucket(name)
    try:
        yield name
    finally:
        client.remove_bucket(name)  # this store removes the objects with it


@pytest.fixture
def database(infra_postgres: str) -> Iterator[str]:
    """A new empty database for one test."""
    with new_database(infra_postgres) as url:
        yield url


@pytest.fixture
def bucket(infra_s3: S3) -> Iterator[str]:
    """A new empty bucket for one test."""
    with new_bucket(infra_s3) as name:
        yield name


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """A prefix for topics and groups that no other test uses; such topics are removed after the test."""
    prefix = f"t{uuid.uuid4().hex[:8]}."
    yield prefix
    if "kafka" in request.fixturenames:
        with contextlib.suppress(Exception):  # tidiness only: the broker itself goes after the run
            run(_drop_topics(request.getfixturevalue("kafka").bootstrap, prefix))


def run(work: Coroutine[Any, Any, None]) -> None:
    """Runs it on a loop of its own, away from the loop that pytest-asyncio keeps for the test."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result(100)


async def _execute(url: str, statement: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _drop_topics(bootstrap: str, prefix: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        topics = [topic for topic in await admin.list_topics() if topic.startswith(prefix)]
        if topics:
            await admin.delete_topics(topics)
    finally:
        await admin.close()
