"""What people ask about quiet: silences and inhibition rules, made and ended. One transaction each."""

from datetime import datetime
from typing import Any

from contracts.envelope import new_id, now
from contracts.notifier import InhibitionCreated, InhibitionRemoved, SilenceCreated, SilenceExpired
from contracts.payload import Message
from kit.db import Database
from kit.events import Cause, EventLog, New
from kit.problems import Problem
from notifier import quiet_views
from notifier.filters import check_expression, check_types
from notifier.quiet import Inhibition, Silence
from notifier.quiet_views import INHIBITIONS, SILENCES, Document


class Quieting:
    def __init__(self, db: Database, log: EventLog) -> None:
        self._db, self._log = db, log

    async def silence(self, author: str, *, ends_at: datetime, starts_at: datetime | None, **asked: Any) -> Document:
        """`asked` is the rest of a `SilenceCreated`; it starts now unless it says when.

        Raises:
            Problem: 422, no event can match, the expression is wrong, or it would have ended before it starts.
        """
        at = now()
        starts = max(starts_at or at, at)
        if ends_at <= starts:
            raise Problem(422, "silence-over", f"it would have ended: 'ends_at' must be after {starts.isoformat()}")
        check_types(asked["types"])
        check_expression(asked.get("cel"))
        silence_id = str(new_id())
        made = SilenceCreated(silence_id=silence_id, author=author, starts_at=starts, ends_at=ends_at, **asked)
        await self._append(f"{SILENCES}{silence_id}", made, author)
        return await self._silence(silence_id)

    async def expire(self, silence_id: str, by: str) -> Document:
        """Ends a silence now; one that has ended already stays as it is."""
        async with self._db.transaction() as tx:
            stream = f"{SILENCES}{silence_id}"
            last = await self._log.lock(tx, stream)
            state = await quiet_views.silence(tx, silence_id)
            if state is not None and state.state(now()) != "expired":
                ended = SilenceExpired(silence_id=silence_id, expired_by=by)
                for envelope in await self._log.append(tx, stream, last, [New(ended, stream)], Cause(actor=by)):
                    await quiet_views.project(tx, envelope)
        return await self._silence(silence_id)

    async def _silence(self, silence_id: str) -> Document:
        async with self._db.snapshot() as tx:
            state = await quiet_views.silence(tx, silence_id)
        assert isinstance(state, Silence)
        return quiet_views.silence_document(state, now())

    async def inhibit(self, author: str, **asked: Any) -> Document:
        """A new rule; `asked` is the rest of an `InhibitionCreated`.

        Raises:
            Problem: 422, no event can match, or the expression is wrong.
        """
        for name in ("source_types", "until_types", "target_types"):
            check_types(asked[name])
        check_expression(asked.get("cel"))
        inhibition_id = str(new_id())
        made = InhibitionCreated(inhibition_id=inhibition_id, author=author, **asked)
        await self._append(f"{INHIBITIONS}{inhibition_id}", made, author)
        async with self._db.snapshot() as tx:
            state = await quiet_views.inhibition(tx, inhibition_id)
        assert isinstance(state, Inhibition)
        return quiet_views.inhibition_document(state)

    async def remove(self, inhibition_id: str, by: str) -> None:
        """Removing a rule twice is no error."""
        async with self._db.transaction() as tx:
            stream = f"{INHIBITIONS}{inhibition_id}"
            last = await self._log.lock(tx, stream)
            state = await quiet_views.inhibition(tx, inhibition_id)
            if state is not None and state.removed_by is None:
                removed = InhibitionRemoved(inhibition_id=inhibition_id, removed_by=by)
                for envelope in await self._log.append(tx, stream, last, [New(removed, stream)], Cause(actor=by)):
                    await quiet_views.project(tx, envelope)

    async def _append(self, stream: str, event: Message, by: str) -> None:
        async with self._db.transaction() as tx:
            for envelope in await self._log.append(tx, stream, 0, [New(event, stream)], Cause(actor=by)):
                await quiet_views.project(tx, envelope)
