"""Break-glass: an emergency lets a request pass at once, and others look at it afterwards.

Whoever objects to an emergency freezes its model at once, for promotions and aliases, and pages the people who were
paged first. The freeze ends when as many people as the policy asks for have accepted what was done, all of them after
the last objection; the objector may be one of them.
"""

from approval import domain, standing
from approval.desk import Desk, Open
from approval.directory import Directory
from approval.domain import Request
from approval.people import over, refused
from approval.sight import Glance, Sight
from contracts.access import Action
from contracts.approval import BreakGlass, GlassBroken, ReviewGiven
from kit.events import Cause
from policy.case import Member, Person, Refusal, names
from policy.glass import broken, void
from policy.outlook import unskippable
from policy.people import barred, step_up


class Emergencies:
    def __init__(self, desk: Desk, directory: Directory) -> None:
        self._desk, self._directory = desk, directory

    async def break_glass(self, request_id: str, person: Person, reason: str) -> Request:
        """Lets an open request pass in an emergency, and opens the review of it. Its own requester may.

        While the emergency is on, doing it again does nothing, whoever does it; when it is over, it is not begun again
        for the same request, unless what that rests on has changed or the one who began it has left.

        Raises:
            Problem: 401, 403, 404, 409, 422.
        """
        async with self._desk.opened(request_id, Cause(person.subject)) as of:
            await self._directory.seen(of.tx, person, of.at, held=request_id)
            await self._desk.advance(of)
            outcome = await self._broken(of, person, reason)
            if isinstance(outcome, BreakGlass) and outcome != of.request.glass:
                await self._desk.append(of, GlassBroken(request_id=request_id, glass=outcome))
                await self._desk.advance(of)
        if isinstance(outcome, Refusal):
            raise refused(outcome)
        return of.request

    async def _broken(self, of: Open, person: Person, reason: str) -> BreakGlass | Refusal:
        request, place = of.request, of.request.place
        if ended := over(request):
            return ended
        sight = await self._desk.sights.of(of.tx, request, of.at)
        person = await self._directory.counting(of.tx, person, place)
        found = broken(sight.needs, person, reason, of.at, request.request_digest)
        if isinstance(found, Refusal):
            return found
        if not self._desk.sights.may(person, Action.BREAK_GLASS, place):
            return Refusal("not-entitled", f"{person.subject} has no role that breaks the glass in {'/'.join(place)}")
        return _must_not_pass(sight) or _before(of, sight) or found

    async def review(self, request_id: str, person: Person, *, justified: bool, comment: str) -> Request:
        """Says of an emergency whether it was one. With enough people the review is closed, and a freeze lifted; with
        an objection the model is frozen. Saying the same again does nothing.

        Raises:
            Problem: 401, 403, 404, 409.
        """
        async with self._desk.opened(request_id, Cause(person.subject)) as of:
            await self._directory.seen(of.tx, person, of.at, held=request_id)
            person = await self._directory.counting(of.tx, person, of.request.place)
            outcome = await self._review(of, person, justified, comment)
            if isinstance(outcome, ReviewGiven):
                await self._desk.append(of, outcome)
                await standing.look_again_at(of.tx, of.at, *of.request.place)
                await self._desk.advance(of)
        if isinstance(outcome, Refusal):
            raise refused(outcome)
        return of.request

    async def _review(self, of: Open, person: Person, justified: bool, comment: str) -> ReviewGiven | Refusal | None:
        request, glass = of.request, of.request.glass
        if glass is None or request.status != domain.APPROVED:
            return Refusal("request-closed", "nobody broke the glass for this request")
        said = [given.justified for given in request.standing_reviews if given.reviewer.casefold() in person.names]
        if said[-1:] == [justified]:
            return None
        [glance] = await self._desk.sights.glances(of.tx, [request], of.at)
        if no := _may_not_review(request, glass, glance, person) or step_up(glance.needs, person, of.at):
            return no
        return ReviewGiven(
            request_id=request.request_id,
            reviewer=person.subject,
            groups=tuple(sorted(person.groups)),
            justified=justified,
            comment=comment,
            at=of.at,
            auth_method=person.method,
            closes=justified and (request.reviewed or _enough(request, glass, glance, person)),
            page=() if justified else glass.page,
        )


def _may_not_review(request: Request, glass: BreakGlass, glance: Glance, person: Person) -> Refusal | None:
    if not person.person:
        return Refusal("service-account", f"{person.subject} is a service account; only people review")
    breaker = glance.members(glass.by)
    if names(glass.by, breaker.email if breaker else None) & person.names:
        return Refusal("own-request", f"{person.subject} broke the glass; others must review it")
    if found := barred(request.case, glance.needs, person.subject, person.email, glance.members):
        return found
    if not (person.may_vote and person.groups & set(glass.review)):
        return Refusal("not-an-approver", f"asked are: {', '.join(glass.review)}")
    return None


def _enough(request: Request, glass: BreakGlass, glance: Glance, person: Person) -> bool:
    """Whether, with this person, enough people accept it who may still review it."""
    accepted, heard = 1, person.names
    for given in request.standing_reviews:
        known = glance.members(given.reviewer) or Member(frozenset(given.groups))
        who = names(given.reviewer, known.email)
        if barred(request.case, glance.needs, given.reviewer, known.email, glance.members):
            continue
        if given.justified and known.person and known.groups & set(glass.review) and not who & heard:
            accepted, heard = accepted + 1, heard | who
    return accepted >= glass.review_count


def _before(of: Open, sight: Sight) -> BreakGlass | Refusal | None:
    """What an earlier emergency of the same request means for another one: nothing when its breaker has left."""
    glass = of.request.glass
    if glass is None or void(glass, sight.needs, sight.members):
        return None
    if of.at < glass.until:
        return glass
    return Refusal("emergency-over", f"the emergency of {glass.by} ended at {glass.until.isoformat()}")


def _must_not_pass(sight: Sight) -> Refusal | None:
    if sight.found.phase == "frozen":
        return Refusal("model-frozen", sight.found.reason)
    if failing := unskippable(sight.needs, sight.found.gates):
        names = ", ".join(f"{gate.gate} ({gate.result})" for gate in failing)
        return Refusal("gate-never-skipped", f"not even an emergency skips {names}")
    return None
