"""Signed webhooks: Standard Webhooks 1.0.0 (v1, HMAC-SHA256; v1a, Ed25519) around a CloudEvents 1.0 event."""

import json
import time
from collections.abc import Callable

import httpx2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contracts.envelope import CONTENT_TYPE, Envelope
from contracts.notifier import Format
from contracts.webhooks import SECRET
from kit.webhooks import headers_of
from notifier.channels import Parcel
from notifier.channels.formats import TYPES, body_in, headers_in
from notifier.channels.http import post
from notifier.retrying import Outcome, Verdict

# Standard Webhooks asks for less than 20 kB: much software reads no more.
MOST_BYTES = 20_000


def message_id(delivery_id: str) -> str:
    return f"msg_{delivery_id}"


def body_of(envelope: Envelope, dataref: str | None = None) -> bytes:
    """CloudEvents JSON. `data` keeps the bytes of the event, so every try sends the same body. With a `dataref`
    (CloudEvents' extension for claim checks) it has that in the place of `data`: where all of it is."""
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
        "dataref": dataref,
    }
    head = json.dumps({name: v for name, v in attributes.items() if v is not None}, ensure_ascii=False)
    return head.encode() if dataref else head[:-1].encode() + b', "data": ' + envelope.value + b"}"


class WebhookSender:
    """`key` signs every message beside the secret of its subscription. `url` is this service's: a body that is too
    large to be sent is got there."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        *,
        key: Ed25519PrivateKey | None = None,
        url: str = "",
        timeout: float = 15,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client, self._key, self._url, self._timeout, self._clock = client, key, url, timeout, clock

    async def send(self, parcel: Parcel) -> Outcome:
        assert parcel.secret is not None
        if parcel.envelope.type not in TYPES.get(parcel.format, {parcel.envelope.type}):
            return Outcome(Verdict.REFUSED, f"{parcel.format} has no message for {parcel.envelope.type}", ours=True)
        body, identity, timestamp = self.body(parcel), message_id(parcel.delivery_id), int(self._clock())
        secrets = (parcel.secret, *parcel.formers)
        # A secret of the formats of others may be any text.
        ours = [secret for secret in secrets if secret.startswith(SECRET)]
        signed = headers_of(ours, identity, timestamp, body, self._key)
        media = "cloudevents+json" if parcel.format is Format.CLOUDEVENTS else "json"
        theirs = headers_in(parcel.format, parcel.secret, identity, timestamp, body)
        headers = {"content-type": f"application/{media}; charset=utf-8", **signed, **theirs}
        signatures = signed["webhook-signature"]
        hidden = (*secrets, *(s.removeprefix(SECRET) for s in secrets), signatures, *signatures.split(" "))
        hidden = (*hidden, *theirs.values())
        return await post(self._client, parcel.address, body, headers, timeout=self._timeout, secrets=hidden)

    def body(self, parcel: Parcel) -> bytes:
        if parcel.format is not Format.CLOUDEVENTS:
            return body_in(parcel.format, parcel.envelope, parcel.subscription_id, parcel.worded.get("text"))
        whole = body_of(parcel.envelope)
        if len(whole) < MOST_BYTES:
            return whole
        return body_of(parcel.envelope, f"{self._url}/v1/deliveries/{parcel.delivery_id}/event")
