"""What a message over HTTP must carry to count as signed: Standard Webhooks 1.0.0, without the keys. Pure.

Source: standard-webhooks/standard-webhooks, `spec/standard-webhooks.md`.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

SECRET, PUBLIC = "whsec_", "whpk_"
KEY_BYTES = 24, 64
TOLERANCE_SECONDS = 300  # how far apart two clocks may be, and how long a message that was overheard is good


class Unsigned(ValueError):
    """The message is not signed with the secret, or not now; the text says what is wrong and nothing of the secret."""


@dataclass(frozen=True)
class Signed:
    """What a message says of its signing; nothing of it is proved yet. `signatures` are `(version, base64)`."""

    message_id: str
    timestamp: int
    signatures: tuple[tuple[str, str], ...]

    def content(self, body: bytes) -> bytes:
        return content(self.message_id, self.timestamp, body)

    def of(self, version: str) -> list[str]:
        return [signature for of, signature in self.signatures if of == version]


def content(message_id: str, timestamp: int, body: bytes) -> bytes:
    """The bytes that are signed. `timestamp` is in Unix seconds, so no time zone can go wrong."""
    return f"{message_id}.{timestamp}.".encode() + body


def key_of(secret: str) -> bytes:
    """The key in a `whsec_...` secret.

    Raises:
        ValueError: it is no base64 of 24 to 64 bytes after the prefix.
    """
    if not secret.startswith(SECRET):
        raise ValueError(f"a secret begins with {SECRET!r}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET), validate=True)
    except ValueError as error:
        raise ValueError(f"after {SECRET!r} a secret is base64") from error
    if not KEY_BYTES[0] <= len(key) <= KEY_BYTES[1]:
        raise ValueError(f"a secret holds {KEY_BYTES[0]} to {KEY_BYTES[1]} bytes, this one {len(key)}")
    return key


def hmac_of(secret: str, signed: bytes) -> str:
    """The `v1` signature of `signed`, in base64. Raises ValueError for a secret that is none."""
    return base64.b64encode(hmac.new(key_of(secret), signed, hashlib.sha256).digest()).decode()


def signed(headers: Mapping[str, str], now: float) -> Signed:
    """What a received message says of its signing. `headers` by small letters; `now` in Unix seconds.

    Raises:
        Unsigned: a header is missing or malformed, or the message is too old or from the future.
    """
    message_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    given = headers.get("webhook-signature", "")
    if not (message_id and stamp and given):
        raise Unsigned("webhook-id, webhook-timestamp and webhook-signature must be there")
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= 12):
        raise Unsigned("webhook-timestamp must be Unix seconds")
    if abs(now - int(stamp)) > TOLERANCE_SECONDS:
        raise Unsigned(f"webhook-timestamp is more than {TOLERANCE_SECONDS} seconds from now")
    pairs = tuple((version, value) for version, _, value in (one.partition(",") for one in given.split(" ")))
    return Signed(message_id, int(stamp), pairs)


def proved_by_secret(message: Signed, body: bytes, secret: str) -> bool:
    """Whether one of the message's `v1` signatures was made with the secret."""
    expected = hmac_of(secret, message.content(body)).encode()
    return any(hmac.compare_digest(expected, one.encode()) for one in message.of("v1"))
