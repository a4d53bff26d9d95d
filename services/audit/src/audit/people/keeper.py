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
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.retention.rules import holds_of
from audit.tables import hold, hold_release, mechanism
from audit.tlog.publisher import ACTOR
from audit.view_tables import fact
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
from contracts.registry import VersionRegistered
from kit.db import Database
from kit.events import Cause, EventLog, New
from kit.problems import Problem
from kit.tasks import repeat

Document = dict[str, Any]
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
# Before the first look: to one that began before an erasure, the table that was written anew is empty.
_SEE = sa.text("lock table people.name in access share mode")
_SHUT = sa.text("select people.shut()")
# Of them, and of those of their addresses that nobody else has.
_LATELY = sa.text("""
select max(s.last_seen) > now() - make_interval(mins => :minutes) from people.state s
where s.pseudonym = :pseudonym or exists (
  select from people.address a where a.address = s.pseudonym and a.person = :pseudonym
    and not exists (select from people.address o where o.address = a.address and o.person <> :pseudonym))
""")
QUIET_MINUTES = 5  # longer than services keep what the vault said, and than it takes to write down a call
_ERASE = sa.text("select people.erase(:pseudonym)")


class Keeper:
    def __init__(self, db: Database, events: EventLog, origin: str) -> None:
        self._db, self._events, self._holds = db, events, holds_of(origin)

    async def show(self, pseudonym: str) -> Document:
        """Whom the pseudonym stands for. Raises Problem 404."""
        async with self._db.snapshot() as tx:
            await tx.execute(_SEE)
            return await self._document(tx, await _one(tx, pseudonym))

    async def find(self, name: str) -> list[Document]:
        """Who has that subject or address; at most one."""
        async with self._db.snapshot() as tx:
            await tx.execute(_SEE)
            rows = (await tx.execute(_NAMED, {"folded": name.casefold()})).mappings().all()
            return [await self._document(tx, dict(row)) for row in rows]

    async def erase(self, pseudonym: str, by: str, reason: str) -> Document:
        """Forgets whom the pseudonym stood for.

        Raises:
            Problem: 404, it stands for nobody (any more); 409, a legal hold is on everything, they called just now, or
                a request is open that they had a part in; 422, the reason names them.
        """
        async with self._db.snapshot() as tx:  # takes long, so not while nobody else can ask
            await tx.execute(_SEE)
            row = await _one(tx, pseudonym)
            await _refuse_open(tx, [pseudonym, *row["addresses"], *row["accounts"]])
        async with self._db.transaction() as tx:
            await self._events.lock(tx, self._holds)
            await tx.execute(_SHUT)
            row = await _one(tx, pseudonym)
            await _refuse_held(tx)
            # Who did not call has got no address and no part in a request since that look.
            await _refuse_lately(tx, pseudonym)
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

        async def step() -> bool:
            return await self.announce() == PAGE

        await repeat(step, lambda: asyncio.sleep(EVERY_SECONDS), "people")

    async def announce(self) -> int:
        """Gives how many."""
        async with self._db.transaction() as tx:
            await tx.execute(_SEE)
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


async def _refuse_lately(tx: AsyncConnection, pseudonym: str) -> None:
    """Services keep for a minute what the vault said: one could know them by this pseudonym, another by a new one."""
    if await tx.scalar(_LATELY, {"pseudonym": pseudonym, "minutes": QUIET_MINUTES}):
        detail = f"they called, or were named, less than {QUIET_MINUTES} minutes ago: close their account, and wait"
        raise Problem(409, "seen-lately", detail)


async def _refuse_open(tx: AsyncConnection, pseudonyms: Sequence[str]) -> None:
    """Who comes back after an erasure is somebody new, who could vote on their own request, or version, or a second
    time, or review their own emergency. Owners and committers are found where the version was registered."""
    asked, other, part = fact.alias(), fact.alias(), fact.alias()

    def said(*kinds: type[Message], of: sa.ColumnElement[bool] | None = None) -> sa.Exists:
        types = [kind.TYPE for kind in kinds]
        found = sa.exists().where(other.c.request == asked.c.request, other.c.type.in_(types))
        return found if of is None else found.where(of)

    is_open = ~said(RequestDecided, RequestClosed, PolicyPublished)
    by_emergency = sa.func.jsonb_typeof(other.c.data["decision"]["break_glass"]) == "object"
    closes = other.c.data["closes"].astext == "true"
    is_unreviewed = said(RequestDecided, of=by_emergency) & ~said(ReviewGiven, of=closes)
    place = (part.c[name] == asked.c[name] for name in ("workspace", "model", "version"))
    of_version = sa.and_(part.c.type == VersionRegistered.TYPE, *place)
    of_request = part.c.request == asked.c.request
    names_them = part.c.person.in_(pseudonyms) | sa.cast(part.c.data, sa.Text).regexp_match("|".join(pseudonyms))
    has_part = sa.or_(*(sa.exists().where(where, names_them) for where in (of_request, of_version)))
    opened = asked.c.type.in_([RequestOpened.TYPE, PolicyProposed.TYPE])
    query = sa.select(asked.c.request).where(opened, is_open | is_unreviewed, has_part).limit(1)
    if (found := await tx.scalar(query)) is not None:
        raise Problem(409, "open-request", f"they have a part in the request {found}, which is open; erase them after")
