"""Events of the approval service: about models, policies and people, on streams with and without a slash."""

import json
from datetime import UTC, datetime, timedelta

from tests.support.receiver import Receiver
from tests.support.waiting import until

from contracts.approval import (
    BreakGlass,
    DelegationGranted,
    GlassBroken,
    MembershipChanged,
    PolicyPublished,
    PolicyRef,
    RequestEscalated,
    ReviewOverdue,
    Vote,
    VoteCast,
)
from contracts.audit import SearchAlerted
from contracts.envelope import Envelope
from contracts.notifier import Channel
from contracts.payload import Message

from .conftest import DIGEST, Mailbox, Rig

AT = datetime.now(UTC)
VOTE = Vote(
    voter="dan",
    choice="approve",
    rule="prod/risk",
    meaning="I accept",
    at=AT,
    auth_method="token",
    request_digest=DIGEST,
    on_behalf_of="cy",
)
GLASS = BreakGlass(
    by="olga",
    groups=("operators",),
    reason="payments are down",
    at=AT,
    auth_method="token",
    request_digest=DIGEST,
    skips=("approvals",),
    page=("service:oncall", "group:risk"),
    until=AT + timedelta(hours=4),
    review=("risk",),
    review_count=1,
    review_by=AT + timedelta(days=2),
)
BROKEN = GlassBroken(request_id="t1", glass=GLASS)
CAST = VoteCast(request_id="t1", vote=VOTE)
PUBLISHED = PolicyPublished(
    policy=PolicyRef(name="prod", revision=2, digest=DIGEST), document="kind: PromotionPolicy", published_by="root"
)
GRANTED = DelegationGranted(
    delegation_id="g1", delegator="team/cy", delegate="dan", starts=AT, ends=AT + timedelta(days=3)
)
ESCALATED = RequestEscalated(request_id="t1", step="later", action="notify", to=("channel:ml", "group:risk"))
OVERDUE = ReviewOverdue(request_id="t1", page=("service:oncall",), frozen=True)
KNOWN = MembershipChanged(subject="ana", groups=("ml-engineers",), person=True, by="token of ana")
ALERTED = SearchAlerted(search_id="s", owner="dan", name="glass", first=0, until=9, matches=1, indexes=(3,), above=0)
ALL = ("hallmark.*",)


def said(message: Message, stream: str, subject: str | None = None) -> Envelope:
    return Envelope.of(
        message, source="hallmark/approval", subject=subject or stream, key=stream, sequence=1, actor="olga"
    )


def everything() -> list[Envelope]:
    return [
        said(BROKEN, "default/churn", "default/churn/2"),
        said(CAST, "other/churn", "other/churn/2"),
        said(CAST, "policy:prod"),
        said(PUBLISHED, "policy:prod"),
        said(GRANTED, "delegation:team/cy"),
        said(KNOWN, "member:ana"),
        said(ALERTED, "search:s"),
    ]


async def test_each_hears_of_what_they_may(rig: Rig, receiver: Receiver) -> None:
    """Of their workspace and of policies everybody, of people only those whom it is about."""
    subscribed = {
        path: await rig.commands.subscribe(
            owner, Channel.WEBHOOK, f"{receiver.url}/{path}", types=ALL, workspace=workspace, model=model
        )
        for path, owner, workspace, model in (
            ("ana", "ana", "default", "*"),
            ("dan", "dan", "default", "*"),
            ("cy", "team/cy", "other", "*"),
            ("eve", "eve", "default", "churn"),
        )
    }
    heard = {
        "ana": ["glass.broken", "membership.changed", "policy.published", "vote.cast"],
        "dan": ["delegation.granted", "glass.broken", "policy.published", "search.alerted", "vote.cast"],
        "cy": ["delegation.granted", "policy.published", "vote.cast", "vote.cast"],
        "eve": ["glass.broken"],
    }
    async with rig.worker():
        await rig.happens(*everything())
        await until(lambda: len(receiver.hits) == sum(map(len, heard.values())))
        for path in ("ana", "dan", "eve"):
            await rig.all_done(subscribed[path], len(heard[path]))
    kinds = {path: sorted(json.loads(hit.body)["type"][9:-3] for hit in receiver.to(f"/{path}")) for path in heard}
    assert kinds == heard


