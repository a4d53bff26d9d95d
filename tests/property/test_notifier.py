"""What holds of the notifier's rules whatever the input."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from contracts.approval import RequestEscalated
from contracts.envelope import Envelope
from contracts.notifier import Channel
from contracts.payload import Message
from contracts.registry import ModelRegistered, StageChanged
from kit.webhooks import headers_of, new_secret
from notifier.channels import Parcel
from notifier.channels.email import EmailSender
from notifier.channels.render import Renderer
from notifier.channels.slack import SlackSender
from notifier.domain import Subscription
from notifier.matching import Seen
from notifier.retrying import MAX_PAUSE_SECONDS, Outcome, Schedule, Try, Verdict, decide, redact, retry_after_seconds
from notifier.wording import notice

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
RENDERER = Renderer()
DIGEST = "sha256:" + "a" * 64
texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=300)
names = st.builds("{}:{}".format, st.sampled_from(["group", "user", "service", "channel"]), st.sampled_from("abc"))
lines = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=100)


@given(st.binary(max_size=500).filter(lambda b: b.decode(errors="ignore").encode() == b), st.integers(0, 2**31))
def test_the_public_library_makes_the_same_signature(body: bytes, timestamp: int) -> None:
    secret = new_secret()
    expected = Webhook(secret).sign("msg_1", datetime.fromtimestamp(timestamp, UTC), body.decode())
    assert headers_of(secret, "msg_1", timestamp, body)["webhook-signature"] == expected


@given(
    st.lists(st.floats(0.001, 86400), min_size=1, max_size=12),
    st.integers(1, 20),
    st.none() | st.floats(0, 1e9),
    st.floats(0, 1, exclude_max=True),
)
def test_a_pause_is_never_shorter_than_the_receiver_asked_nor_longer_than_a_day(
    pauses: list[float], tries: int, asked: float | None, chance: float
) -> None:
    pause = Schedule(tuple(pauses)).pause(tries, asked, chance)
    assert (pause is None) == (tries > len(pauses))
    if pause is not None:
        assert min(asked or 0.0, MAX_PAUSE_SECONDS) <= pause <= MAX_PAUSE_SECONDS
        assert pause >= min(pauses[tries - 1] * 0.79, MAX_PAUSE_SECONDS)


@given(st.text(max_size=60))
def test_no_retry_after_header_breaks_the_worker(header: str) -> None:
    seconds = retry_after_seconds(header, AT)
    assert seconds is None or 0 <= seconds <= MAX_PAUSE_SECONDS


@given(st.sampled_from(Verdict), st.integers(1, 12), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_every_outcome_has_one_delivery_event_and_an_end(
    verdict: Verdict, tries: int, active: bool, chance: float
) -> None:
    done = Try("d", "s", "e", "t", attempt=tries, tries=tries, latency_ms=1.0)
    follows = decide(done, Outcome(verdict, "x"), Schedule((1.0,) * 9), at=AT, chance=chance, active=active)
    kinds = [event.TYPE for event in follows.events]
    assert sum(kind.startswith("hallmark.delivery.") for kind in kinds) == 1
    assert (follows.due_at is not None) == (follows.status == "pending")
    if tries > 9:
        assert follows.status != "pending"


@given(st.sets(names), st.lists(names, min_size=1), st.sampled_from(["default", "other"]))
def test_an_audience_hears_what_each_of_its_names_hears_and_never_more(
    to: set[str], audience: list[str], workspace: str
) -> None:
    message = RequestEscalated(request_id="r", step="s", action="notify", to=tuple(sorted(to)))
    told = Envelope.of(message, source="s", subject="default/churn/1", key="k", sequence=1, time=AT)
    plain = Subscription("s", "ana", Channel.SLACK, "a", ("hallmark.*",), workspace, "*", AT)
    wanted = replace(plain, audience=tuple(audience)).wants(Seen(told))
    assert wanted == any(replace(plain, audience=(name,)).wants(Seen(told)) for name in audience)
    assert wanted == (plain.wants(Seen(told)) and not to.isdisjoint(audience))


@given(st.text("XYZ012", min_size=1, max_size=40), st.text(max_size=200), st.text(max_size=200))
def test_a_secret_is_never_left_in_an_excerpt(secret: str, before: str, after: str) -> None:
    found = redact(before + secret + after, [secret])
    assert secret not in found
    assert "\x00" not in found
    assert len(found) <= 2048


@given(reason=texts, name=lines, expression=texts, detail=texts)
def test_any_text_can_be_told_in_every_medium(reason: str, name: str, expression: str, detail: str) -> None:
    message: Message = StageChanged.model_validate(
        {
            "transition_id": "t1",
            "kind": "promotion",
            "workspace": "default",
            "model": "churn",
            "version": 2,
            "digest": DIGEST,
            "artifact_digest": DIGEST,
            "from_stage": "Staging",
            "to_stage": "Production",
            "requested_by": name,
            "reason": reason,
            "approved_by": [{"name": name, "at": AT, "meaning": "m"}],
            "criteria": [{"gate": name, "expression": expression, "result": "pass", "message": detail}],
        }
    )
    tell(message, f"default/{'churn'}/2")


@given(description=texts, owner=lines)
def test_any_description_can_be_told_too(description: str, owner: str) -> None:
    tell(ModelRegistered(workspace="default", model="churn", description=description, owner=owner), "default/churn")


def tell(message: Message, subject: str) -> None:
    envelope = Envelope.of(message, source="s", subject=subject, key="default/churn", sequence=1)
    slack = SlackSender(None, RENDERER).message(envelope)  # type: ignore[arg-type]
    texts = [slack["text"], slack["blocks"][0]["text"]["text"]]
    assert not any("<" in text for text in texts)
    mail = EmailSender(None, RENDERER).message(Parcel("d", "s", envelope, "a@b.c"), "h@b.c")
    assert mail.as_bytes()
    assert len(mail["Subject"]) <= 180
    assert "\n" not in notice(envelope).headline
