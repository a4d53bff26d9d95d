"""What the registry itself does where a revoked version is relied on: reads, decides, and gives the events.

A gated stage or a protected alias returns to an earlier version by an ordinary rollback, asked for by the registry and
decided by the approval service (law 5). Where there is none to return to, the revoked version leaves its stage.
"""

from collections.abc import Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.lifecycle import TransitionKind
from contracts.payload import Message
from contracts.registry import StageRefused
from kit.problems import Problem
from registry import revocation, state
from registry.domain import Model, Status, Version
from registry.stages import REVOKED, Asked

Ask = Callable[[], Asked]


async def replacements(tx: AsyncConnection, workspace: str, name: str, ask: Ask) -> list[Message]:
    """For every place of the model where a revoked version stands and nothing is on its way yet."""
    model = await state.model(tx, workspace, name)
    events: list[Message] = []
    for stage, revoked in model.revoked.items():
        if model.rules.lifecycle.gated(stage):
            events += await _of_stage(tx, model, stage, revoked, ask)
    for alias, number in model.aliases.items():
        if model.rules.protects(alias):
            events += await _of_alias(tx, model, alias, number, ask)
    return events


async def left_behind(tx: AsyncConnection, refused: Sequence[Message], ask: Ask) -> list[Message]:
    """Rollbacks that came to nothing: the revoked versions that waited for them leave their stages."""
    events: list[Message] = []
    for event in refused:
        if not isinstance(event, StageRefused) or event.kind is not TransitionKind.ROLLBACK or event.code == REVOKED:
            continue
        model = await state.model(tx, event.workspace, event.model)
        if not await state.is_returning(tx, model, event.to_stage):
            standing = model.revoked.get(event.to_stage, ())
            events += [revocation.decide_leave(model, version, ask()) for version in standing]
    return events


async def _of_stage(
    tx: AsyncConnection, model: Model, stage: str, revoked: tuple[Version, ...], ask: Ask
) -> list[Message]:
    if await state.is_returning(tx, model, stage):
        return []
    back_to = await _named(tx, model, stage, revoked)
    if back_to is None:
        back_to = await _last_good(tx, model, stage)
    if back_to is None or await state.has_open(tx, model, back_to.number, stage) is not None:
        return [revocation.decide_leave(model, version, ask()) for version in revoked]
    return [revocation.decide_return(model, stage, back_to, revoked[-1], ask())]


async def _of_alias(tx: AsyncConnection, model: Model, alias: str, number: int, ask: Ask) -> list[Message]:
    """An alias with nothing to return to stays: whoever resolves it is told what happened."""
    present, target = await state.version(tx, model, number), f"@{alias}"
    if present.status != Status.REVOKED or await state.is_returning(tx, model, target):
        return []
    pointed_at = await state.pointed_at(tx, model, alias)
    back_to = await _named(tx, model, target, (present,), pointed_at)
    for earlier in pointed_at if back_to is None else ():
        version = await state.version(tx, model, earlier, deleted=True)
        if revocation.may_take_over(model, version, target, pointed_at):
            back_to = version
            break
    if back_to is None or await state.has_open(tx, model, back_to.number, target) is not None:
        return []
    return [revocation.decide_return(model, target, back_to, present, ask())]


async def _named(
    tx: AsyncConnection, model: Model, target: str, revoked: Sequence[Version], pointed_at: tuple[int, ...] = ()
) -> Version | None:
    """The version that a revocation names as the one to return to, if it may take over."""
    for version in reversed(revoked):
        if version.revoked is None or version.revoked.fallback is None:
            continue
        try:
            named = await state.version(tx, model, version.revoked.fallback, deleted=True)
        except Problem:  # there is no such version
            continue
        if revocation.may_take_over(model, named, target, pointed_at):
            return named
    return None


async def _last_good(tx: AsyncConnection, model: Model, stage: str) -> Version | None:
    """Who was there before, for a stage that holds a limited number and has nobody else in it who is good.

    A stage such as Staging, open to any number, needs nobody in it; taking one back there would take from Production
    what that can return to.
    """
    rule = model.rules.lifecycle.rule(stage)
    if rule is None or rule.holds is None:
        return None
    if any(version.status != Status.REVOKED for version in model.occupants.get(stage, ())):
        return None
    number = await state.last_good(tx, model, stage)
    return None if number is None else await state.version(tx, model, number)
