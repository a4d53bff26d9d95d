"""Break-glass: an emergency lets a request pass at once, and others look at it afterwards."""

from datetime import datetime

from approval.desk import Desk, Open, Sight
from approval.directory import Directory
from approval.domain import Request
from approval.people import over, refused
from contracts.approval import BreakGlass, GlassBroken, ReviewGiven
from kit.events import Cause
from policy.needs import Emergency
from policy.outlook import unskippable
from policy.people import Person, Refusal


class Emergencies:
    def __init__(self, desk: Desk, directory: Directory) -> None:
        self._desk, self._directory = desk, directory

    async def break_glass(self, request_id: str, person: Person, reason: str) -> Request:
        """Lets an open request pass in an emergency, and opens the review of it.

        Raises:
            Problem: 401, 403, 404, 409, 422.
        """
        async with self._desk.opened(request_id, Cause(person.subject)) as of:
            await self._directory.seen(of.tx, person, of.at)
            await self._desk.advance(of)
            outcome = await self._broken(of, person, reason)
            if isinstance(outcome, BreakGlass):
                await self._desk.append(of, GlassBroken(request_id=request_id, glass=outcome))
                await self._desk.advance(of)
        if isinstance(outcome, Refusal):
            raise refused(outcome)
        return of.request

    async def _broken(self, of: Open, person: Person, reason: str) -> BreakGlass | Refusal:
        request = of.request
        if ended := over(request):
            return ended
        sight = await self._desk.sight(of.tx, request, of.at)
        emergency = sight.needs.emergency
        if emergency is None:
            return Refusal("no-break-glass", "the policies of this request know no emergency")
        if no := _may_not_break(emergency, person, reason, of.at) or _must_not_pass(sight):
            return no
        return BreakGlass(
            by=person.subject,
            groups=tuple(sorted(person.groups)),
            reason=reason,
            at=of.at,
            auth_method=person.method,
            request_digest=request.request_digest,
            skips=tuple(sorted(emergency.skips)),
            page=emergency.page,
            until=of.at + emergency.grants_for,
            review=tuple(sorted(emergency.review)),
            review_count=emergency.review_count,
            review_by=emergency.review_by(of.at),
        )

    async def review(self, request_id: str, person: Person, *, justified: bool, comment: str) -> Request:
        """Says of an emergency whether it was one. With enough people the review is closed, and a freeze lifted.

        Raises:
            Problem: 403, 404, 409.
        """
        async with self._desk.opened(request_id, Cause(person.subject)) as of:
            await self._directory.seen(of.tx, person, of.at)
            outcome = self._review(of, person, justified, comment)
            if isinstance(outcome, ReviewGiven):
                await self._desk.append(of, outcome)
                await self._desk.advance(of)
        if isinstance(outcome, Refusal):
            raise refused(outcome)
        return of.request

    def _review(self, of: Open, person: Person, justified: bool, comment: str) -> ReviewGiven | Refusal | None:
        request, glass = of.request, of.request.glass
        if glass is None or request.decision is None:
            return Refusal("request-closed", "nobody broke the glass for this request")
        if any(given.reviewer == person.subject for given in request.reviews):
            return None
        if not person.person:
            return Refusal("service-account", f"{person.subject} is a service account; only people review")
        if person.subject in (glass.by, request.opened.requested_by):
            return Refusal("own-request", f"{person.subject} took part in the emergency; others must review it")
        if not person.groups & set(glass.review):
            return Refusal("not-an-approver", f"asked are: {', '.join(glass.review)}")
        return ReviewGiven(
            request_id=request.request_id,
            reviewer=person.subject,
            groups=tuple(sorted(person.groups)),
            justified=justified,
            comment=comment,
            at=of.at,
            auth_method=person.method,
            closes=len(request.reviews) + 1 >= glass.review_count,
        )


def _may_not_break(emergency: Emergency, person: Person, reason: str, at: datetime) -> Refusal | None:
    if not person.person:
        return Refusal("service-account", f"{person.subject} is a service account; only people break the glass")
    if not all(person.groups & groups for groups in emergency.allowed):
        wanted = " and ".join("/".join(sorted(groups)) for groups in emergency.allowed)
        return Refusal("not-entitled", f"{person.subject} may not break the glass; somebody of {wanted} may")
    if len(reason.strip()) < emergency.min_reason:
        return Refusal("reason-required", f"say why, in at least {emergency.min_reason} characters")
    if emergency.within is not None and at - person.authenticated_at > emergency.within:
        minutes = emergency.within.total_seconds() / 60
        return Refusal("authentication-too-old", f"sign in again: a token of the last {minutes:g} minutes is needed")
    return None


def _must_not_pass(sight: Sight) -> Refusal | None:
    if sight.frozen is not None:
        return Refusal("model-frozen", sight.frozen)
    if failing := unskippable(sight.needs, sight.found.gates):
        names = ", ".join(f"{gate.gate} ({gate.result})" for gate in failing)
        return Refusal("gate-never-skipped", f"not even an emergency skips {names}")
    return None
