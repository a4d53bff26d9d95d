"""Patterns of the access file (those of `fnmatch`), and as conditions of SQL for lists of what a caller may see."""

from collections.abc import Set
from fnmatch import fnmatchcase

import sqlalchemy as sa

SPECIAL = frozenset("*?[")


def covers(pattern: str, name: str) -> bool:
    """Whether a grant's pattern covers a name; "*" stands for all of them, which no pattern such as "[!s]*" covers."""
    return {*pattern} == {"*"} if name == "*" else fnmatchcase(name, pattern)


def literal(pattern: str) -> bool:
    """Whether it matches itself and nothing else."""
    return not SPECIAL & {*pattern}


def fits(name: sa.ColumnElement[str], patterns: Set[str]) -> sa.ColumnElement[bool]:
    """One of the patterns fits the name; "*" stands for all of them, which no pattern such as "?" covers."""
    if any({*pattern} == {"*"} for pattern in patterns):
        return sa.true()
    exact = [pattern for pattern in sorted(patterns) if literal(pattern)]
    others = [expression(pattern) for pattern in sorted(patterns) if not literal(pattern)]
    ways = [name.in_(exact)] if exact else []
    matching = (name.op("~", is_comparison=True)(sa.literal(other, sa.String())) for other in others)
    return sa.or_(sa.false(), *ways, *(sa.and_(name != "*", way) for way in matching))


def expression(pattern: str) -> str:
    """PostgreSQL's regular expression for a pattern of `fnmatch`: the same texts match.

    Every literal character is written by its number, so that none has a meaning.
    """
    found, i = "", 0
    while i < len(pattern):
        character = pattern[i]
        end = _closing(pattern, i) if character == "[" else -1
        if character == "*":
            found += ".*"
        elif character == "?":
            found += "."
        elif end >= 0:
            found += _one_of(pattern[i + 1 : end])
            i = end
        else:
            found += _number(character)
        i += 1
    return f"^(?:{found})$"


def _closing(pattern: str, i: int) -> int:
    """Where the bracket of `pattern[i]` closes; -1 if never, and it stands for itself. `]` cannot come first."""
    first = i + 2 if pattern[i + 1 : i + 2] == "!" else i + 1
    return pattern.find("]", first + 1)


def _one_of(inside: str) -> str:
    negated = inside.startswith("!")
    chosen = inside[1:] if negated else inside
    ranges, i = "", 0
    while i < len(chosen):
        # A hyphen at either end stands for itself.
        if chosen[i + 1 : i + 2] == "-" and i + 2 < len(chosen):
            low, high = chosen[i], chosen[i + 2]
            ranges += f"{_number(low)}-{_number(high)}" if low <= high else ""
            i += 3
        else:
            ranges += _number(chosen[i])
            i += 1
    if not ranges:
        return "." if negated else "(?!)"
    return f"[{'^' if negated else ''}{ranges}]"


def _number(character: str) -> str:
    return f"\\U{ord(character):08x}"
