"""One stack for all tests of a broker; each test has a workspace of its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from tests.support.system import EXTERNAL, System, embedded_system, external_system, kinds


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "running" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--kafka")
        found = [kind for kind in kinds() if EXTERNAL or asked in ("both", kind)]
        if metafunc.definition.get_closest_marker("one_broker") is not None:
            found = found[:1]
        one_worker = [pytest.param(kind, marks=pytest.mark.xdist_group(f"e2e {kind}")) for kind in found]
        metafunc.parametrize("running", one_worker, indirect=True, scope="package")


@pytest.fixture(scope="package")  # not of the session: idle, a stack takes a fifth of a processor
def running(request: pytest.FixtureRequest) -> Iterator[System]:
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
