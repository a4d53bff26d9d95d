"""What leaves the house: words, escaping, signatures, and what an answer means."""

import asyncio
import inspect
import json
from datetime import UTC, datetime
from typing import Any

import aiosmtplib
import httpx2
import pytest
from standardwebhooks import Webhook

from contracts.approval import EVENTS as APPROVAL
from contracts.envelope import Envelope
from contracts.payload import Message
from contracts.registry import EVENTS as REGISTRY
from contracts.registry import CommandRejected, Criterion, StageChanged, StageRefused, StageRequested
from kit.webhooks import new_secret
from notifier import approval_words, notices, people_words, registry_words, wording
from notifier.channels import Parcel
from notifier.channels.email import EmailSender, _refusal
from notifier.channels.http import post
from notifier.channels.render import Renderer, clipped
from notifier.channels.slack import SlackSender
from notifier.channels.webhook import WebhookSender
from notifier.retrying import Verdict
from notifier.wording import notice

WORDS = (wording, registry_words, approval_words, people_words)
DIGEST = "sha256:" + "a" * 64
AT = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


def transition(**changed: Any) -> dict[str, Any]:
    return {
        "transition_id": "t1",
        "kind": "promotion",
        "workspace": "default",
        "model": "churn",
        "version": 2,
        "digest": DIGEST,
        "artifact_digest": DIGEST,
        "from_stage": "Staging",
        "to_stage": "Production",
        "requested_by": "ana",
        "reason": "better recall",
        **changed,
    }


GATE = {
    "gate": "accuracy",
    "expression": "metrics.accuracy >= 0.9",
    "result": "passed",
    "message": "accuracy 0.971 >= 0.9",
}
BEN = {"name": "ben", "at": AT, "meaning": "reviewed"}
PROMOTED = StageChanged.model_validate(transition(replaces=1, approved_by=[BEN], criteria=[GATE], policy="prod@3"))


def said(message: Message = PROMOTED, **changed: Any) -> Envelope:
    given = {"source": "hallmark/registry", "subject": "default/churn/2", "key": "default/churn", "sequence": 4}
    return Envelope.of(message, **{**given, "event_id": "e1", "correlationid": "c1", "time": AT, **changed})


def parcel(envelope: Envelope | None = None, **changed: Any) -> Parcel:
    given: dict[str, Any] = {"delivery_id": "d1", "subscription_id": "s1", "address": "https://x.example/T/secretpart"}
    return Parcel(**{**given, "envelope": envelope or said(), **changed})


@pytest.mark.parametrize(
    ("message", "summary"),
    [
        (
            PROMOTED,
            (
                "churn: v2 is now in Production (was Staging); v1 archived. "
                "Asked by ana, approved by ben: 'better recall'. accuracy 0.971 >= 0.9 passed."
            ),
        ),
        (
            StageChanged.model_validate(transition(to_stage="Staging", from_stage="Development")),
            "churn: v2 is now in Staging (was Development). Asked by ana: 'better recall'.",
        ),
        (
            StageChanged.model_validate(
                transition(kind="rollback", version=1, from_stage="Archived", replaces=2, reason="drift")
            ),
            "churn: rolled back, v1 is in Production again (was Archived); v2 archived. Asked by ana: 'drift'.",
        ),
        (
            StageChanged.model_validate(
                transition(kind="superseded", version=1, from_stage="Production", to_stage="Archived", superseded_by=2)
            ),
            "churn: v1 is now Archived (was Production); v2 took its place. Asked by ana: 'better recall'.",
        ),
        (
            StageChanged.model_validate(transition(approved_by=[BEN, {**BEN, "name": "e"}, {**BEN, "name": "k"}])),
            "churn: v2 is now in Production (was Staging). Asked by ana, approved by ben, e and k: 'better recall'.",
        ),
        (
            StageRequested.model_validate(transition(expires_at=AT)),
            "churn: v2 asks to enter Production (now Staging). Asked by ana: 'better recall'.",
        ),
        (
            StageRefused.model_validate(transition(code="gate-failed", detail="accuracy\n0.8 < 0.9")),
            "churn: v2 was refused Production: accuracy 0.8 < 0.9. Asked by ana: 'better recall'.",
        ),
        (
            CommandRejected(command_id="c", command_type="t", code="bad-event", detail="no"),
            "A command was rejected (bad-event): no.",
        ),
    ],
)
def test_a_person_can_read_what_moved_and_why(message: Message, summary: str) -> None:
    assert notice(said(message)).summary == summary


