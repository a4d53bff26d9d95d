"""What is known of the groups of owners, from their newest tokens and the directory: a view, folded from the notifier's
own events and the memberships that it read; and how a token gets into it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.approval import MembershipChanged
from contracts.envelope import Envelope
from contracts.members import Known, Said, token_of
from contracts.notifier import OwnerSeen
from kit.auth import PERSON, Principal
from kit.db import Database
from kit.events import Cause, EventLog, New
from kit.problems import Problem
from notifier.tables import SourceEventRow, StandingRow, table_of

STREAM = "owner:"
MOST_GROUPS = 500  # as in the events


async def project(tx: AsyncConnection, envelope: Envelope) -> None:
    """Folds an event of the notifier's own, or a membership that it read; others change nothing."""
    match envelope.type:
        case OwnerSeen.TYPE:
            seen = envelope.payload(OwnerSeen)
            await _token(tx, seen.owner, seen.groups, seen.person, seen.issued_at)
        case MembershipChanged.TYPE:
            told = envelope.payload(MembershipChanged)
            if told.issued_at is not None:
                await _token(tx, told.subject, told.groups, told.person, told.issued_at)
            else:
                await _told(tx, told.subject, told.groups, told.person, envelope.time)


async def refold(tx: AsyncConnection) -> None:
    """The memberships that were read, again."""
    source = table_of(SourceEventRow)
    query = sa.select(source).where(source.c.type == MembershipChanged.TYPE).order_by(source.c.position)
    for row in (await tx.execute(query)).all():
        headers = [(name, value.encode()) for name, value in row.headers]
        await project(tx, Envelope.from_kafka(row.stream.encode(), headers, row.value))


async def known(tx: AsyncConnection, owner: str) -> Known:
    table = table_of(StandingRow)
    row = (await tx.execute(sa.select(table).where(table.c.owner == owner))).first()
    if row is None:
        return Known(owner)
    token = Said(frozenset(row.groups), row.person, "", row.issued_at) if row.issued_at else None
    told = Said(frozenset(row.told_groups), row.told_person, "", row.told_at) if row.told_at else None
    return Known(owner, token, told)


async def seen(db: Database, log: EventLog, caller: Principal) -> None:
    """Notes what the token of a caller says, when no newer one is known that says the same.

    Raises:
        Problem: 403, there are more groups in the token than an event can hold.
    """
    if len(caller.groups) > MOST_GROUPS:
        says = f"your token names {len(caller.groups)} groups; {MOST_GROUPS} are the most that can be recorded"
        raise Problem(403, "too-many-groups", says)
    async with db.snapshot() as tx:
        if not _news(await known(tx, caller.subject), caller):
            return
    async with db.transaction() as tx:
        stream = f"{STREAM}{caller.subject}"
        last = await log.lock(tx, stream)
        if _news(await known(tx, caller.subject), caller):
            said = _said(caller)
            made = OwnerSeen(
                owner=caller.subject, groups=tuple(sorted(said.groups)), person=said.person, issued_at=said.at
            )
            for envelope in await log.append(tx, stream, last, [New(made, stream)], Cause(actor=caller.subject)):
                await project(tx, envelope)


def _said(caller: Principal) -> Said:
    return token_of(caller.subject, caller.groups, caller.kind == PERSON, datetime.fromtimestamp(caller.issued_at, UTC))


def _news(before: Known, caller: Principal) -> bool:
    """Whether the token is a newer one that changes what counts."""
    said = _said(caller)
    if before.token is not None and said.at < before.token.at:
        return False
    after = before.with_token(said, None)
    return before.token is None or (before.groups, before.person) != (after.groups, after.person)


async def _token(tx: AsyncConnection, owner: str, groups: Sequence[str], person: bool, at: datetime) -> None:
    """The newest one counts, in whatever order they come."""
    await _newest(tx, owner, "issued_at", {"groups": sorted(groups), "person": person, "issued_at": at})


async def _told(tx: AsyncConnection, owner: str, groups: Sequence[str], person: bool, at: datetime) -> None:
    await _newest(tx, owner, "told_at", {"told_groups": sorted(groups), "told_person": person, "told_at": at})


async def _newest(tx: AsyncConnection, owner: str, stamp: str, values: dict[str, Any]) -> None:
    table = table_of(StandingRow)
    older = sa.or_(table.c[stamp].is_(None), table.c[stamp] <= values[stamp])
    statement = insert(table).values(owner=owner, **values)
    await tx.execute(statement.on_conflict_do_update(index_elements=["owner"], set_=values, where=older))
