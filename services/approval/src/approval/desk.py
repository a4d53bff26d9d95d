"""Where every request is dealt with: under the lock of its stream, it is looked at anew and moved on as far as it can.

Whatever happened (a vote, an answer, an event of the registry, time), `advance` does the same: bind the request to what
holds now, evaluate the gates, decide if it can be decided, and note what it waits for.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from approval import binding, domain, standing, turns, views
from approval.changes import locked
from approval.clock import Clock
from approval.domain import Request
from approval.keyring import Keyring
from approval.settings import ApprovalSettings
from approval.sight import Sight, Sights, decided, evaluated
from contracts.approval import (
    PolicyProposed,
    PolicyPublished,
    RequestClosed,
    RequestDecided,
    RequestOpened,
    RequestRebound,
    Verdict,
)
from contracts.payload import Message
from contracts.registry import Approval
from kit.auth import Access
from kit.db import Database
from kit.events import Cause, EventLog, New, TooLarge
from kit.problems import Problem
from kit.signed import TooLong
from policy.document import recorded
from policy.outlook import not_in_time
from policy.people import approvals, excluded

log = structlog.get_logger()
SYSTEM = "hallmark/approval"
LOCKED = "policies-locked"
ACTING = "somebody is acting on it at this moment"


@dataclass
class Open:
    """A request in a transaction that holds its stream. `last` is the stream's last sequence, as far as written."""

    tx: AsyncConnection
    request: Request
    last: int
    at: datetime
    cause: Cause


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
        self.sights = Sights(access, self._settle)

    @asynccontextmanager
    async def opened(self, request_id: str, cause: Cause | None = None) -> AsyncIterator[Open]:
        """The request, in a transaction of its own that holds its stream. `cause`: who acts on it, if somebody does.

        Raises:
            Problem: 404, there is no such request.
        """
        async with self.db.transaction() as tx:
            if cause is not None:
                await self.log.announce(tx, request_id)
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
        try:
            if own.request.status == domain.OPEN and not await self._expired(own):
                await self._bind(own)
                # What it rests on now may let it live for a shorter time.
                if own.request.status == domain.OPEN and not await self._expired(own):
                    sight = await self._judge(own, approving)
        except (TooLarge, TooLong) as error:
            await self._give_up(own, f"too much is to be judged: {error}")
        await self._note(own, sight)
        of.request, of.last = own.request, own.last
        return own.request

    async def _expired(self, of: Open) -> bool:
        if of.at < of.request.expires_at:
            return False
        why = not_in_time(of.request.expires_at)
        if isinstance(of.request.opened, RequestOpened) and of.request.outlived:
            sight = await self.sights.of(of.tx, of.request, of.at)
            await self._decide(of, sight, Verdict.REJECTED, why)
        else:
            await self.close(of, domain.EXPIRY, why)
        return True

    async def close(self, of: Open, code: str, detail: str) -> None:
        log.info("request closed", request_id=of.request.request_id, code=code)
        await self.append(of, RequestClosed(request_id=of.request.request_id, code=code, detail=detail[:9_000]))

    async def _bind(self, of: Open) -> None:
        """Binds the request anew when what it rests on has changed: what people did so far is void, visibly."""
        request = of.request
        found = await binding.current(of.tx, request, of.at)
        if found is None:
            await self.close(of, "superseded", "another revision of the policy was published meanwhile")
            return
        if found.request_digest == request.request_digest:
            return
        voided = {vote.voter for vote in request.votes} | {waiver.by for waiver in request.waivers}
        voided |= {request.glass.by} if request.glass else set()
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
                steps=found.steps,
            ),
        )

    async def _judge(self, of: Open, approving: bool) -> Sight:
        sight = await self.sights.of(of.tx, of.request, of.at)
        before = [(gate.gate, gate.result) for gate in of.request.gates]
        if of.request.gates_passed is None or before != [(gate.gate, gate.result) for gate in sight.found.gates]:
            await self.append(of, evaluated(of.request, sight))
        match sight.found.verdict:
            case Verdict.APPROVED if not approving:
                return sight
            case Verdict.APPROVED if not (sight.found.emergency or await self._alone(of)):
                # Theirs may be a rejection, which wins over an approval of the same moment.
                return sight.waiting("settling", ACTING, of.at + self._settle)
            case Verdict.APPROVED if first := await self._before(of, sight):
                why = f"approved; request {first.request_id} is approved for {first.target} too, and goes first"
                return sight.waiting("schedule", why, first.holds_until)
            case Verdict():
                await self._decide(of, sight, sight.found.verdict, sight.found.reason)
        return sight

    async def _before(self, of: Open, sight: Sight) -> Request | None:
        """Who has to be carried out first. An emergency waits for nobody, nor does the way back that was approved with
        the present occupant: the registry lets that pass only while it is there."""
        if sight.found.emergency or sight.needs.preapproved or isinstance(of.request.opened, PolicyProposed):
            return None
        return await turns.before(of.tx, of.request, of.at)

    async def _alone(self, of: Open) -> bool:
        return await self.log.unannounced(of.tx, of.request.request_id)

    async def _decide(self, of: Open, sight: Sight, verdict: Verdict, why: str) -> None:
        """Signs and records the decision, in the transaction that found it due."""
        if isinstance(of.request.opened, PolicyProposed):
            await self._publish(of, sight, of.request.opened, verdict, why)
            return
        decision = decided(of.request, of.request.opened, sight, verdict, why)
        message = RequestDecided(
            decision=decision,
            jws=self._keyring.sign(decision),
            inputs=of.request.inputs,
            documents={ref.digest: policy.text for ref, policy in sight.policies},
        )
        log.info("request decided", request_id=of.request.request_id, verdict=str(verdict), reason=why)
        await self.append(of, message)

    async def _give_up(self, of: Open, why: str) -> None:
        """Ends a request of which no event can tell all that it should, rather than let it hang."""
        log.error("request cannot be recorded", request_id=of.request.request_id, reason=why)
        if isinstance(of.request.opened, PolicyProposed):
            await self.close(of, "rejected", why)
            return
        sight = await self.sights.of(of.tx, of.request, of.at)
        whole = decided(of.request, of.request.opened, sight, Verdict.REJECTED, why)
        decision = whole.model_copy(update={"gates": (), "votes": (), "waived": ()})
        await self.append(of, RequestDecided(decision=decision, jws=self._keyring.sign(decision)))

    async def _publish(self, of: Open, sight: Sight, proposed: PolicyProposed, verdict: Verdict, why: str) -> None:
        if verdict is Verdict.REJECTED:
            await self.close(of, "rejected", why)
            return
        # Others were published since it was asked for.
        together = [recorded(proposed.document), *await views.others_than(of.tx, proposed.policy.name)]
        if none_could := locked(together, of.at):
            await self.close(of, LOCKED, none_could)
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
        digest, bound_at = request.request_digest, request.bound_at
        await standing.store(of.tx, request.request_id, digest, bound_at, of.at, found)

    async def _afterwards(self, of: Open) -> standing.Standing:
        """What may still come due of a request that is decided."""
        request, glass = of.request, of.request.glass
        if request.status != domain.APPROVED:
            return standing.Standing("decided", "", None)
        due: list[datetime] = []
        [glance] = await self.sights.glances(of.tx, [request], of.at)
        every = glance.needs.reapprove_every
        if request.decision is not None and request.lapsed is None and every is not None:
            due.append(request.decision.decided_at + every)
        if glass is None or request.reviewed:
            return standing.Standing("decided", "", min(due, default=None))
        if request.overdue is None:
            due.append(glass.review_by)
        return standing.Standing(
            phase="review",
            waits_for="a review of the emergency",
            due_at=min(due, default=None),
            asked=frozenset(glass.review),
            barred=frozenset(excluded(request.case, glance.needs, glance.members)) | {glass.by.casefold()},
            heard=frozenset(review.reviewer for review in request.standing_reviews),
        )
