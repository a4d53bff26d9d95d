"""Kafka in: the registry's events, each stream in order."""

from sqlalchemy.ext.asyncio import AsyncConnection

from approval import copies
from approval.commands import Commands
from contracts.envelope import Envelope
from contracts.lifecycle import TransitionKind, stream_of
from contracts.payload import Message
from contracts.registry import (
    AliasChanged,
    AliasRemoved,
    ModelRegistered,
    StageChanged,
    StageRefused,
    StageRequested,
    VersionRegistered,
)
from kit.errors import Permanent

_KNOWN: dict[str, type[Message]] = {
    kind.TYPE: kind
    for kind in (
        ModelRegistered,
        VersionRegistered,
        StageRequested,
        StageChanged,
        StageRefused,
        AliasChanged,
        AliasRemoved,
    )
}


class RegistryEvents:
    """Applies one event of the registry. Types that approval has no use for are passed over."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def __call__(self, tx: AsyncConnection, envelope: Envelope) -> None:
        if envelope.type not in _KNOWN:
            return
        event = envelope.payload(_KNOWN[envelope.type])
        if envelope.key != stream_of(event.workspace, event.model):  # type: ignore[attr-defined]
            raise Permanent("wrong-key", f"an event of another model came under the key {envelope.key}")
        match event:
            case ModelRegistered():
                await copies.model_registered(tx, envelope, event)
            case VersionRegistered():
                await copies.version_registered(tx, envelope, event)
            case StageRequested():
                await self._commands.open(tx, envelope, event)
            case StageChanged():
                await copies.stage_changed(tx, envelope, event)
                # An occupant that had to make room shares the id of the transition that replaced it.
                if event.kind is not TransitionKind.SUPERSEDED:
                    await self._commands.close(tx, envelope, event.transition_id, "applied", "the registry applied it")
            case StageRefused():
                await self._commands.close(tx, envelope, event.transition_id, event.code, event.detail)
            case AliasChanged() | AliasRemoved():
                await copies.alias_changed(tx, envelope, event)
