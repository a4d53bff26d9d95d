"""What time does: expiry, the end of a settling time, opening windows, escalations, reviews that are overdue, approvals
that lapse. The timers are rows, so that they survive restarts; replicas share them (`SKIP LOCKED`)."""

import asyncio
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from approval import binding, copies, domain, standing, views
from approval.desk import Desk, Open
from contracts.approval import ApprovalLapsed, RequestEscalated, RequestOpened, ReviewOverdue
from policy.needs import needs_of

log = structlog.get_logger()
BATCH = 50
IN_A_ROW = 20  # batches, before it takes breath
AFTER_TROUBLE = timedelta(seconds=30)


class Sweeper:
    """`seconds`: how often it looks."""

    def __init__(self, desk: Desk, seconds: float) -> None:
        self._desk, self._seconds = desk, seconds

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                for _ in range(IN_A_ROW):
                    if not await self.once():
                        break
            except Exception as error:
                log.error("due requests not looked at; trying again", exc_info=error)
            await asyncio.sleep(self._seconds)

    async def once(self) -> int:
        """Looks at some due requests, each in a transaction of its own; gives how many it moved on."""
        async with self._desk.db.transaction() as tx:
            ids = await standing.due(tx, await self._desk.clock(tx), BATCH)
        done = 0
        for request_id in ids:
            try:
                done += await self._one(request_id)
            except Exception as error:
                # One that fails must not keep the others waiting.
                log.error("request not looked at", request_id=request_id, exc_info=error)
                async with self._desk.db.transaction() as tx:
                    await standing.put_off(tx, request_id, await self._desk.clock(tx) + AFTER_TROUBLE)
        return done

    async def _one(self, request_id: str) -> bool:
        async with self._desk.db.transaction() as tx:
            # A transaction that has the stream writes the timer at its end. It is not waited for with the timer locked.
            mine = await standing.is_due(tx, request_id, await self._desk.clock(tx))
            of = await self._desk.try_hold(tx, request_id) if mine else None
            if of is None:
                return False
            await self._desk.advance(of)
            if of.request.status == domain.OPEN:
                await self._escalate(of)
            else:
                await self._afterwards(of)
            return True

    async def _escalate(self, of: Open) -> None:
        sight = await self._desk.sights.of(of.tx, of.request, of.at)
        due = [step for step in binding.to_do(of.request, sight) if step.due <= of.at]
        for step in due:
            asked = sorted(f"group:{group}" for group in binding.asked_of(of.request, sight))
            message = RequestEscalated(
                request_id=of.request.request_id,
                step=step.id,
                action=step.action,
                to=step.to or tuple(asked),
                rule=step.rule,
                ask=sight.found.reason[:9_000],
            )
            await self._desk.append(of, message)
        if due:
            await self._desk.advance(of)

    async def _afterwards(self, of: Open) -> None:
        request, glass = of.request, of.request.glass
        told = False
        passed = request.status == domain.APPROVED and not request.reviewed and not request.overdue
        if glass and passed and of.at >= glass.review_by:
            message = ReviewOverdue(
                request_id=request.request_id,
                page=glass.page if "page" in glass.on_overdue else (),
                frozen="freeze_model" in glass.on_overdue,
            )
            await self._desk.append(of, message)
            if message.frozen:
                await standing.look_again_at(of.tx, of.at, *request.place)
            told = True
        if await self._lapsed(of.tx, of, of.at):
            told = True
        if told:
            await self._desk.advance(of)

    async def _lapsed(self, tx: AsyncConnection, of: Open, at: datetime) -> bool:
        """Notes an approval that is older than its policy allows."""
        request, opened = of.request, of.request.opened
        if request.decision is None or request.lapsed is not None or not isinstance(opened, RequestOpened):
            return False
        policies = await views.bound_policies(tx, request.policies)
        decided_at = request.decision.decided_at
        needs = needs_of(policies, request.inputs, opened_at=request.opened_at, now=decided_at)
        if needs.reapprove_every is None or at < decided_at + needs.reapprove_every:
            return False
        stays = await copies.stays(tx, opened.workspace, opened.model, opened.version)
        latest = await views.decision_of(tx, opened.workspace, opened.model, opened.version, str(opened.to_stage))
        still = str(opened.to_stage) in stays and latest is not None and latest.request_id == request.request_id
        lapse = "alert" if still else "moot"  # it left the stage, or was approved again
        await self._desk.append(
            of, ApprovalLapsed(request_id=request.request_id, decided_at=decided_at, on_lapse=lapse)
        )
        return True
