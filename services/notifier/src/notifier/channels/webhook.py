"""Signed webhooks: Standard Webhooks 1.0.0 (v1, HMAC-SHA256) around a CloudEvents 1.0 structured event."""

import json
import time
from collections.abc import Callable

import httpx2

from contracts.envelope import CONTENT_TYPE, Envelope
from kit.webhooks import PREFIX, headers_of
from notifier.channels import Parcel
from notifier.channels.http import post
from notifier.retrying import Outcome


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
        signed = headers_of(parcel.secret, identity, timestamp, body)
        headers = {"content-type": "application/cloudevents+json; charset=utf-8", **signed}
        signing = (parcel.secret, parcel.secret.removeprefix(PREFIX), signed["webhook-signature"])
        return await post(self._client, parcel.address, body, headers, timeout=self._timeout, secrets=signing)
