"""Text to syntax tree. What a field may be compared with is checked in `fields.py`."""

from functools import cache
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedToken

from registry.search.mistakes import Mistake
from registry.search.syntax import And, Comparison, Family, Field, Key, Literal, Missing, Node, Not, Operator, Or

MAX_CHARACTERS = 4_000
MAX_COMPARISONS = 50
MAX_DEPTH = 30
MAX_KEYS = 5

# One lexer for all places, so that a keyword in the wrong place is named as such in the error.
GRAMMAR = r"""
?filter: conjunction (_OR conjunction)*      -> disjunction
?conjunction: negation (_AND negation)*
?negation: NOT negation                      -> inverted
    | "(" filter ")"
    | FIELD OPERATOR literal                 -> compared
    | FIELD LIKE text                        -> compared
    | FIELD NOT LIKE text                    -> denied
    | FIELD IN "(" literal ("," literal)* ")"        -> compared
    | FIELD NOT IN "(" literal ("," literal)* ")"    -> denied
    | FIELD IS NULL                          -> missing
    | FIELD IS NOT NULL                      -> present
?literal: text | NUMBER -> number
text: TEXT

order: key ("," key)*
key: FIELD ASC? | FIELD DESC -> descending

_AND.2: /and\b/i
_OR.2: /or\b/i
NOT.2: /not\b/i
IN.2: /in\b/i
IS.2: /is\b/i
NULL.2: /null\b/i
LIKE.2: /i?like\b/i
ASC.2: /asc\b/i
DESC.2: /desc\b/i
OPERATOR: "=" | "!=" | "<" | "<=" | ">" | ">="
NUMBER: /[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?(?![\w.])/i
TEXT: /'(?:[^']|'')*'/ | /"(?:[^"]|"")*"/
FIELD: /[^\W\d]\w*(?:\.(?:[\w.\/-]+|`(?:[^`]|``)+`|"(?:[^"]|"")+"))?/
%ignore /\s+/
"""
FAMILIES = {
    "attribute": Family.ATTRIBUTE,
    "attributes": Family.ATTRIBUTE,
    "tag": Family.TAG,
    "tags": Family.TAG,
    "metric": Family.METRIC,
    "metrics": Family.METRIC,
    "param": Family.PARAMETER,
    "params": Family.PARAMETER,
    "parameter": Family.PARAMETER,
    "parameters": Family.PARAMETER,
}
WORDS = {
    "FIELD": "a field such as stage or metrics.auc",
    "OPERATOR": "an operator such as = or >=",
    "LIKE": "LIKE",
    "IN": "IN",
    "IS": "IS",
    "NOT": "NOT",
    "NULL": "NULL",
    "TEXT": "a text in quotes",
    "NUMBER": "a number",
    "LPAR": "'('",
    "RPAR": "')'",
    "COMMA": "','",
    "_AND": "AND",
    "_OR": "OR",
    "ASC": "ASC",
    "DESC": "DESC",
    "$END": "the end",
}


def parse_filter(text: str) -> Node | None:
    """The tree; None for a filter of nothing but spaces, which everything passes.

    Raises:
        Mistake: it is not a filter, or is too large.
    """
    if not text.strip():
        _check_characters(text)
        return None
    node: Node = _parse(text, "filter")
    waiting, comparisons = [(node, 1)], 0
    while waiting:  # not by recursion: nothing has bounded the depth yet
        part, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise Mistake(f"the filter is nested deeper than {MAX_DEPTH} times", part.at)
        match part:
            case And() | Or():
                waiting += [(inner, depth + 1) for inner in reversed(part.parts)]
            case Not():
                waiting.append((part.part, depth + 1))
            case _:
                comparisons += 1
                if comparisons > MAX_COMPARISONS:
                    raise Mistake(f"the filter has more than {MAX_COMPARISONS} comparisons", part.at)
    return node


def parse_order(text: str) -> tuple[Key, ...]:
    """Keys such as `metrics.auc DESC, name`.

    Raises:
        Mistake: it is not an order, or has too many keys, or one twice.
    """
    if not text.strip():
        _check_characters(text)
        return ()
    keys: tuple[Key, ...] = _parse(text, "order")
    if len(keys) > MAX_KEYS:
        raise Mistake(f"more than {MAX_KEYS} keys", keys[MAX_KEYS].field.at)
    return keys


