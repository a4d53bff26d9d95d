"""Kafka in: commands of producers, decisions and revocations of the approval service."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts import registry as contract
from contracts.approval import RequestDecided, RevocationOrdered
from contracts.envelope import Envelope, EnvelopeError
from contracts.registry import CommandRejected
from contracts.topics import APPROVAL_EVENTS, REGISTRY_COMMANDS
from kit.auth import Principal
from kit.bus import Bus, Record
from kit.db import Database
from kit.errors import Permanent
from kit.events import Cause
from kit.inbox import Inbox
from registry.commands import SYSTEM, Commands
from registry.decisions import DecisionReader

COMMANDS: dict[str, type[Any]] = {command.TYPE: command for command in contract.COMMANDS}
# Commands of a batch that are made ready at the same time: a part of the connection pool.
AT_ONCE = 4
Authenticate = Callable[[str | None], Awaitable[Principal]]


def subscribe(
    bus: Bus, db: Database, inbox: Inbox, commands: Commands, reader: DecisionReader, authenticate: Authenticate
) -> None:
    bus.subscribe_batch(REGISTRY_COMMANDS, CommandHandler(db, inbox, commands, authenticate))
    bus.subscribe(APPROVAL_EVENTS, DecisionHandler(db, inbox, commands, reader))


class _Answering:
    """What both handlers share: a parked record is answered by `command.rejected` under the same correlation id."""

    consumer: str

    def __init__(self, db: Database, inbox: Inbox, commands: Commands) -> None:
        self._db = db
        self._inbox = inbox
        self._commands = commands

    async def parked(self, record: Record, error: Permanent) -> None:
        try:
            envelope = record.envelope()
            self._commands.refuse_names(envelope)
            identity, kind, correlation = envelope.id, envelope.type, envelope.correlationid
        except (EnvelopeError, Permanent):
            identity = correlation = record.place
            kind = "unreadable"
        rejected = CommandRejected(command_id=identity, command_type=kind, code=error.code, detail=error.detail[:4000])
        async with self._db.transaction() as tx:
            if await self._inbox.once(tx, self.consumer, f"parked:{record.place}:{record.timestamp_ms}"):
                cause = Cause(actor=SYSTEM, correlationid=correlation, causationid=identity)
                await self._commands.reject(tx, rejected, cause)


@dataclass(frozen=True)
class _Ready:
    """A command that may run: authenticated, allowed, its model named by identity."""

    identity: str
    digest: str
    command: Any
    principal: Principal
    cause: Cause


class CommandHandler(_Answering):
    """Many commands share a transaction. What one of them breaks is undone alone, and tried again alone."""

    consumer = "commands"

    def __init__(self, db: Database, inbox: Inbox, commands: Commands, authenticate: Authenticate) -> None:
        super().__init__(db, inbox, commands)
        self._authenticate = authenticate

    async def __call__(self, record: Record) -> None:
        ready = await self._ready(record)
        async with self._db.transaction() as tx:
            await self._apply(tx, ready)

    async def many(self, records: Sequence[Record]) -> None:
        """Raises the first error when all others are done: each record is then given to `__call__`, which knows what
        is done already."""
        limit = asyncio.Semaphore(AT_ONCE)

        async def prepare(record: Record) -> _Ready | Exception:
            async with limit:
                try:
                    return await self._ready(record)
                except Exception as error:
                    return error

        found = await asyncio.gather(*map(prepare, records))
        failed = [one for one in found if isinstance(one, Exception)]
        ready = [one for one in found if isinstance(one, _Ready)]
        async with self._db.transaction() as tx:
            await self._commands.lock(tx, [one.command for one in ready])
            for one in ready:
                try:
                    async with tx.begin_nested():
                        await self._apply(tx, one)
                except Permanent as error:
                    failed.append(error)
        if failed:
            raise failed[0]

    async def _ready(self, record: Record) -> _Ready:
        """Raises what is wrong with it: Permanent, EnvelopeError, or something transient."""
        envelope = record.envelope()
        self._commands.refuse_names(envelope)
        kind = COMMANDS.get(envelope.type)
        if kind is None:
            raise Permanent("unknown-command", f"{envelope.type!r} is not one of {', '.join(sorted(COMMANDS))}")
        principal = await self._authenticate(record.header("authorization"))
        command = await self._commands.prepare(envelope.payload(kind), principal)
        return _Ready(
            # Ids are the producers' own: one producer must not be able to use up another's.
            identity=f"{principal.subject}:{envelope.id}",
            digest=sha256(envelope.type.encode() + b"\n" + envelope.value).hexdigest(),
            command=command,
            principal=principal,
            cause=Cause(actor=principal.subject, correlationid=envelope.correlationid, causationid=envelope.id),
        )

    async def _apply(self, tx: AsyncConnection, ready: _Ready) -> None:
        if await self._inbox.recall(tx, self.consumer, ready.identity, ready.digest) is None:
            acted = await self._commands.apply(tx, ready.command, ready.principal, ready.cause)
            if not acted.events:  # every command is answered, and there is no event to answer it
                raise Permanent("nothing-to-change", "it is so already")


class DecisionHandler(_Answering):
    """Decisions and revocations. Guarded by event id and by the state of the transition or version, not by sequence:
    a forged record must not be able to take the place of the true one."""

    consumer = "decisions"

    def __init__(self, db: Database, inbox: Inbox, commands: Commands, reader: DecisionReader) -> None:
        super().__init__(db, inbox, commands)
        self._reader = reader

    async def __call__(self, record: Record) -> None:
        envelope = record.envelope()
        if envelope.type == RequestDecided.TYPE:
            await self._decide(envelope, envelope.payload(RequestDecided).jws)
        elif envelope.type == RevocationOrdered.TYPE:
            await self._revoke(envelope, envelope.payload(RevocationOrdered).jws)

    async def _decide(self, envelope: Envelope, jws: str) -> None:
        decision = await self._reader.read(jws)
        async with self._db.transaction() as tx:
            if await self._inbox.once(tx, self.consumer, f"{envelope.id}:{decision.decision_id}"):
                await self._commands.decide(tx, decision, jws, _of_approval(envelope))

    async def _revoke(self, envelope: Envelope, jws: str) -> None:
        order = await self._reader.read_revocation(jws)
        async with self._db.transaction() as tx:
            if await self._inbox.once(tx, self.consumer, f"{envelope.id}:{order.revocation_id}"):
                await self._commands.revoke(tx, order, jws, _of_approval(envelope))


def _of_approval(envelope: Envelope) -> Cause:
    return Cause(actor="hallmark/approval", correlationid=envelope.correlationid, causationid=envelope.id)
