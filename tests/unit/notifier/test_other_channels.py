"""PagerDuty, Teams and Apprise: what is sent, and what is said when it cannot be."""

import json
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from contracts.approval import GlassBroken, RequestClosed, RequestEscalated, RequestOpened, ReviewGiven, ReviewOverdue
from contracts.notifier import Channel
from contracts.payload import Message
from contracts.registry import StageChanged, VersionRevoked
from kit.outbound import AddressRefused
from notifier.channels import Parcel, others
from notifier.channels.others import AppriseSender, check_apprise
from notifier.channels.pagerduty import PagerDutySender, action_of, dedup_key
from notifier.channels.teams import TeamsSender
from notifier.destinations import shown
from notifier.links import links_of
from notifier.retrying import Verdict

from .rendering import AT, said

DIGEST = "sha256:" + "a" * 64
MOVE: dict[str, Any] = {
    "workspace": "default",
    "model": "churn",
    "version": 2,
    "transition_id": "r1",
    "kind": "promotion",
    "digest": DIGEST,
    "artifact_digest": DIGEST,
    "from_stage": "Staging",
    "to_stage": "Production",
    "requested_by": "ana",
    "reason": "better [recall](https://evil.example)",
}
OPENED = RequestOpened.model_validate(
    {**MOVE, "policies": [], "inputs": {}, "inputs_digest": DIGEST, "request_digest": DIGEST, "expires_at": AT}
)
CHANGED = StageChanged.model_validate(MOVE)
GLASS = GlassBroken.model_validate(
    {
        "request_id": "r1",
        "glass": {
            "by": "olga",
            "groups": [],
            "reason": "down",
            "at": AT,
            "auth_method": "pwd",
            "request_digest": DIGEST,
            "skips": ["auc"],
            "page": ["service:oncall"],
            "until": AT,
            "review": ["group:risk"],
            "review_count": 1,
            "review_by": AT,
        },
    }
)
ESCALATED = RequestEscalated(request_id="r1", step="s", action="remind", to=("group:risk",))
CLOSED = RequestClosed(request_id="r1", code="expired", detail="too late")
OVERDUE = ReviewOverdue(request_id="r1", page=("service:oncall",), frozen=True)
REVOKED = VersionRevoked(
    workspace="default", model="churn", version=2, digest=DIGEST, revoked_by="ana", reason="bad", revocation="x"
)


def reviewed(*, justified: bool, closes: bool) -> ReviewGiven:
    given = {"request_id": "r1", "reviewer": "eve", "groups": [], "comment": "looked", "at": AT, "auth_method": "pwd"}
    return ReviewGiven.model_validate({**given, "justified": justified, "closes": closes})


@pytest.mark.parametrize(
    ("message", "action", "severity", "key"),
    [
        (OPENED, "trigger", "info", "hallmark/request/r1"),
        (ESCALATED, "trigger", "warning", "hallmark/request/r1"),
        (CLOSED, "resolve", "info", "hallmark/request/r1"),
        (GLASS, "trigger", "critical", "hallmark/emergency/r1"),
        (OVERDUE, "trigger", "critical", "hallmark/emergency/r1"),
        (reviewed(justified=False, closes=False), "trigger", "error", "hallmark/emergency/r1"),
        (reviewed(justified=True, closes=True), "resolve", "info", "hallmark/emergency/r1"),
        (REVOKED, "trigger", "critical", "hallmark/default/churn/2"),
        (CHANGED, "change", "info", "hallmark/request/r1"),
    ],
)
def test_what_waits_or_burns_pages_and_its_end_resolves_it(
    message: Message, action: str, severity: str, key: str
) -> None:
    assert action_of(said(message)) == (action, severity)
    assert dedup_key(said(message)) == key


def test_a_key_is_never_longer_than_pagerduty_takes() -> None:
    subject = f"default/{'m' * 200}/2"
    long = said(REVOKED).model_copy(update={"subject": subject + "x" * 100})
    assert len(dedup_key(long)) <= 255
    assert dedup_key(long) != dedup_key(long.model_copy(update={"subject": subject + "x" * 99 + "y"}))


def parcel(message: Message, address: str = "k" * 32) -> Parcel:
    return Parcel(delivery_id="d1", subscription_id="s1", envelope=said(message), address=address)


def test_a_page_has_the_words_of_a_template() -> None:
    sender = PagerDutySender(httpx2.AsyncClient(), url="https://pd.example/")
    _, page = sender.message(replace(parcel(GLASS), worded={"text": "wake\nup"}))
    assert page["payload"]["summary"] == "wake up"


