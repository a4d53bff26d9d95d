import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from kit.problems import Problem
from registry.search.cursor import decode, digest, encode
from registry.search.fields import Kind

KINDS = [(Kind.NUMBER, True), (Kind.TIME, False), (Kind.TEXT, False), (Kind.INTEGER, False)]
TIME = datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize("number", [0.1, -1e300, None])
def test_values_come_back_exactly(number: float | None) -> None:
    values = [number, TIME, "mödel", 7]
    assert decode(encode("q", values), "q", KINDS) == values


def test_another_query_is_named_as_the_reason() -> None:
    with pytest.raises(Problem, match="another query"):
        decode(encode("q", [0.1, TIME, "m", 7]), "other", KINDS)


@pytest.mark.parametrize(
    "values",
    [
        [0.1, TIME.isoformat(), "m"],
        ["0.1", TIME.isoformat(), "m", 7],
        [float("nan"), TIME.isoformat(), "m", 7],
        [10**400, TIME.isoformat(), "m", 7],
        [True, TIME.isoformat(), "m", 7],
        [0.1, None, "m", 7],
        [0.1, "2026-01-01T00:00:00", "m", 7],
        [0.1, TIME.isoformat(), "\0", 7],
        [0.1, TIME.isoformat(), "\ud800", 7],
        [0.1, TIME.isoformat(), "m", 2**31],
        [0.1, TIME.isoformat(), "m", [[]]],
    ],
)
def test_a_cursor_that_was_tampered_with_never_reaches_the_database(values: list[Any]) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(["q", *values]).encode()).decode()
    with pytest.raises(Problem) as refused:
        decode(cursor, "q", KINDS)
    assert (refused.value.status, refused.value.code) == (400, "bad-cursor")


@pytest.mark.parametrize("cursor", ["", "a", "é", "e30", "W10", "bnVsbA", "WyJx", "////"])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(Problem, match="none of this service"):
        decode(cursor, "q", KINDS)


def test_the_digest_tells_parts_apart() -> None:
    assert len({digest("a", "b"), digest("ab"), digest("a", None, "b"), digest("b", "a"), digest("a", "")}) == 5
