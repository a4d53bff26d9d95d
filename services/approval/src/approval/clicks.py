"""Votes by a click in Slack, and the accounts there that may cast them.

The approval service checks Slack's signature itself: nobody else's word is taken for whose click it was, neither the
notifier's, which only shows the buttons, nor a topic's.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import structlog
from slack_sdk.signature import SignatureVerifier
from sqlalchemy.ext.asyncio import AsyncConnection

from approval import accounts, domain, views
from approval.desk import Desk
from approval.people import People
from contracts.approval import AccountLinked, AccountUnlinked
from contracts.payload import Message
from contracts.slack import COMMENT, VOTE, Button, account_of, read_button
from kit.events import Cause, New
from kit.inbox import Inbox
from kit.problems import Problem
from policy.case import Ballot, Person

log = structlog.get_logger()
CONSUMER = "slack"
MOST_COMMENT = 2_000
HOW = "Say `/hallmark link CODE` with the code of `hallmark notify slack link`."


class Clicks:
    """`secret` is the signing secret of the Slack app; None: there is none."""

    def __init__(self, desk: Desk, people: People, inbox: Inbox, secret: str | None, console: str | None) -> None:
        self._desk, self._people, self._inbox, self._console = desk, people, inbox, console
        self._verifier = SignatureVerifier(secret) if secret else None

    def verify(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Raises Problem: 401, Slack has not sent it, or not in the last five minutes; 404, no app is set up."""
        if self._verifier is None:
            raise Problem(
                404, "slack-not-set-up", "no Slack app is set up; the operator sets HALLMARK_SLACK_SIGNING_SECRET"
            )
        try:
            good = self._verifier.is_valid_request(body, dict(headers))
        except Exception:  # malformed headers raise what they like
            good = False
        if not good:
            raise Problem(401, "not-slack", "the signature is not Slack's, or the request is older than five minutes")

    async def code(self, caller: Person) -> tuple[str, str]:
        """A code that links the account that enters it, and until when. What the caller's token says of them counts for
        clicks from now on."""
        async with self._desk.db.transaction() as tx:
            at = await self._desk.clock(tx)
            await self._people.directory.seen(tx, caller, at)
            code, until = await accounts.make_code(tx, caller.subject, at)
        return f"{code[:5]}-{code[5:]}", until.isoformat()

    async def unlink(self, subject: str) -> int:
        """No account acts for them any more. How many did."""
        async with self._desk.db.transaction() as tx:
            found = await accounts.accounts_of(tx, subject)
            ended = 0
            for account in found:
                await self._desk.log.lock(tx, _stream(account))
                if await accounts.subject_of(tx, account) == subject:  # nobody was faster
                    gone = AccountUnlinked(subject=subject, system="slack", account=account)
                    await self._append(tx, account, gone, subject)
                    ended += 1
        return ended

    async def command(self, form: Mapping[str, str]) -> str:
        """What to answer to `/hallmark ...`, to its author alone."""
        account = account_of(form.get("team_id", ""), form.get("user_id", ""))
        words = form.get("text", "").split()
        match [words[0].lower() if words else "", *words[1:]]:
            case ["link", code]:
                return await self._link(account, code)
            case ["unlink"]:
                async with self._desk.db.snapshot() as tx:
                    subject = await accounts.subject_of(tx, account)
                if subject is None:
                    return "This account is linked to nobody."
                await self.unlink(subject)
                return f"No account acts for {subject} any more."
        return f"{HOW} `/hallmark unlink` ends it."

    async def _link(self, account: str, code: str) -> str:
        async with self._desk.db.transaction() as tx:
            await self._desk.log.lock(tx, _stream(account))
            holder = await accounts.subject_of(tx, account)
            if holder is not None:
                return f"This account acts for {holder} already; `/hallmark unlink` ends it."
            subject = await accounts.use_code(tx, code, await self._desk.clock(tx))
            if subject is None:
                return f"There is no such code, or it is older than ten minutes. {HOW}"
            await self._append(tx, account, AccountLinked(subject=subject, system="slack", account=account), subject)
        return f"Linked: what you click here counts as {subject}'s, where policies allow it."

    async def click(self, body: bytes, payload: Mapping[str, Any]) -> str | None:
        """What to tell the person who clicked; None: the click was dealt with before, or is none of ours."""
        action = next((a for a in payload.get("actions", ()) if str(a.get("action_id", "")).startswith(VOTE)), None)
        if payload.get("type") != "block_actions" or action is None:
            return None
        try:
            button = read_button(str(action.get("value", "")))
            account = account_of(payload["team"]["id"], payload["user"]["id"])
        except (ValueError, LookupError, TypeError):
            return "This button is malformed; vote in the console or by the command line."
        async with self._desk.db.transaction() as tx:
            # Whoever overheard a click could repeat it within the five minutes, after its author took the vote back.
            new = await self._inbox.once(tx, CONSUMER, sha256(body).hexdigest())
            subject = await accounts.subject_of(tx, account)
        if not new:
            return None
        if subject is None:
            return f"This Slack account is linked to nobody in Hallmark. {HOW}"
        return await self._vote(subject, button, _comment(payload))

    async def _vote(self, subject: str, button: Button, comment: str) -> str:
        ballot = Ballot(button.choice, comment, button.request_digest)
        try:
            request = await self._people.vote_by_click(button.request_id, subject, ballot)
        except Problem as problem:
            log.info("vote by Slack refused", request_id=button.request_id, code=problem.code)
            return f"Not recorded: {problem.detail}. {self._instead(button)}"
        if request.status == domain.OPEN:
            return f"Recorded: you {button.choice} it. It waits for others still."
        return f"Recorded: you {button.choice} it. The request is {request.status} now."

    def _instead(self, button: Button) -> str:
        page = f"{self._console.rstrip('/')}/requests/{button.request_id}" if self._console else ""
        return f"Vote {f'at {page} or ' if page else ''}by `hallmark request {button.choice} {button.request_id}`."

    async def _append(self, tx: AsyncConnection, account: str, event: Message, subject: str) -> None:
        stream = _stream(account)
        last, at = await self._desk.log.lock(tx, stream), await self._desk.clock(tx)
        for envelope in await self._desk.log.append(tx, stream, last, [New(event, stream)], Cause(subject), at):
            await views.project(tx, envelope)


def _comment(payload: Mapping[str, Any]) -> str:
    """What was written in the input beside the buttons."""
    for block in payload.get("state", {}).get("values", {}).values():
        if COMMENT in block:
            return str(block[COMMENT].get("value") or "").replace("\x00", "")[:MOST_COMMENT]
    return ""


def _stream(account: str) -> str:
    return f"account:{account}"