def test_every_known_event_has_words_of_its_own() -> None:
    source = "".join(inspect.getsource(module) for module in WORDS)
    missing = [kind.__name__ for kind in (*REGISTRY, *APPROVAL) if f" {kind.__name__}()" not in source]
    assert not missing


@pytest.mark.parametrize(
    ("gate", "expression", "result", "message", "line"),
    [
        ("accuracy", "m >= 0.9", "passed", "", "accuracy: m >= 0.9 passed"),
        ("accuracy", "a", "pass", "accuracy 0.971 >= 0.9", "accuracy 0.971 >= 0.9 passed"),
        (
            "accuracy",
            "candidate.metrics.accuracy >= 0.9",
            "pass",
            "candidate.metrics.accuracy = 0.971",
            "accuracy 0.971 >= 0.9 passed",
        ),
        (
            "floor",
            "candidate.metrics.accuracy >= 0.9",
            "fail",
            "must be at least 0.9; candidate.metrics.accuracy = 0.8",
            "floor: accuracy 0.8 >= 0.9 failed (must be at least 0.9)",
        ),
        (
            "not-worse",
            "candidate.metrics.auc >= baseline.metrics.auc - 0.01 && candidate.metrics.auc2 > 0",
            "pass",
            "candidate.metrics.auc = 0.97, baseline.metrics.auc = 0.96, candidate.metrics.auc2 = 1e-05",
            "not-worse: auc 0.97 >= baseline auc 0.96 - 0.01 && auc2 1e-05 > 0 passed",
        ),
        (
            "g",
            "baseline.x",
            "inconclusive",
            "nothing to compare with yet",
            "g: nothing to compare with yet inconclusive",
        ),
        ("g", "x", "error", "no such metric", "g: no such metric could not be evaluated"),
        ("g", "x", "strange", "", "g: x strange"),
    ],
)
def test_a_criterion_reads_like_a_sentence(gate: str, expression: str, result: str, message: str, line: str) -> None:
    said = Criterion(gate=gate, expression=expression, result=result, message=message)
    assert notices.criterion_line(said) == line


def test_an_unknown_type_is_named_plainly() -> None:
    envelope = said().model_copy(update={"type": "hallmark.model.repainted.v1", "value": b"{}", "actor": "ana"})
    assert notice(envelope).summary == "default/churn/2: hallmark.model.repainted.v1. By ana."


HOSTILE = "<!channel> <https://evil|click> & *bold*"


def test_slack_text_cannot_mention_or_hide_links() -> None:
    changed = transition(reason=HOSTILE, requested_by="<@U1>", criteria=[{**GATE, "message": "<!here>"}])
    message = SlackSender(httpx2.AsyncClient(), Renderer()).message(said(StageChanged.model_validate(changed)))
    text = json.dumps(message)
    assert not [c for c in ("<!", "<@", "<h") if c in text]
    assert "&lt;!channel&gt; &lt;https://evil|click&gt; &amp;" in message["text"]
    assert "&#" not in text
    assert "&amp;lt;" not in text


