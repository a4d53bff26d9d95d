"""A bot in Slack: Slack's own client against a stand-in of its Web API."""

import itertools
import json
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from tests.support.receiver import Answer, Hit, Receiver

from contracts.approval import Choice, RequestDecided, RequestOpened, RequestRebound, VoteCast
from contracts.envelope import Envelope
from contracts.notifier import Channel
from contracts.payload import Message
from contracts.slack import read_button
from kit.outbound import Guard
from notifier import app
from notifier.channels import Parcel
from notifier.retrying import Outcome

from .asking import code, made_by
from .conftest import DIGEST, Rig, stage_changed

AT = "2026-11-21T10:00:00Z"
TOKEN = "xoxb-not-a-real-token"
REQUEST = "t-churn-2"
MOVE: dict[str, Any] = stage_changed().model_dump(
    include={
        "transition_id",
        "kind",
        "workspace",
        "model",
        "version",
        "digest",
        "artifact_digest",
        "from_stage",
        "to_stage",
    }
)
ASKED: dict[str, Any] = {**MOVE, "requested_by": "ana", "reason": "better recall"}
INPUTS = {
    "candidate": {"version": 2, "metrics": {"auc": 0.97, "p95": 12}},
    "baseline": {"version": 1, "metrics": {"auc": 0.96}},
}
OTHER = "sha256:" + "b" * 64


def opened() -> RequestOpened:
    bound = {"policies": [], "inputs": INPUTS, "inputs_digest": DIGEST, "request_digest": DIGEST, "expires_at": AT}
    return RequestOpened.model_validate({**ASKED, **bound})


def rebound() -> RequestRebound:
    return RequestRebound.model_validate(
        {
            "request_id": REQUEST,
            "cause": "new tags",
            "policies": [],
            "inputs": {},
            "inputs_digest": DIGEST,
            "request_digest": OTHER,
            "expires_at": AT,
        }
    )


def voted() -> VoteCast:
    given = {
        "voter": "ben",
        "choice": "approve",
        "rule": "review",
        "meaning": "reviewed",
        "at": AT,
        "auth_method": "pwd",
    }
    return VoteCast.model_validate({"request_id": REQUEST, "vote": {**given, "request_digest": DIGEST}})


def decided() -> RequestDecided:
    more: dict[str, Any] = {"policies": [], "gates": [], "votes": [], "inputs_digest": DIGEST, "request_digest": DIGEST}
    more |= {"decision_id": "d1", "verdict": "approved", "decided_at": AT, "expires_at": AT}
    return RequestDecided.model_validate({"decision": {**ASKED, **more}, "jws": "x"})


class Slack:
    """Answers as the Web API does, and keeps what was posted."""

    def __init__(self, receiver: Receiver) -> None:
        self._ts = itertools.count(1)
        self.errors: list[Answer] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        receiver.answer = self.answer

    def answer(self, hit: Hit) -> Answer:
        assert hit.headers["authorization"] == f"Bearer {TOKEN}"
        if self.errors:
            return self.errors.pop(0)
        self.calls.append((hit.path, hit.document))
        body = {"ok": True, "channel": "C0MODELS1", "ts": f"1548261231.{next(self._ts):06}"}
        return 200, {"content-type": "application/json"}, json.dumps(body).encode()


@pytest.fixture
async def slack(rig: Rig, receiver: Receiver) -> Slack:
    given = {"slack_bot_token": SecretStr(TOKEN), "slack_url": receiver.url, "slack_interactive": True}
    given |= {"console_url": "https://console.example"}
    rig.settings = rig.settings.model_copy(update=given)
    rig.commands._destinations.slack_bot = True
    return Slack(receiver)


def said(rig: Rig, message: Message) -> Envelope:
    stream = "default/churn"
    rig.sequences[stream] = rig.sequences.get(stream, 0) + 1
    given: dict[str, Any] = {"source": "hallmark/approval", "subject": f"{stream}/2", "key": stream, "actor": "ana"}
    return Envelope.of(message, sequence=rig.sequences[stream], **given)


async def delivered(rig: Rig, made: dict[str, Any], *messages: Message) -> None:
    before = len(await rig.deliveries(made))
    async with rig.worker():
        await rig.happens(*(said(rig, message) for message in messages))
        await rig.all_done(made, before + len(messages))


def text(document: dict[str, Any]) -> str:
    return json.dumps(document["blocks"], ensure_ascii=False)


