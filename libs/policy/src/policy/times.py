"""The times of a decision: whether it was made while it could be."""

from datetime import datetime, timedelta

from contracts.approval import Decision
from policy.case import Case
from policy.findings import Findings
from policy.holding import holds_until
from policy.needs import Needs
from policy.outlook import not_in_time
from policy.schedule import next_open


def limit(decision: Decision, case: Case, needs: Needs) -> datetime:
    """When it expired at the latest: what it rested on before may have let it live for a shorter time."""
    until, after = datetime.fromisoformat(case.inputs["request"]["expires_at"]), needs.expires_after
    return min(until, decision.opened_at + after) if after and decision.opened_at else until


def ordered(found: Findings, decision: Decision) -> None:
    """Adds whether the request was opened, bound and decided in this order."""
    opened_at, bound_at = decision.opened_at, decision.bound_at
    if opened_at is None or bound_at is None:
        found.unknown("times", "when the request was opened is not in the record")
        return
    good = f"opened at {opened_at.isoformat()}, such as it was decided since {bound_at.isoformat()}"
    why = None if opened_at <= bound_at <= decision.decided_at else "it was not opened, bound and decided in this order"
    found.say("times", why, good)


def in_time(found: Findings, decision: Decision, case: Case, needs: Needs) -> None:
    """Adds whether an approval came before its expiry, and when the schedule let it."""
    at, glass, until = decision.decided_at, decision.break_glass, decision.expires_at
    ends, last = holds_until(case, needs, at, glass=glass), limit(decision, case, needs)
    why = f"it outlives what it rests on, which ends at {ends.isoformat()}" if ends and until > ends else None
    if at >= until or at >= last or until > last:
        why = f"it had to be decided, and to be used, before {min(until, last).isoformat()}"
    found.say("expiry", why, f"before {until.isoformat()}")
    if glass is not None and "schedule" in glass.skips:
        found.ok("schedule", "skipped in an emergency")
        return
    closed = None if next_open(needs.schedules, at) == at else f"no window was open at {at.isoformat()}"
    found.say(
        "schedule", closed, "open then" if any(s.windows or s.freezes for s in needs.schedules) else "always open"
    )
    if needs.min_wait > timedelta(0):
        _waited(found, decision, needs.min_wait)


def _waited(found: Findings, decision: Decision, wait: timedelta) -> None:
    at = decision.decided_at
    if decision.opened_at is not None:
        early = f"{wait}: it was open since {decision.opened_at.isoformat()} only"
        found.say("minimum wait", early if at < decision.opened_at + wait else None, f"it had been open for {wait}")
        return
    first = min([vote.at for vote in decision.votes] + [waiver.at for waiver in decision.waived], default=at)
    if at - first >= wait:
        found.ok("minimum wait", f"it was open since {first.isoformat()} at least")
    else:
        found.unknown("minimum wait", f"{wait}: when it was opened is not in the record")


def expired(found: Findings, decision: Decision, case: Case, needs: Needs) -> None:
    """Adds whether a request that nobody decided in time was rejected for that."""
    last, until = limit(decision, case, needs), decision.expires_at
    never_bound_anew = decision.opened_at is not None and decision.bound_at == decision.opened_at
    why = f"it was to expire at {last.isoformat()}" if until > last or (never_bound_anew and until < last) else None
    found.say("verdict", why, f"rejected: it had expired at {until.isoformat()}")
    other = None if decision.reason == not_in_time(until) else f"it is {not_in_time(until)!r}"
    found.say("reason", other, "the reason is that of the verdict")
