"""Break-glass: an emergency lets a request pass at once, and others look at it afterwards."""

from approval.desk import Desk, Open
from approval.directory import Directory
from approval.domain import Request
from approval.people import over, refused
from approval.sight import Sight
from contracts.approval import BreakGlass, GlassBroken, ReviewGiven
from kit.events import Cause
from policy.glass import broken
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
        sight = await self._desk.sights.of(of.tx, request, of.at)
        person = await self._directory.counting(of.tx, person, request.place)
        found = broken(sight.needs.emergency, person, reason, of.at, request.request_digest)
        return found if isinstance(found, Refusal) else _must_not_pass(sight) or found

    async def review(self, request_id: str, person: Person, *, justified: bool, comment: str) -> Request:
        """Says of an emergency whether it was one. With enough people the review is closed, and a freeze lifted.

        Raises:
            Problem: 403, 404, 409.
        """
        async with self._desk.opened(request_id, Cause(person.subject)) as of:
            await self._directory.seen(of.tx, person, of.at)
            person = await self._directory.counting(of.tx, person, of.request.place)
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


def _must_not_pass(sight: Sight) -> Refusal | None:
    if sight.found.phase == "frozen":
        return Refusal("model-frozen", sight.found.reason)
    if failing := unskippable(sight.needs, sight.found.gates):
        names = ", ".join(f"{gate.gate} ({gate.result})" for gate in failing)
        return Refusal("gate-never-skipped", f"not even an emergency skips {names}")
    return None
