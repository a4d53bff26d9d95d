"""Where every request is dealt with: under the lock of its stream, it is looked at anew and moved on as far as it can.

Whatever happened (a vote, an answer, an event of the registry, time), `advance` does the same: bind the request to what
holds now, evaluate the gates, decide if it can be decided, and note what it waits for.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from approval import binding, domain, standing, views
from approval.clock import Clock
from approval.domain import Request
from approval.keyring import Keyring
from approval.settings import ApprovalSettings
from contracts.access import Action
from contracts.approval import (
    Decision,
    GatesEvaluated,
    PolicyProposed,
    PolicyPublished,
    RequestClosed,
    RequestDecided,
    RequestOpened,
    RequestRebound,
    Verdict,
    Vote,
)
from contracts.envelope import new_id
from contracts.payload import Message
from contracts.registry import Approval
from kit.auth import Access, Principal
from kit.db import Database
from kit.events import Cause, EventLog, New
from kit.problems import Problem
from policy.document import parse
from policy.needs import InForce, Needs, needs_of
from policy.outlook import Outlook, outlook
from policy.people import Member, Members, approvals, why_not

log = structlog.get_logger()
SYSTEM = "hallmark/approval"
LOCKED = "policies-locked"
NOBODY_COULD = "no policy would be left that is about changes of every policy; nobody could change one any more"


@dataclass
class Open:
    """A request in a transaction that holds its stream. `last` is the stream's last sequence, as far as written."""

    tx: AsyncConnection
    request: Request
    last: int
    at: datetime
    cause: Cause


@dataclass(frozen=True)
class Glance:
    """What the policies ask of a request, and who has acted on it, at one moment."""

    policies: InForce
    needs: Needs
    members: Members
    at: datetime


@dataclass(frozen=True)
class Sight(Glance):
    """What a request is judged by, at one moment."""

    frozen: str | None
    found: Outlook


