"""MLflow's filter and order grammar: a part of our own (`registry.search`), and no more than that part."""

from kit.problems import Problem
from registry.mlflow.errors import INVALID, Refusal
from registry.search.fields import Scope, check_filter, check_order
from registry.search.mistakes import Mistake, pointing
from registry.search.parse import parse_filter, parse_order
from registry.search.query import Search
from registry.search.syntax import And, Comparison, Family, Field, Key, Literal, Node, Not, Operator

_EQUALITY = {Operator.EQUAL, Operator.UNEQUAL}
_TEXT = _EQUALITY | {Operator.LIKE, Operator.ILIKE}
_LISTED = _TEXT | {Operator.IN, Operator.NOT_IN}
_NUMBER = _EQUALITY | {Operator.LESS, Operator.AT_MOST, Operator.MORE, Operator.AT_LEAST}
COMPARISONS = {
    Scope.MODELS: {"name": _LISTED},
    Scope.VERSIONS: {"name": _LISTED, "run_id": _LISTED, "source_path": _TEXT, "version_number": _NUMBER},
}
ORDERS = {
    Scope.MODELS: ("name", "timestamp", "last_updated_timestamp"),
    Scope.VERSIONS: ("name", "version_number", "creation_timestamp", "last_updated_timestamp"),
}
# What is ordered by when nothing is said, and what decides between equals.
DEFAULTS = {Scope.MODELS: [], Scope.VERSIONS: ["last_updated_timestamp DESC"]}
TIES = {Scope.MODELS: ["name"], Scope.VERSIONS: ["name", "version_number DESC"]}


def read(
    scope: Scope, workspace: str, text: str, order_by: list[str], *, patterns: frozenset[str] | None = None
) -> Search:
    """The search that MLflow's texts ask for, over the models that `patterns` allow.

    Raises:
        Refusal: it is not MLflow's grammar.
    """
    try:
        with pointing("bad-filter", text):
            node = parse_filter(text)
            parts = node.parts if isinstance(node, And) else (node,) if node is not None else ()
            for part in parts:
                _check(scope, part)
            checked = check_filter(scope, _without_prompts(parts))
    except Problem as problem:
        raise Refusal(INVALID, f"Invalid filter: {problem.detail}") from problem
    return Search(scope, workspace, checked, _order(scope, order_by), patterns=patterns)


def _without_prompts(parts: tuple[Node, ...]) -> Node:
    """MLflow keeps prompts as models with a tag, and finds them only for who asks for that tag to be 'true'.

    A model without the tag is not a prompt: of this tag, `!= 'true'` and `= 'false'` hold where it is missing.
    """
    if PROMPT not in parts:
        denied = (Comparison(PROMPT.field, Operator.UNEQUAL, PROMPT.values), _prompt("false"))
        parts = (*(part for part in parts if part not in denied), Not(PROMPT))
    return And(parts) if len(parts) > 1 else parts[0]


def _prompt(value: str) -> Comparison:
    return Comparison(Field(Family.TAG, "mlflow.prompt.is_prompt"), Operator.EQUAL, (Literal(value),))


PROMPT = _prompt("true")


def _check(scope: Scope, part: Node) -> None:
    if not isinstance(part, Comparison):
        raise Mistake("a filter is comparisons joined by AND, without OR, NOT and parentheses", part.at)
    field, allowed = part.field, COMPARISONS[scope]
    if field.family is Family.TAG:
        operators = _TEXT
    elif field.family is Family.ATTRIBUTE:
        if field.key not in allowed:
            raise Mistake(f"Invalid attribute key '{field.key}' specified. Valid keys are {sorted(allowed)}", field.at)
        operators = allowed[field.key]
    else:
        raise Mistake("Invalid entity type. Valid entity types are attribute, tag and tags", field.at)
    if part.operator not in operators:
        raise Mistake(
            f"Invalid comparator '{part.operator}' for {field}; it has {', '.join(sorted(operators))}", part.at
        )


def _order(scope: Scope, order_by: list[str]) -> tuple[Key, ...]:
    found: dict[Field, Key] = {}
    for clause in order_by or DEFAULTS[scope]:
        given = _keys(scope, clause)
        if len(given) != 1:
            raise Refusal(INVALID, f"Invalid order_by clause '{clause}'. Could not be parsed.")
        [key] = given
        if key.field in found:
            raise Refusal(INVALID, f"`order_by` contains duplicate fields: {order_by}")
        found[key.field] = key
    for clause in TIES[scope]:
        [tie] = _keys(scope, clause)
        found.setdefault(tie.field, tie)
    return tuple(found.values())


def _keys(scope: Scope, clause: str) -> tuple[Key, ...]:
    try:
        with pointing("bad-order", clause):
            keys = parse_order(clause)
            for key in keys:
                if key.field.family is not Family.ATTRIBUTE or key.field.key not in ORDERS[scope]:
                    valid = ", ".join(ORDERS[scope])
                    raise Mistake(f"Invalid order by key '{key.field}' specified. Valid keys are {valid}", key.field.at)
            return check_order(scope, keys)
    except Problem as problem:
        raise Refusal(INVALID, f"Invalid order_by clause '{clause}': {problem.detail}") from problem
