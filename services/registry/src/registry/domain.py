"""Models and versions. Pure: state and command in, events out.

`decide_*` functions return the events a command causes or raise `Refused`; they change nothing. Stages are in
`stages.py`, aliases in `aliases.py`, revocations in `revocation.py`, under the same rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from contracts.lifecycle import DEFAULT_LIFECYCLE, Lifecycle
from contracts.model import Evaluation, Finding, Inspection
from contracts.naming import compiled, matches
from contracts.registry import (
    ModelDeleted,
    ModelRegistered,
    ModelRenamed,
    ModelRestored,
    ModelUpdated,
    RegisterModel,
    RegisterVersion,
    Tags,
    VersionDescribed,
    VersionEvaluated,
    VersionNoted,
    VersionRegistered,
    VersionRejected,
    VersionScanned,
    VersionTagged,
    VersionVerified,
    WorkspaceConfigured,
)

MAX_TAGS = 500


class Refused(Exception):
    """The command is well-formed but may not be done now. `code` is stable; `status` is its HTTP status."""

    def __init__(self, code: str, detail: str, status: int = 409) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.status = status


class Status(StrEnum):
    """`pending` until the registry has verified the artifact. A `rejected` version can never be used, and a `revoked`
    one no more."""

    PENDING = "pending"
    READY = "ready"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Rules:
    """What a workspace has configured."""

    lifecycle: Lifecycle = DEFAULT_LIFECYCLE
    naming: str | None = None
    naming_message: str = ""
    protected_aliases: frozenset[str] = frozenset()

    def protects(self, alias: str) -> bool:
        """Capitals do not make another alias of a protected one."""
        return alias.lower() in {protected.lower() for protected in self.protected_aliases}


@dataclass(frozen=True)
class Revoked:
    """Who revoked a version and why. `fallback`: the version that its stage is to return to."""

    by: str
    reason: str
    fallback: int | None = None


@dataclass(frozen=True)
class Version:
    """`has_been` are the stages it was in, the present one included."""

    number: int
    digest: str
    artifact_digest: str
    stage: str
    has_been: frozenset[str] = frozenset()
    registered_by: str = ""
    status: str = Status.READY
    revoked: Revoked | None = None
    deleted: bool = False


@dataclass(frozen=True)
class Model:
    """What the rules need to know of a model. `name` is its identity, `title` the name it goes by now.

    `occupants` are the versions in each stage that holds a limited number, the longest-standing first; `revoked` are
    those that were revoked and still stand in such a stage, or in a gated one.
    """

    workspace: str
    name: str
    exists: bool = False
    versions: int = 0
    occupants: Mapping[str, tuple[Version, ...]] = field(default_factory=dict)
    revoked: Mapping[str, tuple[Version, ...]] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    title: str = ""
    deleted: bool = False
    rules: Rules = Rules()


def check_naming(expression: str) -> None:
    """Raises Refused when it is no regular expression, needs look-around or back-references, or cannot be stored."""
    if "\x00" in expression:
        raise Refused("bad-naming-rule", "a naming rule must not have a null character", 422)
    try:
        compiled(expression)
    except ValueError as error:
        raise Refused("bad-naming-rule", f"{expression!r} is not a regular expression: {error}", 422) from error


def check_name(rules: Rules, name: str) -> None:
    """Raises Refused when a new name breaks the workspace's rule."""
    if rules.naming is not None and not matches(rules.naming, name):
        why = rules.naming_message or f"a name must match {rules.naming}"
        raise Refused("bad-name", f"{name!r} breaks the naming rule of this workspace: {why}", 422)


def decide_configure(command: WorkspaceConfigured, in_use: Mapping[str, int]) -> list[WorkspaceConfigured]:
    """`in_use`: how many versions are in each stage now; a stage with versions cannot go away."""
    if command.naming is not None:
        check_naming(command.naming)
    for stage, count in sorted(in_use.items()):
        if count and command.lifecycle.rule(stage) is None:
            raise Refused("stage-in-use", f"{count} versions are in {stage}; a lifecycle without it would lose them")
    return [command]


def check_alive(model: Model) -> None:
    """Raises Refused for a deleted model."""
    if model.deleted:
        raise Refused("model-deleted", f"{model.title or model.name} is deleted; restore it first", 410)


def decide_register_model(model: Model, command: RegisterModel) -> list[ModelRegistered]:
    if model.exists:
        state = "is deleted, and its name stays reserved" if model.deleted else "already exists"
        raise Refused("model-exists", f"model {command.model} {state} in workspace {model.workspace}")
    check_name(model.rules, command.model)
    check_tags(frozenset(), {*command.tags})
    return [ModelRegistered.model_validate(command.model_dump())]


