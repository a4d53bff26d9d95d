"""What a filter asks for that few rows have: found by an index first, and everything else checked for those only.

The planner guesses how many rows fit from the values of a whole column, and a column of metrics holds all kinds:
`metrics.loss < 0.1` fits nearly nothing, yet most metrics are smaller. So the rows are counted instead, up to a cap.
More than that are common enough to be met soon by walking the index of the order.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.search.columns import Condition, Frame, Own
from registry.search.conditions import Conditions
from registry.search.syntax import DENIED, And, Comparison, Family, Missing, Node, Operator, Or

CAP = 3_000
INDEXED = {
    "created_at": "range",
    "updated_at": "range",
    "created_by": "equal",
    "stage": "equal",
    "status": "equal",
    "run_id": "equal",
    "source_path": "equal",
    "version_number": "range",
}
EXACT = (Operator.EQUAL, Operator.IN)
Keys = sa.Select[Any]


class Rare:
    """The identities of rows that one part of a filter leaves, for the parts that an index finds."""

    def __init__(self, frame: Frame, stages: tuple[str, ...]) -> None:
        self._frame = frame
        self._stages = stages
        self._tables = 0

    def candidates(self, node: Node | None) -> list[Keys | sa.CompoundSelect[Any]]:
        """A query of (model) or (model, version) for each part that every row found must be in."""
        parts = node.parts if isinstance(node, And) else (node,) if node is not None else ()
        found = [self._keys(part) for part in parts]
        return [sa.union_all(*keys) if len(keys) > 1 else keys[0] for keys in found if keys]

    def _keys(self, node: Node) -> list[Keys]:
        """Queries that together give a superset of the rows that pass; none where no index helps."""
        match node:
            case Comparison() | Missing():
                keys = self._rows(node)
                return [] if keys is None else [keys]
            case Or(parts):
                each = [self._keys(part) for part in parts]
                return [query for queries in each for query in queries] if all(each) else []
            case And(parts):
                return next((queries for part in parts if (queries := self._keys(part))), [])
        return []

    def _rows(self, node: Comparison | Missing) -> Keys | None:
        self._tables += 1
        frame = Frame(self._frame.scope, self._frame.workspace, name=f"c{self._tables}")
        conditions = Conditions(frame, self._stages)
        source = frame.source(node.field, f"d{self._tables}")
        fits: tuple[Condition, ...] = ()
        if isinstance(node, Comparison):
            fits = (conditions.fits(node, source),)
        elif not node.negated:
            return None
        if isinstance(source, Own):
            usable = isinstance(node, Comparison) and node.field.family is Family.ATTRIBUTE and self._usable(node)
            return sa.select(*frame.identity).where(*frame.where, *fits) if usable else None
        if source.several and isinstance(node, Comparison) and node.operator in DENIED:
            return None
        if len(source.identity) < len(frame.identity):  # of the model: all its versions
            return sa.select(*frame.identity).where(*frame.where, *source.where, *frame.same(source), *fits)
        return sa.select(*source.identity).where(*source.where, *fits)

    def _usable(self, node: Comparison) -> bool:
        how = INDEXED.get(node.field.key)
        return how is not None and (node.operator in EXACT or (how == "range" and node.operator not in DENIED))


async def rarest(
    tx: AsyncConnection, frame: Frame, stages: tuple[str, ...], node: Node | None
) -> sa.Select[Any] | None:
    """The identities among which every row is that passes; None where that would be too many.

    They are right for as long as nothing changes: for a snapshot.
    """
    candidates = Rare(frame, stages).candidates(node)
    if not candidates:
        return None
    cap = CAP * len(candidates)  # of several, the rows that all of them leave may be far fewer
    capped = [keys.limit(cap + 1).subquery() for keys in candidates]
    counting = sa.select(*(sa.select(sa.func.count()).select_from(c).scalar_subquery() for c in capped))
    counts = list((await tx.execute(counting)).one())
    fewest = min(counts)
    if fewest > cap:
        return None
    # The limit is what there are: it changes nothing but what the planner knows.
    return sa.select(candidates[counts.index(fewest)].limit(max(fewest, 1)).subquery("few"))
