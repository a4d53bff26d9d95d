"""What people ask of the notifier: subscribe, unsubscribe, replay. One transaction each."""

import json
import secrets
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.canonical import canonical_json
from contracts.envelope import new_id
from contracts.notifier import (
    Channel,
    Digest,
    Format,
    Grouped,
    Order,
    SecretRotated,
    SubscriptionCreated,
    SubscriptionRemoved,
)
from contracts.payload import Message
from kit.db import Database
from kit.events import Cause, EventLog, New
from kit.inbox import Inbox
from kit.outbound import Guard
from kit.problems import Problem
from kit.webhooks import new_secret
from notifier import endpoints, queue, views
from notifier.addresses import is_slack_channel
from notifier.channels.pagerduty import USUAL_TYPES
from notifier.confirming import Confirming
from notifier.destinations import Destinations, shown, types_in
from notifier.domain import Subscription
from notifier.editing import not_active
from notifier.filters import check_bundling, checked_filters
from notifier.tables import FORMER, SIGNING, UNSUBSCRIBE, SecretRow
from notifier.vault import Vault
from notifier.views import Document, stream_of, t

CONSUMER = "http"


class Commands:
    def __init__(
        self,
        db: Database,
        log: EventLog,
        inbox: Inbox,
        guard: Guard,
        vault: Vault,
        *,
        mail: bool,
        hides_mailboxes: bool = False,
        secret_overlap_seconds: float = 86_400,
        apprise_schemes: tuple[str, ...] = (),
        slack_bot: bool = False,
    ) -> None:
        """`hides_mailboxes`: an e-mail address is kept like a secret, and events have its domain only."""
        self._confirming = Confirming(db, log, vault)
        self._overlap = timedelta(seconds=secret_overlap_seconds)
        self._db, self._log, self._inbox, self._vault = db, log, inbox, vault
        self._destinations = Destinations(guard, mail, apprise_schemes, slack_bot)
        self._hides_mailboxes = hides_mailboxes

    async def subscribe(
        self,
        owner: str,
        channel: Channel,
        address: str,
        *,
        types: tuple[str, ...] = (),
        workspace: str = "default",
        model: str = "*",
        secret: str | None = None,
        audience: tuple[str, ...] = (),
        retry_seconds: tuple[float, ...] | None = None,
        stages: tuple[str, ...] = (),
        cel: str | None = None,
        bundling: Grouped | Digest | None = None,
        order: Order = Order.FIFO,
        format: Format = Format.CLOUDEVENTS,  # noqa: A002
        proved: bool = False,
        idempotency_key: str | None = None,
    ) -> Document:
        """The new subscription; with `secret` when one was made for it, which nothing will show again. `proved`: the
        mailbox is the owner's own; another one is asked first.

        Raises:
            Problem: 422 for what is wrong with the address, the filters or the secret; 409 when the
                idempotency key came with another body before; 429 when too many mailboxes have not answered.
        """
        await self._destinations.check(channel, address, secret, format)
        if not types and not audience and channel is Channel.PAGERDUTY:
            types = USUAL_TYPES
        filters = checked_filters(types_in(format, types), audience, stages, cel)
        check_bundling(bundling, channel, format)
        plain = channel is Channel.EMAIL and not self._hides_mailboxes
        plain = plain or (channel is Channel.SLACK and is_slack_channel(address))
        made = new_secret() if channel is Channel.WEBHOOK and secret is None else None
        asked: list[Any] = [channel, address, list(filters.types), workspace, model, secret]
        asked += [list(filters.audience)] if filters.audience else []
        asked += [{"retry_seconds": list(retry_seconds)}] if retry_seconds else []
        asked += [{"format": format}] if format is not Format.CLOUDEVENTS else []
        asked += [{"stages": list(filters.stages), "cel": cel}] if stages or cel else []
        asked += [{"order": order}] if order is not Order.FIFO else []
        asked += [{"bundling": bundling.model_dump(mode="json")}] if bundling else []
        digest = sha256(canonical_json(asked)).hexdigest()
        async with self._db.transaction() as tx:
            if idempotency_key is not None:
                before = await self._inbox.recall(tx, CONSUMER, f"{owner}:{idempotency_key}", digest)
                if before is not None:
                    first: Document = json.loads(before)
                    return first
            subscription_id = str(new_id())
            created = SubscriptionCreated(
                subscription_id=subscription_id,
                owner=owner,
                channel=channel,
                address=address if plain else shown(channel, address),
                types=filters.types,
                workspace=workspace,
                model=model,
                audience=filters.audience,
                stages=filters.stages,
                cel=filters.cel,
                bundling=bundling,
                format=format,
                retry_seconds=retry_seconds,
                order=order,
                confirmed=proved or channel is not Channel.EMAIL,
            )
            endpoint = self._vault.fingerprint(f"{channel}\n{address}")
            if not created.confirmed:
                await self._confirming.check(tx, owner, endpoint)
            await self._append(tx, subscription_id, f"{workspace}/{model}", created, owner)
            await endpoints.register(tx, subscription_id, endpoint)
            if not plain:
                await self._keep(tx, subscription_id, "address", address)
            if channel is Channel.EMAIL:
                await self._keep(tx, subscription_id, UNSUBSCRIBE, secrets.token_urlsafe(32))
            signing = made or secret
            if signing is not None:
                await self._keep(tx, subscription_id, SIGNING, signing)
            state = await views.subscription(tx, subscription_id)
            assert state is not None
            if not created.confirmed:
                await self._confirming.ask(tx, state, owner, 1)
            answer = await views.told(tx, state)
            if idempotency_key is not None:
                await self._inbox.remember(tx, CONSUMER, f"{owner}:{idempotency_key}", json.dumps(answer))
        return answer | ({"secret": made} if made else {})

    async def remove(self, subscription_id: str, by: str) -> None:
        """Ends a subscription; what was not delivered yet is cancelled. Removing twice is no error."""
        async with self._db.transaction() as tx:
            last = await self._log.lock(tx, stream_of(subscription_id))
            state = await views.subscription(tx, subscription_id)
            if state is None or state.status == "removed":
                return
            removed = SubscriptionRemoved(subscription_id=subscription_id, removed_by=by)
            await self._append(tx, subscription_id, f"{state.workspace}/{state.model}", removed, by, last)
            await queue.close_down(tx, subscription_id)
            await queue.forget(tx, subscription_id)
            await self._confirming.forget(tx, subscription_id)

    async def reads(self, subscription_id: str, token: str) -> bool:
        """Whether somebody who shows the token of a mail reads the mailbox of a subscription that lives."""
        table = t(SecretRow)
        query = sa.select(table.c.value).where(table.c.subscription_id == subscription_id, table.c.name == UNSUBSCRIBE)
        async with self._db.transaction() as tx:
            stored = await tx.scalar(query)
        known = self._vault.read(subscription_id, UNSUBSCRIBE, stored) if stored is not None else ""
        return bool(known) and secrets.compare_digest(known.encode(), token.encode())

    async def rotate(self, subscription_id: str, by: str, *, at_once: bool = False) -> tuple[str, datetime | None]:
        """A new secret, which nothing will show again, and until when messages are signed with the former ones too.

        `at_once`: they are not, because somebody else knows them.

        Raises:
            Problem: 409 when the subscription has ended; 422 when it is signed with no secret.
        """
        secret, made = t(SecretRow), new_secret()
        async with self._db.transaction() as tx:
            last = await self._log.lock(tx, stream_of(subscription_id))
            state = await views.subscription(tx, subscription_id)
            if state is None or not state.active:
                raise not_active(state)
            if state.channel is not Channel.WEBHOOK:
                raise Problem(422, "secret-not-used", f"{state.channel} deliveries are not signed; there is no secret")
            at: datetime = (await tx.execute(sa.select(sa.func.now()))).scalar_one()
            until = None if at_once or not self._overlap else at + self._overlap
            mine = secret.c.subscription_id == subscription_id
            now = (await tx.execute(sa.select(secret).where(mine, secret.c.name == SIGNING))).one()
            over = secret.c.name.startswith(FORMER) if until is None else secret.c.until <= at
            await tx.execute(sa.delete(secret).where(mine, sa.or_(secret.c.name == SIGNING, over)))
            if until is not None:
                former = self._vault.read(subscription_id, SIGNING, now.value)
                await self._keep(tx, subscription_id, f"{FORMER}{new_id()}", former, until)
            await self._keep(tx, subscription_id, SIGNING, made)
            rotated = SecretRotated(subscription_id=subscription_id, rotated_by=by, former_until=until)
            await self._append(tx, subscription_id, f"{state.workspace}/{state.model}", rotated, by, last)
        return made, until

    async def replay(self, delivery_id: UUID, subscription: Subscription) -> Document:
        """Makes a delivery due again, with the full schedule before it.

        Raises:
            Problem: 409 when the subscription has ended.
        """
        async with self._db.transaction() as tx:
            # A removal under way goes first or waits.
            await self._log.lock(tx, stream_of(subscription.subscription_id))
            state = await views.subscription(tx, subscription.subscription_id)
            if state is None or not state.active:
                raise not_active(state)
            await queue.reopen(tx, [delivery_id])
            found = await views.delivery_detail(tx, delivery_id)
        assert found is not None
        return found[0]

    async def _append(
        self, tx: AsyncConnection, subscription_id: str, subject: str, event: Message, actor: str, last: int = 0
    ) -> None:
        await views.append(tx, self._log, subscription_id, last, New(event, subject), Cause(actor=actor))

    async def _keep(
        self, tx: AsyncConnection, subscription_id: str, name: str, value: str, until: datetime | None = None
    ) -> None:
        stored = self._vault.store(subscription_id, name, value)
        row = {"subscription_id": subscription_id, "name": name, "value": stored, "until": until}
        await tx.execute(sa.insert(t(SecretRow)).values(row))
