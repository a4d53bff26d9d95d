"""The shapes of the reports."""

from datetime import datetime
from typing import Literal

from audit.answers import Answer, Page
from contracts.registry import Approval


class Statistics(Answer):
    """Seconds from registration to the stage, of so many versions."""

    versions: int
    least: float | None
    most: float | None
    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None


class LeadTime(Answer):
    """`at`: when the version first reached the stage. The indexes are the entries that say so."""

    workspace: str
    model: str
    version: int
    registered_at: datetime
    registered_index: int
    at: datetime
    index: int
    seconds: float


class LeadTimes(Page):
    items: list[LeadTime]
    overall: Statistics


class ModelLeadTime(Statistics):
    workspace: str
    model: str


class ModelLeadTimes(Page):
    items: list[ModelLeadTime]


Act = Literal["approve", "reject", "withdraw", "refused", "waive", "break-glass", "justified", "not-justified"]


class Deed(Answer):
    """What a person did to a request: who, when, and what it meant (21 CFR 11.50).

    `signed_index` is the entry of the signed decision that has this very vote, waiver or emergency. Null: it is the
    approval service's word, and no signature covers it.
    """

    index: int
    at: datetime
    person: str | None
    act: Act
    meaning: str | None
    rule: str | None
    comment: str
    on_behalf_of: str | None
    auth_method: str | None
    code: str | None
    signed_index: int | None
    request: str | None
    workspace: str | None
    model: str | None
    version: int | None


class Acts(Page):
    items: list[Deed]


class Approver(Answer):
    """How often a person did what, and the first and last entry that says so."""

    person: str
    approve: int
    reject: int
    withdraw: int
    refused: int
    waive: int
    break_glass: int
    justified: int
    not_justified: int
    first_index: int
    last_index: int


class Approvers(Page):
    items: list[Approver]


Finding = Literal["violation", "refused", "undecided", "unapproved", "unverified", "unknown-author", "good"]


class Entered(Answer):
    """An entry into a gated stage or of a protected alias, and whose eyes saw it; or, where not `entered`, an attempt:
    a change that is not believed (`problem` says why), or a vote of `requested_by` that was refused.

    `approvers` are all names under which somebody approved, also for whom they voted and their e-mail addresses.
    `authors` registered the version or have commits in it. `own_waiver`: who asked for it, or made it, and waived a
    gate or broke the glass. `unapproved`: nobody's approval was asked for. `undecided`: it carries no decision.
    `unverified`: the log holds no signed decision for it, so that waivers, emergencies and votes for others cannot be
    known. `unknown_author`: the log holds no registration of the version, or it was pruned. `finding` is the
    gravest of these.
    """

    index: int
    at: datetime
    workspace: str | None
    model: str | None
    version: int | None
    target: str | None
    kind: str
    entered: bool
    finding: Finding
    problem: str | None
    requested_by: str | None
    approved_by: list[Approval]
    approvers: list[str]
    waived_by: list[str]
    broken_by: str | None
    authors: list[str]
    requester_approved: list[str]
    author_approved: list[str]
    own_waiver: list[str]
    violation: bool
    unapproved: bool
    undecided: bool
    unverified: bool
    unknown_author: bool
    break_glass: bool
    policy: str | None
    decision_id: str | None
    transition_id: str | None
    registered_index: int | None
    decided_index: int | None


class FourEyes(Page):
    items: list[Entered]


class Rollback(Answer):
    """`stage` is the stage, or the `@alias`, that returned to the version."""

    index: int
    at: datetime
    workspace: str
    model: str
    version: int
    stage: str
    replaced: int | None
    requested_by: str
    reason: str
    digest: str | None
    approved_by: list[Approval]
    policy: str | None
    decision_id: str | None
    transition_id: str | None


class Rollbacks(Page):
    items: list[Rollback]


class Review(Answer):
    index: int
    at: datetime
    reviewer: str
    justified: bool
    comment: str
    closes: bool


class Emergency(Answer):
    """A use of break-glass. `state` is that of its review; the indexes are the entries of what came of it, and
    `signed_index` that of the signed decision which has this very emergency (null: no signature covers it)."""

    index: int
    at: datetime
    person: str | None
    request: str | None
    workspace: str | None
    model: str | None
    version: int | None
    reason: str
    skips: list[str]
    until: datetime
    review_by: datetime
    review: list[str]
    review_count: int
    reviews: list[Review]
    state: Literal["open", "overdue", "justified", "not-justified"]
    overdue_index: int | None
    decided_index: int | None
    signed_index: int | None
    entered_index: int | None


class Emergencies(Page):
    items: list[Emergency]


class Revocation(Answer):
    """`ordered_index` is the entry of the approval service's order, where it is in the log."""

    index: int
    at: datetime
    workspace: str
    model: str
    version: int
    revoked_by: str
    reason: str
    fallback: int | None
    ordered_index: int | None


class Revocations(Page):
    items: list[Revocation]


class Gap(Answer):
    """Sequence numbers that a stream skips; `following` is the next that is there, in the entry `following_index`."""

    topic: str
    stream: str
    first_missing: int
    last_missing: int
    following: int
    following_index: int


class Problems(Answer):
    code: str
    entries: int
    first_index: int
    last_index: int


class MissingOffsets(Answer):
    """Offsets of Kafka that are not in the log, though the broker did not say that it has no record of them."""

    topic: str
    partition: int
    epoch: int
    first_missing: int
    last_missing: int


class Gaps(Page):
    """`offsets`, on the first page only: those that are missing now."""

    items: list[Gap]
    problems: list[Problems]
    offsets: list[MissingOffsets]