async def test_an_emergency_reaches_the_channel_of_those_on_call_at_once(
    rig: Rig, receiver: Receiver, mailbox: Mailbox
) -> None:
    types = ("hallmark.glass.*", "hallmark.review.*")
    slack = await rig.commands.subscribe("ana", Channel.SLACK, f"{receiver.url}/oncall", types=types)
    mail = await rig.commands.subscribe("ana", Channel.EMAIL, "oncall@example.org", types=types, proved=True)
    async with rig.worker():
        await rig.happens(*everything())
        await rig.all_done(slack, 1)
        await rig.all_done(mail, 1)
    [hit] = receiver.to("/oncall")
    assert json.loads(hit.body)["text"] == (
        "churn: v2: EMERGENCY, olga lets it pass without approvals. "
        "olga pages service:oncall and group:risk: 'payments are down'."
    )
    [sent] = mailbox.mails
    assert sent["subject"] == "churn: v2: EMERGENCY, olga lets it pass without approvals"


async def test_a_name_that_a_policy_wrote_reaches_the_subscriptions_that_stand_for_it(
    rig: Rig, receiver: Receiver
) -> None:
    """All of one owner, workspace and type: only the names tell them apart."""
    names = {
        "everybody": (),
        "oncall": ("service:oncall",),
        "risk": ("group:risk", "group:legal"),
        "both": ("service:oncall", "group:risk"),
        "ml": ("channel:ml",),
        "legal": ("group:legal",),
        "reviewers": ("group:reviewers",),
    }
    heard = {
        "everybody": ["glass.broken", "request.escalated", "review.overdue"],
        "oncall": ["glass.broken", "review.overdue"],
        "risk": ["glass.broken", "request.escalated"],
        "both": ["glass.broken", "request.escalated", "review.overdue"],
        "ml": ["request.escalated"],
        "legal": [],
        "reviewers": [],
    }
    types = ("hallmark.glass.*", "hallmark.request.escalated.v1", "hallmark.review.*")
    made = {
        path: await rig.webhook(f"{receiver.url}/{path}", types=types, audience=audience)
        for path, audience in names.items()
    }
    async with rig.worker():
        await rig.happens(*(said(event, "default/churn", "default/churn/2") for event in (BROKEN, ESCALATED, OVERDUE)))
        await until(lambda: len(receiver.hits) >= sum(map(len, heard.values())), 60)
        for path, kinds in heard.items():
            assert len(await rig.deliveries(made[path])) == len(kinds), path
    told = {path: sorted(json.loads(hit.body)["type"][9:-3] for hit in receiver.to(f"/{path}")) for path in names}
    assert told == heard


async def test_a_delegator_is_told_of_the_vote_cast_for_them(rig: Rig, receiver: Receiver) -> None:
    """In the workspace that they subscribed to. A delegation, which is of none, stays between its two people."""
    made = {
        name: await rig.commands.subscribe(
            name, Channel.SLACK, f"{receiver.url}/{name}", audience=(f"user:{name}",), workspace=workspace
        )
        for name, workspace in (("cy", "default"), ("dan", "default"), ("team/cy", "other"), ("eve", "default"))
    }
    spy = await rig.commands.subscribe("eve", Channel.SLACK, f"{receiver.url}/spy", audience=("user:team/cy",))
    own = CAST.model_copy(update={"vote": VOTE.model_copy(update={"on_behalf_of": None})})
    async with rig.worker():
        await rig.happens(
            said(CAST, "default/churn", "default/churn/2"),
            said(own, "default/fraud", "default/fraud/1"),
            said(CAST, "elsewhere/churn", "elsewhere/churn/2"),
            said(GRANTED, "delegation:team/cy"),
        )
        await until(lambda: len(receiver.hits) >= 3, 60)
    texts = {name: [json.loads(hit.body)["text"] for hit in receiver.to(f"/{name}")] for name in made}
    assert texts["cy"] == ["churn: v2: dan voted to approve, on behalf of cy. Meaning: I accept."]
    [granted] = texts["dan"]
    assert texts["team/cy"] == [granted]
    assert granted.startswith("dan may vote for team/cy until ")
    assert texts["eve"] == []
    assert await rig.deliveries(made["eve"]) == await rig.deliveries(spy) == []
