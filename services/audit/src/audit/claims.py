"""The rules of workspaces, and the judgement of changes that carry no decision. See `audit.rules` for what it means."""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy import RowMapping
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.domain import NOT_VERIFIED, Entering, Flaw, target_of
from audit.rules import OVERLAP, History, Rules
from audit.view_tables import claim, configuration, timeline
from contracts.envelope import Envelope
from contracts.lifecycle import Lifecycle, TransitionKind
from contracts.registry import StageChanged, WorkspaceConfigured


async def history(tx: AsyncConnection, workspace: str) -> History:
    rows = await tx.execute(sa.select(configuration).where(configuration.c.workspace == workspace))
    return History(
        Rules(
            lifecycle=Lifecycle.model_validate(row["lifecycle"]),
            protected=frozenset(row["protected_aliases"]),
            sequence=row["sequence"],
            at=row["at"],
            index=row["index"],
        )
        for row in rows.mappings()
    )


def flaw_of(target: str) -> Flaw:
    """What is wrong with an undecided change into a target that is not open."""
    what = f"the alias {target[1:]} is protected" if target.startswith("@") else f"the stage {target} is not open"
    return Flaw(NOT_VERIFIED, f"the change carries no signed decision, and {what} without one by the rules in force")


def verdict(known: History, envelope: Envelope, message: Entering) -> Flaw | None:
    """What the rules say of a change that carries no decision."""
    target = target_of(message)
    return None if known.opens(target, envelope.time) else flaw_of(target)


async def contested(tx: AsyncConnection, envelope: Envelope, event: WorkspaceConfigured) -> Flaw | None:
    """A flaw when another entry has this event's place among the rules of the workspace."""
    c = configuration.c
    other = await tx.scalar(
        sa.select(sa.func.min(c.index)).where(c.workspace == event.workspace, c.sequence == envelope.sequence)
    )
    if other is None:
        return None
    return Flaw("contested", f"entry {other} configures {event.workspace} with the same sequence; the stricter counts")


async def configure(tx: AsyncConnection, index: int, envelope: Envelope, event: WorkspaceConfigured) -> dict[int, bool]:
    """Adds rules. Gives the claims whose verdict they change: entry -> whether it is good now."""
    before = await history(tx, event.workspace)
    await tx.execute(
        sa.insert(configuration).values(
            index=index,
            workspace=event.workspace,
            sequence=envelope.sequence,
            at=envelope.time,
            lifecycle=event.lifecycle.model_dump(mode="json"),
            protected_aliases=list(event.protected_aliases),
        )
    )
    after = await history(tx, event.workspace)
    changed_since = after.changed_since(before)
    if changed_since is None:
        return {}
    since = sa.literal(changed_since) - sa.literal(OVERLAP, sa.Interval())
    c = claim.c
    judged = sa.select(c.index, c.target, c.at, c.good).where(c.workspace == event.workspace, c.judged, c.at >= since)
    rows = (await tx.execute(judged)).mappings()
    verdicts = {row["index"]: (row["good"], after.opens(row["target"], row["at"])) for row in rows}
    turned = {entry: now for entry, (was, now) in verdicts.items() if was != now}
    for verdict in (True, False):
        indexes = [entry for entry, now in turned.items() if now is verdict]
        await tx.execute(sa.update(claim).where(among(c.index, indexes)).values(good=verdict))
    return turned


def among(column: sa.ColumnElement[int], indexes: Collection[int]) -> sa.ColumnElement[bool]:
    """`column in indexes` as one parameter: PostgreSQL takes 32,767 at the most."""
    return column == sa.any_(sa.cast(sa.literal(list(indexes), ARRAY(sa.BigInteger)), ARRAY(sa.BigInteger)))


def note(index: int, envelope: Envelope, message: Entering, *, judged: bool, good: bool) -> dict[str, Any]:
    """The row of a claim."""
    change = message if isinstance(message, StageChanged) else None
    return {
        "index": index,
        "workspace": message.workspace,
        "model": message.model,
        "version": message.version,
        "stream": envelope.key,
        "sequence": envelope.sequence,
        "at": envelope.time,
        "target": target_of(message),
        "origin": change and change.from_stage,
        "kind": change.kind.value if change else "",
        "transition_id": change and change.transition_id,
        "superseded_by": change and change.superseded_by,
        "judged": judged,
        "good": good,
    }


async def making_room(tx: AsyncConnection, envelope: Envelope, change: StageChanged) -> list[RowMapping] | None:
    """The claims just before a change in its stream by which versions make room for it, in their order.

    The first of them is about the version that the change names as replaced: no other one leaves by a decided change.
    None when there is no such claim.
    """
    if change.replaces is None and change.decision is not None:
        return []
    c = claim.c
    rows = await tx.execute(
        sa.select(claim)
        .join(timeline, timeline.c.index == c.index)
        .where(
            c.stream == envelope.key,
            c.kind == TransitionKind.SUPERSEDED.value,
            c.transition_id == change.transition_id,
            c.origin == change.to_stage,
            c.superseded_by == change.version,
            c.sequence < envelope.sequence,
            c.good,
            timeline.c.copy_of.is_(None),
        )
        # Two may claim one place; the version that the change names comes before another.
        .order_by(c.sequence.desc(), (c.version == (change.replaces or 0)).desc(), c.index)
    )
    block: list[RowMapping] = []
    place = envelope.sequence or 0
    for row in rows.mappings():
        if row["sequence"] == place - 1:
            block.insert(0, row)
            place = row["sequence"]
    if change.replaces is None:
        return block
    first = next((i for i, row in enumerate(block) if row["version"] == change.replaces), None)
    return None if first is None else block[first:]
