"""One page of a search: text in, SQL per phase, rows and the next cursor out."""

from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.lifecycle import DEFAULT_LIFECYCLE, Lifecycle
from registry import state
from registry.search import cursor, order
from registry.search.access import allowed
from registry.search.columns import Frame
from registry.search.conditions import Conditions
from registry.search.fields import Scope, check_filter, check_order
from registry.search.mistakes import pointing
from registry.search.parse import parse_filter, parse_order
from registry.search.rare import rarest
from registry.search.syntax import Key, Node, Value
from registry.tables import ModelRow, WorkspaceRow, t

Identity = tuple[Any, ...]


@dataclass(frozen=True)
class Search:
    """A checked search. `model` is an identity, not a name; `patterns` are the models that the caller may read."""

    scope: Scope
    workspace: str
    filter: Node | None = None
    order: tuple[Key, ...] = ()
    model: str | None = None
    patterns: frozenset[str] | None = None

    @property
    def digest(self) -> str:
        """Of what a cursor belongs to. Not of the patterns: a grant may come and go between two pages."""
        written = str(self.filter) if self.filter else None
        return cursor.digest(self.scope, self.workspace, self.model, written, *map(str, self.order))


@dataclass(frozen=True)
class Page:
    """`rows` are (model,) or (model, version), in order; `next` is the cursor of the following page.

    `stages` are those of the workspace.
    """

    rows: list[Identity]
    next: str | None
    stages: tuple[str, ...]


def read(
    scope: Scope,
    workspace: str,
    filter_text: str = "",
    order_text: str = "",
    *,
    model: str | None = None,
    patterns: frozenset[str] | None = None,
) -> Search:
    """The search that the texts ask for.

    Raises:
        Problem: 400 bad-filter or bad-order, with `position`.
    """
    with pointing("bad-filter", filter_text):
        node = parse_filter(filter_text)
        checked = check_filter(scope, node) if node is not None else None
    with pointing("bad-order", order_text):
        keys = order.complete(scope, check_order(scope, parse_order(order_text)))
    return Search(scope, workspace, checked, keys, model, patterns)


async def only(tx: AsyncConnection, search: Search, model: str) -> Search:
    """The same over the versions of one model, named by its identity.

    Raises:
        Problem: 404.
    """
    table = t(ModelRow)
    query = sa.select(table.c.model).where(table.c.workspace == search.workspace, table.c.model == model)
    if await tx.scalar(query) is None:
        raise state.no_model(search.workspace, model)
    return replace(search, model=model)


async def prepare(tx: AsyncConnection, workspace: str) -> tuple[str, ...]:
    """The stages of the workspace. Plans of this transaction are made for the very values it binds.

    A plan for any value would be wrong for either the rare or the common ones.
    """
    table = t(WorkspaceRow)
    lifecycle = sa.select(table.c.lifecycle).where(table.c.workspace == workspace).scalar_subquery()
    planner = [
        sa.func.set_config("plan_cache_mode", "force_custom_plan", True),
        sa.func.set_config("jit", "off", True),  # compiling takes longer than the query
        sa.func.set_config("enable_hashjoin", "off", True),  # every join here is a step into an index for each row
        sa.func.set_config("enable_mergejoin", "off", True),
        sa.func.set_config("max_parallel_workers_per_gather", "0", True),
        sa.func.set_config("random_page_cost", "1.1", True),  # few pages are read, and those are in memory or on flash
    ]
    found = (await tx.execute(sa.select(lifecycle.label("lifecycle"), *planner))).one().lifecycle
    rules = DEFAULT_LIFECYCLE if found is None else Lifecycle.model_validate(found, strict=False)
    return tuple(rule.name for rule in rules.stages)


async def page(tx: AsyncConnection, search: Search, *, limit: int, after: str | None = None) -> Page:
    """At most `limit` rows behind the cursor `after`.

    Raises:
        Problem: 400 bad-cursor.
    """
    stages = await prepare(tx, search.workspace)
    start = cursor.decode(after, search.digest, order.kinds(search.scope, search.order)) if after is not None else None
    rows: list[list[Value | None]] = []
    rare = await rarest(tx, Frame(search.scope, search.workspace), stages, search.filter)
    for statement, skipped in statements(search, stages, start, rare, limit=limit + 1):
        if len(rows) <= limit:
            found = await tx.execute(statement.limit(limit + 1 - len(rows)))
            rows += [[None] * skipped + list(row) for row in found]
    count = len(Frame(search.scope, "").identity)
    last = cursor.encode(search.digest, rows[limit - 1]) if len(rows) > limit else None
    return Page([tuple(row[-count:]) for row in rows[:limit]], last, stages)


def statements(
    search: Search,
    stages: tuple[str, ...],
    start: list[Value | None] | None = None,
    rare: sa.Select[Any] | None = None,
    *,
    limit: int = 51,
) -> list[tuple[sa.Select[Any], int]]:
    """One query for each phase that may have rows behind `start`, and how many leading values its rows lack."""
    frame = Frame(search.scope, search.workspace, among=rare)
    found = []
    phases = order.phases(frame, search.order)
    if start is not None and len(phases) > 1 and start[0] is None:
        phases = phases[1:]  # the cursor is among the rows that lack the first key
    for phase in phases:
        conditions = Conditions(frame, stages, phase.known)
        chosen = conditions.condition(search.filter) if search.filter is not None else sa.true()
        if isinstance(chosen, sa.False_):
            continue  # the filter asks for the key, and these rows lack it
        query = (
            sa.select(*(part.expression.label(f"k{i}") for i, part in enumerate(phase.parts)))
            .select_from(*frame.tables, *phase.joined)
            .where(*frame.where, *phase.where, chosen, allowed(frame, search.patterns), frame.alive)
            .order_by(*(part.ordered() for part in phase.parts))
            .limit(limit)
        )
        if search.model is not None:
            query = query.where(frame.identity[0] == search.model)
        if start is not None and (phase.skipped == 0 or start[0] is None):  # else all of it is behind the cursor
            query = query.where(phase.after(start))
        found.append((query, phase.skipped))
    return found
