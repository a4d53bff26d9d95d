"""Commands the registry takes and events it writes."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from contracts.lifecycle import Lifecycle, Stage, TransitionKind
from contracts.model import Evaluation, Finding, Inspection, VersionContent
from contracts.payload import (
    AliasName,
    Digest,
    Identifier,
    Jws,
    Key,
    Line,
    Message,
    ModelName,
    Payload,
    Reason,
    StageName,
    Target,
    Text,
    VersionNumber,
)
from contracts.payload import Workspace as WorkspaceName


class OfModel(Payload):
    workspace: WorkspaceName = "default"
    model: ModelName


class OfVersion(OfModel):
    version: VersionNumber


class RegisterModel(Message, OfModel):
    TYPE: ClassVar[str] = "hallmark.model.register.v1"
    description: Text = ""
    owner: Line | None = None
    tags: dict[Key, Text] = Field(default_factory=dict)


class RegisterVersion(Message, OfModel):
    """Registers the next version; the model is made when it does not exist yet. The artifact was uploaded before, or
    is a reference to objects of the S3 store."""

    TYPE: ClassVar[str] = "hallmark.version.register.v1"
    content: VersionContent


class EvaluateVersion(Message, OfVersion):
    """Appends an evaluation."""

    TYPE: ClassVar[str] = "hallmark.version.evaluate.v1"
    evaluation: Evaluation


class Tags(Payload):
    """Tags to set and names of tags to remove."""

    set: dict[Key, Text] = Field(default_factory=dict)
    remove: Annotated[tuple[Key, ...], Field(max_length=200)] = ()

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.set and not self.remove:
            raise ValueError("name at least one tag to set or to remove")
        if both := sorted({*self.set} & {*self.remove}):
            raise ValueError(f"the tag {both[0]!r} is both set and removed")
        return self


class TagVersion(Message, OfVersion):
    TYPE: ClassVar[str] = "hallmark.version.tag.v1"
    tags: Tags


# What a policy may ask for beside the reason: a change ticket, the version to roll back to.
RequestFields = Annotated[
    dict[Key, Annotated[str, Field(max_length=1_000, pattern=r"^[^\x00]*$")]], Field(max_length=50)
]


class SetAlias(Message, OfVersion):
    """Points an alias at a version. `expected` is the compare of compare-and-set: the version it must point at now
    (0: it must not exist). `fields`, of a protected alias, are those of `RequestTransition`."""

    TYPE: ClassVar[str] = "hallmark.alias.set.v1"
    alias: AliasName
    expected: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None
    reason: Reason = "set"
    fields: RequestFields = Field(default_factory=dict)


class RequestTransition(Message):
    """`fields` are what the policies ask for beside the reason (`hallmark policy explain` says what)."""

    TYPE: ClassVar[str] = "hallmark.stage.request.v1"
    workspace: WorkspaceName = "default"
    model: ModelName
    version: VersionNumber
    to_stage: StageName
    reason: Reason
    expected_from: StageName | None = None
    fields: RequestFields = Field(default_factory=dict)


class RollBack(Message):
    """Returns a stage to its last good occupant, or to the one named."""

    TYPE: ClassVar[str] = "hallmark.stage.roll-back.v1"
    workspace: WorkspaceName = "default"
    model: ModelName
    stage: StageName = Stage.PRODUCTION
    to_version: VersionNumber | None = None
    reason: Reason
    fields: RequestFields = Field(default_factory=dict)


class WorkspaceConfigured(Message):
    """The rules of a workspace from now on. `naming` is a regular expression (no look-around) that a new name must
    match in full; `naming_message` says it in words. A protected alias is set by a signed decision only."""

    TYPE: ClassVar[str] = "hallmark.workspace.configured.v1"
    workspace: WorkspaceName
    lifecycle: Lifecycle
    naming: Annotated[str, Field(max_length=500)] | None = None
    naming_message: Text = ""
    protected_aliases: Annotated[tuple[AliasName, ...], Field(max_length=100)] = ()


class ModelRegistered(Message):
    TYPE: ClassVar[str] = "hallmark.model.registered.v1"
    workspace: WorkspaceName
    model: ModelName
    description: Text = ""
    owner: Line | None = None
    tags: dict[Key, Text] = Field(default_factory=dict)


class ModelUpdated(Message):
    """What changed; None and empty mean: as before."""

    TYPE: ClassVar[str] = "hallmark.model.updated.v1"
    workspace: WorkspaceName
    model: ModelName
    description: Text | None = None
    owner: Line | None = None
    tags: Tags | None = None


class ModelRenamed(Message):
    """The model is found under `name` from now on. `model`, the name it was registered under, stays its identity: the
    key of its stream, and a name nobody else can have."""

    TYPE: ClassVar[str] = "hallmark.model.renamed.v1"
    workspace: WorkspaceName
    model: ModelName
    former: ModelName
    name: ModelName


class ModelDeleted(Message):
    """Out of sight until it is restored; nothing is erased, and its name stays reserved."""

    TYPE: ClassVar[str] = "hallmark.model.deleted.v1"
    workspace: WorkspaceName
    model: ModelName
    reason: Reason


class ModelRestored(Message):
    TYPE: ClassVar[str] = "hallmark.model.restored.v1"
    workspace: WorkspaceName
    model: ModelName
    reason: Reason


class ModelRecreated(Message):
    """A deleted model begins anew under `name`, with nothing of what it was. Its former versions stay deleted, and
    their numbers are not given again: the next version has the number after `versions`."""

    TYPE: ClassVar[str] = "hallmark.model.recreated.v1"
    workspace: WorkspaceName
    model: ModelName
    name: ModelName
    versions: Annotated[int, Field(ge=0, le=2_147_483_647)]
    description: Text = ""
    owner: Line | None = None
    tags: dict[Key, Text] = Field(default_factory=dict)


class VersionRegistered(Message):
    TYPE: ClassVar[str] = "hallmark.version.registered.v1"
    workspace: WorkspaceName
    model: ModelName
    version: VersionNumber
    digest: Digest
    content: VersionContent
    registered_by: Line
    stage: StageName = Stage.DEVELOPMENT


class VersionVerified(Message):
    """The store holds exactly the declared bytes. The version is `ready`, or `quarantined` when a finding is unsafe."""

    TYPE: ClassVar[str] = "hallmark.version.verified.v1"
    workspace: WorkspaceName
    model: ModelName
    version: VersionNumber
    digest: Digest
    artifact_digest: Digest
    inspection: Inspection


class VersionRejected(Message):
    """The artifact is not what was declared; `file` says which one. The version can never be used."""

    TYPE: ClassVar[str] = "hallmark.version.rejected.v1"
    workspace: WorkspaceName
    model: ModelName
    version: VersionNumber
    digest: Digest
    code: Line
    detail: Text
    file: Line | None = None


class VersionEvaluated(Message):
    TYPE: ClassVar[str] = "hallmark.version.evaluated.v1"
    workspace: WorkspaceName
    model: ModelName
    version: VersionNumber
    evaluation: Evaluation


class VersionTagged(Message):
    TYPE: ClassVar[str] = "hallmark.version.tagged.v1"
    workspace: WorkspaceName
    model: ModelName
    version: VersionNumber
    tags: Tags


class VersionNoted(Message):
    TYPE: ClassVar[str] = "hallmark.version.noted.v1"
    workspace: WorkspaceName
    model: ModelName
    version: VersionNumber
    text: Annotated[Text, Field(min_length=1)]


class VersionDescribed(Message):
    """What is said of the version from now on. The notes of its registration stay what they were."""

    TYPE: ClassVar[str] = "hallmark.version.described.v1"
    workspace: WorkspaceName
    model: ModelName
    version: VersionNumber
    description: Text


class VersionDeleted(Message):
    """Out of sight until it is restored; nothing is erased, and its number is never given again."""

    TYPE: ClassVar[str] = "hallmark.version.deleted.v1"
    workspace: WorkspaceName
    model: ModelName
    version: VersionNumber
    digest: Digest
    reason: Reason


class VersionRestored(Message):
    TYPE: ClassVar[str] = "hallmark.version.restored.v1"
    workspace: WorkspaceName
    model: ModelName
    version: VersionNumber
    digest: Digest
    reason: Reason


class VersionRevoked(Message):
    """Nobody may use the version any more, whatever stage it was in. `revocation` is the approval service's JWS over a
    `Revocation`; `fallback` is the version that its stage is to return to."""

    TYPE: ClassVar[str] = "hallmark.version.revoked.v1"
    workspace: WorkspaceName
    model: ModelName
    version: VersionNumber
    digest: Digest
    revoked_by: Line
    reason: Reason
    fallback: VersionNumber | None = None
    revocation: Jws


class VersionScanned(Message):
    """What a scanner outside the registry found. An unsafe finding quarantines a ready version."""

    TYPE: ClassVar[str] = "hallmark.version.scanned.v1"
    workspace: WorkspaceName
    model: ModelName
    version: VersionNumber
    scanner: Line
    findings: Annotated[tuple[Finding, ...], Field(min_length=1, max_length=200)]


class Transition(Payload):
    """What a request, a decision and a change must agree on."""

    transition_id: Identifier
    kind: TransitionKind
    workspace: WorkspaceName
    model: ModelName
    version: VersionNumber
    digest: Digest
    artifact_digest: Digest
    from_stage: StageName
    to_stage: Target


class StageRequested(Message, Transition):
    """`expected`, of an alias: the version it must still point at when the decision comes (0: it must not exist)."""

    TYPE: ClassVar[str] = "hallmark.stage.requested.v1"
    requested_by: Line
    reason: Reason
    expires_at: AwareDatetime
    expected: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None
    fields: RequestFields = Field(default_factory=dict)


class Approval(Payload):
    """One person's approval, as 21 CFR 11.50 wants it shown: who, when, and what it meant."""

    name: Line
    at: AwareDatetime
    meaning: Line


