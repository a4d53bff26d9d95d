"""Events the audit service writes."""

from typing import Annotated, ClassVar

from pydantic import Field

from contracts.payload import Line, Message, Text


class CheckpointPublished(Message):
    """A signed C2SP tlog-checkpoint. `root` is base64."""

    TYPE: ClassVar[str] = "hallmark.checkpoint.published.v1"
    origin: Line
    size: Annotated[int, Field(ge=0)]
    root: Line
    note: Text


class AccessRecorded(Message):
    """Somebody read the audit data."""

    TYPE: ClassVar[str] = "hallmark.access.recorded.v1"
    principal: Line
    query: Text
    outcome: Line


EVENTS = (CheckpointPublished, AccessRecorded)
