"""The view of templates (a fold): every revision stays, the newest is in force unless it was withdrawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Envelope
from contracts.notifier import TemplatePublished, TemplateWithdrawn
from notifier.tables import TemplateRow, table_of

STREAM = "template:"


@dataclass(frozen=True)
class Template:
    """`types` is a pattern of event types; `current`: it is in force."""

    workspace: str
    channel: str
    types: str
    revision: int
    parts: Mapping[str, str]
    published_by: str
    published_at: datetime
    current: bool

    @property
    def name(self) -> str:
        return f"{self.channel} {self.types} r{self.revision}"


def stream_of(workspace: str, channel: str, types: str) -> str:
    return f"{STREAM}{workspace}/{channel}/{types}"


async def project(tx: AsyncConnection, envelope: Envelope) -> None:
    table = table_of(TemplateRow)
    match envelope.type:
        case TemplatePublished.TYPE:
            made = envelope.payload(TemplatePublished)
            await tx.execute(sa.update(table).where(_same(made)).values(current=False))
            row = {**made.model_dump(), "published_at": envelope.time, "current": True}
            await tx.execute(insert(table).values(row))
        case TemplateWithdrawn.TYPE:
            await tx.execute(sa.update(table).where(_same(envelope.payload(TemplateWithdrawn))).values(current=False))


def _same(of: TemplatePublished | TemplateWithdrawn) -> sa.ColumnElement[bool]:
    table = table_of(TemplateRow)
    return sa.and_(table.c.workspace == of.workspace, table.c.channel == of.channel, table.c.types == of.types)


async def in_force(tx: AsyncConnection) -> list[Template]:
    table = table_of(TemplateRow)
    return [Template(**row._mapping) for row in await tx.execute(sa.select(table).where(table.c.current))]


async def templates(tx: AsyncConnection, workspace: str, *, every: bool = False) -> list[Template]:
    """Those in force in a workspace; with `every`, all revisions, the newest first."""
    table = table_of(TemplateRow)
    query = sa.select(table).where(table.c.workspace == workspace)
    query = query if every else query.where(table.c.current)
    order = query.order_by(table.c.channel, table.c.types, table.c.revision.desc())
    return [Template(**row._mapping) for row in await tx.execute(order)]


def document(of: Template) -> dict[str, Any]:
    return {name: getattr(of, name) for name in TemplateRow.model_fields}
