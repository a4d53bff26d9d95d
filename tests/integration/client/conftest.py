"""One whole system for these tests: the client is tested against what it will meet."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedded.ports import free_port
from embedded.services import PORTS
from embedded.stack import Options, Stack
from hallmark import Client

People = Callable[..., Client]


@pytest.fixture(scope="package")  # not of the session: idle, it takes a fifth of a processor
def house() -> Iterator[Stack]:
    ports: dict[str, int] = {}
    for name in PORTS:
        ports[name] = free_port(ports.values())
    env = {"HALLMARK_WEBHOOK_ALLOW": "127.0.0.0/8"}
    # Not below pytest's own directory: as root, every pytest that starts closes it to PostgreSQL's user.
    with (
        tempfile.TemporaryDirectory(prefix="hallmark-house-", ignore_cleanup_errors=True) as data,
        Stack(Options(Path(data), kafka="tansu", ports=ports, env=env, fsync=False)) as stack,
    ):
        yield stack


@pytest.fixture
def person(house: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[People]:
    """A client of somebody in a group, in the test's own workspace."""
    monkeypatch.setenv("HALLMARK_CACHE_DIR", str(tmp_path / "cache"))
    workspace = f"t-{os.urandom(4).hex()}"
    made: list[Client] = []

    def person(subject: str, group: str) -> Client:
        made.append(Client(house.urls["registry"], house.token(subject, [group]), workspace=workspace))
        return made[-1]

    yield person
    for client in made:
        client.close()


@pytest.fixture
def ana(person: People) -> Client:
    return person("ana", "ml-engineers")


@pytest.fixture
def ben(person: People) -> Client:
    return person("ben", "reviewers")


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    file = tmp_path / "model.bin"
    file.write_bytes(os.urandom(5_000))
    return file
