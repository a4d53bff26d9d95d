"""PagerDuty's Events API v2: what waits or burns opens an incident, its end resolves it, the rest is a change event,
which pages nobody.

Source: PagerDuty/developer-docs, `docs/events-API-v2`.
"""

import hashlib
import json
from dataclasses import replace
from typing import Any, Literal

import httpx2

from contracts.approval import (
    GlassBroken,
    RequestClosed,
    RequestDecided,
    RequestEscalated,
    RequestOpened,
    RequestRebound,
    ReviewGiven,
    ReviewOverdue,
    RevocationOrdered,
)
from contracts.catalog import MESSAGES
from contracts.envelope import Envelope
from contracts.registry import VersionRevoked
from notifier.channels import Parcel
from notifier.channels.http import post
from notifier.channels.render import clipped
from notifier.links import links_of
from notifier.notices import one_line
from notifier.requests import EMERGENCY, request_of
from notifier.retrying import Outcome, Verdict
from notifier.wording import notice

Action = Literal["trigger", "resolve", "change"]
Severity = Literal["critical", "error", "warning", "info"]
SUMMARY, KEY = 1024, 255
# What a subscription without types of its own pages for, and what ends that again.
USUAL_TYPES = ("hallmark.glass.*", "hallmark.review.*", "hallmark.request.*", "hallmark.version.revoked.v1")


def action_of(envelope: Envelope) -> tuple[Action, Severity]:
    kind = MESSAGES.get(envelope.type)
    match envelope.payload(kind) if kind else None:
        case GlassBroken() | ReviewOverdue() | VersionRevoked() | RevocationOrdered():
            return "trigger", "critical"
        case ReviewGiven() as review:
            return ("resolve", "info") if review.closes and review.justified else ("trigger", "error")
        case RequestEscalated():
            return "trigger", "warning"
        case RequestOpened() | RequestRebound():
            return "trigger", "info"
        case RequestDecided() | RequestClosed():
            return "resolve", "info"
    return "change", "info"


def dedup_key(envelope: Envelope) -> str:
    """One incident per request, another for its emergency; of other events one per subject. 255 characters at most."""
    request_id = request_of(envelope)
    if request_id is None:
        key = f"hallmark/{envelope.subject}"
    else:
        key = f"hallmark/{'emergency' if envelope.type in EMERGENCY else 'request'}/{request_id}"
    return key if len(key) <= KEY else f"hallmark/{hashlib.sha256(key.encode()).hexdigest()}"


class PagerDutySender:
    """`url` is PagerDuty's, of the region that the account is in."""

    def __init__(
        self, client: httpx2.AsyncClient, *, url: str, console: str | None = None, timeout: float = 15
    ) -> None:
        self._client, self._url, self._console, self._timeout = client, url.rstrip("/"), console, timeout

    def message(self, parcel: Parcel) -> tuple[str, dict[str, Any]]:
        """The path it is posted to, and the JSON."""
        envelope, words = parcel.envelope, notice(parcel.envelope)
        action, severity = action_of(envelope)
        links = [{"href": url, "text": title} for title, url in links_of(envelope, self._console)]
        told = {label: value for label, value in (("Who", words.who), ("Reason", words.reason), *words.facts) if value}
        payload: dict[str, Any] = {
            "summary": clipped(one_line(parcel.worded.get("text") or words.headline), SUMMARY),
            "source": f"hallmark/{envelope.key}",
            "timestamp": envelope.time.isoformat(),
            "custom_details": told | ({words.heading: list(words.criteria[:50])} if words.criteria else {}),
        }
        if action == "change":
            return "/v2/change/enqueue", {"routing_key": parcel.address, "payload": payload, "links": links}
        payload |= {"severity": severity, "component": envelope.subject, "class": envelope.type}
        return "/v2/enqueue", {
            "routing_key": parcel.address,
            "event_action": action,
            "dedup_key": dedup_key(envelope),
            "client": "Hallmark",
            "payload": payload,
            "links": links,
        }

    async def send(self, parcel: Parcel) -> Outcome:
        path, message = self.message(parcel)
        body = json.dumps(message, ensure_ascii=False).encode()
        headers = {"content-type": "application/json"}
        outcome = await post(
            self._client, self._url + path, body, headers, timeout=self._timeout, secrets=(parcel.address,)
        )
        # Their 400 says that the event is wrong, which no repetition mends.
        return replace(outcome, verdict=Verdict.REFUSED) if outcome.status == 400 else outcome
