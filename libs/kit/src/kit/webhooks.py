"""Standard Webhooks 1.0.0 (v1, HMAC-SHA256): signed messages over HTTP, sent and received."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping

PREFIX = "whsec_"
KEY_BYTES = 24, 64
TOLERANCE_SECONDS = 300  # how far apart two clocks may be, and how long a message that was overheard is good


class Unsigned(ValueError):
    """The message is not signed with the secret, or not now; the text says what is wrong and nothing of the secret."""


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """The key in a `whsec_...` secret.

    Raises:
        ValueError: it is no base64 of 24 to 64 bytes after the prefix.
    """
    if not secret.startswith(PREFIX):
        raise ValueError(f"a secret begins with {PREFIX!r}")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except ValueError as error:
        raise ValueError(f"after {PREFIX!r} a secret is base64") from error
    if not KEY_BYTES[0] <= len(key) <= KEY_BYTES[1]:
        raise ValueError(f"a secret holds {KEY_BYTES[0]} to {KEY_BYTES[1]} bytes, this one {len(key)}")
    return key


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` of one try. `timestamp` is in Unix seconds, so no time zone can go wrong."""
    content = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key_of(secret), content, hashlib.sha256).digest()).decode()


def headers_of(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """What a signed message carries beside its body."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secret, message_id, timestamp, body),
    }


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> str:
    """The id of a received message. `headers` by small letters; `now` in Unix seconds. Of several signatures (secrets
    rotate) one has to be right.

    Raises:
        Unsigned: a header is missing, the signature is another's, or the message is too old or from the future.
    """
    message_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    given = headers.get("webhook-signature", "")
    if not (message_id and stamp and given):
        raise Unsigned("webhook-id, webhook-timestamp and webhook-signature must be there")
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= 12):
        raise Unsigned("webhook-timestamp must be Unix seconds")
    if abs(now - int(stamp)) > TOLERANCE_SECONDS:
        raise Unsigned(f"webhook-timestamp is more than {TOLERANCE_SECONDS} seconds from now")
    expected = sign(secret, message_id, int(stamp), body).encode()
    if not any(hmac.compare_digest(expected, one.encode()) for one in given.split(" ")):
        raise Unsigned("no signature of the message is right")
    return message_id
