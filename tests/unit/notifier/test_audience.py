"""Subscriptions that stand for somebody."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.approval import DelegationGranted, RequestEscalated
from contracts.envelope import Envelope
from contracts.notifier import Channel, SubscriptionCreated
from contracts.payload import Message
from notifier.domain import Subscription, evolve
from notifier.matching import Seen

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SUBSCRIPTION = Subscription(
    subscription_id="s1",
    owner="ana",
    channel=Channel.WEBHOOK,
    address="https://example.org",
    types=("*",),
    workspace="default",
    model="*",
    created_at=AT,
)


def told(message: Message, subject: str = "default/churn/2") -> Envelope:
    return Envelope.of(message, source="hallmark/approval", subject=subject, key="k", sequence=1, time=AT)


ESCALATED = told(RequestEscalated(request_id="r", step="s", action="notify", to=("service:oncall", "group:risk")))
GRANTED = told(
    DelegationGranted(delegation_id="g", delegator="cy", delegate="dan", starts=AT, ends=AT), "delegation:cy"
)
CREATED = SubscriptionCreated(
    subscription_id="s1",
    owner="ana",
    channel=Channel.SLACK,
    address="https://example.org/****",
    types=("hallmark.*",),
    workspace="default",
    model="*",
    audience=("group:risk",),
)


@pytest.mark.parametrize(
    ("audience", "wanted"),
    [
        ((), True),
        (("group:risk",), True),
        (("group:legal", "service:oncall"), True),
        (("group:legal",), False),
        (("user:risk",), False),
        (("group:Risk",), False),
        (("group:ris",), False),
        (("group:*",), False),
    ],
)
def test_a_subscription_for_somebody_hears_what_addresses_them(audience: tuple[str, ...], wanted: bool) -> None:
    assert replace(SUBSCRIPTION, audience=audience).wants(Seen(ESCALATED)) is wanted


@pytest.mark.parametrize(
    "changed", [{"types": ("hallmark.vote.*",)}, {"model": "fraud"}, {"workspace": "other"}, {"status": "removed"}]
)
def test_the_audience_narrows_the_other_filters(changed: dict[str, Any]) -> None:
    assert not replace(SUBSCRIPTION, audience=("group:risk",), **changed).wants(Seen(ESCALATED))


@pytest.mark.parametrize(
    ("owner", "audience", "wanted"),
    [("cy", "user:cy", True), ("cy", "user:dan", True), ("cy", "user:ana", False), ("ana", "user:cy", False)],
)
def test_an_audience_opens_nobody_elses_affairs(owner: str, audience: str, wanted: bool) -> None:
    assert replace(SUBSCRIPTION, owner=owner, audience=(audience,)).wants(Seen(GRANTED)) is wanted


def test_the_audience_is_part_of_the_subscription_and_older_ones_have_none() -> None:
    state = evolve(None, told(CREATED))
    assert state is not None
    assert state.audience == ("group:risk",)
    old = {name: value for name, value in json.loads(told(CREATED).value).items() if name != "audience"}
    before = evolve(None, told(CREATED).model_copy(update={"value": json.dumps(old).encode()}))
    assert before is not None
    assert before.audience == ()
