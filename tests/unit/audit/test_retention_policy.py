"""Ages, floors, and the marks by which a hold knows a leaf."""

import json

import pytest

from audit.leaf import Leaf
from audit.retention import policy
from contracts.audit import RetentionRule
from contracts.envelope import now
from contracts.registry import StageChanged, VersionRegistered
from contracts.topics import REGISTRY_EVENTS

REST = RetentionRule(topic="*", type="*", days=184)
TOPIC, TYPE = REGISTRY_EVENTS.name, VersionRegistered.TYPE


def rule(days: int, topic: str = "*", kind: str = "*") -> RetentionRule:
    return RetentionRule(topic=topic, type=kind, days=days)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([], 184),
        ([rule(300, TOPIC)], 300),
        ([rule(300, kind=TYPE)], 300),
        ([rule(300, TOPIC, TYPE), rule(200, TOPIC)], 300),
        ([rule(300, "hallmark.audit.events", TYPE), rule(400, TOPIC, StageChanged.TYPE)], 184),
    ],
)
def test_the_longest_rule_counts(more: list[RetentionRule], expected: int) -> None:
    assert policy.age([*more, REST], TOPIC, TYPE) == expected


def test_everything_needs_a_rule() -> None:
    assert policy.mistakes([REST]) == []
    assert len(policy.mistakes([rule(184, TOPIC), rule(184, kind=TYPE)])) == 1


def test_the_floors() -> None:
    assert policy.below_floors([rule(policy.DOCUMENT_DAYS)]) == []
    documents = [rule(policy.DOCUMENT_DAYS, topic, kind) for topic, kind in policy.DOCUMENTATION]
    assert policy.below_floors([REST, *documents]) == []
    assert len(policy.below_floors([REST, *documents[1:]])) == 1
    assert len(policy.below_floors([rule(policy.LOG_DAYS - 1), *documents])) == 1


@pytest.mark.parametrize("name", ["fraud", "größer", 'a"b', "back\\slash", "日本", "two words"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_leaf_with_the_name_has_a_mark(name: str, ascii_only: bool) -> None:
    value = json.dumps({"model": name}, ensure_ascii=ascii_only).encode()
    for key, body in ((f"default/{name}".encode(), b"{}"), (b"k", value)):
        leaf = Leaf("t", 0, 0, 0, now(), key, (), body).encode()
        assert any(mark in leaf for mark in policy.marks_of([name]))
        assert not any(mark in leaf for mark in policy.marks_of(["another"]))