def _parse(text: str, start: str) -> Any:
    _check_characters(text)
    try:
        return _parser().parse(text, start=start)
    except UnexpectedCharacters as error:
        at = error.pos_in_stream or 0
        raise Mistake(_stray(text, at), at) from error
    except UnexpectedToken as error:
        raise _unexpected(text, error) from error
    except UnexpectedEOF as error:
        raise Mistake("the text ends too early", len(text)) from error


def _check_characters(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise Mistake(f"longer than {MAX_CHARACTERS} characters", MAX_CHARACTERS)
    for at, character in enumerate(text):
        if character == "\0" or "\ud800" <= character <= "\udfff":  # PostgreSQL stores neither
            raise Mistake(f"the character U+{ord(character):04X} is not allowed", at)


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer="basic", start=["filter", "order"], transformer=_Tree())


class _Tree(Transformer[Token, Any]):
    """Called by the parser for each rule as it goes: no tree of its own is walked, so depth costs no stack."""

    def disjunction(self, parts: list[Node]) -> Node:
        return Or(tuple(parts)) if len(parts) > 1 else parts[0]

    def conjunction(self, parts: list[Node]) -> Node:
        return And(tuple(parts))

    def inverted(self, parts: list[Any]) -> Node:
        return Not(parts[1], at=parts[0].start_pos)

    def compared(self, parts: list[Any]) -> Node:
        field, operator, *values = parts
        return Comparison(_field(field), Operator(operator.upper()), tuple(values))

    def denied(self, parts: list[Any]) -> Node:
        field, _, operator, *values = parts
        return Comparison(_field(field), Operator(f"NOT {operator.upper()}"), tuple(values))

    def missing(self, parts: list[Token]) -> Node:
        return Missing(_field(parts[0]), negated=False)

    def present(self, parts: list[Token]) -> Node:
        return Missing(_field(parts[0]), negated=True)

    def text(self, parts: list[Token]) -> Literal:
        return Literal(_unquoted(parts[0]), at=_start(parts[0]))

    def number(self, parts: list[Token]) -> Literal:
        given, at = parts[0], _start(parts[0])
        if given.lstrip("+-").isdecimal():
            return Literal(int(given), at=at)
        number = float(given)
        if number - number != 0:
            raise Mistake("the number is too large", at)
        return Literal(number, at=at)

    def order(self, keys: list[Key]) -> tuple[Key, ...]:
        return tuple(keys)

    def key(self, parts: list[Token]) -> Key:
        return Key(_field(parts[0]))

    def descending(self, parts: list[Token]) -> Key:
        return Key(_field(parts[0]), descending=True)


def _field(token: Token) -> Field:
    prefix, dot, key = token.partition(".")
    if not dot:
        return Field(Family.ATTRIBUTE, prefix.lower(), at=_start(token))
    family = FAMILIES.get(prefix.lower())
    if family is None:
        raise Mistake(f"{prefix!r} is none of attributes, tags, metrics, params", _start(token))
    name = _unquoted(key) if key[0] in '`"' else key
    return Field(family, name.lower() if family is Family.ATTRIBUTE else name, at=_start(token))


def _unquoted(text: str) -> str:
    quote = text[0]
    return text[1:-1].replace(quote * 2, quote)


def _start(token: Token) -> int:
    return token.start_pos or 0


def _stray(text: str, at: int) -> str:
    character = text[at]
    if character in "'\"`":
        return "the quote that opens here is never closed"
    if character.isdecimal() or character in "+-.":
        return "this is not a number"
    return f"the character {character!r} means nothing here"


def _unexpected(text: str, error: UnexpectedToken) -> Mistake:
    wanted = error.accepts or error.expected
    expected = " or ".join(words for name, words in WORDS.items() if name in wanted)
    if error.token.type == "$END":
        return Mistake(f"expected {expected} here, where the text ends", len(text.rstrip()))
    if error.token.type == "FIELD" and "TEXT" in wanted:
        expected += f"; if {str(error.token)[:40]!r} is meant as a text, put it in quotes"
    return Mistake(f"expected {expected}", error.token.start_pos or 0)