class Criterion(Payload):
    """One gate and what it said."""

    gate: Line
    expression: Text
    result: Line
    message: Text = ""


class StageChanged(Message, Transition):
    """A version entered `to_stage`. `decision` is the JWS it rests on; an ungated move has none."""

    TYPE: ClassVar[str] = "hallmark.stage.changed.v1"
    requested_by: Line
    reason: Reason
    approved_by: tuple[Approval, ...] = ()
    criteria: tuple[Criterion, ...] = ()
    policy: Line | None = None
    decision_id: Identifier | None = None
    decision: Jws | None = None
    replaces: VersionNumber | None = None
    superseded_by: VersionNumber | None = None


class StageRefused(Message, Transition):
    """The transition ended without a change: refused, or `code` says request-expired or cancelled."""

    TYPE: ClassVar[str] = "hallmark.stage.refused.v1"
    requested_by: Line
    reason: Reason
    code: Line
    detail: Text
    criteria: tuple[Criterion, ...] = ()
    policy: Line | None = None
    decision_id: Identifier | None = None
    decision: Jws | None = None


class AliasChanged(Message):
    """An alias points at `version`; before, at `previous` (None: it did not exist). A protected one rests on
    `decision`, the JWS over the transition to `@alias`."""

    TYPE: ClassVar[str] = "hallmark.alias.changed.v1"
    workspace: WorkspaceName
    model: ModelName
    alias: AliasName
    version: VersionNumber
    digest: Digest
    artifact_digest: Digest
    previous: VersionNumber | None = None
    requested_by: Line
    reason: Reason
    transition_id: Identifier | None = None
    approved_by: tuple[Approval, ...] = ()
    criteria: tuple[Criterion, ...] = ()
    policy: Line | None = None
    decision_id: Identifier | None = None
    decision: Jws | None = None


