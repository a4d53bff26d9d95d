"""What matches, when to try again, what an outcome means."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts.approval import DelegationEnded, DelegationGranted, MembershipChanged
from contracts.envelope import Envelope
from contracts.notifier import Channel, SubscriptionCreated, SubscriptionDisabled, SubscriptionRemoved
from contracts.payload import Message
from contracts.registry import EVENTS, ModelRegistered
from notifier.domain import Subscription, delivery_id, evolve, unknown_types
from notifier.matching import Seen

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SUBSCRIPTION = Subscription(
    subscription_id="s1",
    owner="ana",
    channel=Channel.WEBHOOK,
    address="https://example.org",
    types=("hallmark.stage.*",),
    workspace="default",
    model="*",
    created_at=AT,
)


def event(kind: str = "hallmark.stage.changed.v1", subject: str = "default/churn/2", at: datetime = AT) -> Envelope:
    return Envelope(
        id="e1",
        source="hallmark/registry",
        type=kind,
        subject=subject,
        time=at,
        dataschema=f"{kind}.json",
        key="default/churn",
        sequence=1,
        correlationid="c1",
        value=b"{}",
    )


@pytest.mark.parametrize(
    ("changed", "envelope", "wanted"),
    [
        ({}, event(), True),
        ({}, event("hallmark.model.registered.v1"), False),
        ({"types": ("hallmark.*",)}, event("hallmark.model.registered.v1"), True),
        ({"types": ("hallmark.stage.changed.v1",)}, event(), True),
        ({"types": ("hallmark.stage.changed",)}, event(), False),
        ({"types": ("hallmark.vote.*", "hallmark.stage.*")}, event(), True),
        ({"workspace": "other"}, event(), False),
        ({"workspace": "defaul*"}, event(), False),
        ({"model": "churn"}, event(), True),
        ({"model": "ch*"}, event(), True),
        ({"model": "fraud*"}, event(), False),
        ({"model": "Churn"}, event(), False),
        ({"model": "churn"}, event(subject="default/churn"), True),
        ({"types": ("*",)}, event("hallmark.policy.published.v1", subject="policy:production"), True),
        ({"types": ("*",), "workspace": "b"}, event("hallmark.policy.published.v1", subject="policy:production"), True),
        ({"types": ("*",), "model": "churn"}, event("hallmark.policy.published.v1", subject="policy:p"), False),
        ({"types": ("*",), "workspace": "b"}, event("hallmark.vote.cast.v1", subject="policy:production"), True),
        ({"types": ("*",), "model": "churn"}, event("hallmark.vote.cast.v1", subject="policy:production"), False),
        ({"types": ("*",)}, event("hallmark.request.commented.v1", subject="other:x/y"), False),
        ({"types": ("*",)}, event("hallmark.command.rejected.v1", subject="command:1"), False),
        ({"types": ("*",)}, event("hallmark.workspace.configured.v1", subject="workspace:default"), True),
        ({"types": ("*",)}, event("hallmark.workspace.configured.v1", subject="workspace:other"), False),
        (
            {"types": ("*",), "model": "churn"},
            event("hallmark.workspace.configured.v1", subject="workspace:default"),
            False,
        ),
        ({"status": "removed"}, event(), False),
        ({"status": "disabled"}, event(), False),
        ({}, event(at=AT - timedelta(seconds=59)), True),  # the clock of another host
        ({}, event(at=AT - timedelta(seconds=61)), False),
        ({}, event(at=AT + timedelta(days=1)), True),
    ],
)
def test_a_subscription_wants_what_it_asked_for(changed: dict[str, Any], envelope: Envelope, wanted: bool) -> None:
    assert replace(SUBSCRIPTION, **changed).wants(Seen(envelope)) is wanted


GRANTED = DelegationGranted(delegation_id="g", delegator="cy/risk", delegate="dan", starts=AT, ends=AT)
OF_PEOPLE: list[tuple[Message, str, set[str]]] = [
    (GRANTED, "delegation:cy/risk", {"cy/risk", "dan"}),
    (
        DelegationEnded(delegation_id="g", delegator="cy", delegate="dan", ended_by="root"),
        "delegation:cy",
        {"cy", "dan"},
    ),
    (
        MembershipChanged(subject="default/ben", groups=("x",), person=True, by="s"),
        "member:default/ben",
        {"default/ben"},
    ),
]


@pytest.mark.parametrize(("message", "subject", "people"), OF_PEOPLE, ids=lambda given: getattr(given, "TYPE", None))
def test_what_is_about_people_is_told_to_them_and_nobody_else(message: Message, subject: str, people: set[str]) -> None:
    told = Envelope.of(message, source="hallmark/approval", subject=subject, key=subject, sequence=1, time=AT)
    for owner in ("ana", "root", "cy", "cy/risk", "dan", "ben", "default/ben"):
        for workspace in ("default", "other"):
            theirs = replace(SUBSCRIPTION, owner=owner, workspace=workspace, types=("*",))
            assert theirs.wants(Seen(told)) is (owner in people), (owner, workspace)
    assert not replace(SUBSCRIPTION, owner=min(people)).wants(Seen(told))  # of the wanted types only


def test_types_that_nothing_can_match_are_named() -> None:
    known = [kind.TYPE for kind in EVENTS]
    assert unknown_types(("hallmark.stage.*", "hallmark.stagee.*", "*.v1", "x"), known) == ["hallmark.stagee.*", "x"]


def test_the_id_of_a_delivery_is_fixed_for_ever() -> None:
    """Receivers remember it: a new way to make it would deliver everything under way twice."""
    assert delivery_id("s1", "e1") == UUID("76927b3e-e8c0-5585-8838-c86d8b53bf17")
    assert delivery_id("s1", "e1") != delivery_id("s1", "e2") != delivery_id("s2", "e1")


def test_subscriptions_fold_from_their_events() -> None:
    created = SubscriptionCreated(
        subscription_id="s1",
        owner="ana",
        channel=Channel.WEBHOOK,
        address="https://example.org",
        types=("hallmark.stage.*",),
        workspace="default",
        model="*",
    )

    def said(message: Any) -> Envelope:
        return Envelope.of(message, source="t", subject="default/*", key="subscription:s1", sequence=1, time=AT)

    state = evolve(None, said(created))
    assert state == SUBSCRIPTION
    removed = evolve(state, said(SubscriptionRemoved(subscription_id="s1", removed_by="root")))
    assert removed == replace(SUBSCRIPTION, status="removed", reason="removed by root", ended_at=AT)
    disabled = evolve(state, said(SubscriptionDisabled(subscription_id="s1", reason="HTTP 410 Gone")))
    assert disabled == replace(SUBSCRIPTION, status="disabled", reason="HTTP 410 Gone", ended_at=AT)
    assert evolve(None, said(SubscriptionRemoved(subscription_id="s1", removed_by="root"))) is None
    assert evolve(state, said(ModelRegistered(workspace="default", model="m"))) == state
