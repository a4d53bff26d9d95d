from typing import Any

import pytest

from kit.problems import Problem
from registry.search import query
from registry.search.fields import Scope
from registry.search.parse import parse_filter
from registry.search.syntax import And, Comparison, Family, Field, Literal, Missing, Not, Operator, Or


def compared(family: Family, key: str, operator: Operator, *values: Any) -> Comparison:
    return Comparison(Field(family, key), operator, tuple(map(Literal, values)))


A, B, C = (compared(Family.ATTRIBUTE, key, Operator.EQUAL, 1) for key in ("aa", "bb", "cc"))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("aa = 1 OR bb = 1 AND cc = 1", Or((A, And((B, C))))),
        ("(aa = 1 or bb = 1) and cc = 1", And((Or((A, B)), C))),
        ("not aa = 1 and bb = 1", And((Not(A), B))),
        ("NOT (aa = 1 AND bb = 1)", Not(And((A, B)))),
        ("aa IS NULL", Missing(Field(Family.ATTRIBUTE, "aa"), negated=False)),
        ("tag.x is not null", Missing(Field(Family.TAG, "x"), negated=True)),
    ],
)
def test_not_binds_first_and_or_last(text: str, tree: Any) -> None:
    assert parse_filter(text) == tree


@pytest.mark.parametrize(
    ("text", "family", "key"),
    [
        ("attribute.name", Family.ATTRIBUTE, "name"),
        ("attributes.Name", Family.ATTRIBUTE, "name"),
        ("metric.auc", Family.METRIC, "auc"),
        ("metrics.val/auc-1.5", Family.METRIC, "val/auc-1.5"),
        ("metrics.in", Family.METRIC, "in"),
        ("param.lr", Family.PARAMETER, "lr"),
        ("parameters.lr", Family.PARAMETER, "lr"),
        ("tags.`a ``b`", Family.TAG, "a `b"),
        ('tag."a ""b"', Family.TAG, 'a "b'),
    ],
)
def test_fields_are_written_as_in_mlflow(text: str, family: Family, key: str) -> None:
    assert parse_filter(f"{text} = 1") == compared(family, key, Operator.EQUAL, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [("'it''s'", "it's"), ('"a ""b"" c"', 'a "b" c'), ("'C:\\'", "C:\\"), ("-1.5e3", -1500.0), ("+7", 7), (".5", 0.5)],
)
def test_values(text: str, value: Any) -> None:
    assert parse_filter(f"tags.x = {text}") == compared(Family.TAG, "x", Operator.EQUAL, value)


def test_an_empty_filter_is_none() -> None:
    assert parse_filter(" \n") is None


def test_mlflow_names_mean_the_same() -> None:
    one = query.read(Scope.VERSIONS, "default", "creation_timestamp > 1000", "last_updated_timestamp DESC")
    other = query.read(Scope.VERSIONS, "default", "created_at > '1970-01-01T00:00:01'", "updated_at desc")
    assert one == other


@pytest.mark.parametrize(
    ("scope", "text", "position"),
    [
        (Scope.MODELS, "metrics.auc > 1", 0),
        (Scope.MODELS, "name = 'x' and status = 'ready'", 15),
        (Scope.VERSIONS, "metrics.auc LIKE '1'", 17),
        (Scope.VERSIONS, "params.lr > '1'", 12),
        (Scope.VERSIONS, "params.lr = 0.1", 12),
        (Scope.VERSIONS, "version_number = 1.5", 17),
        (Scope.VERSIONS, "version_number IN (1, 2147483648)", 22),
        (Scope.VERSIONS, "created_at > 1e300", 13),
        (Scope.VERSIONS, "metrics.auc > nan", 14),
        (Scope.VERSIONS, "name = 'x'; drop table version", 10),
    ],
)
def test_a_comparison_that_the_field_does_not_have_is_refused_there(scope: Scope, text: str, position: int) -> None:
    with pytest.raises(Problem) as refused:
        query.read(scope, "default", text)
    assert (refused.value.status, refused.value.code) == (400, "bad-filter")
    assert refused.value.extra["position"] == position


def test_the_picture_shows_the_line_with_the_mistake() -> None:
    with pytest.raises(Problem) as refused:
        query.read(Scope.VERSIONS, "default", "name = 'x'\n  AND colour = 'red'\n  AND stage = 'Staging'")
    assert refused.value.detail.splitlines()[1:] == ["  AND colour = 'red'", "      ^"]


def test_models_cannot_be_ordered_by_what_they_have_several_of() -> None:
    with pytest.raises(Problem) as refused:
        query.read(Scope.MODELS, "default", "", "name, stage")
    assert (refused.value.code, refused.value.extra["position"]) == ("bad-order", 6)
