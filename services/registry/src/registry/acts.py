"""One function per command: what it reads, which rule decides, and what to show for it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts import registry as contract
from contracts.access import Action
from contracts.envelope import new_id, now
from contracts.lifecycle import subject_of
from contracts.model import Severity
from contracts.payload import Message
from kit.auth import Access, Principal
from kit.problems import Problem
from registry import aliases, deletion, domain, orders, stages, state
from registry.stages import Asked


@dataclass(frozen=True)
class Scene:
    """What an act works with: the transaction, the locked model, and who asks."""

    tx: AsyncConnection
    model: domain.Model
    who: Principal
    access: Access
    expires_after: timedelta


@dataclass(frozen=True)
class Acted:
    """The events, and a reference to what they made: `model w/m`, `version w/m/1`, `alias w/m a`, `transition id`."""

    events: Sequence[Message]
    reference: str


Act = Callable[[Scene, Any], Awaitable[Acted]]


def of_model(model: domain.Model) -> str:
    return f"model {subject_of(model.workspace, model.name)}"


def of_version(model: domain.Model, number: int) -> str:
    return f"version {subject_of(model.workspace, model.name, number)}"


async def register_model(s: Scene, c: contract.RegisterModel) -> Acted:
    return Acted(domain.decide_register_model(s.model, c), of_model(s.model))


async def register_version(s: Scene, c: contract.RegisterVersion) -> Acted:
    events = domain.decide_register_version(s.model, c, s.who.subject)
    return Acted(events, of_version(s.model, s.model.versions + 1))


async def update_model(s: Scene, c: orders.UpdateModel) -> Acted:
    _existing(s)
    return Acted(domain.decide_update(s.model, c.description, c.owner, c.tags), of_model(s.model))


async def rename_model(s: Scene, c: orders.RenameModel) -> Acted:
    _existing(s)
    # Names never change hands: who takes one for ever must be allowed to under that name too.
    s.access.require(s.who, Action.MANAGE, c.workspace, c.name)
    holder = await state.model(s.tx, c.workspace, await state.identity(s.tx, c.workspace, c.name))
    return Acted(domain.decide_rename(s.model, c.name, holder), of_model(s.model))


async def delete_model(s: Scene, c: orders.DeleteModel) -> Acted:
    _existing(s)
    serving = await state.serving(s.tx, s.model)
    return Acted(domain.decide_delete(s.model, c.reason, serving), of_model(s.model))


async def restore_model(s: Scene, c: orders.RestoreModel) -> Acted:
    _existing(s)
    return Acted(domain.decide_restore(s.model, c.reason), of_model(s.model))


async def recreate_model(s: Scene, c: orders.RecreateModel) -> Acted:
    _existing(s)
    lifecycle = s.model.rules.lifecycle
    staged = [
        version
        for rule in lifecycle.stages
        if rule.name not in (lifecycle.initial, lifecycle.archive)
        for version in await state.in_stage(s.tx, s.model, rule.name)
    ]
    waiting = await state.open_transitions(s.tx, s.model)
    events = deletion.decide_recreate(s.model, c.name, c.description, c.tags, staged, waiting, _asked(s))
    return Acted(events, of_model(s.model))


async def describe(s: Scene, c: orders.DescribeVersion) -> Acted:
    version = await state.version(s.tx, s.model, c.version)
    return Acted(domain.decide_describe(s.model, version, c.description), of_version(s.model, c.version))


async def delete_version(s: Scene, c: orders.DeleteVersion) -> Acted:
    version = await state.version(s.tx, s.model, c.version)
    waiting = await state.open_transitions(s.tx, s.model, c.version)
    events = deletion.decide_delete_version(s.model, version, waiting, _asked(s), c.reason)
    return Acted(events, of_version(s.model, c.version))


async def restore_version(s: Scene, c: orders.RestoreVersion) -> Acted:
    version = await state.version(s.tx, s.model, c.version, deleted=True)
    return Acted(deletion.decide_restore_version(s.model, version, c.reason), of_version(s.model, c.version))


async def evaluate(s: Scene, c: contract.EvaluateVersion) -> Acted:
    version = await state.version(s.tx, s.model, c.version)
    return Acted(domain.decide_evaluate(s.model, version, c.evaluation), of_version(s.model, c.version))


async def tag(s: Scene, c: contract.TagVersion) -> Acted:
    version = await state.version(s.tx, s.model, c.version)
    present = await state.version_tags(s.tx, s.model, c.version)
    return Acted(domain.decide_tag(s.model, version, present, c.tags), of_version(s.model, c.version))


async def note(s: Scene, c: orders.AddNote) -> Acted:
    version = await state.version(s.tx, s.model, c.version)
    return Acted(domain.decide_note(s.model, version, c.text), of_version(s.model, c.version))


async def scan(s: Scene, c: orders.AddScan) -> Acted:
    version = await state.version(s.tx, s.model, c.version)
    if _has_served(s.model, version) and any(finding.severity is Severity.UNSAFE for finding in c.findings):
        # It would take away what a rollback returns to.
        s.access.require(s.who, Action.ROLL_BACK, s.model.workspace, s.model.name)
    return Acted(domain.decide_scan(s.model, version, c.scanner, c.findings), of_version(s.model, c.version))


async def request_transition(s: Scene, c: contract.RequestTransition) -> Acted:
    version = await state.version(s.tx, s.model, c.version)
    lifecycle, target = s.model.rules.lifecycle, stages.stage_of(s.model, c.to_stage)
    serving = any(v.number == version.number for v in s.model.occupants.get(version.stage, ()))
    retired = version.stage == lifecycle.archive and _has_served(s.model, version)
    if retired or (serving and lifecycle.gated(version.stage) and not lifecycle.gated(target)):
        # Emptying Production is an operator's act, not a contributor's; so is taking away what it may go back to.
        s.access.require(s.who, Action.ROLL_BACK, s.model.workspace, s.model.name)
    asked = _asked(s)
    events = stages.decide_request(s.model, version, c, asked)
    await _refuse_second(s, c.version, target)
    return Acted(events, f"transition {asked.transition_id}")


async def move_to_stage(s: Scene, c: orders.MoveToStage) -> Acted:
    if not c.archive_existing:
        return await request_transition(s, c)
    version = await state.version(s.tx, s.model, c.version)
    stage = stages.stage_of(s.model, c.to_stage)
    stages.check_can_clear(s.model, stage)
    if version.stage != stage:
        acted = await request_transition(s, c)
    else:
        acted = Acted([], of_version(s.model, c.version))
    if s.model.rules.lifecycle.gated(stage):
        return acted  # whom it holds instead goes with the decision
    others = await state.in_stage(s.tx, s.model, stage)
    leaving = stages.decide_clear(s.model, version, others, acted.events, _asked(s), c.reason)
    return replace(acted, events=[*leaving, *acted.events])


async def roll_back(s: Scene, c: contract.RollBack) -> Acted:
    _existing(s)
    stage = stages.stage_of(s.model, c.stage)
    number = c.to_version or await state.last_good(s.tx, s.model, stage)
    target = await state.version(s.tx, s.model, number) if number else None
    asked = _asked(s)
    events = stages.decide_rollback(s.model, target, c, asked)
    await _refuse_second(s, events[0].version, stage)
    return Acted(events, f"transition {asked.transition_id}")


async def set_alias(s: Scene, c: contract.SetAlias) -> Acted:
    version = await state.version(s.tx, s.model, c.version)
    asked = _asked(s)
    events = aliases.decide_set_alias(s.model, version, c, asked)
    if any(isinstance(event, contract.StageRequested) for event in events):
        await _refuse_second(s, c.version, f"@{c.alias}")
        return Acted(events, f"transition {asked.transition_id}")
    return Acted(events, f"alias {subject_of(s.model.workspace, s.model.name)} {c.alias}")


async def remove_alias(s: Scene, c: orders.RemoveAlias) -> Acted:
    _existing(s)
    if s.model.rules.protects(c.alias):
        s.access.require(s.who, Action.ROLL_BACK, s.model.workspace, s.model.name)
    events = aliases.decide_remove_alias(s.model, c.alias, s.who.subject, c.reason)
    return Acted(events, of_model(s.model))


async def cancel(s: Scene, c: orders.CancelTransition) -> Acted:
    waiting = await state.open_transition(s.tx, c.transition_id)
    if waiting is None:
        raise Problem(409, "transition-closed", f"transition {c.transition_id} is not open any more")
    if waiting.requested_by != s.who.subject:
        s.access.require(s.who, Action.MANAGE, s.model.workspace, s.model.name)
    return Acted([stages.decide_cancel(waiting, s.who.subject, c.reason)], f"transition {c.transition_id}")


async def _refuse_second(s: Scene, number: int, target: str) -> None:
    other = await state.has_open(s.tx, s.model, number, target)
    if other is not None:
        detail = f"version {number} already waits for {target}: transition {other}"
        raise Problem(409, "transition-open", detail, transition_id=other)


def _existing(s: Scene) -> None:
    if not s.model.exists:
        raise state.no_model(s.model.workspace, s.model.name)


def _has_served(model: domain.Model, version: domain.Version) -> bool:
    """Whether it has been in a gated stage that holds a limited number, such as Production."""
    lifecycle = model.rules.lifecycle
    return any(rule.gated and rule.holds is not None and rule.name in version.has_been for rule in lifecycle.stages)


def _asked(s: Scene) -> Asked:
    return Asked(str(new_id()), s.who.subject, now() + s.expires_after)


# What each command needs to be allowed to, and what carries it out.
ACTS: dict[type[Any], tuple[Action, Act]] = {
    contract.RegisterModel: (Action.REGISTER, register_model),
    contract.RegisterVersion: (Action.REGISTER, register_version),
    contract.EvaluateVersion: (Action.REGISTER, evaluate),
    contract.TagVersion: (Action.REGISTER, tag),
    orders.AddNote: (Action.REGISTER, note),
    orders.AddScan: (Action.REQUEST, scan),
    orders.UpdateModel: (Action.REGISTER, update_model),
    orders.RenameModel: (Action.MANAGE, rename_model),
    orders.DeleteModel: (Action.MANAGE, delete_model),
    orders.RestoreModel: (Action.MANAGE, restore_model),
    orders.RecreateModel: (Action.MANAGE, recreate_model),
    orders.DescribeVersion: (Action.REGISTER, describe),
    orders.DeleteVersion: (Action.MANAGE, delete_version),
    orders.RestoreVersion: (Action.MANAGE, restore_version),
    contract.RequestTransition: (Action.REQUEST, request_transition),
    orders.MoveToStage: (Action.REQUEST, move_to_stage),
    contract.RollBack: (Action.ROLL_BACK, roll_back),
    contract.SetAlias: (Action.REQUEST, set_alias),
    orders.RemoveAlias: (Action.REQUEST, remove_alias),
    orders.CancelTransition: (Action.REQUEST, cancel),
}
