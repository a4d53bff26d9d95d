"""Any filter finds what it says, in any order, page by page; any text is a filter or an error that points at it."""

import asyncio
import fnmatch
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.support.databases import migrated_database, role_url
from tests.support.searching import NUMBERS, STAGES, TEXTS, WORKSPACE, Row, fill, in_order, passes

from kit.db import Database
from kit.patterns import expression
from kit.problems import Problem
from registry.search import query, rare
from registry.search.fields import ATTRIBUTES, OPERATORS, PATTERNS, Kind, Scope, kind_of
from registry.search.parse import parse_filter, parse_order
from registry.search.syntax import And, Comparison, Family, Field, Key, Literal, Missing, Node, Not, Operator, Or

printable = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
keys = printable.filter(bool)
literals = st.one_of(printable, st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False)).map(
    Literal
)
texts = printable.map(Literal)
named = st.sampled_from([Family.TAG, Family.METRIC, Family.PARAMETER])
any_field = st.builds(Field, named, keys) | st.builds(
    Field,
    st.just(Family.ATTRIBUTE),
    st.from_regex(r"[a-z_][a-z0-9_]{3,8}", fullmatch=True).filter(lambda k: k != "null"),
).filter(lambda f: f.key not in ("like", "ilike", "desc"))


@st.composite
def any_comparisons(draw: Any) -> Comparison:
    operator = draw(st.sampled_from(Operator))
    if operator.endswith("IN"):
        values = tuple(draw(st.lists(literals, min_size=1, max_size=3)))
    else:
        values = (draw(texts if operator in PATTERNS else literals),)
    return Comparison(draw(any_field), operator, values)


