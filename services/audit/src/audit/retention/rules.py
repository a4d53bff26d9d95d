"""Policies and legal holds: each is an event, and a row that the database itself obeys, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.queries import identity
from audit.retention import policy
from audit.tables import hold, hold_release, retention_policy
from audit.view_tables import model_name
from contracts.audit import HoldPlaced, HoldReleased, RetentionPublished, RetentionRule
from contracts.envelope import now
from contracts.payload import Message
from kit.db import Database, Signal
from kit.events import Cause, EventLog, New
from kit.problems import Problem

Document = dict[str, Any]


@dataclass(frozen=True)
class Scope:
    """What a hold protects: a model, a workspace or everything, narrowed by when the log recorded it."""

    workspace: str | None = None
    model: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def holds_of(origin: str) -> str:
    """The stream of a log's holds: who places or releases one has its lock."""
    return f"retention:{origin}"


class Rules:
    """`changed` fires when a hold was placed or released."""

    def __init__(self, db: Database, events: EventLog, origin: str) -> None:
        self._db, self._events, self._stream = db, events, holds_of(origin)
        self.changed = Signal()

    async def publish(self, rules: Sequence[RetentionRule], reason: str | None, actor: str) -> Document:
        """A new policy, in force at once.

        Raises:
            Problem: 422, it is none, or it misses a floor and no reason says why.
        """
        if mistakes := policy.mistakes(rules):
            raise Problem(422, "invalid-policy", "; ".join(mistakes))
        if (low := policy.below_floors(rules)) and not reason:
            raise Problem(422, "below-floor", f"say the reason why less is enough: {'; '.join(low)}")
        at = now()
        message = RetentionPublished(rules=tuple(rules), published_by=actor, reason=reason)
        async with self._db.transaction() as tx:
            row = {
                "sequence": await self._append(tx, message, actor, at),
                "rules": [rule.model_dump() for rule in rules],
                "published_by": actor,
                "reason": reason,
                "at": at,
            }
            await tx.execute(sa.insert(retention_policy).values(row))
        return row

    async def current(self) -> Document | None:
        """The policy in force."""
        query = sa.select(retention_policy).order_by(retention_policy.c.sequence.desc()).limit(1)
        async with self._db.transaction() as tx:
            row = (await tx.execute(query)).mappings().first()
        return None if row is None else dict(row)

    async def place(self, scope: Scope, reason: str, actor: str) -> Document:
        """A new hold, which protects from now on.

        Raises:
            Problem: 422, the scope is none.
        """
        if scope.model is not None and scope.workspace is None:
            raise Problem(422, "invalid-request", "a model needs its workspace")
        if scope.since is not None and scope.until is not None and scope.since >= scope.until:
            raise Problem(422, "invalid-request", "'since' must be before 'until'")
        at, name = now(), uuid4().hex
        message = HoldPlaced(hold_id=name, **vars(scope), placed_by=actor, reason=reason)
        async with self._db.transaction() as tx:
            row = {"id": name, **vars(scope), "placed_by": actor, "reason": reason, "at": at}
            await tx.execute(sa.insert(hold).values(**row, marks=policy.marks_of(await _names(tx, scope))))
            await self._append(tx, message, actor, at)
        self.changed.set()
        return {**row, "released_by": None, "released_at": None, "release_reason": None}

    async def release(self, name: str, reason: str, actor: str) -> Document:
        """Ends a hold.

        Raises:
            Problem: 404, there is no such hold; 409, it was released before.
        """
        at = now()
        async with self._db.transaction() as tx:
            last = await self._events.lock(tx, self._stream)
            if await tx.scalar(sa.select(hold.c.id).where(hold.c.id == name)) is None:
                raise Problem(404, "no-such-hold", f"there is no hold {name}")
            if await tx.scalar(sa.select(hold_release.c.id).where(hold_release.c.id == name)) is not None:
                raise Problem(409, "released", f"the hold {name} was released before")
            row = {"id": name, "released_by": actor, "reason": reason, "at": at}
            await tx.execute(sa.insert(hold_release).values(row))
            message = HoldReleased(hold_id=name, released_by=actor, reason=reason)
            new = New(message, subject=self._stream)
            await self._events.append(tx, self._stream, last, [new], Cause(actor=actor), at)
        self.changed.set()
        (found,) = [one for one in await self.holds() if one["id"] == name]
        return found

    async def holds(self) -> list[Document]:
        """All of them, the oldest first; a released one says when and why."""
        h, r = hold.c, hold_release.c
        query = (
            sa.select(
                *(h.id, h.workspace, h.model, h.since, h.until, h.placed_by, h.reason, h.at),
                *(r.released_by, r.at.label("released_at"), r.reason.label("release_reason")),
            )
            .join_from(hold, hold_release, r.id == h.id, isouter=True)
            .order_by(h.at, h.id)
        )
        async with self._db.transaction() as tx:
            return [dict(row) for row in (await tx.execute(query)).mappings()]

    async def _append(self, tx: AsyncConnection, message: Message, actor: str, at: datetime) -> int:
        """Appends to the stream and gives the event's sequence."""
        last = await self._events.lock(tx, self._stream)
        new = New(message, subject=self._stream)
        await self._events.append(tx, self._stream, last, [new], Cause(actor=actor), at)
        return last + 1


async def _names(tx: AsyncConnection, scope: Scope) -> list[str]:
    """What the records that are meant have in them: every name of the model, else the workspace."""
    if scope.workspace is None:
        return []
    if scope.model is None:
        return [scope.workspace]
    of = await identity(tx, scope.workspace, scope.model)
    n = model_name.c
    found = await tx.scalars(sa.select(n.name).where(n.workspace == scope.workspace, n.model == of))
    return sorted({scope.model, of, *found})