class Desk:
    def __init__(
        self,
        db: Database,
        events: EventLog,
        keyring: Keyring,
        access: Access,
        settings: ApprovalSettings,
        clock: Clock,
    ) -> None:
        self.db, self.log, self.access, self.clock = db, events, access, clock
        self._keyring, self._settle = keyring, timedelta(seconds=settings.settle_seconds)

    @asynccontextmanager
    async def opened(self, request_id: str, cause: Cause | None = None) -> AsyncIterator[Open]:
        """The request, in a transaction of its own that holds its stream.

        Raises:
            Problem: 404, there is no such request.
        """
        async with self.db.transaction() as tx:
            yield await self.hold(tx, request_id, cause)

    async def hold(self, tx: AsyncConnection, request_id: str, cause: Cause | None = None) -> Open:
        request = await self.known(tx, request_id)
        if request.stream.startswith(domain.POLICIES):
            await self.log.lock(tx, domain.POLICIES)
        return await self._held(tx, request_id, await self.log.lock(tx, request.stream), cause)

    async def try_hold(self, tx: AsyncConnection, request_id: str) -> Open | None:
        """As `hold`, or None at once when another transaction has the stream."""
        request = await self.known(tx, request_id)
        if request.stream.startswith(domain.POLICIES) and await self.log.try_lock(tx, domain.POLICIES) is None:
            return None
        last = await self.log.try_lock(tx, request.stream)
        return None if last is None else await self._held(tx, request_id, last, None)

    async def _held(self, tx: AsyncConnection, request_id: str, last: int, cause: Cause | None) -> Open:
        request = await self.known(tx, request_id)
        cause = cause or Cause(SYSTEM, request.correlationid, request.last_event)
        given = replace(cause, correlationid=cause.correlationid or request.correlationid)
        return Open(tx, request, last, await self.clock(tx), given)

    async def known(self, tx: AsyncConnection, request_id: str) -> Request:
        request = await views.request(tx, request_id)
        if request is None:
            raise Problem(404, "request-not-found", f"no request {request_id}; it may not have arrived yet")
        return request

    async def append(self, of: Open, *messages: Message, cause: Cause | None = None) -> None:
        """Appends events of the request and folds them."""
        stream, subject = of.request.stream, of.request.subject
        news = [New(message, subject) for message in messages]
        for envelope in await self.log.append(of.tx, stream, of.last, news, cause or of.cause, of.at):
            await views.project(of.tx, envelope)
            of.last += 1
        of.request = await self.known(of.tx, of.request.request_id)

    async def begin(
        self, tx: AsyncConnection, last: int, opened: RequestOpened | PolicyProposed, at: datetime, cause: Cause
    ) -> Request:
        """Opens a request and moves it on as far as it can. The caller holds its stream, whose last event is `last`."""
        request = domain.evolve(None, opened, at=at, correlationid=cause.correlationid or "", event_id="")
        of = Open(tx, request, last, at, cause)
        await self.append(of, opened)
        own = Cause(SYSTEM, of.request.correlationid, cause.causationid or of.request.last_event)
        of.cause = own
        return await self.advance(of)

    async def advance(self, of: Open, *, approving: bool = True) -> Request:
        """Moves the request on as far as it can. Call it after each change, in the same transaction.

        Before a change, with `approving` off: what waited for its turn while an approval became due comes before it.
        """
        own = replace(of, cause=Cause(SYSTEM, of.request.correlationid, of.cause.causationid or of.request.last_event))
        sight = None
        if own.request.status == domain.OPEN and not await self._expired(own):
            await self._bind(own)
            # What it rests on now may let it live for a shorter time.
            if own.request.status == domain.OPEN and not await self._expired(own):
                sight = await self._judge(own, approving)
        await self._note(own, sight)
        of.request, of.last = own.request, own.last
        return own.request

    async def _expired(self, of: Open) -> bool:
        if of.at < of.request.expires_at:
            return False
        why = f"not decided before {of.request.expires_at.isoformat()}"
        if isinstance(of.request.opened, RequestOpened) and of.request.outlived:
            sight = await self.sight(of.tx, of.request, of.at)
            await self._decide(of, sight, Verdict.REJECTED, why)
        else:
            await self.close(of, domain.EXPIRY, why)
        return True

    async def close(self, of: Open, code: str, detail: str) -> None:
        log.info("request closed", request_id=of.request.request_id, code=code)
        await self.append(of, RequestClosed(request_id=of.request.request_id, code=code, detail=detail[:9_000]))

    async def _bind(self, of: Open) -> None:
        """Binds the request anew when what it rests on has changed: the votes cast so far are void, visibly."""
        request = of.request
        found = await binding.current(of.tx, request, of.at)
        if found is None:
            await self.close(of, "superseded", "another revision of the policy was published meanwhile")
            return
        if found.request_digest == request.request_digest:
            return
        voided = {vote.voter for vote in request.votes} | {
            w.by for w in request.waivers if w.request_digest == request.request_digest
        }
        cause = binding.difference(request, found)
        log.info("request rebound", request_id=request.request_id, cause=cause, voided=len(voided))
        await self.append(
            of,
            RequestRebound(
                request_id=request.request_id,
                cause=cause,
                policies=found.policies,
                inputs=found.inputs,
                inputs_digest=found.inputs_digest,
                request_digest=found.request_digest,
                expires_at=min(found.expires_at, request.opened.expires_at),
                voided=tuple(sorted(voided)),
            ),
        )

    async def sight(self, tx: AsyncConnection, request: Request, at: datetime) -> Sight:
        """What the request is judged by now."""
        [glance] = await self.glances(tx, [request], at)
        needs, members = glance.needs, glance.members
        frozen = await views.frozen(tx, *request.place)
        found = outlook(request.case, needs, at, members=members, settle=self._settle, frozen=frozen)
        return Sight(glance.policies, needs, members, at, frozen, found)

    async def glances(self, tx: AsyncConnection, requests: Sequence[Request], at: datetime) -> list[Glance]:
        """Of many requests in as many queries as of one."""
        known = await views.revisions_of(tx, {ref for request in requests for ref in request.policies})
        rows = await views.members(tx, {who for request in requests for who in _acted(request)})
        found = []
        for request in requests:
            policies = [(ref, known[ref]) for ref in request.policies]
            needs = needs_of(policies, request.inputs, opened_at=request.opened_at, now=at)
            members = {who: self.member(rows[who], request.place) for who in _acted(request) if who in rows}
            found.append(Glance(policies, needs, members.get, at))
        return found

    def member(self, row: Any, place: tuple[str, str]) -> Member:
        """The groups in which somebody is now, as far as the access file lets them vote."""
        groups = frozenset(row.groups)
        principal = Principal(row.subject, groups, "person" if row.person else "service", 0, "record")
        allowed = self.access.allows(principal, Action.VOTE, *place)
        return Member(groups if allowed else frozenset(), row.person)

    async def _judge(self, of: Open, approving: bool) -> Sight:
        sight = await self.sight(of.tx, of.request, of.at)
        before = [(gate.gate, gate.result) for gate in of.request.gates]
        if of.request.gates_passed is None or before != [(gate.gate, gate.result) for gate in sight.found.gates]:
            await self.append(of, _evaluated(of.request, sight))
        if sight.found.verdict is Verdict.REJECTED or (sight.found.verdict is not None and approving):
            await self._decide(of, sight, sight.found.verdict, sight.found.reason)
        return sight

    async def _decide(self, of: Open, sight: Sight, verdict: Verdict, why: str) -> None:
        """Signs and records the decision, in the transaction that found it due."""
        if isinstance(of.request.opened, PolicyProposed):
            await self._publish(of, sight, of.request.opened, verdict, why)
            return
        decision = _decision(of.request, of.request.opened, sight, verdict, why, of.at)
        decided = RequestDecided(
            decision=decision,
            jws=self._keyring.sign(decision),
            inputs=of.request.inputs,
            documents={ref.digest: policy.text for ref, policy in sight.policies},
        )
        log.info("request decided", request_id=of.request.request_id, verdict=str(verdict), reason=why)
        await self.append(of, decided)

    async def _publish(self, of: Open, sight: Sight, proposed: PolicyProposed, verdict: Verdict, why: str) -> None:
        if verdict is Verdict.REJECTED:
            await self.close(of, "rejected", why)
            return
        # Others were published since it was asked for: together they must not leave no policy about policies.
        if not domain.changeable([parse(proposed.document), *await views.others_than(of.tx, proposed.policy.name)]):
            await self.close(of, LOCKED, NOBODY_COULD)
            return
        published = PolicyPublished(
            policy=proposed.policy,
            document=proposed.document,
            published_by=proposed.requested_by,
            request_id=proposed.request_id,
            approved_by=tuple(
                Approval(name=v.voter, at=v.at, meaning=v.meaning)
                for v in approvals(of.request.case, sight.needs, of.at, sight.members)
            ),
        )
        log.info("policy published", policy=proposed.policy.name, revision=proposed.policy.revision)
        await self.append(of, published)
        await standing.look_again(of.tx, of.at)

    async def _note(self, of: Open, sight: Sight | None) -> None:
        """What the request waits for, for the inbox and the timers."""
        request = of.request
        waits = sight is not None and request.status == domain.OPEN
        found = binding.standing(request, sight, of.at) if sight and waits else await self._afterwards(of)
        await standing.store(of.tx, request.request_id, request.request_digest, request.opened_at, of.at, found)

    async def _afterwards(self, of: Open) -> standing.Standing:
        """What may still come due of a request that is decided."""
        request = of.request
        due: list[datetime] = []
        if request.status == domain.APPROVED and request.glass and not request.reviewed and not request.overdue:
            due.append(request.glass.review_by)
        if request.status == domain.APPROVED and request.decision is not None and request.lapsed is None:
            policies = await views.bound_policies(of.tx, request.policies)
            needs = needs_of(policies, request.inputs, opened_at=request.opened_at, now=request.decision.decided_at)
            if needs.reapprove_every is not None:
                due.append(request.decision.decided_at + needs.reapprove_every)
        reviews = request.glass is not None and request.status == domain.APPROVED and not request.reviewed
        asked = frozenset(request.glass.review) if reviews and request.glass else frozenset[str]()
        return standing.Standing(
            phase="review" if reviews else "decided",
            waits_for="a review of the emergency" if reviews else "",
            due_at=min(due, default=None),
            asked=asked,
            barred=frozenset({request.glass.by, request.opened.requested_by}) if request.glass else frozenset(),
            heard=frozenset(review.reviewer for review in request.reviews),
        )


