"""Fixtures shared by all tests: real PostgreSQL, Kafka and S3, started on first use and shared by the run."""

from collections.abc import Iterator
from functools import _lru_cache_wrapper

import pytest
from fastapi.dependencies import models
from hypothesis import settings

pytest_plugins = ["embedded.fixtures"]

settings.register_profile("busy machine", deadline=None)  # no test is wrong because it is slow
settings.load_profile("busy machine")


@pytest.fixture(autouse=True)
def _no_application_outlives_its_test() -> Iterator[None]:
    """FastAPI remembers the last thousand functions that it looked at, and with them the applications around them:
    a gigabyte in each worker at the end of a run."""
    yield
    for remembered in vars(models).values():
        if isinstance(remembered, _lru_cache_wrapper):
            remembered.cache_clear()
