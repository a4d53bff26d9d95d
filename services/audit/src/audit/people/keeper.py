"""What the audit service does with the vault. Who gets a pseudonym, and which, is `kit.people`'s.

The log never has a name. It has, of each pseudonym, a salted commitment to the name (`person.known`), by which anybody
who is shown the row later can tell that it was not rewritten. Erasure deletes the row with its salt, so that of the
commitment nothing can be learnt either, and says so in the log (`subject.erased`) in the same transaction.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.tables import fact, hold, hold_release, mechanism
from audit.tlog.publisher import ACTOR
from contracts.approval import (
    PolicyProposed,
    PolicyPublished,
    RequestClosed,
    RequestDecided,
    RequestOpened,
    ReviewGiven,
)
from contracts.audit import PersonKnown, SubjectErased
from contracts.payload import Message
from contracts.people import commitment
from kit.db import Database
from kit.errors import is_transient
from kit.events import Cause, EventLog, New
from kit.problems import Problem

Document = dict[str, Any]
log = structlog.get_logger()
EVERY_SECONDS = 1.0
PAGE = 100
_ROW = """
select n.pseudonym, n.written as name, n.issuer, n.salt, n.folded, n.first_seen, s.last_seen, s.person,
  array(select a.address from people.address a where a.person = n.pseudonym order by 1) as addresses,
  array(select a.person from people.address a where a.address = n.pseudonym order by 1) as accounts
