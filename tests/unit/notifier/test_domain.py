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
from notifier.domain import (
    Outcome,
    Schedule,
    Subscription,
    Try,
    Verdict,
    decide,
    delivery_id,
    evolve,
    redact,
    retry_after_seconds,
    unknown_types,
)
from notifier.settings import NotifierSettings

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
    assert replace(SUBSCRIPTION, **changed).wants(envelope) is wanted


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
            assert theirs.wants(told) is (owner in people), (owner, workspace)
    assert not replace(SUBSCRIPTION, owner=min(people)).wants(told)  # of the wanted types only


def test_types_that_nothing_can_match_are_named() -> None:
    known = [kind.TYPE for kind in EVENTS]
    assert unknown_types(("hallmark.stage.*", "hallmark.stagee.*", "*.v1", "x"), known) == ["hallmark.stagee.*", "x"]


def test_the_default_schedule_is_the_one_of_standard_webhooks() -> None:
    pauses = NotifierSettings.model_fields["retry_seconds"].default
    assert pauses == (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    assert sum(pauses) == 75 * 3600 + 35 * 60 + 5


@pytest.mark.parametrize(
    ("tries", "retry_after", "chance", "pause"),
    [
        (1, None, 0.5, 10.0),
        (1, None, 0.0, 8.0),
        (1, None, 1.0, 12.0),
        (2, None, 0.5, 100.0),
        (3, None, 0.5, None),
        (1, 60.0, 0.5, 60.0),
        (1, 1.0, 0.5, 10.0),
        (1, 10.0**9, 0.5, 86400.0),
        (3, 60.0, 0.5, None),
    ],
)
def test_pauses_are_spread_and_honour_the_receiver(
    tries: int, retry_after: float | None, chance: float, pause: float | None
) -> None:
    assert Schedule((10.0, 100.0)).pause(tries, retry_after, chance) == (pause and pytest.approx(pause))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("9" * 400, 86400.0),
        ("-5", None),
        ("soon", None),
        ("²", None),
        ("Sat, 21 Nov 2026 12:02:00 GMT", 120.0),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
        ("Sat, 21 Nov 2026 12:02:00 -0000", 120.0),
        ("Tue, 21 Nov 2028 12:00:00 GMT", 86400.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, AT) == seconds


TRY = Try("d1", "s1", "e1", "hallmark.stage.changed.v1", attempt=7, tries=1, latency_ms=12.5)


@pytest.mark.parametrize(
    ("verdict", "tries", "active", "status", "due", "kinds"),
    [
        (Verdict.SUCCEEDED, 1, True, "succeeded", None, ["delivery.succeeded"]),
        (Verdict.SUCCEEDED, 1, False, "succeeded", None, ["delivery.succeeded"]),
        (Verdict.RETRY, 1, True, "pending", 10.0, ["delivery.failed"]),
        (Verdict.RETRY, 2, True, "dead", None, ["delivery.dead"]),
        (Verdict.RETRY, 1, False, "dead", None, ["delivery.dead"]),
        (Verdict.REFUSED, 1, True, "dead", None, ["delivery.dead"]),
        (Verdict.GONE, 1, True, "dead", None, ["delivery.dead", "subscription.disabled"]),
        (Verdict.GONE, 1, False, "dead", None, ["delivery.dead"]),
    ],
)
def test_what_follows_from_an_outcome(
    verdict: Verdict, tries: int, active: bool, status: str, due: float | None, kinds: list[str]
) -> None:
    follows = decide(
        replace(TRY, tries=tries), Outcome(verdict, "HTTP 000"), Schedule((10.0,)), at=AT, chance=0.5, active=active
    )
    assert (follows.status, [m.TYPE.removeprefix("hallmark.").removesuffix(".v1") for m in follows.events]) == (
        status,
        kinds,
    )
    assert follows.due_at == (AT + timedelta(seconds=due) if due else None)
    assert follows.events[0].model_dump()["attempt"] == 7


def test_the_id_of_a_delivery_is_fixed_for_ever() -> None:
    """Receivers remember it: a new way to make it would deliver everything under way twice."""
    assert delivery_id("s1", "e1") == UUID("76927b3e-e8c0-5585-8838-c86d8b53bf17")
    assert delivery_id("s1", "e1") != delivery_id("s1", "e2") != delivery_id("s2", "e1")


def test_secrets_and_control_characters_are_taken_out() -> None:
    assert (
        redact("a whsec_abc b\x00\x1b[31m abc", ["abc", "whsec_abc", ""]) == "a [redacted] b\ufffd\ufffd[31m [redacted]"
    )
    assert len(redact("x" * 5000, [])) == 2048
    assert "whsec_abc" not in redact("x" * 2045 + "whsec_abc", ["whsec_abc"])


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
