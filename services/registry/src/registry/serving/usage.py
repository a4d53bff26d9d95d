"""Usage: who resolved or watched which version, and when last. Telemetry, not state.

Counted in memory and written every few seconds and at the end, so that reading stays cheap. A process that is killed
loses at most what it counted since the last write.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
import structlog
from prometheus_client import Counter

from contracts.envelope import now
from kit.db import Database

log = structlog.get_logger()
FLUSH_SECONDS = 10.0
MOST_KEYS = 50_000
DROPPED = Counter("hallmark_usage_dropped_total", "Uses not counted because too many were waiting to be written")
How = Literal["resolve", "watch"]

# In the order of the key: two replicas that write the same rows must not wait for each other in a circle.
_UPSERT = sa.text(
    """
    insert into registry.usage as u (workspace, model, version, principal, how, count, first_at, last_at)
    select * from unnest(cast(:workspace as text[]), cast(:model as text[]), cast(:version as integer[]),
        cast(:principal as text[]), cast(:how as text[]), cast(:count as bigint[]),
        cast(:first_at as timestamptz[]), cast(:last_at as timestamptz[]))
    on conflict (workspace, model, version, principal, how) do update set
        count = u.count + excluded.count,
        first_at = least(u.first_at, excluded.first_at),
        last_at = greatest(u.last_at, excluded.last_at)"""
)
_LIST = sa.text(
    """
    select u.version, u.principal, u.how, u.count, u.first_at, u.last_at
    from registry.usage u
    where u.workspace = :workspace and u.model = :model and (u.version, u.principal, u.how)
        > (cast(:version as integer), cast(:principal as text), cast(:how as text))
    order by u.version, u.principal, u.how
    limit :limit"""
)


@dataclass(frozen=True, order=True)
class Use:
    workspace: str
    model: str
    version: int
    principal: str
    how: How


@dataclass
class _Count:
    count: int
    first_at: datetime
    last_at: datetime


class Usage:
    """`present` gives the uses that last: an open watch is a use as long as it is open."""

    def __init__(self, db: Database, present: Callable[[], Iterable[Use]] = tuple) -> None:
        self._db = db
        self._present = present
        self._counts: dict[Use, _Count] = {}
        self._writing = asyncio.Lock()

    def saw(self, use: Use, count: int = 1) -> None:
        at = now()
        known = self._counts.get(use)
        if known is not None:
            known.count += count
            known.last_at = at
        elif len(self._counts) < MOST_KEYS:
            self._counts[use] = _Count(count, at, at)
        else:
            DROPPED.inc()

    async def flush(self) -> int:
        """Writes what was counted, in one statement; gives the number of rows. What fails is kept for the next time."""
        async with self._writing:
            for use in self._present():
                self.saw(use, 0)
            taken, self._counts = self._counts, {}
            if not taken:
                return 0
            rows = sorted(taken.items(), key=lambda item: item[0])
            columns: dict[str, list[Any]] = {
                **{name: [getattr(use, name) for use, _ in rows] for name in Use.__dataclass_fields__},
                **{name: [getattr(count, name) for _, count in rows] for name in _Count.__dataclass_fields__},
            }
            try:
                async with self._db.transaction() as tx:
                    await tx.execute(_UPSERT, columns)
            except BaseException:
                self._put_back(taken)
                raise
            return len(rows)

    async def run(self) -> None:
        """Writes from time to time, and once more when it is cancelled."""
        try:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                await self._try()
        finally:
            await asyncio.shield(self._try())

    async def _try(self) -> None:
        try:
            await self.flush()
        except Exception as error:
            log.warning("usage not written", error=repr(error))

    async def listed(self, workspace: str, model: str, after: tuple[int, str, str], limit: int) -> list[dict[str, Any]]:
        """The uses of a model, by version, principal and how."""
        version, principal, how = after
        async with self._db.snapshot() as tx:
            rows = await tx.execute(
                _LIST,
                {
                    "workspace": workspace,
                    "model": model,
                    "version": version,
                    "principal": principal,
                    "how": how,
                    "limit": limit,
                },
            )
            return [dict(row) for row in rows.mappings()]

    def _put_back(self, taken: dict[Use, _Count]) -> None:
        for use, count in taken.items():
            newer = self._counts.get(use)
            if newer is not None:
                newer.count += count.count
                newer.first_at = count.first_at
            elif len(self._counts) < MOST_KEYS:
                self._counts[use] = count
