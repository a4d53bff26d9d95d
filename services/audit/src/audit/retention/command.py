"""`python -m audit prune`. Without `--yes` nothing is changed."""

import argparse
import sys
from collections.abc import Sequence

import sqlalchemy as sa

from audit.app import archive_of
from audit.note import Checkpoint
from audit.out.siem.push import follower_of
from audit.retention.prune import Month, Pruner
from audit.settings import AuditSettings
from audit.tables import checkpoint, mechanism
from audit.tlog.publisher import ACTOR, Published
from contracts.topics import AUDIT_EVENTS
from kit.db import Database
from kit.events import EventLog
from kit.main import Command

HOUR_MS = 3_600_000  # judging and comparing a month takes longer than a statement of the service may


def told(months: Sequence[Month]) -> str:
    """The plan, a line a month."""
    kept, lines = False, []
    for month in months:
        kept = kept or month.problem is not None
        why = f"stays: {month.problem or 'an older month stays'}" if kept else "may go"
        lines.append(f"{month.partition}  entries {month.first} to {month.until - 1}  {why}\n")
    return "".join(lines)


async def prune(settings: AuditSettings, *, yes: bool, by: str = ACTOR) -> str:
    """What was done, or would be, a line a month."""
    db = Database(settings.database_url.get_secret_value(), name="audit-prune", pool=2, statement_timeout_ms=HOUR_MS)
    try:
        async with db.transaction() as tx:
            row = (await tx.execute(sa.select(checkpoint).order_by(checkpoint.c.size.desc()).limit(1))).first()
        if row is None:
            return "nothing was published yet, so nothing can go\n"
        published = Published(Checkpoint(settings.checkpoint_origin, row.size, row.root), row.note)
        events = EventLog(mechanism, topic=AUDIT_EVENTS.name, source="hallmark/audit")
        sinks = [follower_of(settings.siem_name)] if settings.siem_url is not None else []
        pruner = Pruner(db, events, archive_of(settings), sinks)
        if not yes:
            return told(await pruner.plan(published)) or "the log holds no entries\n"
        dropped = await pruner.prune(published, by)
        lines = "".join(f"{m.partition}  entries {m.first} to {m.until - 1}  dropped\n" for m in dropped)
        return f"{lines}{len(dropped)} months were dropped; the object store has their entries\n"
    finally:
        await db.close()


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do it; without it, only say what would go and what stays")
    parser.add_argument("--by", default=ACTOR, help="who lets it go, for the log")


async def _work(settings: AuditSettings, given: argparse.Namespace) -> int:
    sys.stdout.write(await prune(settings, yes=given.yes, by=given.by))
    return 0


COMMAND = Command("prune", "drop months that neither the policy nor a legal hold keeps", _arguments, _work)
