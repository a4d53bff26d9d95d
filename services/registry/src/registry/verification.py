"""From pending to ready: the store must hold exactly the declared bytes, and what they are is looked at.

Every replica looks for pending versions; a session lock of the version keeps two from doing the same work, and dies
with its process. The bytes go from the store to a process of their own (`inspection`), never through this one.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import sqlalchemy as sa
import structlog
from prometheus_client import Counter, Histogram

from contracts.model import Artifact, ArtifactFile, Inspection, Signature
from kit.db import Database
from kit.errors import is_transient
from kit.problems import Problem
from kit.tasks import cancel
from registry import queries
from registry.artifacts import Artifacts, Aside
from registry.commands import Commands
from registry.inspection import SCANNER, InspectionFailed, Inspector, Job, Part, contradiction

log = structlog.get_logger()
POLL_SECONDS = 1.0
MAX_PAUSE_SECONDS = 60.0
MAX_FAILURES = 3  # of the process that reads an artifact; then it is the artifact's fault
Key = tuple[str, str, int]
Refusal = tuple[str, str, str | None]
VERIFIED = Counter("hallmark_registry_verifications_total", "Versions verified", ["outcome"])
SECONDS = Histogram("hallmark_registry_verification_seconds", "From the start of a verification to its end")


class Verification:
    """`at_once`: how many versions at the same time; each takes a process and a database session."""

    def __init__(
        self, db: Database, commands: Commands, artifacts: Artifacts, inspector: Inspector, *, at_once: int
    ) -> None:
        self._db, self._commands, self._artifacts, self._inspector = db, commands, artifacts, inspector
        self._at_once = at_once
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._paused: dict[Key, tuple[float, float]] = {}  # until when, and how long the next pause is
        self._failures: dict[str, int] = {}

    async def run(self) -> None:
        """Runs until cancelled."""
        try:
            while True:
                async with self._db.snapshot() as tx:
                    waiting = await queries.pending(tx, 10 * self._at_once + len(self._paused))
                keys = {(row["workspace"], row["model"], row["version"]) for row in waiting}
                # Others verified the rest of them.
                self._paused = {key: pause for key, pause in self._paused.items() if key in keys}
                for row in waiting:
                    key = (row["workspace"], row["model"], row["version"])
                    if len(self._running) < self._at_once and key not in self._running and self._due(key):
                        task = asyncio.create_task(self._one(key, row))
                        self._running[key] = task
                        task.add_done_callback(partial(self._done, key))
                await self._db.changed.wait(POLL_SECONDS)
        finally:
            await cancel(list(self._running.values()))

    def _due(self, key: Key) -> bool:
        until, _ = self._paused.get(key, (0.0, 0.0))
        return time.monotonic() >= until

    def _done(self, key: Key, _: asyncio.Task[None]) -> None:
        self._running.pop(key, None)
        self._db.changed.set()  # there is room for the next

    async def _one(self, key: Key, row: dict[str, Any]) -> None:
        try:
            async with self._lock(key) as mine:
                if not mine:
                    self._pause(key)
                    return
                with SECONDS.time():
                    await self._verify(key, row)
            self._paused.pop(key, None)
        except Exception as error:
            self._pause(key)
            # Both are tried again: nothing may stay pending because of a defect of ours, and nothing may pass by it.
            report = log.warning if is_transient(error) else log.error
            report("verification failed; trying again", version="/".join(map(str, key)), error=repr(error))

    def _pause(self, key: Key) -> None:
        _, pause = self._paused.get(key, (0.0, 0.5))
        self._paused[key] = (time.monotonic() + pause, min(pause * 2, MAX_PAUSE_SECONDS))

    @asynccontextmanager
    async def _lock(self, key: Key) -> AsyncIterator[bool]:
        """Whether this task has the version for itself, and the version is still pending."""
        name = {"key": f"registry.verification:{'/'.join(map(str, key))}"}
        async with self._db.engine.connect() as connection:
            session = await connection.execution_options(isolation_level="AUTOCOMMIT")
            take, leave = (f"select pg_{verb}(hashtextextended(:key, 0))" for verb in _LOCK_VERBS)
            mine = bool(await session.scalar(sa.text(take), name))
            try:
                yield mine and await self._is_pending(key)
            finally:
                if mine:
                    await session.execute(sa.text(leave), name)

    async def _is_pending(self, key: Key) -> bool:
        async with self._db.snapshot() as tx:
            [document] = await queries.version_documents(tx, key[0], key[1], numbers=[key[2]])
        return bool(document["status"] == "pending")

    async def _verify(self, key: Key, row: dict[str, Any]) -> None:
        artifact = Artifact.model_validate(row["content"]["artifact"], strict=False)
        declared = Signature.model_validate(row["content"]["signature"], strict=False)
        inspection: Inspection | None = None
        if all(part.source is None for part in artifact.parts()):  # what lies at an address is looked at each time
            async with self._db.snapshot() as tx:
                inspection = await queries.inspection_of(tx, artifact, SCANNER)
        refusal: Refusal | None = None
        kept: list[Aside] = []
        if inspection is None:
            inspection, refusal = await self._examine(artifact, row["registered_by"], key[0], kept)
        if refusal is None and (text := contradiction(declared, inspection.signature)) is not None:
            refusal = ("signature-contradiction", f"the declared schema is not the file's: {text}", None)
        await self._commands.verified(*key, inspection, refusal)
        if refusal is None:
            for aside in kept:
                await self._artifacts.release(aside)
        outcome = refusal[0] if refusal else "unsafe" if inspection.unsafe else "ready"
        VERIFIED.labels(outcome).inc()
        log.info("version verified", version="/".join(map(str, key)), outcome=outcome, format=inspection.format)

    async def _examine(
        self, artifact: Artifact, owner: str, workspace: str, kept: list[Aside]
    ) -> tuple[Inspection, Refusal | None]:
        """Reads every file back, from copies that nobody else can change; keeps them when all is well."""
        asides: dict[str, Aside] = {}
        try:
            for part in artifact.parts():
                if part.digest not in asides:
                    asides[part.digest] = await self._artifacts.set_aside(part, owner, workspace)
            parts = [
                Part(path=p.path, url=self._artifacts.url(asides[p.digest]), digest=p.digest, size=p.size)
                for p in artifact.parts()
            ]
            examined = await self._inspector.run(Job(parts=tuple(parts)))
            found = {part.path: (part.digest, part.size) for part in examined.parts}
            wrong = next((p for p in artifact.parts() if found.get(p.path) != (p.digest, p.size)), None)
            if wrong is not None:
                await self._artifacts.refuse(asides.pop(wrong.digest))
                return examined.inspection, ("artifact-mismatch", _mismatch(wrong, found.get(wrong.path)), wrong.path)
            for digest, aside in asides.items():
                await self._artifacts.keep(aside, digest)
                kept.append(aside)
            return examined.inspection, None
        except InspectionFailed as failed:
            self._failures[artifact.digest] = tries = self._failures.get(artifact.digest, 0) + 1
            if tries < MAX_FAILURES:
                raise
            return Inspection(scanner=SCANNER), (failed.code, failed.detail, None)
        except Problem as problem:
            return Inspection(scanner=SCANNER), (problem.code, problem.detail, problem.extra.get("file"))
        finally:
            for aside in asides.values():
                await self._artifacts.discard(aside)


_LOCK_VERBS = ("try_advisory_lock", "advisory_unlock")


def _mismatch(part: ArtifactFile, found: tuple[str | None, int | None] | None) -> str:
    declared = f"{part.path}: declared {part.digest} with {part.size} bytes"
    if part.source is not None:  # whoever declared it may not be allowed to know what lies there
        return f"{declared}, {part.source} holds something else"
    if found is None or found[0] is None:
        return f"{declared}, the store holds something else"
    return f"{declared}, the store holds {found[0]} with {found[1]} bytes"
