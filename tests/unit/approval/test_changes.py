"""Policies about policies that would let no change pass are found before they are in force."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from approval.changes import NO_POLICY, locked
from approval.revisions import shipped
from policy.document import Policy, parse

AT = datetime(2026, 1, 14, 12, tzinfo=UTC)


def signed(*methods: str) -> dict[str, Any]:
    return {"approvals": {"signature": {"methods": list(methods)}}}


OTP, KEYS = signed("otp"), signed("webauthn")


def policy(name: str = "p", *, models: list[str] | None = None, kind: str = "policy", **spec: Any) -> Policy:
    match: dict[str, Any] = {"transition": {"kind": kind}} | ({"models": models} if models else {})
    document = {"kind": "PromotionPolicy", "metadata": {"name": name}, "spec": {"match": match, **spec}}
    return parse(json.dumps(document))


def freeze(since: str, until: str) -> dict[str, Any]:
    return {"schedule": {"freezes": [{"name": "f", "tz": "UTC", "from": since, "to": until}]}}


def test_what_ships_can_be_changed() -> None:
    assert locked(shipped(), AT) is None


@pytest.mark.parametrize(
    ("policies", "words"),
    [
        ([], NO_POLICY),
        ([policy(kind="any")], NO_POLICY),
        ([policy(models=["others"])], NO_POLICY),
        ([policy(**OTP), policy("q", **KEYS)], "agree on no sign-in"),
        ([policy(**OTP), policy("q", models=["production"], **KEYS)], "agree on no sign-in"),
        ([policy(request={"expires_after": "1d"}), policy("q", schedule={"min_wait": "2d"})], "wait for 2 days"),
        ([policy(schedule={"min_wait": "31d"})], "expire after 30 days"),
        ([policy(**freeze("2026-01-01", "2027-01-01")), policy("q", **freeze("2027-01-01", "2027-12-31"))], "400 days"),
    ],
)
def test_what_locks_everybody_out(policies: list[Policy], words: str) -> None:
    assert words in (locked(policies, AT) or "")


@pytest.mark.parametrize(
    "policies",
    [
        [policy()],
        [policy(), policy("q", models=["others"])],
        [policy(**OTP), policy("q", **signed("webauthn", "otp"))],
        [policy(), policy("q", models=["a"], **OTP), policy("r", models=["b"], **KEYS)],
        [policy(request={"expires_after": "3d"}), policy("q", schedule={"min_wait": "2d"})],
        [policy(**freeze("2026-01-01", "2027-01-01"))],
        [policy(), policy("q", kind="any", schedule={"min_wait": "40d"})],  # about versions
    ],
)
def test_what_can_be_changed_yet(policies: list[Policy]) -> None:
    assert locked(policies, AT) is None
