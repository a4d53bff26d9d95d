"""Slack's incoming webhooks (and what speaks their language): `text` for notifications, Block Kit for the rest."""

import json
from dataclasses import replace
from typing import Any

import httpx2

from contracts.envelope import Envelope
from notifier.channels import Parcel
from notifier.channels.http import post
from notifier.channels.render import Renderer, clipped
from notifier.retrying import Outcome
from notifier.wording import notice

BLOCK_TEXT = 3000
FIELDS = 10
FIELD_TEXT = 2000
CRITERIA = 20


class SlackSender:
    def __init__(self, client: httpx2.AsyncClient, renderer: Renderer, *, timeout: float = 15) -> None:
        self._client, self._renderer, self._timeout = client, renderer, timeout

    def message(self, envelope: Envelope) -> dict[str, Any]:
        """The JSON that is posted."""
        words = notice(envelope)
        blocks: list[dict[str, Any]] = [_section(self._renderer.slack("slack_headline", words, envelope))]
        if words.facts:
            fields = [self._field(label, value) for label, value in words.facts[:FIELDS]]
            blocks.append({"type": "section", "fields": fields})
        if words.criteria:
            shown = replace(words, criteria=words.criteria[:CRITERIA])
            blocks.append(_section(self._renderer.slack("slack_criteria", shown, envelope)))
        context = self._renderer.slack("slack_context", words, envelope)
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": clipped(context, BLOCK_TEXT)}]})
        return {"text": clipped(self._renderer.slack("slack_text", words, envelope), BLOCK_TEXT), "blocks": blocks}

    def _field(self, label: str, value: str) -> dict[str, Any]:
        text = f"*{self._renderer.escape(label)}*\n{self._renderer.escape(value)}"
        return {"type": "mrkdwn", "text": clipped(text, FIELD_TEXT)}

    async def send(self, parcel: Parcel) -> Outcome:
        body = json.dumps(self.message(parcel.envelope), ensure_ascii=False).encode()
        headers = {"content-type": "application/json; charset=utf-8"}
        return await post(self._client, parcel.address, body, headers, timeout=self._timeout)


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": clipped(text, BLOCK_TEXT)}}
