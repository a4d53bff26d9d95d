"""Slack: `text` for notifications, Block Kit for the rest. To an incoming webhook (or what speaks its language) each
event is a message; to a channel, by a bot, each request is a thread."""

import json
from dataclasses import replace
from typing import Any

import httpx2

from contracts.envelope import Envelope
from notifier.addresses import is_slack_channel
from notifier.channels import Parcel
from notifier.channels.http import post
from notifier.channels.render import Renderer, clipped
from notifier.channels.slack_bot import SlackBot
from notifier.links import links_of
from notifier.retrying import Outcome, Verdict
from notifier.wording import notice

BLOCK_TEXT = 3000
FIELDS = 10
FIELD_TEXT = 2000
CRITERIA = 20


class SlackSender:
    """`console` is where messages link to. Without a `bot` only webhooks are posted to."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        renderer: Renderer,
        *,
        console: str | None = None,
        bot: SlackBot | None = None,
        timeout: float = 15,
    ) -> None:
        self._client, self._renderer, self._timeout = client, renderer, timeout
        self._console, self._bot = console, bot

    def message(self, envelope: Envelope, text: str | None = None) -> dict[str, Any]:
        """The JSON that is posted; `text` is what a template has made of it."""
        words = notice(envelope)
        if text is not None:
            return {"text": clipped(text, BLOCK_TEXT), "blocks": [_section(text)]}
        blocks: list[dict[str, Any]] = [_section(self._renderer.slack("slack_headline", words, envelope))]
        if words.facts:
            fields = [self._field(label, value) for label, value in words.facts[:FIELDS]]
            blocks.append({"type": "section", "fields": fields})
        if words.criteria:
            shown = replace(words, criteria=words.criteria[:CRITERIA])
            blocks.append(_section(self._renderer.slack("slack_criteria", shown, envelope)))
        context = [self._renderer.slack("slack_context", words, envelope)]
        # The address is the operator's and ours; the title may be a model's name.
        context += [f"<{url}|{self._renderer.escape(title)}>" for title, url in links_of(envelope, self._console)]
        elements = [{"type": "mrkdwn", "text": clipped(text, BLOCK_TEXT)} for text in context]
        blocks.append({"type": "context", "elements": elements})
        return {"text": clipped(self._renderer.slack("slack_text", words, envelope), BLOCK_TEXT), "blocks": blocks}

    def _field(self, label: str, value: str) -> dict[str, Any]:
        text = f"*{self._renderer.escape(label)}*\n{self._renderer.escape(value)}"
        return {"type": "mrkdwn", "text": clipped(text, FIELD_TEXT)}

    async def send(self, parcel: Parcel) -> Outcome:
        if is_slack_channel(parcel.address):
            if self._bot is None:
                return Outcome(Verdict.RETRY, "no bot is set up any more: HALLMARK_SLACK_BOT_TOKEN", ours=True)
            return await self._bot.send(parcel, self.message(parcel.envelope, parcel.worded.get("text")))
        body = json.dumps(self.message(parcel.envelope, parcel.worded.get("text")), ensure_ascii=False).encode()
        headers = {"content-type": "application/json; charset=utf-8"}
        return await post(self._client, parcel.address, body, headers, timeout=self._timeout)


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": clipped(text, BLOCK_TEXT)}}
