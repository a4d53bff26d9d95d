"""The registry as MLflow's clients see it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from tests.support.mlflow_client import Mlflow, served

from contracts.lifecycle import Lifecycle, StageRule

from .conftest import Harness
from .test_catalogue import put


def open_lifecycle() -> Lifecycle:
    """MLflow's own: every move at once, any number of versions in a stage."""
    stages = tuple(StageRule(name=name) for name in ("Development", "Staging", "Production", "Archived"))
    return Lifecycle(stages=stages, initial="Development", archive="Archived", open_moves=True)


async def configure(registry: Harness, **rules: Any) -> None:
    await put(registry, f"/v1/workspaces/{registry.workspace}", rules, by="ada")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def address(service: Harness) -> AsyncIterator[str]:
    async with served(service.app) as address:
        yield address


@pytest.fixture
def mlflow(registry: Harness, address: str) -> Mlflow:
    return Mlflow(address, registry.workspace, registry.token)
