"""What the registry is asked to do over HTTP only. What Kafka takes too is in `contracts.registry`."""

from typing import ClassVar

from pydantic import Field

from contracts.model import Finding
from contracts.payload import AliasName, Identifier, Key, Line, ModelName, Reason, Text
from contracts.registry import OfModel, OfVersion, RequestTransition, Tags, WorkspaceConfigured


class Order(OfModel):
    """`TYPE` names it in rejections, like the type of a Kafka command."""

    TYPE: ClassVar[str]


class ConfigureWorkspace(WorkspaceConfigured):
    TYPE: ClassVar[str] = "hallmark.workspace.configure.v1"


class UpdateModel(Order):
    TYPE: ClassVar[str] = "hallmark.model.update.v1"
    description: Text | None = None
    owner: Line | None = None
    tags: Tags | None = None


class RenameModel(Order):
    TYPE: ClassVar[str] = "hallmark.model.rename.v1"
    name: ModelName


class DeleteModel(Order):
    TYPE: ClassVar[str] = "hallmark.model.delete.v1"
    reason: Reason


class RestoreModel(Order):
    TYPE: ClassVar[str] = "hallmark.model.restore.v1"
    reason: Reason


class RecreateModel(Order):
    """A deleted model begins anew, under the name that it is called by here."""

    TYPE: ClassVar[str] = "hallmark.model.recreate.v1"
    name: ModelName
    description: Text = ""
    tags: dict[Key, Text] = Field(default_factory=dict)


class DescribeVersion(OfVersion):
    TYPE: ClassVar[str] = "hallmark.version.describe.v1"
    description: Text


class DeleteVersion(OfVersion):
    TYPE: ClassVar[str] = "hallmark.version.delete.v1"
    reason: Reason


class RestoreVersion(OfVersion):
    TYPE: ClassVar[str] = "hallmark.version.restore.v1"
    reason: Reason


class AddNote(OfVersion):
    TYPE: ClassVar[str] = "hallmark.version.note.v1"
    text: Reason


class AddScan(OfVersion):
    TYPE: ClassVar[str] = "hallmark.version.scan.v1"
    scanner: Key
    findings: tuple[Finding, ...] = Field(min_length=1, max_length=200)


class MoveToStage(RequestTransition):
    """`archive_existing`: whoever else is in the stage goes to the archive, in the same transaction. Not for a gated
    stage, whose change comes later: that stage says itself how many it holds."""

    TYPE: ClassVar[str] = "hallmark.stage.move.v1"
    archive_existing: bool = False


class RemoveAlias(Order):
    TYPE: ClassVar[str] = "hallmark.alias.remove.v1"
    alias: AliasName
    reason: Reason


class CancelTransition(Order):
    TYPE: ClassVar[str] = "hallmark.stage.cancel.v1"
    transition_id: Identifier
    reason: Reason
