"""Standard Webhooks 1.0.0: messages over HTTP, signed (v1, HMAC-SHA256; v1a, Ed25519) and received."""

import base64
import secrets
from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from joserfc.jwk import OKPKey

from contracts.webhooks import PUBLIC, SECRET, Unsigned, content, hmac_of, proved_by_secret, signed


def new_secret() -> str:
    return SECRET + base64.b64encode(secrets.token_bytes(32)).decode()


def private_half(key: OKPKey) -> Ed25519PrivateKey:
    """Raises ValueError when the key has none."""
    private = key.private_key
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError(f"the key {key.kid} has no private half of Ed25519")
    return private


def public_text(key: OKPKey) -> str:
    """The public half as Standard Webhooks writes it: `whpk_` and base64."""
    public = key.public_key
    assert isinstance(public, Ed25519PublicKey)
    return PUBLIC + base64.b64encode(public.public_bytes_raw()).decode()


def headers_of(
    keys: str | Sequence[str], message_id: str, timestamp: int, body: bytes, private: Ed25519PrivateKey | None = None
) -> dict[str, str]:
    """What a signed message carries beside its body: one `v1` signature per secret of `keys` (while a secret rotates
    there are two), then a `v1a` one when there is a `private` key. `timestamp` is in Unix seconds.

    Raises:
        ValueError: a secret is none.
    """
    bytes_ = content(message_id, timestamp, body)
    made = [f"v1,{hmac_of(secret, bytes_)}" for secret in ([keys] if isinstance(keys, str) else keys)]
    made += [f"v1a,{base64.b64encode(private.sign(bytes_)).decode()}"] if private else []
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": " ".join(made)}


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> str:
    """The id of a received message. `headers` by small letters; `now` in Unix seconds. Of several signatures (secrets
    rotate) one has to be right.

    Raises:
        Unsigned: a header is missing, the signature is another's, or the message is too old or from the future.
    """
    message = signed(headers, now)
    if not proved_by_secret(message, body, secret):
        raise Unsigned("no signature of the message is right")
    return message.message_id
