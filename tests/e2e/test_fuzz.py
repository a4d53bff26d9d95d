"""Whatever the API documents allow, and much that they do not: no service answers with a 500."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from tests.support.system import EXTERNAL, SERVICES, System, embedded_system, external_system


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[System]:
    """A stack that no other test shares: an administrator tries whatever there is on it."""
    with ExitStack() as held:
        yield external_system(held) if EXTERNAL else embedded_system("tansu", held)


@pytest.mark.parametrize("service", SERVICES)
def test_no_input_is_a_server_error(fuzzed: System, service: str) -> None:
    system = replace(fuzzed, workspace=f"w{uuid4().hex[:8]}")
    base = str(system.ana.services().model_dump()[service]).rstrip("/")
    token = system.token("root", "admins")
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json")
    tried = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()

        @settings(max_examples=3, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            if "wait" in (case.query or {}):
                case.query["wait"] = 0
            response = case.call(base_url=base, headers={"authorization": f"Bearer {token}"}, timeout=20)
            assert response.status_code < 500, (case.as_curl_command(), response.text)

        check()
        tried += 1
    assert tried >= 8
