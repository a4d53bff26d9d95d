"""Microsoft Teams: an Adaptive Card to the webhook of a workflow ("When a Teams webhook request is received").

Everything that people wrote is in text runs: these know no Markdown, which could hide a link under other words.
"""

import json
from typing import Any

import httpx2

from contracts.envelope import Envelope
from notifier.channels import Parcel
from notifier.channels.http import post
from notifier.channels.render import clipped
from notifier.links import links_of
from notifier.notices import Notice, one_line
from notifier.retrying import Outcome
from notifier.wording import notice

# A message may have 28 kB.
TEXT, REASON, CRITERIA, FACTS, LINES = 300, 2000, 15, 12, 10


class TeamsSender:
    def __init__(self, client: httpx2.AsyncClient, *, console: str | None = None, timeout: float = 15) -> None:
        self._client, self._console, self._timeout = client, console, timeout

    def message(self, envelope: Envelope, text: str | None = None) -> dict[str, Any]:
        """The JSON that is posted; `text` is what a template has made of it."""
        words = notice(envelope)
        body = _body(words) if text is None else [_line(_run(line, REASON)) for line in text.splitlines()[:LINES]]
        card: dict[str, Any] = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "fallbackText": clipped(one_line(text or words.summary), TEXT),
            "body": [*body, _told(envelope)],
            "actions": [
                {"type": "Action.OpenUrl", "title": clipped(title, 100), "url": url}
                for title, url in links_of(envelope, self._console)
            ],
        }
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
        return {"type": "message", "attachments": [attachment]}

    async def send(self, parcel: Parcel) -> Outcome:
        body = json.dumps(self.message(parcel.envelope, parcel.worded.get("text")), ensure_ascii=False).encode()
        headers = {"content-type": "application/json"}
        return await post(self._client, parcel.address, body, headers, timeout=self._timeout)


def _told(envelope: Envelope) -> dict[str, Any]:
    told = f"{envelope.type} \u00b7 {envelope.subject} \u00b7 {envelope.time:%Y-%m-%d %H:%M:%S} UTC"
    return _line(_run(told, isSubtle=True, size="Small"))


def _body(words: Notice) -> list[dict[str, Any]]:
    blocks = [_line(_run(words.headline, weight="Bolder", size="Medium"))]
    if words.who:
        blocks.append(_line(_run(f"{words.who}{':' if words.reason else '.'}")))
    if words.reason:
        blocks.append(_line(_run(words.reason, REASON, italic=True)))
    if words.criteria:
        blocks.append(_line(_run(words.heading, weight="Bolder")))
        blocks += [_line(_run(f"\u2022 {line}")) for line in words.criteria[:CRITERIA]]
    for label, value in words.facts[:FACTS]:
        blocks.append(_line(_run(f"{label}: ", weight="Bolder"), _run(value)))
    return blocks


def _line(*runs: dict[str, Any]) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": list(runs)}


def _run(text: str, most: int = TEXT, **style: Any) -> dict[str, Any]:
    return {"type": "TextRun", "text": clipped(one_line(text) or "-", most), **style}
