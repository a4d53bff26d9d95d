"""Events the audit service writes."""

from typing import Annotated, ClassVar

from pydantic import AwareDatetime, Field

from contracts.payload import Digest, Identifier, Line, Message, ModelName, Payload, Reason, Text, Workspace
from contracts.people import Pseudonym


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


class RetentionRule(Payload):
    """Records of `topic` and of the CloudEvents type `type` ("*" is any) are kept for at least so many days."""

    topic: Line
    type: Line
    days: Annotated[int, Field(ge=1, le=36_500)]


class RetentionPublished(Message):
    """How long the log keeps what. `reason` says why a floor of the law does not hold here, where one is missed."""

    TYPE: ClassVar[str] = "hallmark.retention.published.v1"
    rules: Annotated[tuple[RetentionRule, ...], Field(min_length=1, max_length=200)]
    published_by: Line
    reason: Reason | None = None


class HoldPlaced(Message):
    """A legal hold: nothing that it protects is pruned. Without a model it is about the workspace, without both about
    everything; `since` and `until` (without it) narrow it by when the log recorded something."""

    TYPE: ClassVar[str] = "hallmark.hold.placed.v1"
    hold_id: Line
    workspace: Workspace | None = None
    model: ModelName | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    placed_by: Line
    reason: Reason


class HoldReleased(Message):
    """The end of a legal hold."""

    TYPE: ClassVar[str] = "hallmark.hold.released.v1"
    hold_id: Line
    released_by: Line
    reason: Reason


class LogPruned(Message):
    """A month of entries, from `first` up to but without `until`, left the database. They are in the object store, as
    verified against the checkpoint of `size` entries; `root` is base64. The log promises entries from `minimum_index`.
    """

    TYPE: ClassVar[str] = "hallmark.log.pruned.v1"
    origin: Line
    partition: Line
    first: Annotated[int, Field(ge=0)]
    until: Annotated[int, Field(ge=1)]
    minimum_index: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=1)]
    root: Line
    pruned_by: Line


class RecordSkipped(Message):
    """The receiver of the feed `sink` refused the record of entry `index` while it took another: the feed goes on
    without it. `status` is the HTTP status, `detail` what the receiver said."""

    TYPE: ClassVar[str] = "hallmark.siem.skipped.v1"
    sink: Line
    index: Annotated[int, Field(ge=0)]
    status: Annotated[int, Field(ge=100, le=999)]
    detail: Text


class PersonKnown(Message):
    """The vault of identities knows whom a pseudonym stands for. `commitment` binds it to that, and tells nothing
    (`contracts.people.commitment`): the salt is in the vault, and goes with the name."""

    TYPE: ClassVar[str] = "hallmark.person.known.v1"
    pseudonym: Pseudonym
    commitment: Digest


class SubjectErased(Message):
    """Whom the pseudonym stood for was erased from the vault, and with it the addresses that nobody else had (`also`).
    Nobody can tell any more."""

    TYPE: ClassVar[str] = "hallmark.subject.erased.v1"
    pseudonym: Pseudonym
    also: tuple[Pseudonym, ...] = ()
    erased_by: Line
    reason: Reason


class Searched(Payload):
    """A saved search, and whose it is."""

    search_id: Identifier
    owner: Line
    name: Line


class SearchSaved(Message, Searched):
    """Somebody has the log searched for entries from `start` on: `query` is what the audit service's `GET /v1/timeline`
    (with `q`, its `GET /v1/search`) takes. It runs every so many seconds; without, when its owner says so. More matches
    in a run than `alert_above` are an alert. Runs have the rights that the access file gives these groups then.
    """

    TYPE: ClassVar[str] = "hallmark.search.saved.v1"
    query: Text
    groups: tuple[Line, ...]
    start: Annotated[int, Field(ge=0)]
    every: Annotated[int, Field(ge=60)] | None = None
    alert_above: Annotated[int, Field(ge=0)] | None = None


class SearchRemoved(Message, Searched):
    TYPE: ClassVar[str] = "hallmark.search.removed.v1"
    removed_by: Line


class Found(Searched):
    """Of the entries from `first` up to but without `until` so many match; `indexes` are the first of them."""

    first: Annotated[int, Field(ge=0)]
    until: Annotated[int, Field(ge=0)]
    matches: Annotated[int, Field(ge=0)]
    indexes: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=20)] = ()


class SearchRan(Message, Found):
    """A saved search ran. `outcome`: allowed; denied, where its owner may not read that any more; or failed."""

    TYPE: ClassVar[str] = "hallmark.search.ran.v1"
    outcome: Line


class SearchAlerted(Message, Found):
    """A run found more than `above`: its owner wanted to know."""

    TYPE: ClassVar[str] = "hallmark.search.alerted.v1"
    above: Annotated[int, Field(ge=0)]


EVENTS = (
    CheckpointPublished,
    AccessRecorded,
    RetentionPublished,
    HoldPlaced,
    HoldReleased,
    LogPruned,
    RecordSkipped,
    PersonKnown,
    SubjectErased,
    SearchSaved,
    SearchRemoved,
    SearchRan,
    SearchAlerted,
)
