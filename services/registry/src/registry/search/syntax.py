"""The syntax tree of a filter. `at` is where in the text it stands, 0-based; it does not count in comparisons."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

Value = str | int | float | datetime
BARE_KEY = re.compile(r"[^\W\d]\w*")


class Family(StrEnum):
    """What a field is one of; the text is how it is printed."""

    ATTRIBUTE = "attributes"
    TAG = "tags"
    METRIC = "metrics"
    PARAMETER = "params"


class Operator(StrEnum):
    EQUAL = "="
    UNEQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="
    LIKE = "LIKE"
    ILIKE = "ILIKE"
    IN = "IN"
    NOT_LIKE = "NOT LIKE"
    NOT_ILIKE = "NOT ILIKE"
    NOT_IN = "NOT IN"


# What a negative operator denies.
DENIED = {
    Operator.UNEQUAL: Operator.EQUAL,
    Operator.NOT_LIKE: Operator.LIKE,
    Operator.NOT_ILIKE: Operator.ILIKE,
    Operator.NOT_IN: Operator.IN,
}


@dataclass(frozen=True)
class Field:
    family: Family
    key: str
    at: int = field(default=0, compare=False)

    def __str__(self) -> str:
        if self.family is Family.ATTRIBUTE:
            return self.key
        quoted = self.key if BARE_KEY.fullmatch(self.key) else "`" + self.key.replace("`", "``") + "`"
        return f"{self.family}.{quoted}"


@dataclass(frozen=True)
class Literal:
    value: Value
    at: int = field(default=0, compare=False)

    def __str__(self) -> str:
        match self.value:
            case str():
                return "'" + self.value.replace("'", "''") + "'"
            case datetime():
                return f"'{self.value.isoformat()}'"
        return repr(self.value)


@dataclass(frozen=True)
class Comparison:
    """`values` has one value, or for IN and NOT IN at least one."""

    field: Field
    operator: Operator
    values: tuple[Literal, ...]

    @property
    def at(self) -> int:
        return self.field.at

    def __str__(self) -> str:
        given = ", ".join(map(str, self.values))
        return f"{self.field} {self.operator} " + (f"({given})" if self.operator.endswith("IN") else given)


@dataclass(frozen=True)
class Missing:
    """`IS NULL`, or with `negated` `IS NOT NULL`."""

    field: Field
    negated: bool

    @property
    def at(self) -> int:
        return self.field.at

    def __str__(self) -> str:
        return f"{self.field} IS {'NOT ' if self.negated else ''}NULL"


@dataclass(frozen=True)
class Not:
    part: "Node"
    at: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"NOT {_enclosed(self.part)}"


@dataclass(frozen=True)
class And:
    """Two parts or more."""

    parts: tuple["Node", ...]

    @property
    def at(self) -> int:
        return self.parts[0].at

    def __str__(self) -> str:
        return " AND ".join(map(_enclosed, self.parts))


@dataclass(frozen=True)
class Or:
    """Two parts or more."""

    parts: tuple["Node", ...]

    @property
    def at(self) -> int:
        return self.parts[0].at

    def __str__(self) -> str:
        return " OR ".join(map(_enclosed, self.parts))


Node = Comparison | Missing | Not | And | Or


@dataclass(frozen=True)
class Key:
    """One part of `order_by`."""

    field: Field
    descending: bool = False

    def __str__(self) -> str:
        return f"{self.field} {'DESC' if self.descending else 'ASC'}"


def _enclosed(node: Node) -> str:
    return f"({node})" if isinstance(node, And | Or) else str(node)
