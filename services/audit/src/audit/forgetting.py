"""What the views keep of an entry whose month was pruned: where it stands, of what kind it is, and whether it was good.

What it said, and who, is gone: from the timeline, from the facts, from search. Its bytes are in the object store, and
its hash in `pruned_entry`. Stages, aliases, names, rules and revocations stay: they say what holds now, since when.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.tables import minimum_index, pruned
from audit.view_tables import fact, timeline
from kit.problems import Problem

PRUNED = "pruned"
FORGOTTEN = ("subject", "actor", "correlationid", "causationid")


async def pruned_until(tx: AsyncConnection) -> int:
    """Below this index entries may be pruned, so that the views do not know what they said, nor who. 0: nothing is."""
    return int(await tx.scalar(sa.select(sa.func.max(minimum_index.c.index))) or 0)


def refuse_forgotten(wanted: Any, until: int) -> None:
    """`wanted` has a `start`, the first index that is asked for, and filters of which some have names of `FORGOTTEN`.

    Raises:
        Problem: 422, it is narrowed by what the pruned entries below `until` no longer tell: some that fit would be
            missing from the answer.
    """
    names = [name for name in FORGOTTEN if getattr(wanted, name, None) is not None]
    if names and wanted.start < until:
        detail = f"entries below {until} were pruned, and nothing finds them by {' or '.join(names)} any more"
        raise Problem(422, "pruned", f"{detail}: give start={until}, or export all from {wanted.start} on")


async def forget(tx: AsyncConnection, first: int, until: int) -> None:
    """Forgets the entries from `first` up to but without `until`."""
    t, f = timeline.c, fact.c
    gone: dict[str, Any] = dict.fromkeys(FORGOTTEN)
    code = sa.func.split_part(t.problem, ":", 1)
    mine = sa.update(timeline).where(t.index >= first, t.index < until)
    await tx.execute(mine.values(**gone, summary=PRUNED, problem=code))
    await tx.execute(sa.delete(fact).where(f.index >= first, f.index < until))


async def forget_all(tx: AsyncConnection) -> None:
    """Forgets every entry that was pruned."""
    for first, until in (await tx.execute(sa.select(pruned.c.first, pruned.c.until))).all():
        await forget(tx, first, until)


def forgotten(told: dict[str, Any]) -> dict[str, Any]:
    """What the timeline tells of a pruned entry (summary, problem, outcome), instead of what it would tell."""
    problem = told["problem"]
    return {**told, "summary": PRUNED, "problem": problem and problem.split(":", 1)[0]}
