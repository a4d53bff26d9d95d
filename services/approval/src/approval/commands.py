"""What the registry's events do to requests: open them, close them, change what they rest on."""

from sqlalchemy.ext.asyncio import AsyncConnection

from approval import binding, copies, domain, standing, views
from approval.desk import SYSTEM, Desk
from contracts.approval import RequestOpened
from contracts.envelope import Envelope
from contracts.registry import StageRequested
from kit.errors import Permanent
from kit.events import Cause

REFRESH_AT_ONCE = 20  # open requests of one model; the sweeper looks at the rest


class Commands:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

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
        last = await self._desk.log.lock(tx, envelope.key)
        if await views.request(tx, asked.transition_id) is not None:
            return
        at = await self._desk.clock(tx)
        bound = await binding.of_transition(tx, asked, candidate, until=asked.expires_at, opened_at=at, at=at)
        opened = RequestOpened(
            **binding.transition_of(asked),
            requested_by=asked.requested_by,
            reason=asked.reason,
            fields=asked.fields,
            policies=bound.policies,
            inputs=bound.inputs,
            inputs_digest=bound.inputs_digest,
            request_digest=bound.request_digest,
            expires_at=bound.expires_at,
        )
        await self._desk.begin(tx, last, opened, at, Cause(SYSTEM, envelope.correlationid, envelope.id))

    async def close(self, tx: AsyncConnection, envelope: Envelope, transition_id: str, code: str, detail: str) -> None:
        """Ends a request that the registry has closed on its own: no decision, for nobody waits for one."""
        request = await views.request(tx, transition_id)
        if request is None or request.status != domain.OPEN:
            return
        of = await self._desk.hold(tx, transition_id, Cause(SYSTEM, request.correlationid, envelope.id))
        await standing.hold(tx, *of.request.place)
        if of.request.status == domain.OPEN:
            await self._desk.close(of, code, detail)
            await self._desk.advance(of)

    async def refresh(self, tx: AsyncConnection, envelope: Envelope, workspace: str, model: str) -> None:
        """Looks again at the open requests of a model, of which something has changed."""
        await self._desk.log.lock(tx, envelope.key)
        waiting = await views.open_requests(tx, workspace, model)
        if waiting:
            await standing.hold(tx, workspace, model)
        for request_id in waiting[:REFRESH_AT_ONCE]:
            of = await self._desk.hold(tx, request_id, Cause(SYSTEM, None, envelope.id))
            await self._desk.advance(of)
        at = await self._desk.clock(tx)
        for request_id in waiting[REFRESH_AT_ONCE:]:
            await standing.put_off(tx, request_id, at)
