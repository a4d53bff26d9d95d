"""The order of the rows, and where a page of it begins. Never by counting: by the last row's own values.

A first key that a row may lack makes two phases: the rows that have it, in its order, then the others. So each phase
can walk an index instead of sorting everything.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from registry.search.columns import Column, Condition, Frame, Others, Own, beginning
from registry.search.conditions import ONE, TYPES
from registry.search.fields import Kind, Scope, kind_of
from registry.search.syntax import Family, Field, Key, Value

DEFAULTS = {
    Scope.MODELS: (Key(Field(Family.ATTRIBUTE, "name")),),
    Scope.VERSIONS: (Key(Field(Family.ATTRIBUTE, "created_at"), descending=True),),
}
# What stands behind a key in its index, before the tie-break.
THEN = {"created_by": "created_at"}


@dataclass(frozen=True)
class Part:
    """One expression of ORDER BY. `table` is what it is a column of, if it is one."""

    expression: Column
    kind: Kind
    descending: bool
    nullable: bool = False
    table: sa.FromClause | None = None

    def bound(self, value: Value) -> Column:
        return sa.literal(value, TYPES[self.kind])

    def after(self, value: Value | None) -> Condition:
        """Behind a row that has this value; missing values are last."""
        if value is None:
            return sa.false()
        bound = self.bound(value)
        further = self.expression < bound if self.descending else self.expression > bound
        return sa.or_(further, self.expression.is_(None)) if self.nullable else further

    def same(self, value: Value | None) -> Condition:
        return self.expression.is_(None) if value is None else self.expression == self.bound(value)

    def ordered(self) -> sa.UnaryExpression[Any]:
        ordered = self.expression.desc() if self.descending else self.expression.asc()
        return ordered.nulls_last() if self.nullable else ordered


@dataclass(frozen=True)
class Phase:
    """Rows under `where`, joined with `joined`, in the order of `parts`. `skipped` leading values are missing in all.

    `known` is what the filter may take for granted (see `Conditions`).
    """

    parts: tuple[Part, ...]
    joined: tuple[sa.FromClause, ...] = ()
    where: tuple[Condition, ...] = ()
    known: tuple[Field, Own | Others | None] | None = None
    skipped: int = 0

    def after(self, values: list[Value | None]) -> Condition:
        """The rows behind the one with these values."""
        parts, values = self.parts, values[self.skipped :]
        first = parts[0]
        alike = all(p.descending == first.descending and not p.nullable and p.table is first.table for p in parts)
        if alike and first.table is not None:  # an index can start there
            here = sa.tuple_(*(p.expression for p in parts))
            there = sa.tuple_(*(p.bound(v) for p, v in zip(parts, values, strict=True) if v is not None))
            return here < there if first.descending else here > there
        ways: list[Condition] = []
        for i, part in enumerate(parts):
            ways.append(sa.and_(*(p.same(v) for p, v in zip(parts[:i], values, strict=False)), part.after(values[i])))
        behind = sa.or_(*ways)
        if first.nullable or values[0] is None:
            return behind
        bound = first.bound(values[0])
        start = first.expression <= bound if first.descending else first.expression >= bound
        return sa.and_(start, behind)  # says nothing new, but an index can use it


def complete(scope: Scope, keys: tuple[Key, ...]) -> tuple[Key, ...]:
    """The default where nothing is given, and what an index has behind a key."""
    keys = keys or DEFAULTS[scope]
    then = THEN.get(keys[-1].field.key) if keys[-1].field.family is Family.ATTRIBUTE else None
    more = Key(Field(Family.ATTRIBUTE, then), keys[-1].descending) if then else None
    return (*keys, more) if more is not None and all(more.field != key.field for key in keys) else keys


def kinds(scope: Scope, keys: tuple[Key, ...]) -> list[tuple[Kind, bool]]:
    """Of a row's values in a cursor: the type, and whether it may be missing. `keys` are complete."""
    identity = [(Kind.TEXT, False), (Kind.INTEGER, False)][: 1 if scope is Scope.MODELS else 2]
    frame = Frame(scope, "")
    return [(kind_of(key.field), _may_lack(frame, key)) for key in keys] + identity


