"""Signed messages, checked against the public library of Standard Webhooks."""

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc.jwk import OKPKey
from standardwebhooks import Webhook, WebhookVerificationError

from contracts.webhooks import TOLERANCE_SECONDS, Unsigned, key_of
from kit.keys import ensure_key
from kit.webhooks import headers_of, new_secret, private_half, public_text, verify

NOW = 1_700_000_000


def test_a_signature_of_another_body_secret_or_id_is_refused() -> None:
    secret, stamp = new_secret(), int(datetime.now(UTC).timestamp())
    headers = headers_of(secret, "m", stamp, b'{"a":1}')
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
    other = headers_of(new_secret(), "m", NOW, b"x")["webhook-signature"]
    several = f"v1a,abc {other} {headers['webhook-signature']}"
    assert verify(secret, {**headers, "webhook-signature": several}, b"x", NOW) == "m"


def test_a_message_carries_a_signature_of_each_secret_and_one_of_the_key(tmp_path: Path) -> None:
    """Ed25519 checked by `cryptography`, from the public text alone."""
    old, new, key = new_secret(), new_secret(), ensure_key(tmp_path, "webhook")
    headers = headers_of([new, old], "m", NOW, b"x", private_half(key))
    first, second, third = headers["webhook-signature"].split(" ")
    assert [one.partition(",")[0] for one in (first, second, third)] == ["v1", "v1", "v1a"]
    assert verify(old, headers, b"x", NOW) == verify(new, headers, b"x", NOW) == "m"
    text = public_text(key)
    assert text.startswith("whpk_")
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(text.removeprefix("whpk_")))
    public.verify(base64.b64decode(third.removeprefix("v1a,")), f"m.{NOW}.x".encode())
    with pytest.raises(InvalidSignature):
        public.verify(base64.b64decode(third.removeprefix("v1a,")), f"m.{NOW}.y".encode())


def test_a_public_half_does_not_sign(tmp_path: Path) -> None:
    public = OKPKey.import_key(ensure_key(tmp_path, "webhook").as_dict(private=False))
    with pytest.raises(ValueError, match="no private half"):
        private_half(public)


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