def test_a_page_says_what_a_person_at_night_needs() -> None:
    sender = PagerDutySender(httpx2.AsyncClient(), url="https://pd.example/", console="https://c.example")
    path, page = sender.message(parcel(GLASS))
    assert path == "/v2/enqueue"
    assert (page["routing_key"], page["event_action"], page["dedup_key"]) == (
        "k" * 32,
        "trigger",
        "hallmark/emergency/r1",
    )
    assert page["payload"]["severity"] == "critical"
    assert page["payload"]["summary"].startswith("churn: v2: EMERGENCY, olga lets it pass without auc")
    assert page["payload"]["custom_details"]["Reason"] == "down"
    assert page["links"][0] == {"href": "https://c.example/requests/r1", "text": "Open the request"}
    path, change = sender.message(parcel(CHANGED))
    assert path == "/v2/change/enqueue"
    assert set(change) == {"routing_key", "payload", "links"}
    assert set(change["payload"]) == {"summary", "source", "timestamp", "custom_details"}


@pytest.mark.parametrize(("status", "verdict"), [(202, "succeeded"), (400, "refused"), (429, "retry"), (500, "retry")])
async def test_what_pagerduty_answers(status: int, verdict: str) -> None:
    body = httpx2.ByteStream(b"invalid routing key " + b"k" * 32)
    transport = httpx2.MockTransport(lambda _: httpx2.Response(status, stream=body))
    async with httpx2.AsyncClient(transport=transport) as client:
        outcome = await PagerDutySender(client, url="https://pd.example").send(parcel(GLASS))
    assert outcome.verdict == Verdict(verdict)
    assert outcome.response == "invalid routing key [redacted]"


def test_a_card_holds_what_people_wrote_in_runs_that_know_no_markdown() -> None:
    message = TeamsSender(httpx2.AsyncClient(), console="https://c.example").message(said(CHANGED))
    [attachment] = message["attachments"]
    assert message["type"] == "message"
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}
    assert {run["type"] for block in card["body"] for run in block["inlines"]} == {"TextRun"}
    text = json.dumps(card["body"])
    for part in ("churn: v2 is now in Production", "better [recall](https://evil.example)", "Asked by", "Approved by"):
        assert part in text
    assert [action["url"] for action in card["actions"]] == [
        "https://c.example/requests/r1",
        "https://c.example/models/churn/versions/2?workspace=default",
    ]


def test_a_card_stays_small_whatever_is_in_the_event() -> None:
    gate = {"gate": "g", "expression": "x", "result": "pass", "message": "\u00fc" * 9000}
    big = StageChanged.model_validate(MOVE | {"reason": "\u00fc" * 2000, "criteria": [gate] * 60})
    message = TeamsSender(httpx2.AsyncClient()).message(said(big))
    assert len(json.dumps(message, ensure_ascii=False).encode()) < 28_000


def test_links_lead_to_the_request_and_the_version() -> None:
    assert links_of(said(CHANGED), None) == ()
    assert links_of(said(ESCALATED, "policy:prod"), "https://c.example/") == (
        ("Open the request", "https://c.example/requests/r1"),
    )
    assert links_of(said(REVOKED, "default/a b"), "https://c.example/") == (
        ("a b", "https://c.example/models/a%20b?workspace=default"),
    )


@pytest.mark.parametrize(
    ("address", "schemes", "says"),
    [
        ("tgram://123456789:abcdefghijklmnopqrstuvwxyz123456789/1/", (), "allows none"),
        ("json://127.0.0.1/", ("tgram", "discord"), "allows tgram, discord"),
        ("tgram://nothing", ("tgram",), "cannot read"),
        ("hello", ("tgram",), "allows tgram"),
    ],
)
def test_apprise_takes_what_the_operator_allows_and_it_can_read(
    address: str, schemes: tuple[str, ...], says: str
) -> None:
    with pytest.raises(AddressRefused, match=says):
        check_apprise(address, schemes)


async def test_without_apprise_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(others, "library", lambda: None)
    with pytest.raises(AddressRefused, match="pip install 'hallmark-service-notifier\\[apprise\\]'"):
        check_apprise("json://127.0.0.1/", ("json",))
    outcome = await AppriseSender(("json",)).send(parcel(CHANGED, "json://127.0.0.1/"))
    assert (outcome.verdict, outcome.ours) == (Verdict.RETRY, True)


async def test_a_scheme_that_is_allowed_no_more_is_not_used() -> None:
    outcome = await AppriseSender(()).send(parcel(CHANGED, "json://127.0.0.1/"))
    assert (outcome.verdict, outcome.ours) == (Verdict.RETRY, True)


def test_of_addresses_that_are_secrets_little_is_shown() -> None:
    assert shown(Channel.PAGERDUTY, "a" * 28 + "wxyz") == "pagerduty:****wxyz"
    assert shown(Channel.APPRISE, "tgram://token/chat") == "tgram://****"
    assert shown(Channel.TEAMS, "https://x.example/workflows/secret?sig=s") == "https://x.example/****"
