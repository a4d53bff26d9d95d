"""What a caller may read, as a condition, so that pages are full and nothing is counted that they may not see."""

import sqlalchemy as sa

from contracts.access import Action
from kit.auth import Principal
from kit.patterns import fits
from kit.web import Guard
from registry.search.columns import Condition, Frame


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
