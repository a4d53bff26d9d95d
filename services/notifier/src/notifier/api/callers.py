"""Who calls, and whose subscriptions and deliveries they may see."""

from typing import Any
from uuid import UUID

from fastapi import Request

from contracts.access import Action, Role
from kit.auth import Principal
from kit.db import Database
from kit.events import EventLog
from kit.problems import Problem
from kit.web import Guard
from notifier import standings, views
from notifier.domain import Subscription
from notifier.filters import asks_for_own
from notifier.matching import place_of


class Callers:
    """`principal = await callers(request)`, then what they may do."""

    def __init__(self, guard: Guard, db: Database, log: EventLog) -> None:
        self._guard, self._db, self._log = guard, db, log
        self.access = guard.access

    async def __call__(self, request: Request) -> Principal:
        return await self._guard(request)

    async def acting(self, request: Request) -> Principal:
        """A caller who is about to change something: what their token says of them counts at deliveries, too."""
        principal = await self._guard(request)
        await standings.seen(self._db, self._log, principal)
        return principal

    def require(self, principal: Principal, action: Action, workspace: str, model: str = "*") -> None:
        """Raises Problem 403."""
        self._guard.require(principal, action, workspace, model)

    def require_some(self, principal: Principal, action: Action, workspace: str) -> frozenset[str]:
        """The patterns of the models that it is allowed with. Raises Problem 403 when there are none."""
        return self._guard.require_some(principal, action, workspace)

    def require_types(self, principal: Principal, types: tuple[str, ...], workspace: str, model: str) -> None:
        """What is said of deliveries is said of everybody's: for those who manage the models. Raises Problem 403."""
        if asks_for_own(types):
            self.require(principal, Action.MANAGE, workspace, model)

    def sees_all(self, principal: Principal, workspace: str) -> bool:
        return Role.ADMIN in self.access.roles(principal, workspace)

    def owner_for(self, principal: Principal, workspace: str) -> str | None:
        """Whose rows a list shows; None: everybody's."""
        return None if self.sees_all(principal, workspace) else principal.subject

    def owns(self, principal: Principal, state: Subscription) -> bool:
        """Whether a subscription is theirs, or they administer its workspace."""
        return state.owner == principal.subject or self.sees_all(principal, state.workspace)

    def theirs(self, principal: Principal, state: Subscription | None) -> Subscription:
        """Raises Problem 404: another's subscription is told apart from none by nothing."""
        if state is None or not self.owns(principal, state):
            raise Problem(404, "no-such-subscription", "there is no such subscription of yours")
        return state

    async def subscription(self, principal: Principal, subscription_id: str) -> Subscription:
        """Raises Problem 404."""
        async with self._db.transaction() as tx:
            return self.theirs(principal, await views.subscription(tx, subscription_id))

    async def delivery(self, principal: Principal, delivery_id: UUID) -> tuple[dict[str, Any], Subscription]:
        """Raises Problem 404."""
        async with self._db.transaction() as tx:
            found = await views.delivery_detail(tx, delivery_id)
        if found is None or not self.owns(principal, found[1]) or not self._may_read(principal, found[0]["subject"]):
            raise Problem(404, "no-such-delivery", "there is no such delivery of yours")
        return found

    def _may_read(self, principal: Principal, subject: str) -> bool:
        """As at a delivery: what somebody was sent once may be no more theirs to read."""
        workspace, model, _ = place_of(subject)
        return workspace is None or self.access.allows(principal, Action.READ, workspace, model or "*")

    async def addressed(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """`user:ann` with the pseudonym of ann, where people have one; other names as they are. Raises Problem 422."""
        found = []
        for name in names:
            kind, colon, rest = name.partition(":")
            found.append(f"{kind}:{await self._guard.named(rest)}" if kind == "user" and colon else name)
        return tuple(found)

    async def reads(self, principal: Principal, mailbox: str) -> bool:
        """Whether the caller's token proves that they read a mailbox."""
        if principal.email is None or not principal.email_verified:
            return False
        people = self._guard.people
        if people is not None:  # the token's address is a pseudonym by now
            return principal.email == await people.known(mailbox)
        return principal.email.casefold() == mailbox.casefold()
