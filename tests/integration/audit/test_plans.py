"""What is asked often is found by an index, and not by reading a whole table."""

from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles

from audit import queries, search
from audit.paging import Ask
from audit.queries import ANYWHERE, Filter
from audit.reports import events, foureyes

from .conftest import Harness


class Explain(sa.Executable, sa.ClauseElement):
    inherit_cache = False

    def __init__(self, statement: Any) -> None:
        self.statement = statement


@compiles(Explain)
def _explain(element: Explain, compiler: Any, **given: Any) -> str:
    return f"explain {compiler.process(element.statement, **given)}"


class Explaining:
    """A connection that keeps the plans of what it is asked."""

    def __init__(self, tx: AsyncConnection) -> None:
        self.tx, self.plans = tx, ""

    async def execute(self, statement: Any, *given: Any) -> Any:
        if isinstance(statement, sa.Select):
            self.plans += "\n".join(await self.tx.scalars(Explain(statement)))
        return await self.tx.execute(statement, *given)

    async def scalar(self, statement: Any) -> Any:
        return await self.tx.scalar(statement)


Asking = Callable[[Any], Awaitable[Any]]
ASKED: dict[str, tuple[Asking, str]] = {
    "of a subject": (lambda tx: queries.timeline_page(tx, Filter(subject="default/fraud/1"), Ask(5)), "_subject"),
    "refused": (lambda tx: queries.timeline_page(tx, Filter(outcome="refused"), Ask(5)), "_outcome"),
    "gaps": (lambda tx: events.gaps(tx, Ask(5)), "topic_stream_sequence_index"),
    "attempts": (lambda tx: foureyes.four_eyes(tx, ANYWHERE, None, Ask(5)), "ix_claim_refused"),
    "short words": (lambda tx: search.find(tx, "ab", ANYWHERE, Ask(5)), "search_entry_words"),
}


async def test_an_index_answers(audit: Harness) -> None:
    async with audit.db.transaction() as tx:
        # Tables are small here: what counts is whether PostgreSQL can, not whether it wants to.
        for name, (ask, index) in ASKED.items():
            # A word is found by a bitmap, all else in order.
            best = "bitmapscan" if index.startswith("search") else "indexscan"
            for way in ("seqscan", "sort", "indexscan", "bitmapscan"):
                await tx.execute(sa.text(f"set local enable_{way} = {'on' if way == best else 'off'}"))
            explaining = Explaining(tx)
            await ask(explaining)
            assert index in explaining.plans, (name, explaining.plans)