def test_slack_blocks_tell_everything_and_stay_in_bounds() -> None:
    sender = SlackSender(httpx2.AsyncClient(), Renderer())
    blocks = sender.message(said())["blocks"]
    fields = {f["text"].split("\n")[0]: f["text"].split("\n")[1] for f in blocks[1]["fields"]}
    assert fields["*From*"] == "Staging"
    assert fields["*To*"] == "Production"
    assert fields["*Asked by*"] == "ana"
    assert fields["*Approved by*"] == "ben"
    assert blocks[2]["text"]["text"] == "*Criteria*\n• accuracy 0.971 &gt;= 0.9 passed"
    gates = [{**GATE, "gate": f"g{n}", "message": "&" * 9000} for n in range(60)]
    long = sender.message(said(StageChanged.model_validate(transition(reason="&" * 2000, criteria=gates))))
    assert len(long["blocks"]) <= 50
    assert len(long["text"]) <= 3000
    for block in long["blocks"]:
        for part in [block.get("text"), *block.get("fields", []), *block.get("elements", [])]:
            assert part is None or len(part["text"]) <= 3000


def test_clipping_leaves_no_half_escape() -> None:
    assert clipped("ab&amp;cd", 6) == "ab…"
    assert clipped("abcdef", 6) == "abcdef"


def test_mail_is_threaded_and_says_it_is_automatic() -> None:
    mail = EmailSender(None, Renderer()).message(parcel(address="ana@example.org"), "Hallmark <h@example.org>")
    assert mail["Message-ID"] == "<d1@hallmark>"
    assert mail["In-Reply-To"] == mail["References"] == "<t1@hallmark>"  # the request, whose id the transition has
    assert mail["List-Unsubscribe"] is None
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Subject"] == "churn: v2 is now in Production (was Staging); v1 archived"
    text, html = (part.get_content() for part in mail.iter_parts())
    assert "accuracy 0.971 >= 0.9 passed" in text
    assert "better recall" in text
    assert "accuracy 0.971 &gt;= 0.9 passed" in html


def test_mail_escapes_html_and_keeps_headers_in_one_line() -> None:
    refused = StageRefused.model_validate(
        transition(reason="<script>x</script>", code="c", detail="a\r\nBcc: evil@example.org" + "x" * 900)
    )
    mail = EmailSender(None, Renderer()).message(
        parcel(said(refused, correlationid="<odd> id"), address="a@b.c"), "h@b.c"
    )
    assert mail["Bcc"] is None
    assert len(mail["Subject"]) <= 180
    assert "odd" not in mail["References"]
    _, html = (part.get_content() for part in mail.iter_parts())
    assert "<script>" not in html


@pytest.mark.parametrize(
    ("error", "verdict", "status"),
    [
        (aiosmtplib.SMTPRecipientsRefused([aiosmtplib.SMTPRecipientRefused(451, "later", "a@b")]), Verdict.RETRY, 451),
        (aiosmtplib.SMTPRecipientsRefused([aiosmtplib.SMTPRecipientRefused(550, "no", "a@b")]), Verdict.REFUSED, 550),
        (aiosmtplib.SMTPDataError(554, "spam"), Verdict.REFUSED, 554),
        (aiosmtplib.SMTPSenderRefused(553, "who", "h@b"), Verdict.REFUSED, 553),
        (aiosmtplib.SMTPAuthenticationError(535, "bad login"), Verdict.RETRY, 535),
        (aiosmtplib.SMTPConnectError("refused"), Verdict.RETRY, None),
        (aiosmtplib.SMTPServerDisconnected("gone"), Verdict.RETRY, None),
        (aiosmtplib.SMTPTimeoutError("slow"), Verdict.RETRY, None),
        (OSError("no route"), Verdict.RETRY, None),
    ],
)
def test_what_a_mail_server_says_is_for_now_or_for_good(error: Exception, verdict: Verdict, status: int | None) -> None:
    outcome = _refusal(error, ())
    assert (outcome.verdict, outcome.status) == (verdict, status)


