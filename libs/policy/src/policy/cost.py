"""What evaluating an expression costs at most: told from its checked tree and the sizes of what it looks at.

The engine bounds only how often macros run. But their values may grow from one to the next (`.map(x, x + x)`), and a
pattern may take long over a text. So each part of the tree has a bound of its cost and of the size of its value, in
steps: a byte of a text, or a part of a list or a map, is one. The same inputs always cost the same.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

MAX_COST = 10_000_000
MAX_PATTERN = 3_000
_ACCESS = 20  # steps: what is looked at is kept in Python, and each of its parts is fetched from there
_COMPILES = 150  # steps, for each one that a pattern's program is large: it is compiled each time
# In the messages of CEL's checked expressions (cel/expr/checked.proto and syntax.proto): the numbers of fields.
_ANY_VALUE, _CHECKED_EXPR = 2, 4
_TEXTS = (6, 7)  # of a constant: text and bytes
_TEST_ONLY = b"\x18\x01"  # a selection ends with it that is a `has`
_CHEAP = {"_&&_", "_||_", "!_", "@not_strictly_false", "type"}
_COMPARE = {"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"}
_TRUTH = {*_COMPARE, "_&&_", "_||_", "!_", "@not_strictly_false", "contains", "startsWith", "endsWith", "@in", "size"}
_TOKEN = re.compile(
    r"\\[pP](?:\{[^}]*\}|.)|\\.|\[\^?\]?(?:\[:[^]]*:\]|\\.|[^]\\])*\]|\{(\d+)(?:,(\d*))?\}|.", re.DOTALL
)


class _Kind(IntEnum):
    CONST, IDENT, SELECT, CALL, LIST, STRUCT, MACRO = range(3, 10)


class TooCostly(ValueError):
    """What it would cost cannot be bounded, or is too much; the text says why."""


@dataclass(frozen=True)
class Size:
    """Bounds of a value: the steps to walk it, how many parts it has, and the size of a key and of a part."""

    total: int = 1
    count: int = 0
    key: int = 1
    item: int = 1

    @classmethod
    def unknown(cls, total: int) -> "Size":
        return cls(total, total, total, total)


@dataclass(frozen=True)
class _Found:
    cost: int
    size: Size
    text: bytes | None = None


def size_of(value: Any) -> Size:
    """The size of a value that is known."""
    if isinstance(value, Mapping):
        keys, items = [size_of(key).total for key in value], [size_of(item).total for item in value.values()]
        return Size(1 + sum(keys) + sum(items), len(items), max(keys, default=1), max(items, default=1))
    if isinstance(value, list | tuple):
        items = [size_of(item).total for item in value]
        return Size(1 + sum(items), len(items), 1, max(items, default=1))
    return Size.unknown(1 + len(value.encode())) if isinstance(value, str) else Size()


class Tree:
    """A checked expression, as the engine serialises it."""

    def __init__(self, serialised: bytes) -> None:
        self._root = _one(_one(serialised, _ANY_VALUE), _CHECKED_EXPR)

    def names(self) -> frozenset[str]:
        """The names it uses, those of macros too."""
        return frozenset(_name(node) for kind, node in _nodes(self._root) if kind == _Kind.IDENT)

    def fields(self, variable: str) -> frozenset[str]:
        """The fields of a variable that it reads by name, without asking anywhere whether they are there."""
        read, asked = set[str](), set[str]()
        for kind, node in _nodes(self._root):
            if kind == _Kind.SELECT and _name(_one(_one(node, 1), _Kind.IDENT)) == variable:
                (asked if node.endswith(_TEST_ONLY) else read).add(_one(node, 2).decode())
            elif kind == _Kind.CALL and (call := _one(node, 2).decode()) in ("_[_]", "@in"):
                of, text = _all(node, 3) if call == "_[_]" else reversed([*_all(node, 3)])
                if _name(_one(of, _Kind.IDENT)) == variable:
                    (read if call == "_[_]" else asked).add(_one(_one(text, _Kind.CONST), _TEXTS[0]).decode())
        return frozenset(read - asked - {""})

    def cost(self, sizes: Mapping[str, Size]) -> int:
        """Steps at most, with variables of these sizes; one that has none costs nothing, since using it is an error.

        Raises:
            TooCostly: a pattern is not given as a text, or is too large.
        """
        return _walk(self._root, sizes).cost


def pattern_size(pattern: str) -> int:
    """How large the program of a pattern (RE2) is at most.

    Raises:
        TooCostly: it quotes with \\Q, or is larger than MAX_PATTERN.
    """
    if r"\Q" in pattern:
        raise TooCostly(r"a pattern may not quote with \Q")
    sums, last = [0], 1
    for token in _TOKEN.finditer(pattern):
        text = token[0]
        if text == "(":
            sums.append(0)
            last = 1
        elif text == ")" and len(sums) > 1:
            last = 1 + sums.pop()
            sums[-1] += last
        elif token[1] is not None:
            times = max(int(token[1]), int(token[2] or 0)) + 1
            sums[-1] += last * (times - 1)
            last *= times
        else:
            last = _class_size(text)
            sums[-1] += last
        if sum(sums) > MAX_PATTERN:
            raise TooCostly(f"the pattern {pattern[:50]} repeats too much")
    return 1 + sum(sums)


def _class_size(text: str) -> int:
    """Of one character, or a class; those of Unicode are made of many ranges of bytes."""
    if unicode := len(re.findall(r"\\[pP]", text)):
        return 100 * unicode + len(text)
    wide = text == "." or text.startswith("[^") or not text.isascii() or re.search(r"\\[A-Z]", text)
    return 10 + 4 * len(text) if wide else len(text)


# -- the tree -----------------------------------------------------------------------------------------------------


def _walk(node: bytes, known: Mapping[str, Size]) -> _Found:  # noqa: PLR0911 - one line a kind
    for field, value in _fields(node):
        match field:
            case _Kind.CONST:
                text = next((v for f, v in _fields(value) if f in _TEXTS), None)
                return _Found(1, Size() if text is None else Size.unknown(1 + len(text)), text)
            case _Kind.IDENT:
                return _Found(1, known.get(_one(value, 1).decode(), Size()))
            case _Kind.SELECT:
                of = _walk(_one(value, 1), known)
                return _Found(of.cost + _ACCESS, Size.unknown(of.size.item))
            case _Kind.CALL:
                return _call(value, known)
            case _Kind.LIST:
                return _collected([_walk(one, known) for one in _all(value, 1)])
            case _Kind.STRUCT:
                parts = [part for entry in _all(value, 2) for f, part in _fields(entry) if f in (3, 4)]
                return _collected([_walk(part, known) for part in parts])
            case _Kind.MACRO:
                return _macro(value, known)
    raise TooCostly("it has a part that is not known")


def _collected(parts: list[_Found]) -> _Found:
    total, largest = sum(part.size.total for part in parts), max((part.size.total for part in parts), default=1)
    return _Found(1 + sum(part.cost + 1 for part in parts), Size(1 + total, len(parts), largest, largest))


def _macro(node: bytes, known: Mapping[str, Size]) -> _Found:
    over = _walk(_one(node, 2), known)
    one = Size.unknown(max(over.size.key, over.size.item))
    start = _walk(_one(node, 4), known)
    inside = {**known, _one(node, 1).decode(): one, _one(node, 3).decode(): start.size}
    goes_on, step = _walk(_one(node, 5), inside), _walk(_one(node, 6), inside)
    times, each = over.size.count, step.size.total
    made = Size(1 + start.size.total + times * each, times, each, each)
    end = _walk(_one(node, 7), {**inside, _one(node, 3).decode(): made})
    return _Found(over.cost + start.cost + times * (goes_on.cost + step.cost) + end.cost, end.size)


def _call(node: bytes, known: Mapping[str, Size]) -> _Found:
    name = _one(node, 2).decode()
    given = [_walk(part, known) for part in (*_all(node, 1), *_all(node, 3))]
    totals, cost = [one.size.total for one in given], sum(one.cost for one in given) + 1
    if name == "matches":
        if given[-1].text is None:
            raise TooCostly("matches needs its pattern as a text in quotes")
        size = pattern_size(given[-1].text.decode(errors="replace"))
        return _Found(cost + (totals[0] + _COMPILES) * size, Size())
    if name in ("_[_]", "_[?_]"):
        return _Found(cost + _ACCESS + totals[-1], Size.unknown(given[0].size.item))
    if name == "_?_:_":
        sizes = [one.size for one in given[1:]]
        parts = zip(*((size.total, size.count, size.key, size.item) for size in sizes), strict=True)
        return _Found(cost, Size(*(max(part) for part in parts)))
    if name == "_+_":
        a, b = (one.size for one in given)
        joined = Size(a.total + b.total, a.count + b.count, max(a.key, b.key), max(a.item, b.item))
        return _Found(cost + a.total + b.total, joined)
    if name == "contains":
        cost += totals[0] * (1 + totals[1] // 16)  # its search starts anew at each place
    elif name in _COMPARE:
        cost += min(totals)
    elif name not in _CHEAP:
        cost += sum(totals)
    return _Found(cost, Size() if name in _TRUTH else Size.unknown(sum(totals) + 32))


def _nodes(node: bytes) -> Iterator[tuple[int, bytes]]:
    """What it is made of, each with its kind."""
    for kind, value in _fields(node):
        yield kind, value
        for part in _parts(kind, value):
            yield from _nodes(part)


def _parts(kind: int, value: bytes) -> list[bytes]:
    match kind:
        case _Kind.SELECT | _Kind.LIST:
            return [*_all(value, 1)]
        case _Kind.CALL:
            return [*_all(value, 1), *_all(value, 3)]
        case _Kind.STRUCT:
            return [part for entry in _all(value, 2) for number in (3, 4) for part in _all(entry, number)]
        case _Kind.MACRO:
            return [_one(value, number) for number in (2, 4, 5, 6, 7)]
    return []


def _name(ident: bytes) -> str:
    return _one(ident, 1).decode()


# -- protocol buffers ---------------------------------------------------------------------------------------------


def _one(message: bytes, number: int) -> bytes:
    return next(_all(message, number), b"")


def _all(message: bytes, number: int) -> Iterator[bytes]:
    return (value for field, value in _fields(message) if field == number)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields that hold bytes; numbers are passed over."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        match key & 7:
            case 0:
                _, at = _varint(message, at)
            case 1:
                at += 8
            case 2:
                length, at = _varint(message, at)
                yield key >> 3, message[at : at + length]
                at += length
            case 5:
                at += 4
            case _:
                raise TooCostly("the engine's tree cannot be read")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
