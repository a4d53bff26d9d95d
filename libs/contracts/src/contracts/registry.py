"""Commands the registry takes and events it writes."""

from typing import Annotated, ClassVar

from pydantic import AwareDatetime, Field

from contracts.lifecycle import Stage, TransitionKind
from contracts.model import VersionContent
from contracts.payload import (
    Digest,
    Identifier,
    Jws,
    Key,
    Line,
    Message,
    ModelName,
    Payload,
    Reason,
    Text,
    VersionNumber,
)
from contracts.payload import Workspace as WorkspaceName


class RegisterModel(Message):
    TYPE: ClassVar[str] = "hallmark.model.register.v1"
    workspace: WorkspaceName = "default"
    model: ModelName
    description: Text = ""
    owner: Line | None = None
    tags: dict[Key, Text] = Field(default_factory=dict)


class RegisterVersion(Message):
    """Registers the next version; the model is made when it does not exist yet. The artifact was uploaded before."""

    TYPE: ClassVar[str] = "hallmark.version.register.v1"
    workspace: WorkspaceName = "default"
    model: ModelName
    content: VersionContent


class RequestTransition(Message):
    TYPE: ClassVar[str] = "hallmark.stage.request.v1"
    workspace: WorkspaceName = "default"
    model: ModelName
    version: VersionNumber
    to_stage: Stage
    reason: Reason
    expected_from: Stage | None = None


class RollBack(Message):
    """Returns a stage to its last good occupant, or to the one named."""

    TYPE: ClassVar[str] = "hallmark.stage.roll-back.v1"
    workspace: WorkspaceName = "default"
    model: ModelName
    stage: Stage = Stage.PRODUCTION
    to_version: VersionNumber | None = None
    reason: Reason


class ModelRegistered(Message):
    TYPE: ClassVar[str] = "hallmark.model.registered.v1"
    workspace: WorkspaceName
    model: ModelName
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


class Transition(Payload):
    """What a request, a decision and a change must agree on."""

    transition_id: Identifier
    kind: TransitionKind
    workspace: WorkspaceName
    model: ModelName
    version: VersionNumber
    digest: Digest
    artifact_digest: Digest
    from_stage: Stage
    to_stage: Stage


class StageRequested(Message, Transition):
    TYPE: ClassVar[str] = "hallmark.stage.requested.v1"
    requested_by: Line
    reason: Reason
    expires_at: AwareDatetime


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
    TYPE: ClassVar[str] = "hallmark.stage.refused.v1"
    requested_by: Line
    reason: Reason
    code: Line
    detail: Text
    criteria: tuple[Criterion, ...] = ()
    policy: Line | None = None
    decision_id: Identifier | None = None
    decision: Jws | None = None


class CommandRejected(Message):
    """The answer to a record that could not be obeyed; the record itself is on the dead-letter topic."""

    TYPE: ClassVar[str] = "hallmark.command.rejected.v1"
    command_id: Line
    command_type: Line
    code: Line
    detail: Annotated[str, Field(max_length=10_000)]


COMMANDS = (RegisterModel, RegisterVersion, RequestTransition, RollBack)
EVENTS = (ModelRegistered, VersionRegistered, StageRequested, StageChanged, StageRefused, CommandRejected)