def decide_register_version(
    model: Model, command: RegisterVersion, actor: str
) -> list[ModelRegistered | VersionRegistered]:
    """Numbers are given from 1 without gaps. A model that does not exist is made on the way."""
    check_alive(model)
    events: list[ModelRegistered | VersionRegistered] = []
    if not model.exists:
        check_name(model.rules, model.name)
        events.append(ModelRegistered(workspace=model.workspace, model=model.name, owner=command.content.owner))
    unknown = [n for n in command.content.lineage.parents if n > model.versions]
    if unknown:
        raise Refused("parent-not-found", f"parent version {unknown[0]} of {model.name} does not exist", 422)
    check_tags(frozenset(), {*command.content.tags})
    events.append(
        VersionRegistered(
            workspace=model.workspace,
            model=model.name,
            version=model.versions + 1,
            digest=command.content.digest(),
            content=command.content,
            registered_by=actor,
            stage=model.rules.lifecycle.initial,
        )
    )
    return events


def decide_update(model: Model, description: str | None, owner: str | None, tags: Tags | None) -> list[ModelUpdated]:
    check_alive(model)
    if description is None and owner is None and tags is None:
        raise Refused("nothing-to-change", "give a description, an owner or tags", 422)
    if tags is not None:
        check_tags(model.tags - {*tags.remove}, {*tags.set})
    return [ModelUpdated(workspace=model.workspace, model=model.name, description=description, owner=owner, tags=tags)]


def decide_rename(model: Model, name: str, holder: Model) -> list[ModelRenamed]:
    """`holder` is whoever has or had the new name; going back to a former name of its own is fine."""
    check_alive(model)
    if name == model.title:
        raise Refused("same-name", f"the model is named {name} already")
    if holder.exists and holder.name != model.name:
        raise Refused("model-exists", f"the name {name} belongs to another model of this workspace")
    check_name(model.rules, name)
    return [ModelRenamed(workspace=model.workspace, model=model.name, former=model.title, name=name)]


def decide_delete(model: Model, reason: str, serving: tuple[int, str] | None) -> list[ModelDeleted]:
    """`serving`: a version that others rely on, and the stage or alias it stands for."""
    check_alive(model)
    if serving is not None:
        raise Refused("model-in-use", f"version {serving[0]} is in {serving[1]}; take it out of there first")
    return [ModelDeleted(workspace=model.workspace, model=model.name, reason=reason)]


def decide_restore(model: Model, reason: str) -> list[ModelRestored]:
    if not model.deleted:
        raise Refused("not-deleted", f"{model.title} is not deleted")
    return [ModelRestored(workspace=model.workspace, model=model.name, reason=reason)]


def decide_verified(
    model: Model, version: Version, inspection: Inspection, refusal: tuple[str, str, str | None] | None
) -> list[VersionVerified | VersionRejected]:
    """`refusal` is the code, the text and the file of what is wrong with the bytes. Decided once."""
    if version.status != Status.PENDING:
        return []
    same = {"workspace": model.workspace, "model": model.name, "version": version.number, "digest": version.digest}
    if refusal is not None:
        code, detail, file = refusal
        return [VersionRejected(**same, code=code, detail=detail, file=file)]
    return [VersionVerified(**same, artifact_digest=version.artifact_digest, inspection=inspection)]


def decide_evaluate(model: Model, version: Version, evaluation: Evaluation) -> list[VersionEvaluated]:
    _check_usable(model, version)
    return [
        VersionEvaluated(workspace=model.workspace, model=model.name, version=version.number, evaluation=evaluation)
    ]


def decide_tag(model: Model, version: Version, present: frozenset[str], tags: Tags) -> list[VersionTagged]:
    _check_usable(model, version)
    check_tags(present - {*tags.remove}, {*tags.set})
    return [VersionTagged(workspace=model.workspace, model=model.name, version=version.number, tags=tags)]


def decide_note(model: Model, version: Version, text: str) -> list[VersionNoted]:
    check_alive(model)
    return [VersionNoted(workspace=model.workspace, model=model.name, version=version.number, text=text)]


def decide_describe(model: Model, version: Version, description: str) -> list[VersionDescribed]:
    check_alive(model)
    return [
        VersionDescribed(workspace=model.workspace, model=model.name, version=version.number, description=description)
    ]


def decide_scan(model: Model, version: Version, scanner: str, findings: tuple[Finding, ...]) -> list[VersionScanned]:
    check_alive(model)
    if version.status == Status.PENDING:
        # Its verification would call it ready, whatever was found before.
        raise Refused("version-not-ready", f"version {version.number} is being verified; try again in a moment")
    return [
        VersionScanned(
            workspace=model.workspace, model=model.name, version=version.number, scanner=scanner, findings=findings
        )
    ]


def _check_usable(model: Model, version: Version) -> None:
    check_alive(model)
    if version.status == Status.REJECTED:
        raise Refused("version-rejected", f"version {version.number} was rejected; register a new one")


def check_tags(kept: frozenset[str], new: set[str]) -> None:
    """Raises Refused for more tags than a model or version may have."""
    if len(kept | new) > MAX_TAGS:
        raise Refused("too-many-tags", f"{MAX_TAGS} tags is the most", 422)
