"""Events as Slack and e-mail show them."""

from datetime import UTC, datetime
from typing import Any

import httpx2

from contracts.envelope import Envelope
from contracts.payload import Message
from notifier.channels import Parcel
from notifier.channels.email import EmailSender
from notifier.channels.render import Renderer
from notifier.channels.slack import SlackSender

AT = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
SUBJECT = "default/churn/2"


def said(message: Message, subject: str = SUBJECT) -> Envelope:
    key = "default/churn" if subject == SUBJECT else subject
    given: dict[str, Any] = {"source": "hallmark/registry", "subject": subject, "key": key}
    return Envelope.of(message, sequence=4, time=AT, actor="olga", event_id="e1", correlationid="c1", **given)


def slack(message: Message, subject: str = SUBJECT) -> tuple[str, str]:
    """The text for notifications, and all blocks."""
    sent = SlackSender(httpx2.AsyncClient(), Renderer()).message(said(message, subject))
    parts = [
        part["text"]
        for block in sent["blocks"]
        for part in [block.get("text"), *block.get("fields", []), *block.get("elements", [])]
        if part
    ]
    return sent["text"], "\n".join(parts)


def mail(message: Message, subject: str = SUBJECT) -> tuple[str, str, str]:
    """The subject, the text and the HTML."""
    parcel = Parcel(delivery_id="d1", subscription_id="s1", address="a@example.org", envelope=said(message, subject))
    made = EmailSender(None, Renderer()).message(parcel, "h@example.org")
    text, html = (part.get_content() for part in made.iter_parts())
    return made["Subject"], text, html
