"""Slack by a bot: a thread per request, whose first message tells how the request stands, with buttons to vote.

The buttons say what they mean (`contracts.slack`); the approval service checks with Slack whose click it was.
"""

import asyncio
import logging
import re
from typing import Any

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from contracts.approval import Choice, RequestOpened, RequestRebound
from contracts.envelope import Envelope, now
from contracts.slack import COMMENT, VOTE, Button
from notifier.channels import Parcel
from notifier.channels.slack_threads import Thread, Threads
from notifier.requests import ENDS, request_of
from notifier.retrying import Outcome, Verdict, retry_after_seconds

Message = dict[str, Any]
MOST_COMMENT = 2_000
# Of Slack's errors: the message is wrong, and no repetition mends that; the channel is closed. All else may be mended,
# such as a private channel that the bot is not invited to.
WRONG = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_too_long", "msg_blocks_too_long", "no_text"})
GONE = frozenset({"is_archived"})
_CODE = re.compile(r"[a-z_]{1,100}")
OURS = frozenset({"invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "missing_scope"})


class SlackBot:
    """`interactive`: the app sends clicks to the approval service, so messages have buttons."""

    def __init__(self, token: str, threads: Threads, *, url: str, interactive: bool, timeout: float) -> None:
        quiet = logging.getLogger(f"{__name__}.client")
        quiet.setLevel(logging.CRITICAL)  # it logs whole answers
        # Our queue repeats; in a thread, since its asynchronous twin brings a second HTTP client along.
        self._client = WebClient(
            token, base_url=f"{url.rstrip('/')}/", timeout=max(int(timeout), 1), retry_handlers=[], logger=quiet
        )
        self._threads, self._interactive = threads, interactive

    async def send(self, parcel: Parcel, message: Message) -> Outcome:
        request_id = request_of(parcel.envelope)
        try:
            known = await self._threads.find(parcel.subscription_id, request_id) if request_id else None
            if known is None:
                answer = await self._call("chat.postMessage", parcel.address, self._first(parcel.envelope, message))
                if request_id:
                    await self._threads.begin(parcel.subscription_id, request_id, answer["channel"], answer["ts"])
            else:
                await self._go_on(known, parcel.envelope, message)
        except SlackApiError as error:
            return _refusal(error)
        except (SlackClientError, OSError) as error:  # urllib's errors are OSErrors
            return Outcome(Verdict.RETRY, f"cannot reach Slack: {type(error).__name__}")
        return Outcome(Verdict.SUCCEEDED, "ok", status=200)

    async def _go_on(self, thread: Thread, envelope: Envelope, message: Message) -> None:
        """The first message tells the newest of the request; the thread, all that happened."""
        if not thread.ended and (envelope.type in ENDS or _votable(envelope) is not None):
            first = self._first(envelope, message)
            try:
                await self._call("chat.update", thread.channel, {"ts": thread.ts, **first})
            except SlackApiError as error:
                if _code(error) not in ("message_not_found", "cant_update_message"):  # somebody has deleted it
                    raise
            if envelope.type in ENDS:
                await self._threads.end(thread)
        await self._call("chat.postMessage", thread.channel, {"thread_ts": thread.ts, **message})

    def _first(self, envelope: Envelope, message: Message) -> Message:
        digest, request_id = _votable(envelope), request_of(envelope)
        if not self._interactive or digest is None or request_id is None:
            return message
        buttons = [_button(choice, digest, request_id) for choice in Choice]
        return {**message, "blocks": [*message["blocks"], _COMMENT, {"type": "actions", "elements": buttons}]}

    async def _call(self, method: str, channel: str, arguments: Message) -> Any:
        given = {"channel": channel, **arguments}
        if method == "chat.postMessage":
            given |= {"unfurl_links": False, "unfurl_media": False}
        return await asyncio.to_thread(self._client.api_call, method, json=given)


_COMMENT: Message = {
    "type": "input",
    "optional": True,
    "label": {"type": "plain_text", "text": "Comment (a rejection needs one)"},
    "element": {"type": "plain_text_input", "action_id": COMMENT, "max_length": MOST_COMMENT},
}


def _button(choice: Choice, digest: str, request_id: str) -> Message:
    return {
        "type": "button",
        "action_id": f"{VOTE}-{choice}",
        "style": "primary" if choice is Choice.APPROVE else "danger",
        "text": {"type": "plain_text", "text": str(choice).capitalize()},
        "value": Button(choice, digest, request_id).value(),
    }


def _votable(envelope: Envelope) -> str | None:
    """The digest that votes bind to from this event on."""
    match envelope.type:
        case RequestOpened.TYPE:
            return envelope.payload(RequestOpened).request_digest
        case RequestRebound.TYPE:
            return envelope.payload(RequestRebound).request_digest
    return None


def _code(error: SlackApiError) -> str:
    """Slack's name for what is wrong; nothing when somebody else has answered."""
    data = getattr(error.response, "data", None)
    code = str(data.get("error", "")) if isinstance(data, dict) else ""
    return code if _CODE.fullmatch(code) else ""


def _refusal(error: SlackApiError) -> Outcome:
    code, status = _code(error) or "no answer of Slack's", getattr(error.response, "status_code", None)
    headers = {str(name).lower(): value for name, value in (getattr(error.response, "headers", None) or {}).items()}
    verdict = Verdict.REFUSED if code in WRONG else Verdict.GONE if code in GONE else Verdict.RETRY
    after = retry_after_seconds(headers.get("retry-after"), now())
    ours = code in OURS
    return Outcome(verdict, f"Slack says {code}"[:500], status=status, retry_after=after, ours=ours)
