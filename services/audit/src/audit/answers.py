"""The shapes of the HTTP answers."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from contracts.registry import Approval, Criterion


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TimelineItem(Answer):
    """One entry for people. `copy_of` is the first entry that is the same event; `problem` is set on a bad record.

    Of an entry whose month was pruned the summary is "pruned", and nobody is named.
    `revised` is the entry whose rules came late and changed what is told here (`summary`, `problem`, `outcome`). Where
    it is not in the tree of the page, these three tell more than that tree knew.
    """

    index: int
    at: datetime
    recorded_at: datetime
    topic: str
    type: str | None
    subject: str | None
    actor: str | None
    summary: str
    workspace: str | None
    model: str | None
    version: int | None
    event_id: str | None
    stream: str | None
    sequence: int | None
    correlationid: str | None
    causationid: str | None
    problem: str | None
    outcome: Literal["ok", "refused", "failed"]
    copy_of: int | None
    revised: int | None


class Page(Answer):
    """`next` is the `after` of the next page. All pages of one answer see the tree of `size` entries.

    Entries below the index `pruned_until` may have been pruned: what they said, and who, is in no list any more. The
    export has it.
    """

    next: str | None
    size: int
    pruned_until: int


class TimelinePage(Page):
    items: list[TimelineItem]


class SearchPage(TimelinePage):
    """`behind`: so many entries cannot be found yet."""

    behind: int


class Revoked(Answer):
    """Since `at` nobody may use the version. `index` is the entry that says so."""

    at: datetime
    by: str
    reason: str
    fallback: int | None
    index: int


class Deleted(Answer):
    """At the instant that is asked about, the model was deleted, and has not been restored. `index` says so."""

    at: datetime
    by: str | None
    reason: str
    index: int


class Tenant(Answer):
    """One version's stay in a stage. `index` is the entry that let it in, `closed_by` the one that ended it, and
    `known_from` the one that made all this known."""

    version: int
    since: datetime
    until: datetime | None
    kind: str
    digest: str
    artifact_digest: str
    requested_by: str
    reason: str
    approved_by: list[Approval]
    criteria: list[Criterion]
    policy: str | None
    decision_id: str | None
    transition_id: str | None
    superseded_by: int | None
    revoked: Revoked | None
    index: int
    known_from: int
    closed_by: int | None


class Stay(Tenant):
    workspace: str
    model: str
    stage: str


class StageHistory(Page):
    """As a tree of `known_size` entries knew it."""

    items: list[Stay]
    known_size: int


class Proof(Answer):
    """`proof` leads from `leaf_hash` (hex) to the root of the checkpoint; hashes in base64 (RFC 6962)."""

    index: int
    leaf_hash: str
    proof: list[str]


class Proofs(Answer):
    size: int
    checkpoint: str
    items: list[Proof]


class Occupant(Answer):
    """Who held a stage at `at`; `version` is null when nobody did. `index` is the entry that let it in.

    Of several, the newest is told here; `others` are the numbers of the rest, and `occupants` tells of all, or of the
    newest 1,000 when `truncated` says so. `revoked` is what became of the version, also after `at`: it does not change
    what was there, and neither does `deleted`.
    """

    workspace: str
    model: str
    stage: str
    at: datetime
    version: int | None
    since: datetime | None
    until: datetime | None
    kind: str | None
    digest: str | None
    artifact_digest: str | None
    requested_by: str | None
    reason: str | None
    approved_by: list[Approval]
    criteria: list[Criterion]
    policy: str | None
    decision_id: str | None
    transition_id: str | None
    superseded_by: int | None
    revoked: Revoked | None
    index: int | None
    known_from: int | None
    closed_by: int | None
    others: list[int]
    occupants: list[Tenant]
    truncated: bool
    deleted: Deleted | None
    known_size: int
    proofs: Proofs | None


class Pointed(Answer):
    """Where an alias pointed from `since` to `until`. After a removal `version` is null, and the rest tells of it."""

    workspace: str
    model: str
    alias: str
    version: int | None
    previous: int | None
    since: datetime | None
    until: datetime | None
    digest: str | None
    artifact_digest: str | None
    requested_by: str | None
    reason: str | None
    approved_by: list[Approval]
    criteria: list[Criterion]
    policy: str | None
    decision_id: str | None
    transition_id: str | None
    revoked: Revoked | None
    index: int | None
    known_from: int | None
    closed_by: int | None


class Pointer(Pointed):
    """Where an alias pointed at `at`, as a tree of `known_size` entries knew it. `version` is null when it did not
    exist."""

    at: datetime
    deleted: Deleted | None
    known_size: int
    proofs: Proofs | None


class AliasHistory(Page):
    """As a tree of `known_size` entries knew it."""

    items: list[Pointed]
    known_size: int


class Held(Answer):
    """What was in `target`, a stage or an `@alias`, since when, and who let it in: the entry `index` says so."""

    target: str
    version: int
    since: datetime
    requested_by: str
    reason: str
    approved_by: list[Approval]
    policy: str | None
    decision_id: str | None
    transition_id: str | None
    digest: str | None
    artifact_digest: str | None
    index: int


class Change(Answer):
    """A version that is somewhere else than before, or an `alias` that points elsewhere (`version` is null then).

    `before` and `after` are null where there was nothing. `index` is the entry that made it as it is.
    """

    workspace: str
    model: str
    version: int | None
    alias: str | None
    before: Held | None
    after: Held | None
    index: int | None


class Changes(Page):
    """What is different at `until` from what was at `since`, both as a tree of `known_size` entries knew them."""

    items: list[Change]
    since: datetime
    until: datetime
    known_size: int
