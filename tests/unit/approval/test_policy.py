"""The policies that ship with the service, and what they make of the usual requests."""

from typing import Any

import pytest
from tests.unit.policy.conftest import AT, case_of, inputs, needs_at, stands

from approval.revisions import shipped
from contracts.approval import PolicyRef
from policy.needs import Rule

TEXTS = [policy.text for policy in shipped()]


def stand(**changes: Any) -> tuple[str, str]:
    found = stands(case_of(inputs(**changes)), *TEXTS)
    return (str(found.verdict) if found.verdict else found.phase), found.reason


BACK = {"kind": "rollback", "from": "Archived"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("people", "production/review: 0 of 1")),
        ({"candidate": {"metrics": {"accuracy": 0.8}}}, "Accuracy on held-out data"),
        ({"candidate": {"metrics": {}}}, "production/accuracy: error"),
        ({"request": {"from": "Development", "to": "Staging"}}, ("approved", "no approval is asked for")),
        ({"request": {"to": "Archived"}}, "no policy allows a promotion"),
        (
            {"request": BACK, "candidate": {"stages": ["Production", "Staging"]}},
            ("approved", "no approval is asked for"),
        ),
        ({"request": BACK, "candidate": {"stages": ["Staging"]}}, "Only a version that has been in this stage"),
        ({"request": {**BACK, "to": "Archived"}, "candidate": {"stages": ["Staging"]}}, "rollback/been-there: fail"),
        ({"request": {"kind": "alias", "to": "@champion"}}, "no policy allows an alias"),
    ],
)
def test_what_they_make_of_a_request(changes: dict[str, Any], expected: tuple[str, str] | str) -> None:
    verdict, reason = stand(**changes)
    if isinstance(expected, str):
        assert verdict == "rejected"
        assert expected in reason
    else:
        assert (verdict, reason) == expected


def test_a_change_of_a_policy_needs_another_admin() -> None:
    refs = [(PolicyRef(name=one.name, revision=1, digest=one.digest), one) for one in shipped()]
    given = inputs(candidate=None, request={"kind": "policy", "from": "revision 1", "to": "revision 2", "reason": ""})
    needs = needs_at(refs, given, AT)
    assert [ref.name for ref in needs.policies] == ["policy-changes"]
    assert [(rule.id, rule.groups, rule.count) for rule in needs.rules] == [
        ("policy-changes/agree", frozenset({"admins"}), 1)
    ]
    assert isinstance(needs.rule("policy-changes/agree"), Rule)
