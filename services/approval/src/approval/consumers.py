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
    ModelRenamed,
    ModelUpdated,
    StageChanged,
    StageRefused,
    StageRequested,
    VersionEvaluated,
    VersionRegistered,
    VersionRevoked,
    VersionScanned,
    VersionTagged,
    VersionVerified,
)
from kit.errors import Permanent

_KNOWN: dict[str, type[Message]] = {
    kind.TYPE: kind
    for kind in (
        ModelRegistered,
        ModelUpdated,
        ModelRenamed,
        VersionRegistered,
        VersionEvaluated,
        VersionTagged,
        VersionVerified,
        VersionScanned,
        VersionRevoked,
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
        workspace, model = event.workspace, event.model  # type: ignore[attr-defined]
        if envelope.key != stream_of(workspace, model):
            raise Permanent("wrong-key", f"an event of another model came under the key {envelope.key}")
        await self._apply(tx, envelope, event)
        if not isinstance(event, StageRequested | VersionRegistered):
            await self._commands.refresh(tx, envelope, workspace, model)

    async def _apply(self, tx: AsyncConnection, envelope: Envelope, event: Message) -> None:
        match event:
            case ModelRegistered():
                await copies.model_registered(tx, event)
            case ModelUpdated() | ModelRenamed():
                await copies.model_changed(tx, event)
            case VersionRegistered():
                await copies.version_registered(tx, envelope, event)
            case VersionEvaluated() | VersionTagged() | VersionVerified() | VersionScanned() | VersionRevoked():
                await copies.version_learnt(tx, envelope, event)
            case StageRequested():
                await self._commands.open(tx, envelope, event)
            case StageChanged():
                await copies.stage_changed(tx, envelope, event)
                # An occupant that had to make room shares the id of the transition that replaced it.
                if event.kind is not TransitionKind.SUPERSEDED:
                    await copies.transition_ended(tx, event.transition_id)
                    await self._commands.close(tx, envelope, event.transition_id, "applied", "the registry applied it")
            case StageRefused():
                await copies.transition_ended(tx, event.transition_id)
                await self._commands.close(tx, envelope, event.transition_id, event.code, event.detail)
            case AliasChanged() | AliasRemoved():
                await copies.alias_changed(tx, envelope, event)
                if isinstance(event, AliasChanged) and event.transition_id is not None:
                    await copies.transition_ended(tx, event.transition_id)
