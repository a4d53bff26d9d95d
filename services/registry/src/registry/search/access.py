"""What a caller may read, as a condition, so that pages are full and nothing is counted that they may not see."""

import sqlalchemy as sa

from contracts.access import Action
from kit.auth import Principal
from kit.web import Guard
from registry.search.columns import Condition, Frame

SPECIAL = frozenset("*?[")


def readable(guard: Guard, caller: Principal, workspace: str) -> frozenset[str] | None:
    """The patterns of the models that the caller may read; None means all.

    Raises:
        Problem: 403, they may read none.
    """
    patterns = guard.require_some(caller, Action.READ, workspace)
    return None if "*" in patterns else patterns


def allowed(frame: Frame, patterns: frozenset[str] | None) -> Condition:
    """Models whose identity, the name of registration, a pattern fits: as everywhere, a new name opens nothing."""
    return sa.true() if patterns is None else fits(frame.identity[0], patterns)


def fits(identity: sa.ColumnElement[str], patterns: frozenset[str]) -> Condition:
    """One of the patterns fits the identity."""
    exact = [pattern for pattern in sorted(patterns) if not SPECIAL & {*pattern}]
    others = [expression(pattern) for pattern in sorted(patterns) if SPECIAL & {*pattern}]
    ways = [identity.in_(exact)] if exact else []
    ways += [identity.op("~", is_comparison=True)(sa.literal(other, sa.String())) for other in others]
    return sa.or_(sa.false(), *ways)


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
