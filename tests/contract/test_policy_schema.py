"""The JSON Schema of policies under deploy/api is what policies are read by."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from tests.unit.policy.test_document import GOOD, WORKED

from approval.revisions import shipped
from policy.document import parse
from policy.reader import PolicyError, checked
from policy.schema import ID, policy_schema
from policy.spec import PolicyDocument

API = Path(__file__).parents[2] / "deploy" / "api"
WRONG: tuple[Any, ...] = (None, -1, True, "", "wrong value", ["wrong value"], {"wrong": "value"})
VALID = jsonschema_rs.validator_for(json.loads((API / ID).read_text()))


def readable(document: Any) -> bool:
    try:
        checked(PolicyDocument, document, {})
    except PolicyError:
        return False
    return True


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*path, key))


def changed(document: Any, path: tuple[Any, ...], *value: Any) -> Any:
    """With another value there, or none."""
    if not path:
        return value[0] if value else None
    found = copy.deepcopy(document)
    part = found
    for key in path[:-1]:
        part = part[key]
    if value:
        part[path[-1]] = value[0]
    else:
        del part[path[-1]]
    return found


def test_the_schema_is_the_one_checked_in() -> None:
    assert json.loads((API / ID).read_text()) == policy_schema(), "run: make schemas"


def test_the_schema_is_a_schema() -> None:
    assert jsonschema_rs.meta.is_valid(policy_schema())


@pytest.mark.parametrize("text", [GOOD, WORKED, *(policy.text for policy in shipped())])
def test_policies_are_valid(text: str) -> None:
    VALID.validate(yaml.safe_load(text))


def test_what_is_not_valid_is_not_read() -> None:
    """Each part of a policy is taken away, and replaced by values of each kind."""
    document = yaml.safe_load(WORKED)
    refused = tried = 0
    for path in places(document):
        for other in (changed(document, path), *(changed(document, path, value) for value in WRONG)):
            tried += 1
            if not VALID.is_valid(other):
                refused += 1
                assert not readable(other), (path, other)
    assert refused > tried / 2


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("kind: PromotionPolicy", "kind: Policy"),
        ("name: strict", "name: Not A Name"),
        ("count: 2", "count: 21"),
        ("count: 2", "cuont: 2"),
        ("24h", "3 days"),
        ("'group:reviewers'", "reviewers"),
        ("level: warn", "webhook: {url: 'https://x.example', secret: s}"),
        ("cel: 'candidate.metrics.accuracy >= 0.9'", "on_error: fail"),
        ("to: Production", "to: in production"),
    ],
)
def test_mistakes_are_refused_by_both(was: str, now: str) -> None:
    assert was in GOOD
    text = GOOD.replace(was, now, 1)
    assert not VALID.is_valid(yaml.safe_load(text))
    with pytest.raises(PolicyError):
        parse(text)
