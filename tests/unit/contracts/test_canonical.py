"""One byte string per value."""

import math

import pytest

from contracts.canonical import canonical_json


def test_known_bytes() -> None:
    value = {"b": [1, 2.5, True, None], "a": 'Ünï\n"☃', "A": {}}
    assert canonical_json(value) == '{"A":{},"a":"Ünï\\n\\"☃","b":[1,2.5,true,null]}'.encode()


def test_order_of_insertion_does_not_matter() -> None:
    assert canonical_json({"x": 1, "y": 2}) == canonical_json({"y": 2, "x": 1})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_must_be_finite(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": [number]})
