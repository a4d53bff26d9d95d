"""Kafka in: commands of producers and decisions of the approval service."""

from collections.abc import Awaitable, Callable
from hashlib import sha256

from contracts import registry as contract
from contracts.approval import RequestDecided
from contracts.envelope import EnvelopeError
from contracts.registry import CommandRejected
from contracts.topics import APPROVAL_EVENTS, REGISTRY_COMMANDS
from kit.auth import Principal
from kit.bus import Bus, Record
from kit.db import Database
from kit.errors import Permanent
from kit.events import Cause
from kit.inbox import Inbox
from registry.commands import SYSTEM, Command, Commands
from registry.decisions import DecisionReader

COMMANDS: dict[str, type[Command]] = {command.TYPE: command for command in contract.COMMANDS}
Authenticate = Callable[[str | None], Awaitable[Principal]]


def subscribe(
    bus: Bus, db: Database, inbox: Inbox, commands: Commands, reader: DecisionReader, authenticate: Authenticate
) -> None:
    bus.subscribe(REGISTRY_COMMANDS, CommandHandler(db, inbox, commands, authenticate))
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
            identity, kind, correlation = envelope.id, envelope.type, envelope.correlationid
        except EnvelopeError:
            identity = correlation = record.place
            kind = "unreadable"
        rejected = CommandRejected(command_id=identity, command_type=kind, code=error.code, detail=error.detail[:4000])
        async with self._db.transaction() as tx:
            if await self._inbox.once(tx, self.consumer, f"parked:{record.place}:{record.timestamp_ms}"):
                cause = Cause(actor=SYSTEM, correlationid=correlation, causationid=identity)
                await self._commands.reject(tx, rejected, cause)


class CommandHandler(_Answering):
    consumer = "commands"

    def __init__(self, db: Database, inbox: Inbox, commands: Commands, authenticate: Authenticate) -> None:
        super().__init__(db, inbox, commands)
        self._authenticate = authenticate

    async def __call__(self, record: Record) -> None:
        envelope = record.envelope()
        kind = COMMANDS.get(envelope.type)
        if kind is None:
            raise Permanent("unknown-command", f"{envelope.type!r} is not one of {', '.join(sorted(COMMANDS))}")
        principal = await self._authenticate(record.header("authorization"))
        command = envelope.payload(kind)
        # Ids are the producers' own: one producer must not be able to use up another's.
        identity = f"{principal.subject}:{envelope.id}"
        await self._commands.prepare(command, principal)
        cause = Cause(actor=principal.subject, correlationid=envelope.correlationid, causationid=envelope.id)
        async with self._db.transaction() as tx:
            digest = sha256(envelope.type.encode() + b"\n" + envelope.value).hexdigest()
            if await self._inbox.recall(tx, self.consumer, identity, digest) is None:
                await self._commands.apply(tx, command, principal, cause)


class DecisionHandler(_Answering):
    """Guarded by event id and by the state of the transition, not by sequence: a forged record must not be able to
    take the place of the true decision."""

    consumer = "decisions"

    def __init__(self, db: Database, inbox: Inbox, commands: Commands, reader: DecisionReader) -> None:
        super().__init__(db, inbox, commands)
        self._reader = reader

    async def __call__(self, record: Record) -> None:
        envelope = record.envelope()
        if envelope.type != RequestDecided.TYPE:
            return
        decided = envelope.payload(RequestDecided)
        decision = await self._reader.read(decided.jws)
        cause = Cause(actor="hallmark/approval", correlationid=envelope.correlationid, causationid=envelope.id)
        async with self._db.transaction() as tx:
            if await self._inbox.once(tx, self.consumer, f"{envelope.id}:{decision.decision_id}"):
                await self._commands.decide(tx, decision, decided.jws, cause)
