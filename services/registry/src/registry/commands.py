"""What the registry can be asked to do, over HTTP and Kafka alike: load, decide, append, project in one transaction."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.access import Action
from contracts.approval import Decision
from contracts.envelope import new_id, now
from contracts.lifecycle import Stage, stream_of, subject_of
from contracts.payload import Message
from contracts.registry import (
    CommandRejected,
    RegisterModel,
    RegisterVersion,
    RequestTransition,
    RollBack,
    StageChanged,
)
from kit.auth import Access, Principal
from kit.db import Database
from kit.errors import Permanent
from kit.events import Cause, EventLog, New
from kit.inbox import Inbox
from kit.problems import Problem
from registry import domain, queries, views
from registry.artifacts import Artifacts

log = structlog.get_logger()
Command = RegisterModel | RegisterVersion | RequestTransition | RollBack
Document = dict[str, Any]
SYSTEM = "hallmark/registry"
# A request for approval quotes two versions and must fit into an event.
MAX_CONTENT_BYTES = 500_000


class Commands:
    def __init__(
        self,
        db: Database,
        log_: EventLog,
        inbox: Inbox,
        access: Access,
        artifacts: Artifacts,
        *,
        transition_hours: float,
    ) -> None:
        self._db = db
        self._log = log_
        self._inbox = inbox
        self._access = access
        self._artifacts = artifacts
        self._expires_after = timedelta(hours=transition_hours)

    async def prepare(self, command: Command, principal: Principal) -> None:
        """What must happen outside the transaction: authorisation, and reading the artifact back from the store.

        Raises:
            Problem: 403, or 422 when the artifact is not what was declared.
        """
        action = Action.REGISTER
        if isinstance(command, RequestTransition):
            action = Action.REQUEST
        elif isinstance(command, RollBack):
            action = Action.ROLL_BACK
        self._access.require(principal, action, command.workspace, command.model)
        if isinstance(command, RegisterVersion):
            size = len(command.content.model_dump_json())
            if size > MAX_CONTENT_BYTES:
                detail = (
                    f"the version's content has {size} bytes, {MAX_CONTENT_BYTES} is the most; put it in the artifact"
                )
                raise Problem(413, "content-too-large", detail)
            await self._artifacts.ensure(command.content.artifact)

    async def apply(self, tx: AsyncConnection, command: Command, principal: Principal, cause: Cause) -> Document:
        """Runs a prepared command in `tx` and gives the document of what it made.

        Raises:
            Problem: the rules refuse it; nothing was changed.
        """
        stream = stream_of(command.workspace, command.model)
        last = await self._log.lock(tx, stream)
        model = await queries.model_state(tx, command.workspace, command.model)
        try:
            match command:
                case RegisterModel():
                    await self._append(tx, stream, last, domain.decide_register_model(model, command), cause)
                    return await queries.model_document(tx, model.workspace, model.name)
                case RegisterVersion():
                    events = domain.decide_register_version(model, command, principal.subject)
                    await self._append(tx, stream, last, events, cause)
                    number = model.versions + 1
                    return (await queries.version_documents(tx, model.workspace, model.name, numbers=[number]))[0]
                case RequestTransition():
                    return await self._request(tx, model, last, command, principal, cause)
                case RollBack():
                    return await self._roll_back(tx, model, last, command, principal, cause)
        except domain.Refused as refused:
            raise Problem(refused.status, refused.code, refused.detail) from refused

    async def run(
        self, command: Command, principal: Principal, *, request_id: str, key: str | None, digest: str
    ) -> Document:
        """A command over HTTP. The same idempotency key gives the first result again."""
        cause = Cause(actor=principal.subject, correlationid=request_id)
        try:
            await self.prepare(command, principal)
        except Problem as problem:
            if problem.status == 403:
                await self._record_denial(command, cause, request_id, problem)
            raise
        async with self._db.transaction() as tx:
            if key is None:
                return await self.apply(tx, command, principal, cause)
            slot = f"{principal.subject}:{key}"
            stored = await self._inbox.recall(tx, "http", slot, digest)
            if stored is not None:
                return await self._document(tx, stored)
            document = await self.apply(tx, command, principal, cause)
            await self._inbox.remember(tx, "http", slot, _reference(document))
            return document

    async def reject(self, tx: AsyncConnection, rejected: CommandRejected, cause: Cause) -> None:
        """Answers what could not be obeyed, on a stream of its own."""
        stream = f"command:{rejected.command_id}"
        last = await self._log.lock(tx, stream)
        await self._log.append(tx, stream, last, [New(rejected, stream)], cause)

    async def decide(self, tx: AsyncConnection, decision: Decision, jws: str, cause: Cause) -> None:
        """Carries out a decision whose signature was verified.

        Raises:
            Permanent: it is not for an open transition, or not for exactly this one; nothing was changed.
        """
        stream = stream_of(decision.workspace, decision.model)
        last = await self._log.lock(tx, stream)
        waiting = await queries.open_transition(tx, decision.transition_id)
        if waiting is None:
            raise Permanent(
                "decision-replayed", f"transition {decision.transition_id} is not open: unknown, or decided before"
            )
        try:
            asked = waiting.transition
            model = await queries.model_state(tx, asked.workspace, asked.model)
            version = await queries.version_state(tx, model, asked.version)
            policy = ", ".join(f"{p.name} r{p.revision} {p.digest}" for p in decision.policies)[:500] or "none"
            events = domain.decide_outcome(model, version, waiting, decision, jws, policy, now())
        except domain.Refused as refused:
            raise Permanent(refused.code, refused.detail) from refused
        await self._append(tx, stream, last, events, cause)

    async def expire(self) -> int:
        """Refuses every open transition whose time is over; gives their number."""
        async with self._db.snapshot() as tx:
            due = await queries.due_transitions(tx, now())
        for row in due:
            async with self._db.transaction() as tx:
                stream = stream_of(row["workspace"], row["model"])
                last = await self._log.lock(tx, stream)
                waiting = await queries.open_transition(tx, row["transition_id"])
                if waiting is not None:
                    await self._append(tx, stream, last, [domain.decide_expiry(waiting)], Cause(actor=SYSTEM))
        return len(due)

    async def _request(
        self, tx: AsyncConnection, model: domain.Model, last: int, c: RequestTransition, who: Principal, cause: Cause
    ) -> Document:
        version = await queries.version_state(tx, model, c.version)
        if version.stage is Stage.PRODUCTION:
            # Emptying Production is an operator's act, not a contributor's.
            self._access.require(who, Action.ROLL_BACK, c.workspace, c.model)
        identity = str(new_id())
        expires_at = now() + self._expires_after
        events = domain.decide_request(
            model, version, c, transition_id=identity, actor=who.subject, expires_at=expires_at
        )
        await self._refuse_second(tx, c.workspace, c.model, c.version, c.to_stage)
        await self._append(tx, stream_of(c.workspace, c.model), last, events, _caused(cause, identity))
        return await queries.transition_document(tx, identity)

    async def _roll_back(
        self, tx: AsyncConnection, model: domain.Model, last: int, c: RollBack, who: Principal, cause: Cause
    ) -> Document:
        if not model.exists:
            raise queries.no_model(c.workspace, c.model)
        number = c.to_version or await queries.last_good(tx, model, c.stage)
        target = await queries.version_state(tx, model, number) if number else None
        identity = str(new_id())
        expires_at = now() + self._expires_after
        events = domain.decide_rollback(
            model, target, c, transition_id=identity, actor=who.subject, expires_at=expires_at
        )
        assert target is not None
        await self._refuse_second(tx, c.workspace, c.model, target.number, c.stage)
        await self._append(tx, stream_of(c.workspace, c.model), last, events, _caused(cause, identity))
        return await queries.transition_document(tx, identity)

    async def _refuse_second(self, tx: AsyncConnection, workspace: str, model: str, version: int, stage: Stage) -> None:
        other = await queries.has_open(tx, workspace, model, version, stage)
        if other is not None:
            raise Problem(
                409,
                "transition-open",
                f"version {version} already waits for {stage}: transition {other}",
                transition_id=other,
            )

    async def _append(
        self, tx: AsyncConnection, stream: str, last: int, events: Sequence[Message], cause: Cause
    ) -> None:
        news = [New(event, _subject(event)) for event in events]
        for envelope in await self._log.append(tx, stream, last, news, cause):
            await views.project(tx, envelope)
        for event in events:
            if isinstance(event, StageChanged):
                log.info("stage changed", model=stream, version=event.version, to=event.to_stage, kind=event.kind.value)

    async def _record_denial(self, command: Command, cause: Cause, request_id: str, problem: Problem) -> None:
        rejected = CommandRejected(
            command_id=request_id, command_type=command.TYPE, code=problem.code, detail=problem.detail
        )
        async with self._db.transaction() as tx:
            await self.reject(tx, rejected, cause)

    async def _document(self, tx: AsyncConnection, reference: str) -> Document:
        """The present document of what an idempotent call made."""
        kind, _, rest = reference.partition(" ")
        if kind == "transition":
            return await queries.transition_document(tx, rest)
        workspace, _, name = rest.partition("/")
        if kind == "model":
            return await queries.model_document(tx, workspace, name)
        model, _, number = name.rpartition("/")
        return (await queries.version_documents(tx, workspace, model, numbers=[int(number)]))[0]


def _reference(document: Document) -> str:
    if "transition_id" in document:
        return f"transition {document['transition_id']}"
    if "digest" in document:
        return f"version {subject_of(document['workspace'], document['model'], document['version'])}"
    return f"model {subject_of(document['workspace'], document['model'])}"


def _subject(event: Any) -> str:
    return subject_of(event.workspace, event.model, getattr(event, "version", None))


def _caused(cause: Cause, transition_id: str) -> Cause:
    """A transition's id is the correlation of all that follows from it, unless the caller gave one."""
    return cause if cause.correlationid else replace(cause, correlationid=transition_id)
