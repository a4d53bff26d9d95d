"""Where each field is: a column of the row that is searched, or rows of another table that belong to it."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from registry.search.fields import Scope
from registry.search.syntax import Family, Field
from registry.tables import INDEXED_CHARACTERS, AliasRow, MetricRow, ModelRow, ParameterRow, TagRow, VersionRow, t

Condition = sa.ColumnElement[bool]
Column = sa.ColumnElement[Any]
OF_MODEL = 0  # the version of a tag that is the model's own
OF_THE_MODEL = ("name", "description", "owner")  # fields of a version that its model has


def beginning(column: Column) -> Column:
    """As the indexes on texts have it. Not bound: an index fits the very expression only."""
    return sa.func.left(column, sa.literal_column(str(INDEXED_CHARACTERS)), type_=sa.String())


def filename(content: Column) -> Column:
    """As the index on it has it."""
    path: Column = sa.literal_column("'{artifact,filename}'")
    return content.op("#>>", return_type=sa.String())(path)


@dataclass(frozen=True)
class Own:
    """Columns of the row itself, never null unless `nullable`. Several columns: any may fit."""

    columns: tuple[Column, ...]
    nullable: bool = False


@dataclass(frozen=True)
class Others:
    """Rows of `table` under the conditions `where`; `columns` as in `Own`.

    `identity` are the columns to join the searched row by, the model and perhaps the version. `long`: the index has
    the beginnings of the values only. `several`: there may be more than one such row. `always`: there is one.
    """

    table: sa.FromClause
    columns: tuple[Column, ...]
    where: tuple[Condition, ...]
    identity: tuple[Column, ...]
    long: bool = False
    several: bool = False
    always: bool = False


Source = Own | Others


class Frame:
    """The rows that are searched, as `table`: models of a workspace, or versions. `alive`: what is not deleted.

    `among` are the identities of the only rows to look at, in no order: they are visited one by one.
    """

    def __init__(self, scope: Scope, workspace: str, *, name: str = "r", among: sa.Select[Any] | None = None) -> None:
        self.scope = scope
        self.workspace = workspace
        self.table: sa.FromClause = t(ModelRow if scope is Scope.MODELS else VersionRow).alias(name)
        self.identity = self._identity(self.table)
        self.where: tuple[Condition, ...] = (self.table.c.workspace == workspace,)
        self.tables: tuple[sa.FromClause, ...] = (self.table,)
        self.few = among is not None
        if among is not None:
            few = among.distinct().subquery("few")
            these = [ours == theirs for ours, theirs in zip(self.identity, few.c, strict=True)]
            # Behind OFFSET the planner can neither turn the join around nor walk all rows in the order asked for.
            visited = sa.select(self.table).where(*self.where, *these).offset(sa.literal_column("0"))
            self.table = visited.lateral(name)
            self.identity = self._identity(self.table)
            self.where = ()
            self.tables = (few, self.table)
        if scope is Scope.MODELS:
            self.alive: Condition = self.table.c.deleted_at.is_(None)
        else:
            # One look at the deleted ones, who are few: no join, whose size would be guessed.
            m = t(ModelRow).alias("m")
            deleted = sa.select(m.c.model).where(m.c.workspace == workspace, m.c.deleted_at.is_not(None))
            self.alive = sa.and_(self.table.c.deleted_at.is_(None), self.table.c.model.not_in(deleted))

    def same(self, others: Others) -> list[Condition]:
        """The join of other rows with the searched one."""
        return [theirs == ours for theirs, ours in zip(others.identity, self.identity, strict=False)]

    def source(self, field: Field, name: str) -> Source:
        """Where a checked field is; `name` is for the table, if it is another."""
        match field.family:
            case Family.TAG:
                return self._named(t(TagRow).alias(name), field.key)
            case Family.METRIC:
                return self._named(t(MetricRow).alias(name), field.key, long=False)
            case Family.PARAMETER:
                return self._named(t(ParameterRow).alias(name), field.key)
        return self._attribute(field.key, name)

    def _identity(self, table: sa.FromClause) -> tuple[Column, ...]:
        return (table.c.model,) if self.scope is Scope.MODELS else (table.c.model, table.c.version)

    def _named(self, table: sa.FromClause, key: str, *, long: bool = True) -> Others:
        where: list[Condition] = [table.c.workspace == self.workspace, table.c.name == key]
        if self.scope is Scope.MODELS:
            where.append(table.c.version == OF_MODEL)
        value = table.c.value
        return Others(table, (value,), tuple(where), self._identity(table), long=long)

    def _attribute(self, key: str, name: str) -> Source:
        if key == "alias":
            return self._rows(t(AliasRow).alias(name), "alias", several=True)
        if key == "stage" and self.scope is Scope.MODELS:
            v = t(VersionRow).alias(name)
            return self._rows(v, "stage", v.c.deleted_at.is_(None), several=True)
        if key in OF_THE_MODEL and self.scope is Scope.VERSIONS:
            m = t(ModelRow).alias(name)
            has = (m.c.workspace == self.workspace, *([m.c.owner.is_not(None)] if key == "owner" else []))
            return Others(m, _of_the_model(m, key), has, (m.c.model,), always=key != "owner")
        c = self.table.c
        if key in OF_THE_MODEL:
            return Own(_of_the_model(self.table, key), nullable=key == "owner")
        if key == "source_path":
            return Own((filename(c.content),))
        columns = {
            "created_at": "registered_at",
            "updated_at": "updated_at",
            "created_by": "registered_by",
            "version_number": "version",
        }
        return Own((c[columns.get(key, key)],), nullable=key == "run_id")

    def _rows(self, table: sa.FromClause, value: str, *more: Condition, several: bool) -> Others:
        where = (table.c.workspace == self.workspace, *more)
        return Others(table, (table.c[value],), where, self._identity(table), several=several)


def _of_the_model(table: sa.FromClause, key: str) -> tuple[Column, ...]:
    return (table.c.name, table.c.model) if key == "name" else (table.c[key],)
