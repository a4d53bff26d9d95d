"""A stack that may be hurt: one for all chaos tests of a broker."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from uuid import uuid4

import pytest
from tests.support.system import EXTERNAL, System, embedded_system


@pytest.fixture(scope="module", params=["tansu", "apache"])
def running(request: pytest.FixtureRequest) -> Iterator[System]:
    if EXTERNAL:
        pytest.skip("these tests kill processes of an embedded stack")
    asked = request.config.getoption("--kafka")
    if asked not in ("both", request.param):
        pytest.skip(f"--kafka {asked} leaves {request.param} out")
    with ExitStack() as held:
        yield embedded_system(request.param, held)


@pytest.fixture
def system(running: System) -> System:
    return replace(running, workspace=f"w{uuid4().hex[:8]}")
