"""What people do with requests: vote, withdraw, comment, waive. One transaction each."""

import asyncio
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from approval import domain, standing
from approval.desk import Desk, Open
from approval.directory import Directory, too_many
from approval.domain import Request
from approval.sight import Sight
from contracts.approval import (
    GateWaived,
    RequestCommented,
    Vote,
    VoteCast,
    VoteRefused,
    VoteWithdrawn,
    Waiver,
)
from kit.events import Cause
from kit.problems import Problem
from policy.case import Ballot, Person, Refusal
from policy.needs import Gate
from policy.outlook import may_waive
from policy.people import barred, judged, step_up

MOST_COMMENTS = 1_000
_STATUS = {
    "comment-required": 422,
    "reason-required": 422,
    "unknown-delegation": 404,
    **dict.fromkeys(("authentication-too-old", "authentication-too-weak"), 401),
    **dict.fromkeys(
        ("request-changed", "request-expired", "request-closed", "already-voted", "gate-not-waivable", "gate-is-good"),
        409,
    ),
    **dict.fromkeys(("no-vote", "no-break-glass", "model-frozen", "gate-never-skipped", "emergency-over"), 409),
}


def refused(refusal: Refusal) -> Problem:
    return Problem(_STATUS.get(refusal.code, 403), refusal.code, refusal.detail)