def phases(frame: Frame, keys: tuple[Key, ...]) -> list[Phase]:
    """`keys` are complete. Few rows are sorted: no index is walked, so there is but one phase."""
    if frame.few:
        parts = [_part(frame, key, f"k{i}") for i, key in enumerate(keys)]
        return [Phase((*parts, *_ties(frame.identity, keys[-1].descending)))]
    first = keys[0]
    rest = [_part(frame, key, f"k{i}") for i, key in enumerate(keys[1:])]
    source = frame.source(first.field, "o")
    down = keys[-1].descending
    ties = _ties(frame.identity, down)
    if isinstance(source, Own):
        column = source.columns[0]
        part = Part(_indexed(first, column), kind_of(first.field), first.descending, table=_table(column))
        if not source.nullable:
            return [Phase((part, *rest, *ties))]
        having = Phase((part, *rest, *ties), where=(column.is_not(None),), known=(first.field, source))
        lacking = Phase((*rest, *ties), where=(column.is_(None),), known=(first.field, None), skipped=1)
        return [having, lacking]
    driver = _each(source) if source.several else source
    value = beginning(driver.columns[0]) if driver.long else _indexed(first, driver.columns[0])
    part = Part(value, kind_of(first.field), first.descending, table=driver.table)
    having = Phase(
        (part, *rest, *(_ties(driver.identity, down) if len(driver.identity) == len(frame.identity) else ties)),
        joined=(driver.table,),
        where=(*driver.where, *frame.same(driver)),
        known=None if source.several else (first.field, source),
    )
    if source.always:
        return [having]
    lacks = _value(frame, source, ONE).is_(None)
    missing = None if source.several else (first.field, None)
    return [having, Phase((*rest, *ties), where=(lacks,), known=missing, skipped=1)]


def _each(several: Others) -> Others:
    """One row for each, with the first of its values."""
    first = sa.func.min(several.columns[0]).label("value")
    each = sa.select(*several.identity, first).where(*several.where).group_by(*several.identity).subquery("d")
    return Others(each, (each.c.value,), (), tuple(each.c[str(column.key)] for column in several.identity))


def _value(frame: Frame, others: Others, value: Column) -> Column:
    query = sa.select(value).select_from(others.table).where(*others.where, *frame.same(others))
    return query.limit(ONE).correlate(frame.table).scalar_subquery()


def _indexed(key: Key, column: Column) -> Column:
    """Descriptions are too long for a cursor."""
    return beginning(column) if key.field == Field(Family.ATTRIBUTE, "description") else column


def _ties(identity: tuple[Column, ...], descending: bool) -> list[Part]:
    return [Part(c, k, descending, table=_table(c)) for c, k in zip(identity, (Kind.TEXT, Kind.INTEGER), strict=False)]


def _part(frame: Frame, key: Key, name: str) -> Part:
    kind = kind_of(key.field)
    match frame.source(key.field, name):
        case Own(columns, nullable):
            return Part(_indexed(key, columns[0]), kind, key.descending, nullable, _table(columns[0]))
        case Others() as others:
            column = others.columns[0]
            value = sa.func.min(column) if others.several else beginning(column) if others.long else column
            return Part(_value(frame, others, _indexed(key, value)), kind, key.descending, nullable=not others.always)


def _may_lack(frame: Frame, key: Key) -> bool:
    source = frame.source(key.field, "o")
    return source.nullable if isinstance(source, Own) else not source.always


def _table(column: Column) -> sa.FromClause | None:
    table = getattr(column, "table", None)
    return table if isinstance(table, sa.FromClause) else None
