"""Signed messages, checked against the public library of Standard Webhooks."""

import base64
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from kit.webhooks import TOLERANCE_SECONDS, Unsigned, headers_of, key_of, new_secret, sign, verify

NOW = 1_700_000_000


def test_a_signature_of_another_body_secret_or_id_is_refused() -> None:
    secret, stamp = new_secret(), int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "m",
        "webhook-timestamp": str(stamp),
        "webhook-signature": sign(secret, "m", stamp, b'{"a":1}'),
    }
    assert Webhook(secret).verify(b'{"a":1}', headers) == {"a": 1}
    for body, key, changed in [
        (b'{"a":2}', secret, {}),
        (b'{"a":1}', new_secret(), {}),
        (b'{"a":1}', secret, {"webhook-id": "n"}),
        (b'{"a":1}', secret, {"webhook-timestamp": str(stamp + 1)}),
    ]:
        with pytest.raises(WebhookVerificationError):
            Webhook(key).verify(body, {**headers, **changed})


@pytest.mark.parametrize("size", [23, 65])
def test_keys_have_24_to_64_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="24 to 64"):
        key_of("whsec_" + base64.b64encode(b"k" * size).decode())


def test_what_the_public_library_signs_is_taken() -> None:
    secret, body = new_secret(), '{"result": "pass", "message": "Größe"}'
    signature = Webhook(secret).sign("msg_1", datetime.fromtimestamp(NOW, UTC), body)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": signature}
    assert verify(secret, headers, body.encode(), NOW) == "msg_1"


def test_of_several_signatures_one_is_enough() -> None:
    secret = new_secret()
    headers = headers_of(secret, "m", NOW, b"x")
    several = f"v1a,abc {sign(new_secret(), 'm', NOW, b'x')} {headers['webhook-signature']}"
    assert verify(secret, {**headers, "webhook-signature": several}, b"x", NOW) == "m"


@pytest.mark.parametrize("late", [-TOLERANCE_SECONDS - 1, TOLERANCE_SECONDS + 1])
def test_a_message_that_was_overheard_is_good_for_minutes_only(late: int) -> None:
    secret = new_secret()
    headers = headers_of(secret, "m", NOW, b"x")
    assert verify(secret, headers, b"x", NOW + late // abs(late) * TOLERANCE_SECONDS) == "m"
    with pytest.raises(Unsigned, match="from now"):
        verify(secret, headers, b"x", NOW + late)


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-id": ""},
        {"webhook-id": "n"},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "nan"},
        {"webhook-timestamp": "1e9"},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "٣"},
        {"webhook-timestamp": "1" * 5_000},
        {"webhook-timestamp": str(NOW + 1)},
        {"webhook-signature": ""},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,ü"},
    ],
)
def test_anything_else_is_refused(changed: dict[str, str]) -> None:
    secret = new_secret()
    with pytest.raises(Unsigned):
        verify(secret, {**headers_of(secret, "m", NOW, b"x"), **changed}, b"x", NOW)


def test_another_body_or_secret_is_refused() -> None:
    secret = new_secret()
    headers = headers_of(secret, "m", NOW, b"x")
    for key, body in [(new_secret(), b"x"), (secret, b"y"), (secret, b"")]:
        with pytest.raises(Unsigned):
            verify(key, headers, body, NOW)