def _acted(request: Request) -> set[str]:
    people = {person for vote in request.votes for person in (vote.voter, vote.on_behalf_of) if person}
    return people | {waiver.by for waiver in request.waivers}


def _evaluated(request: Request, sight: Sight) -> GatesEvaluated:
    blocked = sight.found.phase == "gates" or (
        sight.found.verdict is Verdict.REJECTED and any(g.result not in ("pass", "waived") for g in sight.found.gates)
    )
    return GatesEvaluated(
        request_id=request.request_id,
        gates=sight.found.gates,
        passed=sight.needs.matched and not blocked,
        inputs_digest=request.inputs_digest,
    )


def _counting(request: Request, sight: Sight) -> tuple[Vote, ...]:
    """The votes that count now: not those of people who have left, nor any that has become too old."""
    case, needs = request.case, sight.needs
    return tuple(v for v in request.votes if why_not(case, needs, v, sight.at, sight.members) is None)


def _decision(
    request: Request, opened: RequestOpened, sight: Sight, verdict: Verdict, why: str, at: datetime
) -> Decision:
    waived = {gate.gate for gate in sight.found.gates if gate.result == "waived"}
    return Decision(
        **binding.transition_of(opened),
        decision_id=str(new_id()),
        verdict=verdict,
        reason=why,
        requested_by=opened.requested_by,
        policies=request.policies,
        gates=sight.found.gates,
        votes=_counting(request, sight),
        inputs_digest=request.inputs_digest,
        request_digest=request.request_digest,
        decided_at=at,
        expires_at=request.expires_at,
        waivers=sight.found.waivers if verdict is Verdict.APPROVED else (),
        waived=tuple(w for w in request.waivers if w.gate in waived and w.request_digest == request.request_digest),
        rollback_to=sight.needs.rollback_to,
        break_glass=request.glass if sight.found.emergency else None,
        added_approvers={rule: tuple(sorted(groups)) for rule, groups in request.added.items()},
    )
