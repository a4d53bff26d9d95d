"""Accounts of other systems that act for people: the view of them, and the codes that link them."""

import secrets
from datetime import datetime, timedelta
from hashlib import sha256

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from approval.tables import AccountRow, LinkCodeRow, of
from contracts.approval import AccountLinked, AccountUnlinked
from contracts.envelope import Envelope

TABLE, _code = of(AccountRow), of(LinkCodeRow)
CODE_LIVES = timedelta(minutes=10)
# Without letters and digits that look alike; 10 of 31 are 49 bits.
ALPHABET, LENGTH = "23456789ABCDEFGHJKMNPQRSTUVWXYZ", 10


async def project(tx: AsyncConnection, envelope: Envelope, message: AccountLinked | AccountUnlinked) -> None:
    if isinstance(message, AccountUnlinked):
        await tx.execute(sa.delete(TABLE).where(TABLE.c.account == message.account))
        return
    row = {**message.model_dump(), "linked_at": envelope.time}
    await tx.execute(insert(TABLE).values(row).on_conflict_do_update(index_elements=["account"], set_=row))


async def subject_of(tx: AsyncConnection, account: str) -> str | None:
    return (await tx.execute(sa.select(TABLE.c.subject).where(TABLE.c.account == account))).scalar_one_or_none()


async def accounts_of(tx: AsyncConnection, subject: str) -> list[str]:
    query = sa.select(TABLE.c.account).where(TABLE.c.subject == subject).order_by(TABLE.c.account)
    return list(await tx.scalars(query))


async def make_code(tx: AsyncConnection, subject: str, at: datetime) -> tuple[str, datetime]:
    """A code, in place of the one that the subject had, and until when it is good."""
    code = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
    await tx.execute(sa.delete(_code).where(sa.or_(_code.c.subject == subject, _code.c.expires_at <= at)))
    row = {"code": _digest(code), "subject": subject, "expires_at": at + CODE_LIVES}
    await tx.execute(sa.insert(_code).values(row))
    return code, at + CODE_LIVES


async def use_code(tx: AsyncConnection, code: str, at: datetime) -> str | None:
    """Whose the code is; it is good for no more than this."""
    gone = sa.delete(_code).where(_code.c.code == _digest(code), _code.c.expires_at > at).returning(_code.c.subject)
    return (await tx.execute(gone)).scalar_one_or_none()


def _digest(code: str) -> str:
    return sha256(code.strip().upper().replace("-", "").encode()).hexdigest()
