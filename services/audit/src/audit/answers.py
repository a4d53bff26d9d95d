"""The shapes of the HTTP answers."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from contracts.registry import Approval, Criterion


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TimelineItem(Answer):
    """One entry for people. `copy_of` is the first entry with the same event id; `problem` is set on a bad record."""

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
    copy_of: int | None


class TimelinePage(Answer):
    """`next` is the `after` of the next page."""

    items: list[TimelineItem]
    next: str | None


class Revoked(Answer):
    """Since `at` nobody may use the version. `index` is the entry that says so."""

    at: datetime
    by: str
    reason: str
    fallback: int | None
    index: int


class Tenant(Answer):
    """One version's stay in a stage. `index` is the entry that let it in, `closed_by` the one that ended it."""

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
    closed_by: int | None


class Occupant(Answer):
    """Who held a stage at `at`; `version` is null when nobody did. `index` is the entry that let it in.

    Of several, the newest is told here; `others` are the numbers of the rest, and `occupants` tells of all. `revoked`
    is what became of the version, also after `at`: it does not change what was there.
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
    closed_by: int | None
    others: list[int]
    occupants: list[Tenant]


class Pointer(Answer):
    """Where an alias pointed at `at`. `version` is null when it did not exist; after a removal the rest tells of it."""

    workspace: str
    model: str
    alias: str
    at: datetime
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
    closed_by: int | None
