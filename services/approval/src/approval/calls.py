"""The worker that asks external checks: leases what is due, calls outside of any transaction, records what it heard.

Any number may run on one database. A worker that dies leaves a lease that runs out, and another one asks again, under
the same message id. When nobody answers in time, the desk counts the gate as an error by itself.
"""

import asyncio
import random
from collections import Counter as Tally
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
import structlog
from prometheus_client import Counter

from approval import domain, views
from approval.answers import Answers, Asked, Said
from approval.asking import Again, Asking, Later, Question, body_of
from approval.desk import Desk
from approval.settings import ApprovalSettings
from approval.tables import CallRow, of
from kit import outbound
from kit.problems import Problem
from kit.tasks import cancel

log = structlog.get_logger()
CALLS = Counter("hallmark_gate_calls_total", "Calls to external checks", ["heard"])
LONGEST_PAUSE = 300.0
NEVER = timedelta(days=3_650)  # the check posts its answer, or the gate's timeout ends the wait
_call = of(CallRow)


@dataclass(frozen=True)
class Lease:
    """A question that this worker may ask now. `attempt` is the fence: a later lease has a higher one."""

    question: Question
    attempt: int


def secrets_of(settings: ApprovalSettings) -> dict[str, str]:
    return {name: secret.get_secret_value() for name, secret in settings.gate_secrets.items()}


def asking_of(settings: ApprovalSettings) -> Asking:
    guard = outbound.Guard(settings.gate_allow, setting="HALLMARK_GATE_ALLOW")
    return Asking(guard, secrets_of(settings), settings.gate_call_seconds)


class Calls:
    def __init__(self, desk: Desk, answers: Answers, asking: Asking, settings: ApprovalSettings) -> None:
        self._desk, self._answers, self._asking, self._settings = desk, answers, asking, settings
        self._running: dict[asyncio.Task[None], str] = {}

    async def run(self) -> None:
        """Runs until cancelled; calls under way are then dropped, for another worker to ask again."""
        try:
            while True:
                try:
                    await self._fill()
                except Exception as error:
                    log.error("calls not leased; trying again", exc_info=error)
                await self._pause()
        finally:
            await cancel([*self._running])
            self._running.clear()

    async def _fill(self) -> None:
        while len(self._running) < self._settings.gate_concurrency and (lease := await self.lease()) is not None:
            task = asyncio.create_task(self._one(lease))
            self._running[task] = lease.question.asked.gate

    async def _pause(self) -> None:
        """Until a call ends, something happens to a request of this process, or it is time to look."""
        news = asyncio.create_task(self._desk.db.changed.wait(self._settings.gate_poll_seconds))
        try:
            await asyncio.wait({news, *self._running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel([news])
        for task in [task for task in self._running if task.done()]:
            del self._running[task]

    async def _one(self, lease: Lease) -> None:
        try:
            await self.make(lease)
        except Exception as error:
            # The lease runs out, and the question is asked again.
            log.error("call not recorded", request_id=lease.question.asked.request_id, exc_info=error)

    async def once(self) -> bool:
        """Makes one call that is due; False: there was none."""
        lease = await self.lease()
        if lease is not None:
            await self.make(lease)
        return lease is not None

    async def make(self, lease: Lease) -> None:
        """Calls, and records what it heard."""
        heard = await self._asking(lease.question)
        CALLS.labels(heard.result if isinstance(heard, Said) else type(heard).__name__.lower()).inc()
        asked = lease.question.asked
        told = {"request_id": asked.request_id, "gate": asked.gate, "attempt": lease.attempt}
        log.info("check asked", **told, heard=str(heard)[:500])
        if isinstance(heard, Said):
            try:
                await self._answers.record(asked, heard)
            except Problem as problem:
                log.info("answer passed over", **told, code=problem.code)
        else:
            await self._wait(lease, heard)

    # -- the queue -----------------------------------------------------------------------------------------------

    async def lease(self) -> Lease | None:
        """Takes what has been due the longest; None: nothing that this worker may ask now."""
        while (taken := await self._take()) is not None:
            asked, attempt = taken
            try:
                question = await self._question(asked)
            except Exception as error:
                # Its lease keeps it from being in the way of others.
                log.error("question not put", request_id=asked.request_id, gate=asked.gate, exc_info=error)
                continue
            if question is not None:
                return Lease(question, attempt)
            async with self._desk.db.transaction() as tx:
                await tx.execute(sa.delete(_call).where(*_of(asked), _call.c.attempts == attempt))
        return None

    async def _take(self) -> tuple[Asked, int] | None:
        share = self._settings.gate_concurrency_each
        full = [gate for gate, count in Tally(self._running.values()).items() if count >= share]
        async with self._desk.db.transaction() as tx:
            at = await self._desk.clock(tx)
            query = (
                sa.select(_call)
                .where(_call.c.next_at <= at, _call.c.gate.not_in(full))
                .where(sa.or_(_call.c.leased_until.is_(None), _call.c.leased_until <= at))
                .order_by(_call.c.next_at)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            row = (await tx.execute(query)).first()
            if row is None:
                return None
            asked = Asked(row.request_id, row.gate, row.request_digest, row.bound_at)
            until = at + timedelta(seconds=self._settings.gate_lease_seconds)
            taken = {"leased_until": until, "attempts": row.attempts + 1}
            await tx.execute(sa.update(_call).where(*_of(asked)).values(taken))
            return asked, row.attempts + 1

    async def _question(self, asked: Asked) -> Question | None:
        """None when the request waits for this answer no more."""
        async with self._desk.db.snapshot() as tx:
            request = await views.request(tx, asked.request_id)
            if request is None or request.status != domain.OPEN or request.bound_at != asked.bound_at:
                return None
            sight = await self._desk.sights.of(tx, request, await self._desk.clock(tx))
        gate = sight.needs.gate(asked.gate)
        waits = any(said.gate == asked.gate and said.result == "pending" for said in sight.found.gates)
        if gate is None or gate.spec.webhook is None or not waits:
            return None
        hook, body = gate.spec.webhook, body_of(request, asked.gate, self._settings.approval_url)
        return Question(asked, hook.url, hook.secret, body)

    async def _wait(self, lease: Lease, heard: Later | Again) -> None:
        async with self._desk.db.transaction() as tx:
            at = await self._desk.clock(tx)
            after = NEVER if isinstance(heard, Later) else timedelta(seconds=self._backoff(lease, heard))
            mine = sa.update(_call).where(*_of(lease.question.asked), _call.c.attempts == lease.attempt)
            await tx.execute(mine.values(next_at=at + after, leased_until=None))

    def _backoff(self, lease: Lease, heard: Again) -> float:
        doubled = self._settings.gate_retry_seconds * 2.0 ** min(lease.attempt - 1, 30)
        return max(heard.after, min(doubled, LONGEST_PAUSE) * random.uniform(0.75, 1.25))  # noqa: S311


def _of(asked: Asked) -> list[sa.ColumnElement[bool]]:
    return [
        _call.c.request_id == asked.request_id,
        _call.c.gate == asked.gate,
        _call.c.bound_at == asked.bound_at,
    ]