def trees(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Node]:
    def grown(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        several = st.lists(parts, min_size=2, max_size=3).map(tuple)
        return parts.map(Not) | several.map(And) | several.map(Or)

    return st.recursive(leaves, grown, max_leaves=6)


@given(trees(any_comparisons() | st.builds(Missing, any_field, st.booleans())))
def test_a_printed_filter_reads_as_itself(node: Node) -> None:
    assert parse_filter(str(node)) == node


@given(st.lists(st.builds(Key, any_field, st.booleans()), min_size=1, max_size=4))
def test_a_printed_order_reads_as_itself(order: list[Key]) -> None:
    assert parse_order(", ".join(map(str, order))) == tuple(order)


WORDS = """name stage tags.x metrics.`a params."p" = != >= LIKE ilike NOT and OR IN ( ) , IS null 'text' "text" 0.5 7
1e999 ' ` % ; -- \\ \0 desc"""
pieces = st.sampled_from(WORDS.split())


@example("name LIKE 'a\\'")
@example("created_at > 99999999999999999999")
@example("created_at > '0001-01-01T00:00:00+14:00'")
@example("version_number = 2147483648")
@example("(" * 3_000)
@example("NOT " * 900 + "a = 1")
@given(st.text() | st.lists(pieces, max_size=12).map(" ".join))
def test_any_text_is_read_or_refused_where_it_is_wrong(text: str) -> None:
    for scope in Scope:
        for which in ("bad-filter", "bad-order"):
            try:
                query.read(scope, WORKSPACE, *((text, "") if which == "bad-filter" else ("", text)))
            except Problem as problem:
                assert (problem.status, problem.code) == (400, which)
                assert 0 <= problem.extra["position"] <= len(text)
                line, caret = problem.detail.splitlines()[-2:]
                assert caret.strip() == "^"
                assert len(caret) <= len(line) + 1


VALUES: dict[Kind, tuple[Any, ...]] = {
    Kind.TEXT: (*TEXTS, "ana", "alias1", "m1", "renamed", "run1", "f.onnx"),
    Kind.NUMBER: NUMBERS,
    Kind.INTEGER: (0, 1, 3, 6),
    Kind.TIME: ("2026-01-01", 1767225600001, "2026-01-01T01:00:00.002+01:00"),
}
FOLDED = ("production", "STAGING", *STAGES, "Ready", "pending", "none")
PATTERN = ("%", "_%", "x%", "%y", "a", "A", "b\\%", "b\\_", "b_", "\\\\", "%S%", "m_", "%1")


@st.composite
def fields(draw: Any, scope: Scope, *, ordered: bool = False) -> Field:
    attributes = [a.name for a in ATTRIBUTES if scope in a.scopes and (scope in a.orders or not ordered)]
    named = [(Family.TAG, "k"), (Family.TAG, "odd key"), (Family.TAG, "none")]
    if scope is Scope.VERSIONS:
        named += [(Family.METRIC, "auc"), (Family.METRIC, "loss"), (Family.PARAMETER, "lr")]
        named += [(Family.PARAMETER, "odd.`key`")]
    return Field(*draw(st.sampled_from(named + [(Family.ATTRIBUTE, name) for name in attributes])))


@st.composite
def comparisons(draw: Any, scope: Scope) -> Node:
    field = draw(fields(scope))
    if draw(st.integers(0, 6)) == 0:
        return Missing(field, draw(st.booleans()))
    operator = draw(st.sampled_from(sorted(OPERATORS[kind_of(field)])))
    folded = field.family is Family.ATTRIBUTE and field.key in ("stage", "status")
    pool = PATTERN if operator in PATTERNS else FOLDED if folded else VALUES[kind_of(field)]
    size = draw(st.integers(1, 3)) if operator.endswith("IN") else 1
    return Comparison(field, operator, tuple(Literal(draw(st.sampled_from(pool))) for _ in range(size)))


@st.composite
def searches(draw: Any) -> tuple[Scope, str, str]:
    scope = draw(st.sampled_from([Scope.VERSIONS, Scope.VERSIONS, Scope.MODELS]))
    tree = draw(st.none() | trees(comparisons(scope)))
    order = draw(
        st.lists(st.builds(Key, fields(scope, ordered=True), st.booleans()), max_size=3, unique_by=lambda k: k.field)
    )
    return scope, str(tree or ""), ", ".join(map(str, order))


Work = Callable[[Callable[[AsyncConnection, dict[Scope, list[Row]]], Awaitable[None]]], None]


@pytest.fixture(scope="module")
def work(infra_postgres: str) -> Iterator[Work]:
    """Runs a coroutine function on the rows, in one snapshot; one loop and one database for all examples."""
    with migrated_database(infra_postgres, "registry") as database, asyncio.Runner() as runner:
        db = Database(role_url(database, "registry"), name="test")

        async def write() -> dict[Scope, list[Row]]:
            async with db.transaction() as tx:
                return await fill(tx)

        async def on(function: Callable[[AsyncConnection, dict[Scope, list[Row]]], Awaitable[None]]) -> None:
            async with db.snapshot() as tx:
                await function(tx, rows)

        rows = runner.run(write())
        yield lambda function: runner.run(on(function))
        runner.run(db.close())


@pytest.mark.timeout(600)
def test_a_search_finds_what_it_says_in_its_order(work: Work) -> None:
    """Page by page, each row once: whether the rare are visited first or the index of the order is walked."""

    @settings(max_examples=100)
    @given(searches(), st.integers(1, 9), st.sampled_from([0, 1, 3_000]))
    def check(asked: tuple[Scope, str, str], limit: int, cap: int) -> None:
        async def compare(tx: AsyncConnection, rows: dict[Scope, list[Row]]) -> None:
            scope, filter_text, order_text = asked
            search = query.read(scope, WORKSPACE, filter_text, order_text)
            fitting = [row for row in rows[scope] if search.filter is None or passes(scope, row, search.filter)]
            expected = [row.identity for row in in_order(fitting, search.order)]
            found: list[tuple[Any, ...]] = []
            after = None
            while True:
                page = await query.page(tx, search, limit=limit, after=after)
                assert len(page.rows) == limit or page.next is None
                found += page.rows
                after = page.next
                if after is None:
                    break
                assert len(found) < len(expected)
            assert found == expected

        with patch.object(rare, "CAP", cap):
            work(compare)

    check()


@pytest.mark.timeout(300)
def test_a_pattern_of_the_access_file_fits_the_same_names_in_the_database(work: Work) -> None:
    letters = st.sampled_from("ab-]![^*?\\.é{1$")
    patterns = st.text(letters, max_size=8) | st.text(letters, max_size=6).map("[{}]".format)

    @example("[!b-a]x", ["ax", "bx", "x"])
    @example("[b-a]", ["a", "b", ""])
    @example("a\\d$", ["a\\d$", "a1"])
    @settings(max_examples=75)
    @given(patterns, st.lists(st.text(st.sampled_from("ab-]![^*?\\.é{1$\n"), max_size=4), min_size=1, max_size=20))
    def check(pattern: str, names: list[str]) -> None:
        async def compare(tx: AsyncConnection, _: dict[Scope, list[Row]]) -> None:
            asked = sa.func.unnest(sa.cast(names, ARRAY(sa.String)))
            matches = asked.column_valued("name").op("~")(expression(pattern))
            found = list(await tx.scalars(sa.select(matches)))
            assert found == [fnmatch.fnmatchcase(name, pattern) for name in names]

        work(compare)

    check()