class AliasRemoved(Message):
    TYPE: ClassVar[str] = "hallmark.alias.removed.v1"
    workspace: WorkspaceName
    model: ModelName
    alias: AliasName
    previous: VersionNumber
    requested_by: Line
    reason: Reason


class ServingReported(Message):
    """What a serving process has loaded, said by itself; only a change is recorded."""

    TYPE: ClassVar[str] = "hallmark.serving.reported.v1"
    workspace: WorkspaceName
    model: ModelName
    version: VersionNumber
    server: Line
    target: Target
    state: Literal["loaded", "serving", "failed", "stopped"]
    detail: Text = ""


class CommandRejected(Message):
    """The answer to a record that could not be obeyed; the record itself is on the dead-letter topic."""

    TYPE: ClassVar[str] = "hallmark.command.rejected.v1"
    command_id: Line
    command_type: Line
    code: Line
    detail: Annotated[str, Field(max_length=10_000)]


COMMANDS = (RegisterModel, RegisterVersion, EvaluateVersion, TagVersion, RequestTransition, RollBack, SetAlias)
EVENTS = (
    WorkspaceConfigured,
    ModelRegistered,
    ModelUpdated,
    ModelRenamed,
    ModelDeleted,
    ModelRestored,
    ModelRecreated,
    VersionRegistered,
    VersionVerified,
    VersionRejected,
    VersionEvaluated,
    VersionTagged,
    VersionNoted,
    VersionDescribed,
    VersionDeleted,
    VersionRestored,
    VersionScanned,
    VersionRevoked,
    StageRequested,
    StageChanged,
    StageRefused,
    AliasChanged,
    AliasRemoved,
    ServingReported,
    CommandRejected,
)