class People:
    def __init__(self, desk: Desk, directory: Directory, settle_seconds: float) -> None:
        self._desk, self.directory, self._settle = desk, directory, settle_seconds

    async def vote(self, request_id: str, voter: Person, ballot: Ballot, on_behalf_of: str | None = None) -> Request:
        """Records one vote and, when it completes the quorum, waits out the settling time and decides.

        Raises:
            Problem: 401 (sign in again), 404, 409, 422, or 403 (which is recorded as an event).
        """
        async with self._desk.opened(request_id, Cause(voter.subject)) as of:
            await self.directory.seen(of.tx, voter, of.at, held=request_id)
            outcome = await self._vote(of, voter, ballot, on_behalf_of)
        if isinstance(outcome, Refusal):
            raise refused(outcome)
        if of.request.status == domain.OPEN and await self._settling(request_id):
            # A rejection cast at the same moment as the last approval must win, so the decision waits a little.
            await asyncio.sleep(self._settle)
            return await self.look(request_id)
        return of.request

    async def vote_by_click(self, request_id: str, subject: str, ballot: Ballot) -> Request:
        """As `vote`, by somebody who does not call, but whose account in Slack was clicked with: they count as what
        their newest token said, and the policies have to take votes by Slack.

        Raises:
            Problem: see `vote`; 401 too when nothing was heard of them for `KNOWN_FOR`.
        """
        async with self._desk.opened(request_id, Cause(subject)) as of:
            voter = await self.directory.clicking(of.tx, subject, of.request.place, of.at)
            outcome = voter if isinstance(voter, Refusal) else await self._vote(of, voter, ballot, None)
        if isinstance(outcome, Refusal):
            raise refused(outcome)
        if of.request.status == domain.OPEN and await self._settling(request_id):
            await asyncio.sleep(self._settle)
            return await self.look(request_id)
        return of.request

    async def _settling(self, request_id: str) -> bool:
        async with self._desk.db.snapshot() as tx:
            rows = await standing.of_requests(tx, [request_id])
        return any(row.phase == "settling" for row in rows.values())

    async def _vote(self, of: Open, voter: Person, ballot: Ballot, on_behalf_of: str | None) -> Vote | Refusal | None:
        await self._desk.advance(of, approving=False)
        outcome = await self.judge(of.tx, of.request, voter, ballot, of.at, on_behalf_of)
        match outcome:
            case Vote():
                await self._desk.append(of, VoteCast(request_id=of.request.request_id, vote=outcome))
            case Refusal(recorded=True) if of.request.status == domain.OPEN:
                said = VoteRefused(
                    request_id=of.request.request_id,
                    voter=voter.subject,
                    choice=ballot.choice,
                    code=outcome.code,
                    detail=outcome.detail,
                )
                # Once per person and code: evidence needs no repetition, and nobody can flood the log.
                if (said.voter, said.code) not in {(one.voter, one.code) for one in of.request.refusals}:
                    await self._desk.append(of, said)
        await self._desk.advance(of)
        return outcome

    async def judge(
        self,
        tx: AsyncConnection,
        request: Request,
        voter: Person,
        ballot: Ballot,
        at: datetime,
        on_behalf_of: str | None,
        sight: Sight | None = None,
    ) -> Vote | Refusal | None:
        """What a vote of this person would come to; `sight`: of the request at that time, for those who have it."""
        if crowded := too_many(voter):
            return crowded
        voter = await self.directory.counting(tx, voter, request.place)
        sight = sight or await self._desk.sights.of(tx, request, at)
        principal = None
        if on_behalf_of is not None:
            found = await self.directory.represented(tx, voter.subject, on_behalf_of, request, at, sight.needs)
            if isinstance(found, Refusal):
                return found
            principal = found
        outcome = judged(request.case, sight.needs, voter, ballot, at, principal, sight.members)
        return outcome if outcome is None else over(request) or outcome

    async def withdraw(self, request_id: str, voter: Person, reason: str) -> Request:
        """Takes the caller's votes back, and those that others cast for them, as long as the request is open. Doing it
        again does nothing.

        Raises:
            Problem: 404, 409.
        """
        async with self._desk.opened(request_id, Cause(voter.subject)) as of:
            await self._desk.advance(of, approving=False)
            if ended := over(of.request):
                raise refused(ended)
            mine = {(v.voter, v.on_behalf_of) for v in of.request.votes if voter.subject in (v.voter, v.on_behalf_of)}
            if not (mine or any(past.withdrawn_by == voter.subject for past in of.request.past_votes)):
                raise refused(Refusal("no-vote", f"there is no vote of {voter.subject}, nor one cast for them"))
            for who, whose in sorted(mine, key=str):
                by = voter.subject
                back = VoteWithdrawn(request_id=request_id, voter=who, on_behalf_of=whose, by=by, reason=reason)
                await self._desk.append(of, back)
            await self._desk.advance(of)
        return of.request

    async def comment(self, request_id: str, author: str, text: str) -> Request:
        """Adds a comment. The same words twice in a row, from a caller who heard no answer, are one comment.

        Raises:
            Problem: 404, or 409: there are as many as a request can have.
        """
        async with self._desk.opened(request_id, Cause(author)) as of:
            if [(c.author, c.text) for c in of.request.comments[-1:]] != [(author, text)]:
                if len(of.request.comments) >= MOST_COMMENTS:
                    raise Problem(409, "too-many-comments", f"a request has {MOST_COMMENTS} comments at most")
                await self._desk.append(of, RequestCommented(request_id=request_id, author=author, text=text))
        return of.request

    async def waive(
        self, request_id: str, person: Person, gate: str, reason: str, request_digest: str | None
    ) -> Request:
        """Lets the request pass though this gate does not. Doing it again does nothing.

        Raises:
            Problem: 401, 403, 404, 409.
        """
        async with self._desk.opened(request_id, Cause(person.subject)) as of:
            await self.directory.seen(of.tx, person, of.at, held=request_id)
            await self._desk.advance(of)
            outcome = await self._waiver(of, person, gate, reason, request_digest)
            if isinstance(outcome, Waiver):
                await self._desk.append(of, GateWaived(request_id=request_id, waiver=outcome))
                await self._desk.advance(of)
        if isinstance(outcome, Refusal):
            raise refused(outcome)
        return of.request

    async def _waiver(
        self, of: Open, person: Person, gate_id: str, reason: str, request_digest: str | None
    ) -> Waiver | Refusal | None:
        request = of.request
        if request_digest not in (None, request.request_digest):
            return Refusal("request-changed", "this is not the request you saw; read it again")
        if any((waiver.gate, waiver.by) == (gate_id, person.subject) for waiver in request.waivers):
            return None
        if ended := over(request):
            return ended
        person = await self.directory.counting(of.tx, person, request.place)
        sight = await self._desk.sights.of(of.tx, request, of.at)
        gate = sight.needs.gate(gate_id)
        said = next((g.result for g in sight.found.gates if g.gate == gate_id), "")
        if gate is None:
            known = ", ".join(g.id for g in sight.needs.gates) or "none"
            raise Problem(404, "gate-not-found", f"the request has no gate {gate_id}; its gates: {known}")
        theirs = barred(request.case, sight.needs, person.subject, person.email, sight.members)
        if no := _may_not_waive(gate, said, person) or theirs or step_up(sight.needs, person, of.at):
            return no
        return Waiver(
            gate=gate_id,
            by=person.subject,
            groups=tuple(sorted(person.groups)),
            reason=reason,
            at=of.at,
            auth_method=person.method,
            request_digest=request.request_digest,
        )

    async def look(self, request_id: str) -> Request:
        """Looks at the request anew and moves it on."""
        async with self._desk.opened(request_id) as of:
            return await self._desk.advance(of)


def _may_not_waive(gate: Gate, said: str, person: Person) -> Refusal | None:
    if said in ("pass", "waived", "pending"):
        return Refusal("gate-is-good", f"{gate.id} is {said}; there is nothing to waive")
    if gate.spec.never_skip or not gate.may_pass_by(said):
        return Refusal("gate-not-waivable", f"the policy lets nobody waive {gate.id} when it is {said}")
    if not person.person:
        return Refusal("service-account", f"{person.subject} is a service account; only people waive")
    if not (person.may_vote and may_waive(gate, said, person.groups)):
        groups = " and ".join("/".join(sorted(one)) for one in gate.may_pass_by(said))
        return Refusal("not-entitled", f"{person.subject} may not waive {gate.id}; somebody of {groups} may")
    return None


def over(request: Request) -> Refusal | None:
    if request.status == domain.EXPIRED:
        return Refusal(domain.EXPIRY, f"the request expired at {request.expires_at.isoformat()}")
    if request.status != domain.OPEN:
        return Refusal("request-closed", f"the request is {request.status} already")
    return None
