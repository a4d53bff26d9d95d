"""Aliases: who may be found under which name. Pure, like `stages.py`."""

from contracts.lifecycle import TransitionKind
from contracts.registry import AliasChanged, AliasRemoved, SetAlias, StageRequested
from registry.domain import Model, Refused, Status, Version, check_alive
from registry.stages import Asked, check_not_revoked, check_verified, requested, transition_of


def decide_set_alias(
    model: Model, version: Version, command: SetAlias, asked: Asked
) -> list[StageRequested | AliasChanged]:
    """A protected alias gets a request, as a gated stage does; another is set at once. Set already: no event."""
    check_alive(model)
    alias = command.alias
    if alias.lower() == "latest" or (alias[:1] in "vV" and alias[1:].isdecimal()):
        raise Refused("reserved-alias", f"{alias!r} has a meaning of its own; choose another name", 422)
    check_verified(version)
    check_not_revoked(version)
    if version.status == Status.QUARANTINED and not model.rules.protects(alias):
        raise Refused("version-quarantined", f"version {version.number} has unsafe findings; nobody should find it")
    present = model.aliases.get(alias)
    if command.expected is not None and command.expected != (present or 0):
        now_at = f"points at version {present}" if present else "does not exist"
        raise Refused("alias-moved", f"the alias {alias} {now_at}, not at {command.expected or 'nothing'} as expected")
    if present == version.number:
        return []
    if model.rules.protects(alias):
        transition = transition_of(model, version, TransitionKind.ALIAS, f"@{alias}", asked.transition_id)
        return [requested(transition, asked, command.reason, command.expected, command.fields)]
    return [
        AliasChanged(
            workspace=model.workspace,
            model=model.name,
            alias=alias,
            version=version.number,
            digest=version.digest,
            artifact_digest=version.artifact_digest,
            previous=present,
            requested_by=asked.actor,
            reason=command.reason,
        )
    ]


def decide_remove_alias(model: Model, alias: str, actor: str, reason: str) -> list[AliasRemoved]:
    check_alive(model)
    if alias not in model.aliases:
        raise Refused("alias-not-found", f"{model.title} has no alias {alias!r}", 404)
    return [
        AliasRemoved(
            workspace=model.workspace,
            model=model.name,
            alias=alias,
            previous=model.aliases[alias],
            requested_by=actor,
            reason=reason,
        )
    ]
