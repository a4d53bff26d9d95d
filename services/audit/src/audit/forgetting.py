"""What the views keep of an entry whose month was pruned: where it stands, of what kind it is, and whether it was good.

What it said, and who, is gone: from the timeline, from the facts, from search. Its bytes are in the object store, and
its hash in `pruned_entry`. Stages, aliases, names, rules and revocations stay: they say what holds now, since when.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.tables import fact, pruned, timeline

PRUNED = "pruned"


async def forget(tx: AsyncConnection, first: int, until: int) -> None:
    """Forgets the entries from `first` up to but without `until`."""
    t, f = timeline.c, fact.c
    gone: dict[str, Any] = dict.fromkeys(("subject", "actor", "correlationid", "causationid"))
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