async def test_a_request_is_a_thread_whose_first_message_tells_how_it_stands(
    rig: Rig, slack: Slack, ana: httpx2.AsyncClient
) -> None:
    made = await rig.commands.subscribe("ana", Channel.SLACK, "#models", types=("hallmark.*",))
    assert made["address"] == "#models"
    await delivered(rig, made, opened(), voted(), rebound(), decided(), stage_changed())
    assert [path for path, _ in slack.calls] == [
        "/chat.postMessage",  # the request
        "/chat.postMessage",  # the vote, in its thread
        *("/chat.update", "/chat.postMessage"),  # bound anew: other buttons
        *("/chat.update", "/chat.postMessage"),  # decided: no buttons
        "/chat.postMessage",
    ]
    sent = [document for _, document in slack.calls]
    first, ts = sent[0], "1548261231.000001"
    assert first["channel"] == "#models"
    assert "churn: v2 waits for approval to enter Production" in first["text"]
    for part in (
        "*churn: v2 waits for approval to enter Production*",
        "Asked by ana",
        "> better recall",
        "*Metrics, against v1 in Production now*",
        "auc 0.97 (now 0.96, +0.01)",
        "p95 12",
        f"<https://console.example/requests/{REQUEST}|Open the request>",
    ):
        assert part in text(first), part
    assert [d.get("thread_ts") for d in sent] == [None, ts, None, ts, None, ts, ts]
    assert [d.get("ts") for d in sent] == [None, None, ts, None, ts, None, None]
    assert {d["channel"] for d in sent[1:]} == {"C0MODELS1"}
    assert "was approved for Production" in sent[4]["text"]
    assert "churn: v2 is now in Production" in sent[6]["text"]

    def buttons(document: dict[str, Any]) -> list[tuple[Choice, str, str]]:
        found = [e for b in document["blocks"] if b["type"] == "actions" for e in b["elements"]]
        values = [read_button(element["value"]) for element in found]
        return [(one.choice, one.request_digest, one.request_id) for one in values]

    assert buttons(first) == [(Choice.APPROVE, DIGEST, REQUEST), (Choice.REJECT, DIGEST, REQUEST)]
    assert buttons(sent[2]) == [(Choice.APPROVE, OTHER, REQUEST), (Choice.REJECT, OTHER, REQUEST)]
    for other in (sent[1], sent[3], sent[4], sent[5], sent[6]):
        assert buttons(other) == []


async def test_without_interactivity_there_are_no_buttons(rig: Rig, slack: Slack) -> None:
    rig.settings = rig.settings.model_copy(update={"slack_interactive": False})
    made = await rig.commands.subscribe("ana", Channel.SLACK, "C0MODELS1", types=("hallmark.*",))
    await delivered(rig, made, opened())
    assert not [b for b in slack.calls[0][1]["blocks"] if b["type"] in ("actions", "input")]


async def test_a_message_that_somebody_deleted_does_not_hold_up_the_thread(rig: Rig, slack: Slack) -> None:
    made = await rig.commands.subscribe("ana", Channel.SLACK, "#models", types=("hallmark.*",))
    await delivered(rig, made, opened())
    slack.errors = [failure("message_not_found")]
    await delivered(rig, made, decided())
    assert [path for path, _ in slack.calls] == ["/chat.postMessage", "/chat.postMessage"]


def failure(error: str, status: int = 200, **headers: str) -> Answer:
    body = json.dumps({"ok": False, "error": error}).encode()
    return status, {"content-type": "application/json", **headers}, body


@pytest.mark.parametrize(
    ("answer", "verdict", "detail"),
    [
        (failure("ratelimited", 429, **{"retry-after": "30"}), ("retry", 30.0, False), "Slack says ratelimited"),
        (failure("not_in_channel"), ("retry", None, False), "Slack says not_in_channel"),
        (failure("invalid_auth"), ("retry", None, True), "Slack says invalid_auth"),
        (failure("is_archived"), ("gone", None, False), "Slack says is_archived"),
        (failure("invalid_blocks"), ("refused", None, False), "Slack says invalid_blocks"),
        ((500, {}, b"oops"), ("retry", None, False), "Slack says no answer of Slack's"),
    ],
)
async def test_what_slack_answers(
    rig: Rig, slack: Slack, answer: Answer, verdict: tuple[str, float | None, bool], detail: str
) -> None:
    slack.errors = [answer]
    outcome = await sent_once(rig)
    assert (str(outcome.verdict), outcome.retry_after, outcome.ours) == verdict
    assert outcome.detail == detail


async def test_a_slack_that_is_away_is_waited_for(rig: Rig, slack: Slack) -> None:
    rig.settings = rig.settings.model_copy(update={"slack_url": "http://127.0.0.1:1"})
    outcome = await sent_once(rig)
    assert (str(outcome.verdict), outcome.detail) == ("retry", "cannot reach Slack: URLError")


async def sent_once(rig: Rig) -> Outcome:
    sender = app.senders(rig.settings, Guard(rig.settings.webhook_allow), rig.db)[Channel.SLACK]
    return await sender.send(
        Parcel(delivery_id="d1", subscription_id="s1", envelope=said(rig, opened()), address="#models")
    )


async def test_a_channel_needs_a_bot(rig: Rig, ana: httpx2.AsyncClient) -> None:
    response = await ana.post("/v1/subscriptions", json={"channel": "slack", "address": "#models"})
    assert (response.status_code, code(response)) == (422, "address-refused")
    assert "HALLMARK_SLACK_BOT_TOKEN" in response.json()["detail"]
    hook = await made_by(ana, channel="slack", address="http://127.0.0.1:9/services/T1/B1/pa55word")
    assert hook["address"] == "http://127.0.0.1:9/****"
