"""How long an approval holds: not longer than what it rests on."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from contracts.approval import BreakGlass
from policy.case import Case, Members, nobody
from policy.needs import Needs
from policy.people import approvals
from policy.schedule import open_until


def holds_until(
    case: Case, needs: Needs, at: datetime, *, glass: BreakGlass | None = None, members: Members = nobody
) -> datetime | None:
    """When an approval of `at` ends: with the emergency it was given in (`glass`), with the votes that make the quorum,
    with the window that is open, or when a freeze begins. None when none of these ends it; what the emergency skipped
    does not."""
    ends, skips = [], glass.skips if glass else ()
    if glass is not None:
        ends.append(glass.until)
    if needs.valid_for is not None and "approvals" not in skips:
        ends += _quorums(case, needs, needs.valid_for, at, members)
    if "schedule" not in skips and (closes := open_until(needs.schedules, at)):
        ends.append(closes)
    return min(ends, default=None)


def _quorums(case: Case, needs: Needs, valid_for: timedelta, at: datetime, members: Members) -> Iterator[datetime]:
    """When each rule has too few approvals left: more of them than it needs may lapse before."""
    counted = approvals(case, needs, at, members)
    for rule in needs.rules:
        latest = sorted((vote.at for vote in counted if vote.rule == rule.id), reverse=True)[: rule.count]
        if latest:
            yield latest[-1] + valid_for