from people.name n join people.state s using (pseudonym)
"""
_ONE = sa.text(f"{_ROW} where n.pseudonym = :pseudonym")
_NAMED = sa.text(f"{_ROW} where n.folded = :folded")
_NEW = sa.text(f"{_ROW} where not s.announced order by n.first_seen limit {PAGE} for update of s skip locked")
_UNANNOUNCED = sa.text(f"{_ROW} where not s.announced and n.pseudonym = any (:pseudonyms) for update of s")
_ANNOUNCED = sa.text("update people.state set announced = true where pseudonym = any (:pseudonyms)")
_ERASE = sa.text("select people.erase(:pseudonym)")


class Keeper:
    def __init__(self, db: Database, events: EventLog) -> None:
        self._db, self._events = db, events

    async def show(self, pseudonym: str) -> Document:
        """Whom the pseudonym stands for. Raises Problem 404."""
        async with self._db.snapshot() as tx:
            return await self._document(tx, await _one(tx, pseudonym))

    async def find(self, name: str) -> list[Document]:
        """Who has that subject or address; at most one."""
        async with self._db.snapshot() as tx:
            rows = (await tx.execute(_NAMED, {"folded": name.casefold()})).mappings().all()
            return [await self._document(tx, dict(row)) for row in rows]

    async def erase(self, pseudonym: str, by: str, reason: str) -> Document:
        """Forgets whom the pseudonym stood for.

        Raises:
            Problem: 404, it stands for nobody (any more); 409, a legal hold is on everything, or a request is open that
                they had a part in; 422, the reason names them.
        """
        async with self._db.transaction() as tx:
            row = await _one(tx, pseudonym)
            await _refuse_held(tx)
            await _refuse_open(tx, pseudonym)
            if re.search(rf"(?<!\w){re.escape(row['folded'])}(?!\w)", reason.casefold()):
                raise Problem(422, "personal-data", "the reason stays in the log: it must not name whom it is about")
            unannounced = await tx.execute(_UNANNOUNCED, {"pseudonyms": [pseudonym, *row["addresses"]]})
            await self._announce(tx, [dict(one) for one in unannounced.mappings()])
            gone = list(await tx.scalar(_ERASE, {"pseudonym": pseudonym}) or ())
            if not gone:
                raise _nobody(pseudonym)
            message = SubjectErased(pseudonym=pseudonym, also=tuple(gone[1:]), erased_by=by, reason=reason)
            await self._append(tx, pseudonym, message, by)
        kept = [address for address in row["addresses"] if address not in gone]
        return {"pseudonym": pseudonym, "also": gone[1:], "kept": kept}

    async def run(self) -> None:
        """Announces whom the log does not know yet, until cancelled."""
        while True:
            try:
                while await self.announce() == PAGE:
                    pass
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("people cannot be announced now; trying again", error=repr(error))
            await asyncio.sleep(EVERY_SECONDS)

    async def announce(self) -> int:
        """Gives how many."""
        async with self._db.transaction() as tx:
            rows = [dict(row) for row in (await tx.execute(_NEW)).mappings()]
            await self._announce(tx, rows)
        return len(rows)

    async def _announce(self, tx: AsyncConnection, rows: Sequence[Document]) -> None:
        if not rows:
            return
        for row in rows:
            known = PersonKnown(pseudonym=row["pseudonym"], commitment=_commitment(row))
            await self._append(tx, row["pseudonym"], known, ACTOR)
        await tx.execute(_ANNOUNCED, {"pseudonyms": [row["pseudonym"] for row in rows]})

    async def _append(self, tx: AsyncConnection, pseudonym: str, message: Message, by: str) -> None:
        stream = _stream(pseudonym)
        last = await self._events.lock(tx, stream)
        await self._events.append(tx, stream, last, [New(message, subject=stream)], Cause(actor=by))

    async def _document(self, tx: AsyncConnection, row: Document) -> Document:
        """`as_announced`: the row is what the log committed to; None: it was not announced yet."""
        event = mechanism.event.c
        query = sa.select(event.data).where(event.stream == _stream(row["pseudonym"]), event.type == PersonKnown.TYPE)
        said = await tx.scalar(query)
        announced = None if said is None else PersonKnown.model_validate_json(said).commitment
        computed = _commitment(row)
        return {
            **{name: row[name] for name in _SHOWN},
            "salt": row["salt"].hex(),
            "commitment": computed,
            "as_announced": None if announced is None else announced == computed,
        }


_SHOWN = ("pseudonym", "name", "issuer", "person", "addresses", "accounts", "first_seen", "last_seen")


def _stream(pseudonym: str) -> str:
    return f"person:{pseudonym}"


def _commitment(row: Document) -> str:
    return commitment(row["salt"], row["issuer"], row["name"])


def _nobody(pseudonym: str) -> Problem:
    return Problem(404, "no-such-person", f"{pseudonym} stands for nobody, or for nobody any more")


async def _one(tx: AsyncConnection, pseudonym: str) -> Document:
    row = (await tx.execute(_ONE, {"pseudonym": pseudonym})).mappings().first()
    if row is None:
        raise _nobody(pseudonym)
    return dict(row)


async def _refuse_held(tx: AsyncConnection) -> None:
    """A hold on everything holds the vault too; one on a model or a workspace is about entries, which all stay."""
    is_over = sa.exists().where(hold_release.c.id == hold.c.id)
    query = sa.select(hold.c.id).where(hold.c.workspace.is_(None), ~is_over).order_by(hold.c.at).limit(1)
    if (found := await tx.scalar(query)) is not None:
        raise Problem(409, "legal-hold", f"the legal hold {found} is on everything: nobody is erased")


async def _refuse_open(tx: AsyncConnection, pseudonym: str) -> None:
    """Who comes back after an erasure is somebody new, who could vote on their own request, or a second time, or review
    their own emergency."""
    mine, other = fact.alias(), fact.alias()

    def said(*kinds: type[Message], of: sa.ColumnElement[bool] | None = None) -> sa.Exists:
        types = [kind.TYPE for kind in kinds]
        found = sa.exists().where(other.c.request == mine.c.request, other.c.type.in_(types))
        return found if of is None else found.where(of)

    is_open = said(RequestOpened, PolicyProposed) & ~said(RequestDecided, RequestClosed, PolicyPublished)
    by_emergency = sa.func.jsonb_typeof(other.c.data["decision"]["break_glass"]) == "object"
    closes = other.c.data["closes"].astext == "true"
    is_unreviewed = said(RequestDecided, of=by_emergency) & ~said(ReviewGiven, of=closes)
    query = sa.select(mine.c.request).where(mine.c.person == pseudonym, is_open | is_unreviewed).limit(1)
    if (found := await tx.scalar(query)) is not None:
        raise Problem(409, "open-request", f"they have a part in the request {found}, which is open; erase them after")
