"""What the registry can be asked to do, over HTTP and Kafka alike: load, decide, append, project in one transaction."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.access import Action
from contracts.approval import Decision, Revocation, policies_of
from contracts.envelope import Envelope, new_id, now
from contracts.lifecycle import REGISTRY, stream_of, subject_of
from contracts.model import Inspection
from contracts.payload import Message, Payload
from contracts.registry import (
    CommandRejected,
    EvaluateVersion,
    RegisterVersion,
    RequestTransition,
    ServingReported,
    StageChanged,
    WorkspaceConfigured,
)
from kit.auth import Access, Principal
from kit.db import Database
from kit.errors import Permanent
from kit.events import Cause, Conflict, EventLog, New
from kit.inbox import Inbox
from kit.nameless import refuse_addresses
from kit.people import People
from kit.problems import Problem
from registry import domain, orders, queries, revocation, revoking, stages, state, views
from registry.acts import ACTS, Acted, Scene
from registry.artifacts import Artifacts
from registry.nameless import nameless

log = structlog.get_logger()
Document = dict[str, Any]
Show = Callable[[AsyncConnection, str], Awaitable[Document]]
SYSTEM = REGISTRY
C = TypeVar("C")
# A request for approval quotes two versions and must fit into an event.
MAX_CONTENT_BYTES = 500_000
MAX_EVALUATION_BYTES = 50_000


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
        people: People | None = None,
    ) -> None:
        self._db = db
        self._log = log_
        self._inbox = inbox
        self._access = access
        self._artifacts = artifacts
        self._expires_after = timedelta(hours=transition_hours)
        self._people = people

    async def prepare(self, command: C, principal: Principal) -> C:
        """Authorises the command, and gives it with the model's identity in place of whatever name it was called by,
        and pseudonyms in place of people's names where there is a vault.

        Raises:
            Problem: 403, 413, 422.
        """
        given: Any = command
        async with self._db.look() as tx:
            name = await state.identity(tx, given.workspace, given.model)
        action, _ = ACTS[type(command)]
        self._access.require(principal, action, given.workspace, name)
        if isinstance(given, RegisterVersion) and (size := _size(given.content)) > MAX_CONTENT_BYTES:
            detail = f"the version's content has {size} bytes, {MAX_CONTENT_BYTES} is the most; put it in the artifact"
            raise Problem(413, "content-too-large", detail)
        if isinstance(given, EvaluateVersion) and (size := _size(given.evaluation)) > MAX_EVALUATION_BYTES:
            detail = f"the evaluation has {size} bytes, {MAX_EVALUATION_BYTES} is the most; keep to what gates look at"
            raise Problem(422, "evaluation-too-large", detail)
        prepared: C = given.model_copy(update={"model": name})
        return prepared if self._people is None else await nameless(prepared, self._people)

    def refuse_names(self, envelope: Envelope) -> None:
        """Raises Problem 422: there is a vault, and an e-mail address in what events take over from the envelope."""
        if self._people is not None:
            refuse_addresses([envelope.id, envelope.type, envelope.correlationid])

    async def lock(self, tx: AsyncConnection, commands: Sequence[Any]) -> None:
        """Takes the streams of many commands, in one order for everybody, so that batches cannot deadlock."""
        for stream in sorted({stream_of(c.workspace, c.model) for c in commands}):
            await self._log.lock(tx, stream)

    async def apply(self, tx: AsyncConnection, command: Any, principal: Principal, cause: Cause) -> Acted:
        """Runs a prepared command in `tx`; gives its events, and a reference to what it made, for `document`.

        Raises:
            Problem: the rules refuse it, or a file of the artifact is missing; nothing was changed.
            Conflict: the model's name went to another one since the command was prepared; prepare it again.
        """
        if isinstance(command, RegisterVersion):
            readable = partial(self._may_read, principal)
            await self._artifacts.claim(
                tx, command.content.artifact, principal.subject, workspace=command.workspace, readable=readable
            )
        stream = stream_of(command.workspace, command.model)
        if isinstance(command, orders.RenameModel):
            # Nobody may take the new name meanwhile. In one order, so that two renames cannot wait for each other.
            for name in sorted({stream, stream_of(command.workspace, command.name)}):
                await self._log.lock(tx, name)
        last = await self._log.lock(tx, stream)
        await state.keep_rules(tx, command.workspace)
        model = await state.model(tx, command.workspace, command.model)
        # A model that exists has the name it was registered under for ever.
        if not model.exists and await state.identity(tx, command.workspace, command.model) != command.model:
            raise Conflict(f"another model took the name {command.model} meanwhile")
        _, act = ACTS[type(command)]
        try:
            acted = await act(Scene(tx, model, principal, self._access, self._expires_after), command)
        except domain.Refused as refused:
            raise Problem(refused.status, refused.code, refused.detail) from refused
        kind, _, identity = acted.reference.partition(" ")
        await self._append(tx, stream, last, acted.events, _caused(cause, identity) if kind == "transition" else cause)
        return acted

    async def run(
        self,
        command: Any,
        principal: Principal,
        *,
        request_id: str,
        key: str | None = None,
        digest: str = "",
        show: Show | None = None,
    ) -> Document:
        """A command over HTTP. The same idempotency key gives the first result again.

        `show` reads what is answered, as the command left it, from a reference; without it `document` does.
        """
        show = show or self.document
        cause = Cause(actor=principal.subject, correlationid=request_id)
        try:
            prepared = await self.prepare(command, principal)
        except Problem as problem:
            if problem.status == 403:
                await self._record_denial(command.TYPE, cause, request_id, problem)
            raise
        try:
            return await self._run(prepared, principal, cause, key, digest, show)
        except Conflict:
            return await self._run(await self.prepare(command, principal), principal, cause, key, digest, show)

    async def _run(
        self, command: Any, principal: Principal, cause: Cause, key: str | None, digest: str, show: Show
    ) -> Document:
        async with self._db.transaction() as tx:
            if key is None:
                return await show(tx, (await self.apply(tx, command, principal, cause)).reference)
            slot = json.dumps([principal.subject, key])
            stored = await self._inbox.recall(tx, "http", slot, digest)
            if stored is None:
                stored = (await self.apply(tx, command, principal, cause)).reference
                await self._inbox.remember(tx, "http", slot, stored)
            return await show(tx, stored)

    async def configure(self, command: orders.ConfigureWorkspace, principal: Principal, request_id: str) -> Document:
        """Gives a workspace its rules. Raises Problem 403, 409, 422."""
        cause = Cause(actor=principal.subject, correlationid=request_id)
        try:
            self._access.require(principal, Action.CONFIGURE, command.workspace)
        except Problem as problem:
            await self._record_denial(command.TYPE, cause, request_id, problem)
            raise
        stream = f"workspace:{command.workspace}"
        async with self._db.transaction() as tx:
            last = await self._log.lock(tx, stream)
            event = WorkspaceConfigured.model_validate(command.model_dump())
            try:
                events = domain.decide_configure(event, await state.stages_in_use(tx, command.workspace))
            except domain.Refused as refused:
                raise Problem(refused.status, refused.code, refused.detail) from refused
            await self._append(tx, stream, last, events, cause)
            return await queries.workspace_document(tx, command.workspace)

    async def report(self, reported: ServingReported, principal: Principal, request_id: str) -> Document:
        """Records what a server has loaded, when that is news."""
        self._access.require(principal, Action.REPORT, reported.workspace, reported.model)
        async with self._db.transaction() as tx:
            stream = stream_of(reported.workspace, reported.model)
            last = await self._log.lock(tx, stream)
            model = await state.model(tx, reported.workspace, reported.model)
            await state.version(tx, model, reported.version, deleted=True)
            news = [] if await queries.is_reported(tx, reported) else [reported]
            await self._append(tx, stream, last, news, Cause(actor=principal.subject, correlationid=request_id))
        return {**reported.model_dump(mode="json"), "recorded": bool(news)}

    async def archive(
        self, workspace: str, model: str, version: int, reason: str, principal: Principal, request_id: str
    ) -> Document:
        """Retires a version to the archive of its workspace. Raises Problem."""
        async with self._db.snapshot() as tx:
            rules = await state.rules(tx, workspace)
        command = RequestTransition(
            workspace=workspace, model=model, version=version, to_stage=rules.lifecycle.archive, reason=reason
        )
        return await self.run(command, principal, request_id=request_id)

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
        await state.keep_rules(tx, decision.workspace)
        waiting = await state.open_transition(tx, decision.transition_id)
        if waiting is None:
            raise Permanent(
                "decision-replayed", f"transition {decision.transition_id} is not open: unknown, or decided before"
            )
        try:
            asked = waiting.transition
            model = await state.model(tx, asked.workspace, asked.model)
            version = await state.version(tx, model, asked.version)
            events = stages.decide_outcome(model, version, waiting, decision, jws, policies_of(decision), now())
        except domain.Refused as refused:
            raise Permanent(refused.code, refused.detail) from refused
        await self._append(tx, stream, last, events, cause)

    async def revoke(self, tx: AsyncConnection, order: Revocation, jws: str, cause: Cause) -> None:
        """Carries out a revocation whose signature was verified. Does nothing for a version that is revoked already.

        Raises:
            Permanent: there is no such version, or it is not exactly the one that was meant; nothing was changed.
        """
        stream = stream_of(order.workspace, order.model)
        last = await self._log.lock(tx, stream)
        await state.keep_rules(tx, order.workspace)
        model = await state.model(tx, order.workspace, order.model)
        version = await state.version(tx, model, order.version, deleted=True)
        try:
            revoked = revocation.decide_revoke(model, version, order, jws)
        except domain.Refused as refused:
            raise Permanent(refused.code, refused.detail) from refused
        if not revoked:
            return
        waiting = await state.open_transitions(tx, model, version.number)
        closed = [revocation.decide_close(one, revoked[0]) for one in waiting]
        last = await self._append(tx, stream, last, [*revoked, *closed], cause)
        log.warning("version revoked", model=stream, version=version.number, by=order.revoked_by)
        replacing = await revoking.replacements(tx, order.workspace, order.model, self._ask)
        await self._append(tx, stream, last, replacing, replace(cause, actor=SYSTEM))

    async def verified(
        self,
        workspace: str,
        name: str,
        number: int,
        inspection: Inspection,
        refusal: tuple[str, str, str | None] | None,
    ) -> None:
        """Records what verification found. Does nothing when the version is not pending any more."""
        async with self._db.transaction() as tx:
            stream = stream_of(workspace, name)
            last = await self._log.lock(tx, stream)
            model = await state.model(tx, workspace, name)
            version = await state.version(tx, model, number, deleted=True)
            events = domain.decide_verified(model, version, inspection, refusal)
            # Whoever asked for the registration hears of its end under the same id.
            correlation = await queries.correlation_of(tx, workspace, name, number)
            await self._append(tx, stream, last, events, Cause(actor=SYSTEM, correlationid=correlation))

    async def expire(self) -> int:
        """Refuses every open transition whose time is over; gives their number."""
        async with self._db.snapshot() as tx:
            due = await state.due_transitions(tx, now())
        for row in due:
            async with self._db.transaction() as tx:
                stream = stream_of(row["workspace"], row["model"])
                last = await self._log.lock(tx, stream)
                waiting = await state.open_transition(tx, row["transition_id"])
                if waiting is not None:
                    await self._append(tx, stream, last, [stages.decide_expiry(waiting)], Cause(actor=SYSTEM))
        return len(due)

    async def document(self, tx: AsyncConnection, reference: str) -> Document:
        """What a command made, as it is now."""
        kind, _, rest = reference.partition(" ")
        if kind == "transition":
            return await queries.transition_document(tx, rest)
        workspace, _, name = rest.partition("/")
        if kind == "model":
            return await queries.model_document(tx, workspace, name)
        if kind == "alias":
            model, _, alias = name.rpartition(" ")
            return await queries.alias_document(tx, workspace, model, alias)
        model, _, number = name.rpartition("/")
        return (await queries.version_documents(tx, workspace, model, numbers=[int(number)]))[0]

    def _ask(self) -> stages.Asked:
        return stages.Asked(str(new_id()), SYSTEM, now() + self._expires_after)

    async def _append(
        self, tx: AsyncConnection, stream: str, last: int, events: Sequence[Message], cause: Cause
    ) -> int:
        """Gives the last sequence."""
        news = [New(event, _subject(event, stream)) for event in events]
        for envelope in await self._log.append(tx, stream, last, news, cause):
            await views.project(tx, envelope)
        for event in events:
            if isinstance(event, StageChanged):
                log.info("stage changed", model=stream, version=event.version, to=event.to_stage, kind=event.kind.value)
        last += len(events)
        if leaving := await revoking.left_behind(tx, events, self._ask):
            return await self._append(tx, stream, last, leaving, replace(cause, actor=SYSTEM))
        return last

    def _may_read(self, principal: Principal, workspace: str, model: str) -> bool:
        return self._access.allows(principal, Action.READ, workspace, model)

    async def _record_denial(self, kind: str, cause: Cause, request_id: str, problem: Problem) -> None:
        rejected = CommandRejected(command_id=request_id, command_type=kind, code=problem.code, detail=problem.detail)
        async with self._db.transaction() as tx:
            await self.reject(tx, rejected, cause)


def _size(payload: Payload) -> int:
    return len(payload.model_dump_json().encode())


def _subject(event: Any, stream: str) -> str:
    if not hasattr(event, "model"):
        return stream
    return subject_of(event.workspace, event.model, getattr(event, "version", None))


def _caused(cause: Cause, transition_id: str) -> Cause:
    """A transition's id is the correlation of all that follows from it, unless the caller gave one."""
    return cause if cause.correlationid else replace(cause, correlationid=transition_id)
