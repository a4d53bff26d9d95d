"""The receiver: what counts as Hallmark's, and what came before. The messages are signed by others than the SDK."""

import base64
import json
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook

from contracts.registry import ModelRegistered
from hallmark.webhooks import Receiver, SeenCache, WebhookError

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()
PRIVATE = Ed25519PrivateKey.generate()
PUBLIC = "whpk_" + base64.b64encode(PRIVATE.public_key().public_bytes_raw()).decode()
NOW = 1_700_000_000
EVENT = {
    "specversion": "1.0",
    "id": "e1",
    "source": "hallmark/registry",
    "type": "hallmark.model.registered.v1",
    "subject": "default/churn",
    "time": "2026-11-21T10:00:00Z",
    "sequence": 1,
    "actor": "ana",
    "correlationid": "c1",
    "data": {"workspace": "default", "model": "churn"},
}
BODY = json.dumps(EVENT).encode()


def signed(body: bytes = BODY, secret: str = SECRET, at: int = NOW, message_id: str = "msg_1") -> dict[str, str]:
    signature = Webhook(secret).sign(message_id, datetime.fromtimestamp(at, UTC), body.decode())
    return {"Webhook-Id": message_id, "Webhook-Timestamp": str(at), "Webhook-Signature": signature}


def receiver(*keys: str, **options: Any) -> Receiver:
    return Receiver(*(keys or (SECRET,)), clock=lambda: NOW, **options)


def test_a_signed_event_is_read_with_its_type() -> None:
    event = receiver().verify(signed(), BODY)
    assert (event.message_id, event.id, event.subject, event.sequence) == ("msg_1", "e1", "default/churn", 1)
    assert event.payload == ModelRegistered(workspace="default", model="churn")
    assert event.data == EVENT["data"]
    assert event.time == datetime(2026, 11, 21, 10, tzinfo=UTC)


def test_a_type_of_a_newer_release_is_read_as_plain_data() -> None:
    body = json.dumps(EVENT | {"type": "hallmark.model.repainted.v1", "data": {"colour": "red"}}).encode()
    event = receiver().verify(signed(body), body)
    assert (event.payload, event.data) == (None, {"colour": "red"})


def test_one_key_of_several_is_enough_and_the_services_own_does_too() -> None:
    assert receiver(OTHER, SECRET).check(signed(), BODY) == "msg_1"
    headers = signed()
    signature = base64.b64encode(PRIVATE.sign(b"msg_1.%d." % NOW + BODY)).decode()
    headers["Webhook-Signature"] = f"v1a,AAAA v1a,? v1a,{signature}"
    assert receiver(PUBLIC).check(headers, BODY) == "msg_1"
    assert receiver(OTHER, PUBLIC).check(headers, BODY) == "msg_1"
    for keys, body in [((OTHER,), BODY), ((PUBLIC,), BODY + b" ")]:
        with pytest.raises(WebhookError, match="no signature"):
            receiver(*keys).check(headers, body)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, BODY),
        (signed(), BODY + b" "),
        (signed(secret=OTHER), BODY),
        (signed(at=NOW - 301), BODY),
        (signed(at=NOW + 301), BODY),
        (signed() | {"Webhook-Timestamp": "now"}, BODY),
        (signed() | {"Webhook-Signature": "v1,\u00fc"}, BODY),
        (signed() | {"Webhook-Signature": "v1,\ud800"}, BODY),
        (signed() | {"Webhook-Signature": "v1"}, BODY),
        (signed() | {"Webhook-Id": "msg_2"}, BODY),
        (signed() | {"Webhook-Id": "\ud800"}, BODY),
    ],
)
def test_whatever_strangers_send_is_one_error(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(WebhookError) as refused:
        receiver().verify(headers, body)
    assert refused.value.status == 401
    assert SECRET not in refused.value.detail


@pytest.mark.parametrize("body", [b"[]", b"{}", b"no json", json.dumps(EVENT | {"specversion": "2.0"}).encode()])
def test_what_is_signed_but_no_event_is_told_apart(body: bytes) -> None:
    headers = signed(body)
    assert receiver().check(headers, body) == "msg_1"
    with pytest.raises(WebhookError) as refused:
        receiver().verify(headers, body)
    assert refused.value.status == 400


def test_a_body_that_is_no_text_is_refused_as_no_event() -> None:
    with pytest.raises(WebhookError) as refused:
        receiver().verify(signed(), b"\xff")
    assert refused.value.status == 401


@pytest.mark.parametrize("key", ["", "hunter2", "whsec_short", "whpk_AAAA", "whpk_?"])
def test_a_key_that_is_none_is_refused_at_once(key: str) -> None:
    with pytest.raises(ValueError, match=r"secret|public key"):
        Receiver(key)
    with pytest.raises(ValueError, match="needs a secret"):
        Receiver()


def test_a_message_is_dealt_with_once() -> None:
    hook, done = receiver(), []
    for _ in range(3):
        with hook.once(signed(), BODY) as event:
            done.append(event)
    assert [event is not None for event in done] == [True, False, False]


def test_a_failure_leaves_the_message_new() -> None:
    hook = receiver()
    with pytest.raises(RuntimeError), hook.once(signed(), BODY):
        raise RuntimeError("the disk is full")
    with hook.once(signed(), BODY) as event:
        assert event is not None


def test_a_copy_that_comes_meanwhile_is_sent_away_for_now() -> None:
    """It must not be taken for one that was dealt with: the first may still fail."""
    hook = receiver()
    with hook.once(signed(), BODY):
        with pytest.raises(WebhookError) as refused, hook.once(signed(), BODY):
            pass
        assert refused.value.status == 503


def test_of_copies_at_the_same_time_one_is_dealt_with() -> None:
    hook, start, dealt = receiver(), threading.Barrier(8), []

    def take() -> None:
        start.wait()
        try:
            with hook.once(signed(), BODY) as event:
                dealt.append(event)
        except WebhookError:
            pass

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(event is not None for event in dealt) == 1


def test_the_cache_forgets_in_time_and_by_number() -> None:
    clock = [0.0]
    seen = SeenCache(keep=10, most=2, clock=lambda: clock[0])
    for name in ("a", "b"):
        assert seen.begin(name) == "new"
        seen.finish(name)
    assert [seen.begin(name) for name in ("a", "c", "a")] == ["done", "new", "new"]  # the oldest made room
    clock[0] = 11
    assert seen.begin("b") == "new"


def test_a_store_of_ones_own_is_asked() -> None:
    class Shared(SeenCache):
        asked: list[str] = []  # noqa: RUF012

        def begin(self, message_id: str) -> Any:
            self.asked.append(message_id)
            return "done"

    with receiver(seen=Shared()).once(signed(), BODY) as event:
        assert event is None
    assert Shared.asked == ["msg_1"]
