"""Gathers what the bundle of a version is made of, from the log as it is published now."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from audit.out.dsse import BytesSigner
from audit.out.evidence.bundle import write_bundle
from audit.out.evidence.dossier import dossier_of
from audit.out.query import LOST, Entries, Query
from audit.out.rows import Row
from audit.tlog.archive import Damage
from audit.tlog.proofs import Proofs
from audit.tlog.publisher import Publisher
from contracts.approval import DECISION_TYPE, RequestDecided
from kit.auth import KeySource
from kit.db import Signal
from kit.problems import Problem
from policy.signature import BadSignature, taken_apart

MAX_EVENTS = 20_000
MAX_BYTES = 16 << 20  # in memory they take some ten times that
AT_ONCE = 2
TURN_SECONDS = 20.0
IN_MEMORY = 16 << 20
CATCH_UP_SECONDS = 5.0
# The RFC 3161 token of the checkpoint of that size, or None where there is none.
Token = Callable[[int], Awaitable[bytes | None]]


async def no_token(size: int) -> bytes | None:
    return None


@dataclass(frozen=True)
class Bundles:
    """`projected` fires when the views have read more. `keys`: those that decisions are signed with; without them no
    decision can be verified, and each says so."""

    entries: Entries
    proofs: Proofs
    publisher: Publisher
    signer: BytesSigner
    projected: Signal
    keys: KeySource | None = None
    token: Token = no_token
    policy: Callable[[], str | None] = lambda: None
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def of(self, workspace: str, model: str, version: int, since: int | None = None) -> IO[bytes]:
        """The zip, at its beginning. `since`: the size of a tree that this one is to be proved to begin with.

        Raises:
            Problem: 404, the log knows nothing of the version; 413, it knows too much; 503, the views are behind, or
                others take too long.
            Damage: entries of the version are lost.
        """
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self.turns.acquire()
        except TimeoutError as error:
            raise Problem(503, "unavailable", "bundles of others are being made; try again") from error
        try:
            return await self._made(workspace, model, version, since)
        finally:
            self.turns.release()

    async def _made(self, workspace: str, model: str, version: int, since: int | None) -> IO[bytes]:
        published = await self.publisher.current()
        head = published.checkpoint
        grown = None if since is None else (since, await self.proofs.consistency(since, head.size))
        await self._caught_up(head.size)
        query = Query(0, head.size, workspace, model, version, of_model=True)
        rows = await self._rows(query)
        if all(row.fields["version"] is None for row in rows):
            raise Problem(404, "no-such-version", f"the log knows nothing of version {version} of {model}")
        jwks = await self._jwks(rows)
        paths = await self.proofs.paths(head.size)
        target = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 the caller closes it
        await write_bundle(
            target,
            await asyncio.to_thread(dossier_of, workspace, model, version, rows, jwks),
            head=head,
            note=published.note,
            proofs={one.index: one.path for one in await paths.of(row.stored.index for row in rows)},
            vkeys=self.publisher.vkeys,
            jwks=jwks,
            signer=self.signer,
            timestamp=await self.token(head.size),
            grown=grown,
            policy=self.policy(),
        )
        target.seek(0)
        return target

    async def _rows(self, query: Query) -> list[Row]:
        rows: list[Row] = []
        held = 0
        async for batch in self.entries.batches(query):
            rows += batch
            held += sum(len(row.stored.full) for row in batch)
            if len(rows) > MAX_EVENTS:
                raise Problem(413, "too-many-events", f"more than {MAX_EVENTS} events: use the export")
            if held > MAX_BYTES:
                raise Problem(413, "too-much-evidence", f"more than {MAX_BYTES >> 20} MiB of events: use the export")
            for row in batch:
                if (row.fields["problem"] or "").startswith(LOST):
                    raise Damage(f"entry {row.stored.index} cannot be shown: {row.fields['problem']}")
        return rows

    async def _caught_up(self, size: int) -> None:
        """A bundle that leaves out the newest events would say too little."""
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS):
                while await self.entries.known() < size:
                    await self.projected.wait(0.2)
        except TimeoutError as error:
            raise Problem(503, "unavailable", "the views have not read the whole log yet; try again") from error

    async def _jwks(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The keys that the decisions name, also those that are revoked by now."""
        found: dict[str, dict[str, Any]] = {}
        for row in rows:
            message = row.reading.message
            jws = message.jws if isinstance(message, RequestDecided) else getattr(message, "decision", None)
            if self.keys is None or not isinstance(jws, str):
                continue
            try:
                kid = taken_apart(jws, DECISION_TYPE).kid
            except BadSignature:
                continue
            if kid not in found and (key := await self.keys.find(kid)) is not None:
                found[kid] = {**key.as_dict(private=False), "kid": kid}
        return {"keys": [found[kid] for kid in sorted(found)]}
