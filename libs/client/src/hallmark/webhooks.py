"""Receiving Hallmark's webhooks: is it really from Hallmark, and is it new? Works with any web framework.

>>> receiver = Receiver("whsec_...")                 # or the public key, "whpk_..."; several while they rotate
>>> with receiver.once(request.headers, body) as event:
...     if event is not None:                        # None: it came before, and was dealt with
...         deal_with(event.type, event.payload)

An error inside the block leaves the message new, so that the sender's next try is not taken for a repetition.
"""

import base64
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from contracts.catalog import MESSAGES
from contracts.payload import Message
from contracts.webhooks import PUBLIC, SECRET, Signed, Unsigned, key_of, proved_by_secret, signed

# Longer than the sender tries (three days).
KEEP_SECONDS = 4 * 86_400.0
MOST_KEPT = 100_000
State = Literal["new", "busy", "done"]


class WebhookError(Exception):
    """The request must not be acted on. Answer with `status`: 401, it is not signed as it should be; 400, it is, but is
    no event; 503, another copy of it is being dealt with, so that the sender comes again."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


@dataclass(frozen=True)
class Event:
    """One CloudEvent. `message_id` is the same for every try. `data` is empty when the event was too large to be sent:
    then a GET with a token on `dataref` answers with all of it. `payload` is `data` as its own type, where this release
    knows it."""

    message_id: str
    id: str
    type: str
    source: str
    subject: str
    time: datetime
    sequence: int | None
    actor: str | None
    correlationid: str | None
    data: dict[str, Any]
    payload: Message | None = None
    dataref: str | None = None


class Seen(Protocol):
    """Which messages came before. Every method is atomic: copies of a message may come at the same time."""

    def begin(self, message_id: str) -> State:
        """`new`: from now on it is busy. Else what it was."""
        ...

    def finish(self, message_id: str) -> None:
        """It was dealt with, for good."""
        ...

    def release(self, message_id: str) -> None:
        """It was not: it is new again."""
        ...


class SeenCache:
    """In the memory of this process. `keep` is in seconds; of more than `most` messages the oldest are forgotten."""

    def __init__(
        self, *, keep: float = KEEP_SECONDS, most: int = MOST_KEPT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keep, self._most, self._clock = keep, most, clock
        self._known: OrderedDict[str, tuple[float, State]] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, message_id: str) -> State:
        with self._lock:
            oldest = self._clock() - self._keep
            while self._known and next(iter(self._known.values()))[0] < oldest:
                self._known.popitem(last=False)
            if message_id in self._known:
                return self._known[message_id][1]
            if len(self._known) >= self._most:
                self._known.popitem(last=False)
            self._known[message_id] = self._clock(), "busy"
            return "new"

    def finish(self, message_id: str) -> None:
        with self._lock:
            self._known[message_id] = self._clock(), "done"
            self._known.move_to_end(message_id)

    def release(self, message_id: str) -> None:
        with self._lock:
            self._known.pop(message_id, None)


class Receiver:
    """Knows the secrets (`whsec_...`) or public keys (`whpk_...`, as `GET /v1/webhook-keys` of the notifier shows them)
    of which one has to have signed.

    Raises:
        ValueError: a key is none.
    """

    def __init__(self, *keys: str, seen: Seen | None = None, clock: Callable[[], float] = time.time) -> None:
        if not keys:
            raise ValueError("a receiver needs a secret (whsec_...) or a public key (whpk_...)")
        self._public = [_public(key) for key in keys if key.startswith(PUBLIC)]
        self._secrets = [key for key in keys if not key.startswith(PUBLIC)]
        for secret in self._secrets:
            key_of(secret)
        self._seen, self._clock = seen or SeenCache(), clock

    def check(self, headers: Mapping[str, str], body: bytes) -> str:
        """The id of the message, whatever its body is. `body` are the bytes as they came, before any parsing.

        Raises:
            WebhookError: it is not signed by a known key, or not now.
        """
        try:
            message = signed({str(name).lower(): str(value) for name, value in headers.items()}, self._clock())
            if not self._proved(message, body):
                raise Unsigned("no signature of the message is right")
        except Exception as error:  # whatever strangers send
            detail = str(error) if isinstance(error, Unsigned) else f"the message is malformed ({type(error).__name__})"
            raise WebhookError(401, detail) from error
        return message.message_id

    def verify(self, headers: Mapping[str, str], body: bytes) -> Event:
        """The event of a message in CloudEvents format.

        Raises:
            WebhookError: see there.
        """
        message_id = self.check(headers, body)
        try:
            return _event(message_id, json.loads(body))
        except Exception as error:
            raise WebhookError(400, f"the message is signed, but is no CloudEvent ({type(error).__name__})") from error

    @contextmanager
    def once(self, headers: Mapping[str, str], body: bytes) -> Iterator[Event | None]:
        """The event, or None when it was dealt with before: answer 2xx to both.

        Raises:
            WebhookError: see there.
        """
        event = self.verify(headers, body)
        state = self._seen.begin(event.message_id)
        if state == "busy":
            raise WebhookError(503, "another copy of the message is being dealt with")
        if state == "done":
            yield None
            return
        try:
            yield event
        except BaseException:
            self._seen.release(event.message_id)
            raise
        self._seen.finish(event.message_id)

    def _proved(self, message: Signed, body: bytes) -> bool:
        return any(proved_by_secret(message, body, secret) for secret in self._secrets) or any(
            _proved_by_key(message, body, key) for key in self._public
        )


def _public(text: str) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text.removeprefix(PUBLIC), validate=True))
    except ValueError as error:
        raise ValueError(
            f"a public key is {PUBLIC!r} and the base64 of 32 bytes; a secret begins with {SECRET!r}"
        ) from error


def _proved_by_key(message: Signed, body: bytes, key: Ed25519PublicKey) -> bool:
    for signature in message.of("v1a"):
        try:
            key.verify(base64.b64decode(signature, validate=True), message.content(body))
        except (InvalidSignature, ValueError):
            continue
        return True
    return False


def _event(message_id: str, document: dict[str, Any]) -> Event:
    if document["specversion"] != "1.0":
        raise ValueError(document["specversion"])
    kind, data = MESSAGES.get(document["type"]), document.get("data")
    return Event(
        message_id=message_id,
        id=document["id"],
        type=document["type"],
        source=document["source"],
        subject=document["subject"],
        time=datetime.fromisoformat(document["time"]),
        sequence=document.get("sequence"),
        actor=document.get("actor"),
        correlationid=document.get("correlationid"),
        data=data or {},
        payload=kind.model_validate_json(json.dumps(data)) if kind is not None and data is not None else None,
        dataref=document.get("dataref"),
    )
