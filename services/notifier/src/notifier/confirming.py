"""Mailboxes that the owner's token does not prove: whoever reads one is sent a link first, and nothing else before they
have followed it. The link is a secret of the subscription; the mail with it is tried like a delivery until it expires.
"""

import asyncio
import secrets
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import new_id
from contracts.notifier import ConfirmationAsked, SubscriptionConfirmed
from kit.db import Database
from kit.errors import is_transient
from kit.events import Cause, EventLog, New
from kit.problems import Problem
from notifier import views
from notifier.channels.email import EmailSender
from notifier.domain import UNCONFIRMED, Subscription
from notifier.retrying import Outcome, Schedule, Verdict
from notifier.tables import CONFIRM, ConfirmationRow, SecretRow, SubscriptionRow, TargetRow
from notifier.vault import Vault, VaultError
from notifier.views import Document, stream_of, t

log = structlog.get_logger()
ACTOR = "hallmark/confirmation-link"
VALID = timedelta(days=3)
# Until the owner may ask again.
PAUSE = timedelta(minutes=10)
# How many a person may leave open, and how many may wait for one mailbox: nobody is written to without end.
MOST_OF_OWNER, MOST_OF_MAILBOX = 20, 3
PAGE, LEASE_SECONDS = 20, 60.0


class Confirming:
    def __init__(self, db: Database, log_: EventLog, vault: Vault) -> None:
        self._db, self._log, self._vault = db, log_, vault

    async def check(self, tx: AsyncConnection, owner: str, endpoint: str) -> None:
        """Raises Problem 429 when too many mailboxes have been asked and have not answered."""
        of, target, asked = t(SubscriptionRow), t(TargetRow), t(ConfirmationRow)
        open_ = sa.select(sa.func.count()).select_from(of).where(of.c.status == UNCONFIRMED)
        if (await tx.scalar(open_.where(of.c.owner == owner)) or 0) >= MOST_OF_OWNER:
            says = f"{MOST_OF_OWNER} mailboxes of yours are not confirmed; remove some of these subscriptions first"
            raise Problem(429, "too-many-unconfirmed", says)
        there = open_.join(target, target.c.subscription_id == of.c.subscription_id)
        there = there.join(asked, asked.c.subscription_id == of.c.subscription_id)
        waiting = there.where(target.c.endpoint == endpoint, asked.c.expires_at > sa.func.now())
        if (await tx.scalar(waiting) or 0) >= MOST_OF_MAILBOX:
            says = f"{MOST_OF_MAILBOX} questions wait in this mailbox already; its reader answers them first"
            raise Problem(429, "too-many-unconfirmed", says)

    async def ask(self, tx: AsyncConnection, state: Subscription, by: str, last: int) -> None:
        """A new link, which is mailed soon; a former one is good no more. The caller holds the stream."""
        at: datetime = (await tx.execute(sa.select(sa.func.now()))).scalar_one()
        secret, name = t(SecretRow), state.subscription_id
        await tx.execute(sa.delete(secret).where(secret.c.subscription_id == name, secret.c.name == CONFIRM))
        token = self._vault.store(name, CONFIRM, secrets.token_urlsafe(32))
        await tx.execute(sa.insert(secret).values(subscription_id=name, name=CONFIRM, value=token))
        row = {"asked_at": at, "expires_at": at + VALID, "due_at": at, "tries": 0, "sent_at": None, "error": None}
        statement = insert(t(ConfirmationRow)).values(subscription_id=name, **row)
        await tx.execute(statement.on_conflict_do_update(index_elements=["subscription_id"], set_=row))
        asked = ConfirmationAsked(subscription_id=name, asked_by=by, expires_at=at + VALID)
        await self._append(tx, state, asked, by, last)

    async def ask_again(self, subscription_id: str, by: str) -> Document:
        """Another link, for three days.

        Raises:
            Problem: 409 when nothing waits to be confirmed; 429 when a link was sent just now.
        """
        async with self._db.transaction() as tx:
            last = await self._log.lock(tx, stream_of(subscription_id))
            state = await views.subscription(tx, subscription_id)
            if state is None or state.status != UNCONFIRMED:
                raise Problem(409, "nothing-to-confirm", "the subscription does not wait to be confirmed")
            asked = t(ConfirmationRow)
            lately = sa.select(asked.c.asked_at + PAUSE - sa.func.now()).where(
                asked.c.subscription_id == subscription_id
            )
            left = await tx.scalar(lately)
            if left is not None and left > timedelta(0):
                minutes = -(-left // timedelta(minutes=1))
                raise Problem(429, "asked-lately", f"the mailbox was asked just now; again in {minutes} min")
            await self.ask(tx, state, by, last)
            return await views.told(tx, state)

    async def forget(self, tx: AsyncConnection, subscription_id: str) -> None:
        """The subscription was removed."""
        asked = t(ConfirmationRow)
        await tx.execute(sa.delete(asked).where(asked.c.subscription_id == subscription_id))

    async def reads(self, subscription_id: str, token: str) -> Subscription | None:
        """The subscription, for somebody who shows the token of its newest link while that is good."""
        async with self._db.transaction() as tx:
            return await self._asked(tx, subscription_id, token)

    async def confirm(self, subscription_id: str, token: str) -> bool:
        """Whether the link is good; the subscription is sent to from now on. Twice is once."""
        async with self._db.transaction() as tx:
            last = await self._log.lock(tx, stream_of(subscription_id))
            state = await self._asked(tx, subscription_id, token)
            if state is not None and state.status == UNCONFIRMED:
                await self._append(tx, state, SubscriptionConfirmed(subscription_id=subscription_id), ACTOR, last)
                asked = t(ConfirmationRow)
                mine = asked.c.subscription_id == subscription_id
                await tx.execute(sa.update(asked).where(mine).values(due_at=None))
        return state is not None

    async def _asked(self, tx: AsyncConnection, subscription_id: str, token: str) -> Subscription | None:
        secret, asked = t(SecretRow), t(ConfirmationRow)
        query = sa.select(secret.c.value).join(asked, asked.c.subscription_id == secret.c.subscription_id)
        query = query.where(secret.c.subscription_id == subscription_id, secret.c.name == CONFIRM)
        stored = await tx.scalar(query.where(asked.c.expires_at > sa.func.now()))
        if stored is None or not _same(self._vault.read(subscription_id, CONFIRM, stored), token):
            return None
        return await views.subscription(tx, subscription_id)

    async def _append(self, tx: AsyncConnection, state: Subscription, event: Any, by: str, last: int) -> None:
        new = New(event, f"{state.workspace}/{state.model}")
        await views.append(tx, self._log, state.subscription_id, last, new, Cause(actor=by))


def _same(known: str, shown: str) -> bool:
    return secrets.compare_digest(known.encode(), shown.encode())


class Asker:
    """Mails the links. Any number may run against one database: who takes a row has it for a minute."""

    def __init__(
        self, db: Database, vault: Vault, sender: EmailSender, schedule: Schedule, *, poll_seconds: float = 1
    ) -> None:
        self._db, self._vault, self._sender, self._schedule = db, vault, sender, schedule
        self._poll = poll_seconds

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                await self.once()
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("cannot ask mailboxes; trying again", error=repr(error))
            await asyncio.sleep(self._poll)

    async def once(self) -> int:
        """Sends what is due; gives how many links that were."""
        async with self._db.transaction() as tx:
            found = await self._take(tx)
        for state, row, address, token in found:
            said = {"owner": state.owner, "workspace": state.workspace, "expires_at": row.expires_at}
            outcome = await self._sender.ask(address, state.subscription_id, token, str(new_id()), **said)
            async with self._db.transaction() as tx:
                await self._note(tx, row, outcome)
        return len(found)

    async def _take(self, tx: AsyncConnection) -> list[tuple[Subscription, Any, str, str]]:
        asked, of, secret = t(ConfirmationRow), t(SubscriptionRow), t(SecretRow)
        due = sa.select(asked).join(of, of.c.subscription_id == asked.c.subscription_id)
        due = due.where(asked.c.due_at <= sa.func.now(), asked.c.expires_at > sa.func.now())
        due = due.where(of.c.status == UNCONFIRMED).order_by(asked.c.due_at).limit(PAGE)
        found = []
        for row in (await tx.execute(due.with_for_update(of=asked, skip_locked=True))).all():
            mine = asked.c.subscription_id == row.subscription_id
            later = sa.func.now() + timedelta(seconds=LEASE_SECONDS)
            await tx.execute(sa.update(asked).where(mine).values(due_at=later, tries=row.tries + 1))
            state = await views.subscription(tx, row.subscription_id)
            stored = await tx.execute(sa.select(secret).where(secret.c.subscription_id == row.subscription_id))
            assert state is not None
            try:
                known = {s.name: self._vault.read(s.subscription_id, s.name, s.value) for s in stored}
            except VaultError as error:
                log.warning("cannot ask a mailbox", subscription_id=row.subscription_id, error=str(error))
                continue
            found.append((state, row, known.get("address", state.address), known[CONFIRM]))
        return found

    async def _note(self, tx: AsyncConnection, row: Any, outcome: Outcome) -> None:
        """When it is tried again; not when another link has taken its place."""
        asked, values = t(ConfirmationRow), dict[str, Any]()
        if outcome.verdict is Verdict.SUCCEEDED:
            values = {"due_at": None, "sent_at": sa.func.now(), "error": None}
        else:
            pause = self._schedule.pause(row.tries + 1, None, secrets.randbelow(1000) / 1000)
            again = outcome.verdict is Verdict.RETRY and pause is not None
            due = sa.func.now() + timedelta(seconds=pause) if again and pause is not None else None
            values = {"due_at": due, "error": outcome.detail}
        mine = sa.and_(asked.c.subscription_id == row.subscription_id, asked.c.asked_at == row.asked_at)
        await tx.execute(sa.update(asked).where(mine).values(values))
