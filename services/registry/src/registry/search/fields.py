"""Which fields there are in each scope, and what they may be compared with. Times are read here."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from registry.search.mistakes import Mistake
from registry.search.syntax import And, Comparison, Family, Field, Key, Literal, Missing, Node, Not, Operator, Or, Value

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_INTEGER = 2_147_483_647
# A backslash and what it takes literally, or one that takes nothing: PostgreSQL would fail on the row it is tried on.
DANGLING = re.compile(r"(?:[^\\]|\\.)*\\", re.DOTALL)


class Scope(StrEnum):
    MODELS = "models"
    VERSIONS = "versions"


class Kind(StrEnum):
    TEXT = "text"
    NUMBER = "number"
    INTEGER = "integer"
    TIME = "time"


EQUALITY = {Operator.EQUAL, Operator.UNEQUAL, Operator.IN, Operator.NOT_IN}
PATTERNS = {Operator.LIKE, Operator.ILIKE, Operator.NOT_LIKE, Operator.NOT_ILIKE}
OPERATORS = {Kind.TEXT: EQUALITY | PATTERNS} | dict.fromkeys(
    (Kind.NUMBER, Kind.INTEGER, Kind.TIME),
    EQUALITY | {Operator.LESS, Operator.AT_MOST, Operator.MORE, Operator.AT_LEAST},
)


@dataclass(frozen=True)
class Attribute:
    """`scopes`: where it can be asked for. `orders`: where it can be ordered by."""

    name: str
    kind: Kind = Kind.TEXT
    others: tuple[str, ...] = ()
    scopes: tuple[Scope, ...] = (Scope.MODELS, Scope.VERSIONS)
    orders: tuple[Scope, ...] = (Scope.MODELS, Scope.VERSIONS)


_ONLY_VERSIONS = (Scope.VERSIONS,)
ATTRIBUTES = (
    Attribute("name", others=("model",)),
    Attribute("description"),
    Attribute("owner"),
    Attribute("created_at", Kind.TIME, ("creation_timestamp", "creation_time", "registered_at")),
    Attribute("updated_at", Kind.TIME, ("last_updated_timestamp", "last_updated", "timestamp")),
    Attribute("created_by", others=("registered_by", "user_id")),
    Attribute("stage", others=("current_stage",), orders=_ONLY_VERSIONS),
    Attribute("alias", others=("aliases",)),
    Attribute("version_number", Kind.INTEGER, ("version",), scopes=_ONLY_VERSIONS),
    Attribute("run_id", scopes=_ONLY_VERSIONS),
    Attribute("source_path", others=("source", "filename"), scopes=_ONLY_VERSIONS),
    Attribute("status", scopes=_ONLY_VERSIONS),
)
_BY_NAME = {name: attribute for attribute in ATTRIBUTES for name in (attribute.name, *attribute.others)}


def check_filter(scope: Scope, node: Node) -> Node:
    """The tree with attributes under their own names and values of their fields' types.

    Raises:
        Mistake: an unknown field, or a comparison that its type does not have.
    """
    match node:
        case And(parts):
            return And(tuple(check_filter(scope, part) for part in parts))
        case Or(parts):
            return Or(tuple(check_filter(scope, part) for part in parts))
        case Not(part):
            return replace(node, part=check_filter(scope, part))
        case Missing(field):
            return replace(node, field=_known(scope, field))
        case Comparison():
            return _check_comparison(scope, node)


def check_order(scope: Scope, keys: tuple[Key, ...]) -> tuple[Key, ...]:
    """The keys with attributes under their own names.

    Raises:
        Mistake: an unknown field, one that cannot be ordered by, or one twice.
    """
    found: list[Key] = []
    for key in keys:
        field = _known(scope, key.field)
        if field.family is Family.ATTRIBUTE and scope not in _BY_NAME[field.key].orders:
            raise Mistake(f"{scope} have several values of {field.key}; they cannot be ordered by it", field.at)
        if any(field == other.field for other in found):
            raise Mistake(f"{field} is in the order twice", field.at)
        found.append(replace(key, field=field))
    return tuple(found)


def kind_of(field: Field) -> Kind:
    """Of a checked field."""
    if field.family is Family.ATTRIBUTE:
        return _BY_NAME[field.key].kind
    return Kind.NUMBER if field.family is Family.METRIC else Kind.TEXT


def _known(scope: Scope, field: Field) -> Field:
    if field.family is not Family.ATTRIBUTE:
        if scope is Scope.MODELS and field.family is not Family.TAG:
            raise Mistake(f"models have no {field.family}; search versions", field.at)
        return field
    attribute = _BY_NAME.get(field.key)
    if attribute is None or scope not in attribute.scopes:
        names = ", ".join(a.name for a in ATTRIBUTES if scope in a.scopes)
        families = "tags.KEY" if scope is Scope.MODELS else "tags.KEY, metrics.KEY, params.KEY"
        raise Mistake(f"{scope} have no field {field.key[:80]!r}; they have {names}, {families}", field.at)
    return replace(field, key=attribute.name)


def _check_comparison(scope: Scope, node: Comparison) -> Comparison:
    field = _known(scope, node.field)
    kind = kind_of(field)
    if node.operator not in OPERATORS[kind]:
        have = " ".join(sorted(OPERATORS[kind]))
        raise Mistake(f"{field} is a {kind}; it has no {node.operator}, only {have}", node.values[0].at)
    values = tuple(replace(given, value=_READERS[kind](given)) for given in node.values)
    if node.operator in PATTERNS and DANGLING.fullmatch(str(values[0].value)):
        raise Mistake("the pattern ends in a backslash that takes nothing literally; write two", values[0].at)
    return Comparison(field, node.operator, values)


def _text(given: Literal) -> Value:
    if not isinstance(given.value, str):
        raise Mistake("this field is a text: put the value in quotes", given.at)
    return given.value


def _number(given: Literal) -> Value:
    if isinstance(given.value, int | float):
        try:
            return float(given.value)
        except OverflowError as error:
            raise Mistake("the number is too large", given.at) from error
    raise Mistake("this field is a number: write the value without quotes", given.at)


def _integer(given: Literal) -> Value:
    if not isinstance(given.value, int):
        raise Mistake("this field is a whole number: write it without quotes", given.at)
    if abs(given.value) > MAX_INTEGER:
        raise Mistake(f"version numbers end at {MAX_INTEGER}", given.at)
    return given.value


def _time(given: Literal) -> Value:
    try:
        match given.value:
            case datetime():
                return given.value
            case int() | float():
                return EPOCH + timedelta(milliseconds=given.value)
        time = datetime.fromisoformat(given.value.strip())
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        wanted = "milliseconds since 1970 or a text such as '2026-01-31' or '2026-01-31T12:00:00Z'"
        raise Mistake(f"this is not a time; write {wanted}", given.at) from error


_READERS: dict[Kind, Callable[[Literal], Value]] = {
    Kind.TEXT: _text,
    Kind.NUMBER: _number,
    Kind.INTEGER: _integer,
    Kind.TIME: _time,
}
