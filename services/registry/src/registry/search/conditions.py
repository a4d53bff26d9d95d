"""A checked tree to SQL. Every value is bound. Every condition is true or false, never null, so that NOT is exact."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from registry.search.columns import Column, Condition, Frame, Others, Own, Source, beginning
from registry.search.fields import Kind, kind_of
from registry.search.syntax import DENIED, And, Comparison, Family, Field, Missing, Node, Not, Operator, Or, Value
from registry.tables import INDEXED_CHARACTERS

TYPES: dict[Kind, sa.types.TypeEngine[Any]] = {
    Kind.TEXT: sa.String(),
    Kind.NUMBER: sa.Double(),
    Kind.INTEGER: sa.Integer(),
    Kind.TIME: sa.DateTime(timezone=True),
}
ONE: Column = sa.literal_column("1")
COMPARE: dict[Operator, Callable[[Any, Any], Condition]] = {
    Operator.EQUAL: lambda column, value: column == value,
    Operator.LESS: lambda column, value: column < value,
    Operator.AT_MOST: lambda column, value: column <= value,
    Operator.MORE: lambda column, value: column > value,
    Operator.AT_LEAST: lambda column, value: column >= value,
    Operator.LIKE: lambda column, value: column.like(value),
    Operator.ILIKE: lambda column, value: column.ilike(value),
}


class Conditions:
    """`stages` are the workspace's, in their own spelling.

    `known` is a field whose rows the query is joined with already (or, with None as source, that is known to be
    missing): its comparisons are about that row, and need no subquery.
    """

    def __init__(self, frame: Frame, stages: tuple[str, ...], known: tuple[Field, Source | None] | None = None) -> None:
        self._frame = frame
        self._stages = {stage.lower(): stage for stage in stages}
        self._known = known
        self._tables = 0

    def condition(self, node: Node) -> Condition:
        match node:
            case And(parts):
                return sa.and_(*(self.condition(part) for part in parts))
            case Or(parts):
                return sa.or_(*(self.condition(part) for part in parts))
            case Not(part):
                return sa.not_(self.condition(part))
            case Missing(field, negated):
                present = self._present(field)
                return present if negated else sa.not_(present)
            case Comparison():
                return self._comparison(node)

    def fits(self, node: Comparison, source: Source) -> Condition:
        """The comparison with the source's own columns, for rows that have the field."""
        negative = node.operator in DENIED
        operator = DENIED.get(node.operator, node.operator)
        values = [given.value for given in node.values]
        # Denied, the beginning is no help, and must not count.
        long = isinstance(source, Others) and source.long and not negative
        found = sa.or_(*(self._fits(node.field, column, operator, values, long=long) for column in source.columns))
        return sa.not_(found) if negative else found

    def source(self, field: Field) -> Source:
        self._tables += 1
        return self._frame.source(field, f"f{self._tables}")

    def _present(self, field: Field) -> Condition:
        if self._known is not None and self._known[0] == field:
            return sa.false() if self._known[1] is None else sa.true()
        match self.source(field):
            case Own(columns, nullable):
                return columns[0].is_not(None) if nullable else sa.true()
            case Others() as others:
                return sa.true() if others.always else self._exists(others)

    def _comparison(self, node: Comparison) -> Condition:
        if self._known is not None and self._known[0] == node.field:
            return sa.false() if self._known[1] is None else self.fits(node, self._known[1])
        match self.source(node.field):
            case Own(columns, nullable) as own:
                fits = self.fits(node, own)
                return sa.and_(columns[0].is_not(None), fits) if nullable else fits
            case Others(several=True) as others if node.operator in DENIED:
                positive = Comparison(node.field, DENIED[node.operator], node.values)
                return sa.not_(self._exists(others, self.fits(positive, others)))
            case Others() as others:
                return self._exists(others, self.fits(node, others))

    def _fits(
        self, field: Field, column: Column, operator: Operator, values: list[Value], *, long: bool = False
    ) -> Condition:
        if field.family is Family.ATTRIBUTE and field.key in ("stage", "status"):
            values = [self._spelling(field, value) for value in values]
            operator = Operator.ILIKE if operator is Operator.LIKE else operator
        bound = [sa.literal(value, TYPES[kind_of(field)]) for value in values]
        fits = column.in_(bound) if operator is Operator.IN else COMPARE[operator](column, bound[0])
        if not long or operator not in (Operator.EQUAL, Operator.IN):
            return fits
        # The index holds the beginnings. A shorter one is the whole value: comparing that too would tell the planner
        # that far fewer rows fit than do.
        starts = [str(value)[:INDEXED_CHARACTERS] for value in values]
        begins = beginning(column).in_([sa.literal(start, sa.String()) for start in starts])
        return begins if all(len(start) < INDEXED_CHARACTERS for start in starts) else sa.and_(begins, fits)

    def _spelling(self, field: Field, value: Value) -> Value:
        """Statuses are lower case; stages have the spelling of the lifecycle."""
        text = str(value).lower()
        return text if field.key == "status" else self._stages.get(text, value)

    def _exists(self, others: Others, *conditions: Condition) -> Condition:
        """One step into an index for each row. EXISTS would become a join, on a guess of how many rows fit."""
        found = sa.select(ONE).select_from(others.table)
        found = found.where(*others.where, *self._frame.same(others), *conditions).limit(ONE)
        return found.correlate(self._frame.table).scalar_subquery().is_not(None)
