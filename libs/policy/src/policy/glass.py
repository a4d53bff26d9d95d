"""Breaking the glass: who may, and what it then allows."""

from datetime import datetime

from contracts.approval import BreakGlass
from policy.case import Members, Person, Refusal
from policy.needs import Emergency, Needs
from policy.people import step_up


def broken(needs: Needs, person: Person, reason: str, at: datetime, request_digest: str) -> BreakGlass | Refusal:
    """The emergency to record, or why this person cannot begin one.

    Whoever asked for the change may, as may its author: others review it. It is a signature, and needs a sign-in like a
    vote, besides the fresh one that emergencies need.
    """
    emergency = needs.emergency
    if emergency is None:
        return Refusal("no-break-glass", "the policies of this request know no emergency")
    if no := _not_theirs(emergency, person, reason) or _stale(emergency, person, at) or step_up(needs, person, at):
        return no
    return BreakGlass(
        by=person.subject,
        groups=tuple(sorted(person.groups)),
        reason=reason,
        at=at,
        auth_method=person.method,
        request_digest=request_digest,
        skips=tuple(sorted(emergency.skips)),
        page=emergency.page,
        until=at + emergency.grants_for,
        review=tuple(sorted(emergency.review)),
        review_count=emergency.review_count,
        review_by=emergency.review_by(at),
        on_overdue=emergency.on_overdue,
    )


def void(glass: BreakGlass, needs: Needs, members: Members) -> bool:
    """Whether whoever broke the glass could do it no more, as far as is known of them by now."""
    known = members(glass.by)
    if known is None or needs.emergency is None:
        return False
    return not (known.person and _allowed(needs.emergency, known.breaking))


def _allowed(emergency: Emergency, groups: frozenset[str]) -> bool:
    return all(groups & one for one in emergency.allowed)


def _not_theirs(emergency: Emergency, person: Person, reason: str) -> Refusal | None:
    if not person.person:
        return Refusal("service-account", f"{person.subject} is a service account; only people break the glass")
    if not _allowed(emergency, person.groups):
        wanted = " and ".join("/".join(sorted(groups)) for groups in emergency.allowed)
        return Refusal("not-entitled", f"{person.subject} may not break the glass; somebody of {wanted} may")
    if len(reason.strip()) < emergency.min_reason:
        return Refusal("reason-required", f"say why, in at least {emergency.min_reason} characters")
    return None


def _stale(emergency: Emergency, person: Person, at: datetime) -> Refusal | None:
    if emergency.within is not None and at - person.authenticated_at > emergency.within:
        minutes = emergency.within.total_seconds() / 60
        return Refusal("authentication-too-old", f"sign in again: a token of the last {minutes:g} minutes is needed")
    return None