async def test_a_webhook_is_signed_for_this_try_and_verifies_with_the_public_library() -> None:
    secret, times, got = new_secret(), iter([1_700_000_000.9, 1_700_000_300.0]), []

    def receive(request: httpx2.Request) -> httpx2.Response:
        got.append(request)
        return httpx2.Response(200, stream=httpx2.ByteStream(b""))

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(receive)) as client:
        sender = WebhookSender(client, clock=lambda: next(times))
        for _ in range(2):
            outcome = await sender.send(parcel(secret=secret))
    assert outcome.verdict is Verdict.SUCCEEDED
    first, second = got
    assert first.headers["webhook-timestamp"] == "1700000000"
    assert second.headers["webhook-timestamp"] == "1700000300"
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == "msg_d1"
    assert "." not in first.headers["webhook-id"]
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    for request in got:
        stamp = datetime.fromtimestamp(int(request.headers["webhook-timestamp"]), UTC)
        expected = Webhook(secret).sign("msg_d1", stamp, request.content.decode())
        assert request.headers["webhook-signature"] == expected


@pytest.mark.parametrize(
    ("status", "headers", "verdict"),
    [
        (200, {}, Verdict.SUCCEEDED),
        (204, {}, Verdict.SUCCEEDED),
        (301, {"location": "http://127.0.0.1/"}, Verdict.RETRY),
        (400, {}, Verdict.RETRY),
        (404, {}, Verdict.RETRY),
        (410, {}, Verdict.GONE),
        (429, {"retry-after": "7"}, Verdict.RETRY),
        (500, {}, Verdict.RETRY),
        (503, {"retry-after": "7"}, Verdict.RETRY),
        (500, {"webhook-delivery": "abort-message"}, Verdict.REFUSED),
        (500, {"webhook-delivery": " Disable "}, Verdict.GONE),
        (500, {"webhook-delivery": "please"}, Verdict.RETRY),
        (200, {"webhook-delivery": "abort-message"}, Verdict.SUCCEEDED),
        (200, {"webhook-delivery": "disable"}, Verdict.SUCCEEDED),
    ],
)
async def test_what_an_answer_means(status: int, headers: dict[str, str], verdict: Verdict) -> None:
    body = httpx2.ByteStream(b"said s3cret")
    transport = httpx2.MockTransport(lambda _: httpx2.Response(status, headers=headers, stream=body))
    async with httpx2.AsyncClient(transport=transport) as client:
        outcome = await post(client, "https://x.example/", b"", {}, timeout=2, secrets=["s3cret"])
    assert (outcome.verdict, outcome.status, outcome.response) == (verdict, status, "said [redacted]")
    assert outcome.retry_after == (7.0 if "retry-after" in headers else None)
    assert outcome.disable == ("disable" in headers.get("webhook-delivery", "").lower())


async def test_a_try_keeps_headers_without_secrets() -> None:
    answer = {"set-cookie": "a=1", "x-said": "the s3cret " + "x" * 900, "x-request-id": "r1"}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=answer, stream=httpx2.ByteStream(b"")))
    sent = {"webhook-id": "msg_1", "webhook-signature": "v1,abc", "Authorization": "Bearer x"}
    async with httpx2.AsyncClient(transport=transport) as client:
        outcome = await post(client, "https://x.example/", b"", sent, timeout=2, secrets=["s3cret"])
    assert outcome.sent == {"webhook-id": "msg_1", "webhook-signature": "[redacted]", "authorization": "[redacted]"}
    assert outcome.received["set-cookie"] == "[redacted]"
    assert outcome.received["x-said"].startswith("the [redacted] xxx")
    assert len(outcome.received["x-said"]) == 200
    assert outcome.received["x-request-id"] == "r1"


async def test_an_endless_or_dripping_answer_ends_in_time() -> None:
    class Dripping(httpx2.AsyncByteStream):
        async def __aiter__(self) -> Any:
            while True:
                await asyncio.sleep(0.01)
                yield b"x"

    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, stream=Dripping()))
    async with httpx2.AsyncClient(transport=transport) as client:
        async with asyncio.timeout(60):  # for ever, if it did not end
            outcome = await post(client, "https://x.example/", b"", {}, timeout=0.3, secrets=[])
    assert outcome.verdict is Verdict.RETRY
    assert "no answer within" in outcome.detail


def test_a_parcel_shows_no_secret_in_a_log_line() -> None:
    assert "s3cret" not in repr(parcel(secret="s3cret", address="https://x/s3cret"))
