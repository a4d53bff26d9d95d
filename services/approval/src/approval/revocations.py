"""Revocation: a version that was let in must not be used any more. Signed, for the registry to carry out at once."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from approval import copies, turns, views
from approval.desk import Desk
from approval.keyring import Keyring
from contracts.approval import Revocation, RevocationOrdered
from contracts.envelope import new_id
from contracts.lifecycle import stream_of, subject_of
from kit.events import Cause, New
from kit.problems import Problem


class Revocations:
    def __init__(self, desk: Desk, keyring: Keyring) -> None:
        self._desk, self._keyring = desk, keyring

    async def revoke(
        self, workspace: str, model: str, version: int, *, by: str, reason: str, fallback: int | None = None
    ) -> RevocationOrdered:
        """Orders that nobody uses the version any more. Its stage returns to `fallback`, else to the version that was
        approved with it as the one to roll back to, else to what the registry knows to be the last good one. Ordering
        the same again, while the registry has not carried it out, gives the same order: signed anew, when the key that
        signed it counts no more, so that the registry cannot carry it out.

        Raises:
            Problem: 404, the version is not known; 409, it is revoked already; 422, the fallback makes no sense.
        """
        stream = stream_of(workspace, model)
        async with self._desk.db.transaction() as tx:
            last = await self._desk.log.lock(tx, stream)
            known = await copies.digests(tx, workspace, model, version)
            if known is None:
                raise Problem(
                    404, "version-not-found", f"no version {version} of {stream}; it may not have arrived yet"
                )
            candidate: dict[str, Any] = await copies.candidate(tx, workspace, model, version) or {}
            if candidate.get("revoked"):
                raise Problem(409, "version-revoked", f"version {version} of {stream} is revoked already")
            chosen = await self._fallback(tx, workspace, model, version, fallback)
            async for envelope in self._desk.log.read(tx, stream=stream, type_=RevocationOrdered.TYPE):
                earlier = envelope.payload(RevocationOrdered)
                said = earlier.revocation
                same = (said.version, said.revoked_by, said.reason, said.fallback) == (version, by, reason, chosen)
                if same and self._keyring.counts(earlier.jws, Revocation, said.revoked_at):
                    return earlier
            at = await self._desk.clock(tx)
            revocation = Revocation(
                revocation_id=str(new_id()),
                workspace=workspace,
                model=model,
                version=version,
                digest=known[0],
                artifact_digest=known[1],
                revoked_by=by,
                reason=reason,
                fallback=chosen,
                revoked_at=at,
            )
            ordered = RevocationOrdered(revocation=revocation, jws=self._keyring.sign(revocation))
            news = [New(ordered, subject_of(workspace, model, version))]
            for envelope in await self._desk.log.append(tx, stream, last, news, Cause(by), at):
                await views.project(tx, envelope)
            return ordered

    async def _fallback(
        self, tx: AsyncConnection, workspace: str, model: str, version: int, given: int | None
    ) -> int | None:
        if given is not None:
            if given == version:
                raise Problem(422, "bad-fallback", "the fallback must be another version")
            other = await copies.candidate(tx, workspace, model, given)
            if other is None or other.get("revoked"):
                raise Problem(422, "bad-fallback", f"version {given} is not known, or revoked itself")
            return given
        for target in await copies.stays(tx, workspace, model, version):
            approved = await views.decision_of(tx, workspace, model, version, target)
            if approved and approved.decision and approved.decision.rollback_to:
                return approved.decision.rollback_to
        # The registry lets a version in before it is known here that it did.
        for entering in await turns.holding(tx, workspace, model, await self._desk.clock(tx)):
            decision = entering.decision
            if decision and decision.version == version and decision.rollback_to:
                return decision.rollback_to
        return None
