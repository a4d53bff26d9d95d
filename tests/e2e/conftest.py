"""One stack for all tests of a module and broker; each test has a workspace of its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from tests.support.system import EXTERNAL, System, embedded_system, external_system, kinds


@pytest.fixture(scope="module", params=kinds())
def running(request: pytest.FixtureRequest) -> Iterator[System]:
    asked = request.config.getoption("--kafka")
    if not EXTERNAL and asked not in ("both", request.param):
        pytest.skip(f"--kafka {asked} leaves {request.param} out")
    with ExitStack() as held:
        if EXTERNAL:
            yield external_system(held)
        else:
            yield embedded_system(request.param, held)


@pytest.fixture
def system(running: System) -> System:
    return replace(running, workspace=f"w{uuid4().hex[:8]}")


@pytest.fixture
def artifact(tmp_path: Path) -> Callable[[str], Path]:
    def make(text: str) -> Path:
        path = tmp_path / f"{text}.bin"
        path.write_text(f"model {text} {uuid4()}")
        return path

    return make
