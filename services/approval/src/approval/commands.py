"""What approval does with requests: open, vote, decide, expire, close. One transaction each."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from joserfc.jwk import OKPKey
from sqlalchemy.ext.asyncio import AsyncConnection

from approval import copies, domain, views
from approval.decision import sign
from approval.domain import Ballot, Refusal, Request, Voter
from approval.gates import variables_of
from approval.matching import Requirements, requirements
from approval.settings import ApprovalSettings
from contracts.approval import (
    Decision,
    GatesEvaluated,
    RequestClosed,
    RequestDecided,
    RequestOpened,
    Verdict,
    Vote,
    VoteCast,
    VoteRefused,
)
from contracts.envelope import Envelope, new_id
from contracts.lifecycle import stream_of, subject_of
from contracts.payload import Message
from contracts.registry import StageRequested, Transition
from kit.db import Database
from kit.errors import Permanent
from kit.events import Cause, EventLog, New
from kit.problems import Problem

log = structlog.get_logger()
SYSTEM = "hallmark/approval"
_STATUS = {
    "comment-required": 422,
    **dict.fromkeys(("request-changed", "request-expired", "request-closed", "already-voted"), 409),
}


class Commands:
    def __init__(self, db: Database, events: EventLog, key: OKPKey, settings: ApprovalSettings) -> None:
        self._db, self._log, self._key, self._settings = db, events, key, settings

    async def open(self, tx: AsyncConnection, envelope: Envelope, asked: StageRequested) -> None:
        """Opens the request that `stage.requested` asks for, evaluates its gates, and decides it if it can.

        Raises:
            Permanent: the event names a version that is not known, or not with these digests.
        """
        candidate = await copies.candidate(tx, asked.workspace, asked.model, asked.version)
        if candidate is None:
            raise Permanent("unknown-version", f"{envelope.subject}: no such version is registered")
        if (candidate["digest"], candidate["artifact"]["digest"]) != (asked.digest, asked.artifact_digest):
            raise Permanent("digest-mismatch", f"{envelope.subject}: registered with other digests than requested")
        last = await self._log.lock(tx, envelope.key)
        if await views.request(tx, asked.transition_id) is not None:
            return
        at = await views.clock(tx)
        inputs = await _inputs(tx, asked, candidate, at)
        needed = requirements(await views.current_policies(tx), asked, variables_of(inputs))
        opened = _opened(asked, needed, inputs, at)
        gates = GatesEvaluated(
            request_id=asked.transition_id,
            gates=needed.gates,
            passed=needed.passed,
            inputs_digest=opened.inputs_digest,
        )
        cause = Cause(SYSTEM, envelope.correlationid, envelope.id)
        request = await self._append(tx, last, opened, [opened, gates], cause)
        await self._decide_if_due(tx, last + 2, request, at)

    async def close(self, tx: AsyncConnection, envelope: Envelope, transition_id: str, code: str, detail: str) -> None:
        """Ends a request that the registry has closed on its own: no decision, for nobody waits for one."""
        last = await self._log.lock(tx, envelope.key)
        request = await views.request(tx, transition_id)
        if request is not None and request.status == domain.OPEN:
            await self._close(tx, last, request, code, detail, envelope.id)

    async def vote(self, request_id: str, voter: Voter, ballot: Ballot) -> Request:
        """Records one vote and, when it completes the quorum, waits out the settling time and decides.

        Raises:
            Problem: 404, 409, 422, or 403 (which is recorded as an event).
        """
        async with self._db.transaction() as tx:
            request, outcome, voted = await self._vote(tx, request_id, voter, ballot)
        if isinstance(outcome, Refusal):
            raise Problem(_STATUS.get(outcome.code, 403), outcome.code, outcome.detail)
        if voted and request.status == domain.OPEN:
            # A rejection cast at the same moment as the last approval must win, so the decision waits a little.
            await asyncio.sleep(self._settings.settle_seconds)
            return await self.settle(request_id)
        return request

    async def _vote(
        self, tx: AsyncConnection, request_id: str, voter: Voter, ballot: Ballot
    ) -> tuple[Request, Vote | Refusal | None, bool]:
        request = await self._known(tx, request_id)
        last = await self._log.lock(tx, _stream(request.opened))
        request = await self._known(tx, request_id)
        at = await views.clock(tx)
        rules = await views.rules_of(tx, request)
        outcome = domain.cast(request, rules, voter, ballot, at)
        cause = Cause(voter.subject, request.correlationid)
        match outcome:
            case Vote():
                cast = VoteCast(request_id=request_id, vote=outcome)
                request = await self._append(tx, last, request.opened, [cast], cause)
                settling = self._settings.settle_seconds > 0
                request = await self._decide_if_due(tx, last + 1, request, at, settling=settling)
                return request, outcome, domain.verdict(request, rules) is not None
            case Refusal(code=domain.EXPIRY) if request.status == domain.OPEN:
                request = await self._decide_if_due(tx, last, request, at)
            case Refusal(recorded=True):
                refused = VoteRefused(
                    request_id=request_id,
                    voter=voter.subject,
                    choice=ballot.choice,
                    code=outcome.code,
                    detail=outcome.detail,
                )
                # Once per person and reason: evidence needs no repetition, and nobody can flood the log.
                if refused not in request.refusals:
                    request = await self._append(tx, last, request.opened, [refused], cause)
        return request, outcome, False

    async def settle(self, request_id: str) -> Request:
        """Decides the request if it is due: expired, or its quorum is complete and settled."""
        async with self._db.transaction() as tx:
            request = await self._known(tx, request_id)
            last = await self._log.lock(tx, _stream(request.opened))
            request = await self._known(tx, request_id)
            if request.status == domain.OPEN:
                request = await self._decide_if_due(tx, last, request, await views.clock(tx))
        return request

    async def sweep(self) -> None:
        """Runs for ever: decides what no vote will decide any more. Replicas may all run it."""
        while True:
            async with self._db.snapshot() as tx:
                due = await views.due(tx, self._settings.settle_seconds)
            for request_id in due:
                try:
                    await self.settle(request_id)
                except Exception as error:
                    # One that fails must not keep the others waiting; the next round tries it again.
                    log.error("request not settled", request_id=request_id, exc_info=error)
            await asyncio.sleep(self._settings.sweep_seconds)

    async def _decide_if_due(
        self, tx: AsyncConnection, last: int, request: Request, at: datetime, *, settling: bool = False
    ) -> Request:
        """`settling`: an approval has to wait still; expiry and rejections never do."""
        if at >= request.opened.expires_at:
            why = f"not decided before {request.opened.expires_at.isoformat()}"
            if request.outlived:
                return await self._decide(tx, last, request, Verdict.REJECTED, why, at)
            return await self._close(tx, last, request, domain.EXPIRY, why, request.last_event)
        decided = domain.verdict(request, await views.rules_of(tx, request))
        if decided is None or (settling and decided[0] is Verdict.APPROVED):
            return request
        return await self._decide(tx, last, request, *decided, at)

    async def _decide(
        self, tx: AsyncConnection, last: int, request: Request, verdict: Verdict, why: str, at: datetime
    ) -> Request:
        """Signs and records the decision, in the transaction that found it due."""
        opened = request.opened
        decision = Decision(
            **_transition(opened),
            decision_id=str(new_id()),
            verdict=verdict,
            reason=why,
            requested_by=opened.requested_by,
            policies=opened.policies,
            gates=request.gates,
            votes=request.votes,
            inputs_digest=opened.inputs_digest,
            request_digest=opened.request_digest,
            decided_at=at,
            expires_at=opened.expires_at,
        )
        decided = RequestDecided(decision=decision, jws=sign(decision, self._key))
        log.info("request decided", request_id=opened.transition_id, verdict=str(verdict), reason=why)
        return await self._append(tx, last, opened, [decided], Cause(SYSTEM, request.correlationid, request.last_event))

    async def _close(
        self, tx: AsyncConnection, last: int, request: Request, code: str, detail: str, causationid: str
    ) -> Request:
        closed = RequestClosed(request_id=request.opened.transition_id, code=code, detail=detail[:9_000])
        log.info("request closed", request_id=closed.request_id, code=code)
        return await self._append(tx, last, request.opened, [closed], Cause(SYSTEM, request.correlationid, causationid))

    async def _append(
        self, tx: AsyncConnection, last: int, opened: RequestOpened, messages: Sequence[Message], cause: Cause
    ) -> Request:
        """Appends and projects; gives the request as it is now."""
        subject = subject_of(opened.workspace, opened.model, opened.version)
        news = [New(message, subject) for message in messages]
        for envelope in await self._log.append(tx, _stream(opened), last, news, cause):
            await views.project(tx, envelope)
        return await self._known(tx, opened.transition_id)

    async def _known(self, tx: AsyncConnection, request_id: str) -> Request:
        request = await views.request(tx, request_id)
        if request is None:
            raise Problem(404, "request-not-found", f"no request {request_id}; it may not have arrived yet")
        return request


async def _inputs(
    tx: AsyncConnection, asked: StageRequested, candidate: dict[str, Any], at: datetime
) -> dict[str, Any]:
    """All that gates may look at, frozen into the request."""
    place = (asked.workspace, asked.model)
    return {
        "candidate": candidate,
        "baseline": await copies.occupant(tx, *place, asked.to_stage, other_than=asked.version),
        "model": await copies.model(tx, *place),
        "request": {
            "transition_id": asked.transition_id,
            "kind": str(asked.kind),
            "from": str(asked.from_stage),
            "to": str(asked.to_stage),
            "reason": asked.reason,
            "requested_by": asked.requested_by,
            "expires_at": asked.expires_at.astimezone(UTC).isoformat(),
        },
        "now": at.astimezone(UTC).isoformat(),
    }


def _opened(asked: StageRequested, needed: Requirements, inputs: dict[str, Any], at: datetime) -> RequestOpened:
    inputs_digest = domain.digest_of(inputs)
    return RequestOpened(
        **_transition(asked),
        requested_by=asked.requested_by,
        reason=asked.reason,
        policies=needed.policies,
        inputs=inputs,
        inputs_digest=inputs_digest,
        request_digest=domain.request_digest(asked, needed.policies, inputs_digest),
        expires_at=min(asked.expires_at, at + needed.expires_after) if needed.expires_after else asked.expires_at,
    )


def _transition(of: Transition) -> dict[str, Any]:
    return {name: getattr(of, name) for name in Transition.model_fields}


def _stream(of: Transition) -> str:
    return stream_of(of.workspace, of.model)
