"""Deleting versions, bringing them back, and a deleted model that begins anew. Pure, like `stages.py`.

A version that is deleted first leaves what it stood for: its open transitions are refused, its aliases removed, and
from a stage it goes to the archive. So whoever follows stages and aliases hears of it in words that they know.
"""

from collections.abc import Sequence

from contracts.lifecycle import TransitionKind
from contracts.payload import Message
from contracts.registry import AliasRemoved, ModelRecreated, StageChanged, VersionDeleted, VersionRestored
from registry.domain import Model, Refused, Version, check_alive, check_name, check_tags
from registry.stages import Asked, Open, ended, transition_of

DELETED = "version-deleted"


def decide_delete_version(
    model: Model, version: Version, waiting: Sequence[Open], asked: Asked, reason: str
) -> list[Message]:
    """`waiting`: the open transitions of the version."""
    check_alive(model)
    relied_on = [f"@{alias}" for alias, number in model.aliases.items() if number == version.number]
    places = [alias for alias in relied_on if model.rules.protects(alias[1:])]
    places += [version.stage] if model.rules.lifecycle.gated(version.stage) else []
    if places:
        raise Refused("version-in-use", f"version {version.number} is in {places[0]}; take it out of there first")
    return [
        *_leaving(model, [version], waiting, asked, reason),
        VersionDeleted(
            workspace=model.workspace,
            model=model.name,
            version=version.number,
            digest=version.digest,
            reason=reason,
        ),
    ]


def decide_restore_version(model: Model, version: Version, reason: str) -> list[VersionRestored]:
    """It comes back where it was left: in the archive, or where versions begin. Its aliases do not."""
    check_alive(model)
    if not version.deleted:
        raise Refused("not-deleted", f"version {version.number} is not deleted")
    return [
        VersionRestored(
            workspace=model.workspace,
            model=model.name,
            version=version.number,
            digest=version.digest,
            reason=reason,
        )
    ]


def decide_recreate(
    model: Model,
    name: str,
    description: str,
    tags: dict[str, str],
    staged: Sequence[Version],
    waiting: Sequence[Open],
    asked: Asked,
) -> list[Message]:
    """`staged`: its versions that are not deleted, in stages other than the first and the archive."""
    if not model.deleted:
        raise Refused("model-exists", f"model {name} already exists in workspace {model.workspace}")
    check_name(model.rules, name)
    check_tags(frozenset(), {*tags})
    recreated = ModelRecreated(
        workspace=model.workspace,
        model=model.name,
        name=name,
        versions=model.versions,
        description=description,
        tags=tags,
    )
    return [*_leaving(model, staged, waiting, asked, "the model begins anew", every_alias=True), recreated]


def _leaving(
    model: Model,
    versions: Sequence[Version],
    waiting: Sequence[Open],
    asked: Asked,
    reason: str,
    *,
    every_alias: bool = False,
) -> list[Message]:
    numbers = {version.number for version in versions}
    events: list[Message] = [
        ended(one, DELETED, f"version {one.transition.version} was deleted: {reason}") for one in waiting
    ]
    events += [
        AliasRemoved(
            workspace=model.workspace,
            model=model.name,
            alias=alias,
            previous=number,
            requested_by=asked.actor,
            reason=reason,
        )
        for alias, number in sorted(model.aliases.items())
        if every_alias or number in numbers
    ]
    archive = model.rules.lifecycle.archive
    for count, version in enumerate(versions):
        if version.stage not in (model.rules.lifecycle.initial, archive):
            transition_id = f"{asked.transition_id}-{count}" if count else asked.transition_id
            transition = transition_of(model, version, TransitionKind.RETIREMENT, archive, transition_id)
            events.append(StageChanged(**transition.model_dump(), requested_by=asked.actor, reason=reason))
    return events
