"""Signed webhooks: Standard Webhooks 1.0.0 (v1, HMAC-SHA256) around a CloudEvents 1.0 structured event."""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable

import httpx2

from contracts.envelope import CONTENT_TYPE, Envelope
from notifier.channels import Parcel
from notifier.channels.http import post
from notifier.domain import Outcome

PREFIX = "whsec_"
KEY_BYTES = 24, 64


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


def message_id(delivery_id: str) -> str:
    return f"msg_{delivery_id}"


def body_of(envelope: Envelope) -> bytes:
    """CloudEvents JSON. `data` keeps the bytes of the event, so every try sends the same body."""
    attributes = {
        "specversion": "1.0",
        "id": envelope.id,
        "source": envelope.source,
        "type": envelope.type,
        "subject": envelope.subject,
        "time": envelope.time.isoformat().replace("+00:00", "Z"),
        "datacontenttype": CONTENT_TYPE,
        "dataschema": envelope.dataschema,
        "partitionkey": envelope.key,
        "sequence": envelope.sequence,
        "correlationid": envelope.correlationid,
        "causationid": envelope.causationid,
        "actor": envelope.actor,
        "traceparent": envelope.traceparent,
    }
    head = json.dumps({name: v for name, v in attributes.items() if v is not None}, ensure_ascii=False)
    return head[:-1].encode() + b', "data": ' + envelope.value + b"}"


class WebhookSender:
    def __init__(
        self, client: httpx2.AsyncClient, *, timeout: float = 15, clock: Callable[[], float] = time.time
    ) -> None:
        self._client, self._timeout, self._clock = client, timeout, clock

    async def send(self, parcel: Parcel) -> Outcome:
        assert parcel.secret is not None
        body, identity, timestamp = body_of(parcel.envelope), message_id(parcel.delivery_id), int(self._clock())
        signature = sign(parcel.secret, identity, timestamp, body)
        headers = {
            "content-type": "application/cloudevents+json; charset=utf-8",
            "webhook-id": identity,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature,
        }
        signing = (parcel.secret, parcel.secret.removeprefix(PREFIX), signature)
        return await post(self._client, parcel.address, body, headers, timeout=self._timeout, secrets=signing)
