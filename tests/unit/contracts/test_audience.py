"""Whom an event addresses."""

from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.approval import (
    AccountLinked,
    AccountUnlinked,
    BreakGlass,
    DelegationEnded,
    DelegationGranted,
    GlassBroken,
    MembershipChanged,
    RequestCommented,
    RequestEscalated,
    RequestRebound,
    ReviewGiven,
    ReviewOverdue,
    Vote,
    VoteCast,
    VoteWithdrawn,
)
from contracts.audience import ADDRESSING, recipients_of, strange_names
from contracts.audit import SearchAlerted
from contracts.envelope import Envelope
from contracts.payload import Message

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64


ALERTED = SearchAlerted(search_id="s", owner="aud", name="glass", first=0, until=9, matches=2, indexes=(3, 5), above=1)


def vote(on_behalf_of: str | None = None) -> VoteCast:
    given: dict[str, Any] = {"voter": "ben", "choice": "approve", "rule": "prod/risk", "meaning": "I accept"}
    given |= {"at": AT, "auth_method": "token", "request_digest": DIGEST, "on_behalf_of": on_behalf_of}
    return VoteCast(request_id="r", vote=Vote.model_validate(given))


def broken(*page: str) -> GlassBroken:
    return GlassBroken(
        request_id="r",
        glass=BreakGlass(
            by="olga",
            groups=("operators",),
            reason="payments are down",
            at=AT,
            auth_method="token",
            request_digest=DIGEST,
            skips=("approvals",),
            page=page,
            until=AT,
            review=("auditors",),
            review_count=1,
            review_by=AT,
        ),
    )


def reviewed(*page: str) -> ReviewGiven:
    given = {"request_id": "r", "reviewer": "rita", "groups": (), "comment": "no", "at": AT, "auth_method": "token"}
    return ReviewGiven.model_validate({**given, "justified": False, "closes": False, "page": page})


def escalated(*to: str) -> RequestEscalated:
    return RequestEscalated(request_id="r", step="later", action="remind", to=to)


def rebound(*voided: str) -> RequestRebound:
    digests = {"inputs_digest": DIGEST, "request_digest": DIGEST}
    given = {"request_id": "r", "cause": "the policy changed", "policies": (), "inputs": {}, "expires_at": AT}
    return RequestRebound.model_validate({**given, **digests, "voided": voided})


ACCOUNT = "sha256:" + "c" * 64
ADDRESSED: list[tuple[Message, str, set[str]]] = [
    (broken("service:oncall", "group:risk"), "default/churn/2", {"service:oncall", "group:risk"}),
    (broken(), "default/churn/2", set()),
    (ReviewOverdue(request_id="r", page=("group:risk",), frozen=True), "default/churn/2", {"group:risk"}),
    (reviewed("service:oncall"), "default/churn/2", {"service:oncall"}),
    (escalated("user:ann", "channel:ml"), "default/churn/2", {"user:ann", "channel:ml"}),
    (rebound("ben", "cy"), "default/churn/2", {"user:ben", "user:cy"}),
    (vote(), "default/churn/2", set()),
    (vote(on_behalf_of="cy"), "default/churn/2", {"user:cy"}),
    (VoteWithdrawn(request_id="r", voter="ben"), "default/churn/2", set()),
    (
        VoteWithdrawn(request_id="r", voter="ben", on_behalf_of="cy", by="cy"),
        "default/churn/2",
        {"user:ben", "user:cy"},
    ),
    (RequestCommented(request_id="r", author="cy", text="group:risk, look"), "default/churn/2", set()),
    (
        DelegationGranted(delegation_id="g", delegator="cy", delegate="dan", starts=AT, ends=AT),
        "delegation:cy",
        {"user:cy", "user:dan"},
    ),
    (
        DelegationEnded(delegation_id="g", delegator="cy", delegate="dan", ended_by="root"),
        "delegation:cy",
        {"user:cy", "user:dan"},
    ),
    (MembershipChanged(subject="ben", groups=("risk",), person=True, by="s"), "member:ben", {"user:ben"}),
    (AccountLinked(subject="ben", system="slack", account=ACCOUNT), "account:a", {"user:ben"}),
    (AccountUnlinked(subject="ben", system="slack", account=ACCOUNT), "account:a", {"user:ben"}),
    (ALERTED, "search:s", {"user:aud"}),
]


def told(message: Message, subject: str = "default/churn/2") -> Envelope:
    return Envelope.of(message, source="hallmark/approval", subject=subject, key="k", sequence=1, time=AT)


@pytest.mark.parametrize(("message", "subject", "names"), ADDRESSED)
def test_an_event_addresses_those_whom_it_names(message: Message, subject: str, names: set[str]) -> None:
    assert recipients_of(told(message, subject)) == names


def test_every_kind_that_addresses_somebody_is_known_as_such() -> None:
    assert {message.TYPE for message, _, names in ADDRESSED if names} == set(ADDRESSING)


def test_a_type_that_nobody_knows_addresses_nobody() -> None:
    newer = told(vote(on_behalf_of="cy")).model_copy(update={"type": "hallmark.vote.cast.v9", "value": b"{}"})
    assert recipients_of(newer) == frozenset()


def test_a_name_says_what_it_names() -> None:
    good = ["group:risk", "user:josé maria", "service:oncall", "channel:#ml", "user:team/cy", "user:a:b"]
    bad = ["risk", "group:", "group: risk", "group:risk ", "team:risk", "GROUP:risk", ":risk", "group:ri\nsk", ""]
    assert strange_names([*good, *bad]) == bad
