"""Whose eyes saw a change, and which signature covers what somebody did."""

from typing import Any

import pytest

from audit.reports.confirming import signed_index
from audit.reports.eyes import judged

from .approvals import DECISION, GLASS, VOTE, WAIVER

DECIDED = {"index": 7, "data": {"decision": DECISION.model_dump(mode="json")}}


@pytest.mark.parametrize(
    ("name", "said", "index"),
    [
        ("vote", VOTE, 7),
        ("vote", VOTE.model_copy(update={"groups": ("risk",)}), 7),
        ("vote", VOTE.model_copy(update={"comment": "with a doubt"}), None),
        ("vote", VOTE.model_copy(update={"voter": "eve"}), None),
        ("waiver", WAIVER, 7),
        ("waiver", WAIVER.model_copy(update={"gate": "prod/bias"}), None),
        ("glass", GLASS, 7),
        ("glass", GLASS.model_copy(update={"reason": "no reason"}), None),
    ],
)
def test_a_signature_covers_what_it_says_and_nothing_else(name: str, said: Any, index: int | None) -> None:
    data = {"request_id": "t1", name: said.model_dump(mode="json")}
    assert signed_index(data, [DECIDED]) == index
    assert signed_index(data, []) is None
    without = {"index": 8, "data": {"decision": DECISION.model_dump(mode="json") | {"break_glass": None, "votes": []}}}
    assert signed_index(data, [without, DECIDED]) == (8 if name == "waiver" and index else index)


def test_withdrawn_and_refused_votes_are_signed_by_nobody() -> None:
    assert signed_index({"request_id": "t1", "voter": "ben", "reason": "read it again"}, [DECIDED]) is None


ENTERED: dict[str, Any] = {
    "index": 5,
    "entered": True,
    "requested_by": "ana",
    "approved_by": [{"name": "ben"}],
    "decision_id": "d1",
}
MADE = {"index": 1, "registered_by": "zoe", "committers": ["Kim@example.com"]}
SIGNED = {"index": 6, "votes": [], "waived": [], "break_glass": None}


def vote(voter: str, **more: Any) -> dict[str, Any]:
    return {"voter": voter, "choice": "approve", "on_behalf_of": None, "email": None, **more}


@pytest.mark.parametrize(
    ("row", "made", "decision", "finding"),
    [
        ({}, MADE, SIGNED, "good"),
        ({}, MADE, None, "unverified"),
        ({}, None, SIGNED, "unknown-author"),
        ({}, None, None, "unverified"),
        ({"approved_by": [{"name": "ana"}]}, None, SIGNED, "violation"),
        ({"entered": False}, None, SIGNED, "refused"),
        ({"approved_by": []}, MADE, SIGNED, "unapproved"),
        ({"approved_by": []}, MADE, None, "unapproved"),
        ({"decision_id": None, "approved_by": []}, MADE, None, "undecided"),
        ({"approved_by": [{"name": "ANA"}]}, MADE, None, "violation"),
        ({"approved_by": [{"name": "zoe"}]}, MADE, SIGNED, "violation"),
        ({}, MADE, {**SIGNED, "votes": [vote("ben", on_behalf_of="ana")]}, "violation"),
        ({}, MADE, {**SIGNED, "votes": [vote("ben", email="kim@example.com")]}, "violation"),
        ({}, MADE, {**SIGNED, "votes": [vote("ana", choice="reject")]}, "good"),
        ({}, MADE, {**SIGNED, "waived": [{"by": "zoe"}]}, "violation"),
        ({}, MADE, {**SIGNED, "waived": [{"by": "lou"}]}, "good"),
        ({}, MADE, {**SIGNED, "break_glass": {"by": "ana"}}, "violation"),
        ({"entered": False, "approved_by": [{"name": "ana"}]}, MADE, SIGNED, "refused"),
    ],
)
def test_findings(row: dict[str, Any], made: Any, decision: Any, finding: str) -> None:
    assert judged({**ENTERED, **row}, made, decision)["finding"] == finding
