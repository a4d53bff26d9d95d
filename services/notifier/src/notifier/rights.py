"""Whether the owner of a subscription may still read what is about to be sent: asked at each try, by what is known of
their groups then and the access file."""

import time
from collections.abc import Iterable

from contracts.access import Action
from contracts.envelope import Envelope
from contracts.members import Known
from contracts.notifier import GroupComposed
from kit.auth import PERSON, Access, Principal
from kit.db import Database
from notifier import standings
from notifier.domain import Subscription
from notifier.filters import OWN_TYPES, asks_for_own
from notifier.matching import place_of

# How long what is known of an owner is taken for true without a look.
FRESH_SECONDS = 1.0
MOST_KEPT = 10_000


class Rights:
    def __init__(self, db: Database, access: Access) -> None:
        self._db, self._access = db, access
        self._kept: dict[str, tuple[float, Known]] = {}

    async def refusal(self, of: Subscription, envelope: Envelope) -> str | None:
        """Why the owner gets nothing of an event any more; None: they do."""
        owner = await self._known(of.owner)
        if envelope.type == GroupComposed.TYPE:
            subjects = [told.subject for told in envelope.payload(GroupComposed).newest]
        else:
            subjects = [envelope.subject]
        action = Action.MANAGE if envelope.type in OWN_TYPES and asks_for_own(of.types) else Action.READ
        return next((why for one in subjects if (why := self._why_not(owner, action, of.workspace, one))), None)

    async def unreadable(self, of: Subscription, subjects: Iterable[str]) -> dict[str, str]:
        """Those of the subjects whose news the owner may not read, each with why."""
        owner = await self._known(of.owner)
        found = {one: self._why_not(owner, Action.READ, of.workspace, one) for one in subjects}
        return {one: why for one, why in found.items() if why is not None}

    def _why_not(self, owner: Known, action: Action, workspace: str, subject: str) -> str | None:
        """News of no workspace is told to a person about themselves, or, of policies, to who reads in the workspace
        of the subscription."""
        caller = Principal(
            owner.subject, owner.groups, PERSON if owner.person else "service", issued_at=0, method="record"
        )
        there, model, _ = place_of(subject)
        if there is None:
            may = not subject.startswith("policy:") or bool(self._access.patterns(caller, action, workspace))
        else:
            may = self._access.allows(caller, action, there, model or "*")
        if may:
            return None
        place = f"{there or workspace}/{model or '*'}"
        unknown = "" if owner.token else "; no token of theirs was seen yet, any change of a subscription shows one"
        return f"{owner.subject} may not {action} {place} any more{unknown}"

    async def _known(self, owner: str) -> Known:
        now = time.monotonic()
        if (kept := self._kept.get(owner)) and kept[0] > now:
            return kept[1]
        async with self._db.snapshot() as tx:
            found = await standings.known(tx, owner)
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[owner] = now + FRESH_SECONDS, found
        return found
