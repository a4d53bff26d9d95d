"""Events the approval service writes, and what it signs: decisions and revocations."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AwareDatetime, Field

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
from contracts.registry import Approval, Criterion, RequestFields, Transition

DECISION_TYPE = "hallmark-decision+jws"
REVOCATION_TYPE = "hallmark-revocation+jws"
Groups = Annotated[tuple[Line, ...], Field(max_length=500)]
Answer = Literal["pass", "fail", "inconclusive", "error"]


class Verdict(StrEnum):
    APPROVED = "approved"
    REJECTED = "rejected"


class Choice(StrEnum):
    APPROVE = "approve"
    REJECT = "reject"


# -- policies -----------------------------------------------------------------------------------------------------


class PolicyRef(Payload):
    """One immutable revision of a policy."""

    name: Line
    revision: Annotated[int, Field(ge=1)]
    digest: Digest


class PolicyPublished(Message):
    """A revision is in force from now on. `request_id` let it in, `approved_by` voted for it."""

    TYPE: ClassVar[str] = "hallmark.policy.published.v1"
    policy: PolicyRef
    document: Text
    published_by: Line
    request_id: Identifier | None = None
    approved_by: tuple[Approval, ...] = ()


class PolicyProposed(Message):
    """A request to publish a revision, judged by the `policies` in force that are about changes of policies.

    It is voted on like any other request, ends with `policy.published` or `request.closed`, and has the same frozen
    inputs and digests as `RequestOpened`.
    """

    TYPE: ClassVar[str] = "hallmark.policy.proposed.v1"
    request_id: Identifier
    policy: PolicyRef
    document: Text
    requested_by: Line
    reason: Reason
    policies: tuple[PolicyRef, ...]
    inputs: dict[str, Any]
    inputs_digest: Digest
    request_digest: Digest
    expires_at: AwareDatetime


# -- requests -----------------------------------------------------------------------------------------------------


class RequestOpened(Message, Transition):
    """`inputs` is what the gates see, frozen; `request_digest` is what votes bind to."""

    TYPE: ClassVar[str] = "hallmark.request.opened.v1"
    requested_by: Line
    reason: Reason
    policies: tuple[PolicyRef, ...]
    inputs: dict[str, Any]
    inputs_digest: Digest
    request_digest: Digest
    expires_at: AwareDatetime
    fields: RequestFields = Field(default_factory=dict)


class RequestRebound(Message):
    """What the request rests on has changed (`cause` says what), so that it has another digest: the votes, waivers and
    emergencies of the people in `voided` count no more, even when it has the earlier digest again. `steps`: the
    escalation of the policies it is bound to now; whom a step added that is none of these may vote no more."""

    TYPE: ClassVar[str] = "hallmark.request.rebound.v1"
    request_id: Identifier
    cause: Text
    policies: tuple[PolicyRef, ...]
    inputs: dict[str, Any]
    inputs_digest: Digest
    request_digest: Digest
    expires_at: AwareDatetime
    voided: tuple[Line, ...] = ()
    steps: tuple[Line, ...] = ()


class GatesEvaluated(Message):
    TYPE: ClassVar[str] = "hallmark.gates.evaluated.v1"
    request_id: Identifier
    gates: tuple[Criterion, ...]
    passed: bool
    inputs_digest: Digest


class GateAnswered(Message):
    """What an external check said of the request, to be read with the digest that it was asked about."""

    TYPE: ClassVar[str] = "hallmark.gate.answered.v1"
    request_id: Identifier
    gate: Line
    result: Answer
    message: Text = ""
    evidence: Digest | None = None
    by: Line
    request_digest: Digest


class Waiver(Payload):
    """One person lets a request pass though this gate does not: signed like a vote."""

    gate: Line
    by: Line
    groups: Groups = ()
    reason: Reason
    at: AwareDatetime
    auth_method: Line
    request_digest: Digest


class GateWaived(Message):
    TYPE: ClassVar[str] = "hallmark.gate.waived.v1"
    request_id: Identifier
    waiver: Waiver


class Vote(Payload):
    """`groups` are those of the person whose right is used: the voter, or who is `on_behalf_of`."""

    voter: Line
    choice: Choice
    rule: Line
    meaning: Line
    comment: Text = ""
    at: AwareDatetime
    auth_method: Line
    request_digest: Digest
    groups: Groups = ()
    on_behalf_of: Line | None = None
    authenticated_at: AwareDatetime | None = None
    email: Line | None = None


class VoteCast(Message):
    TYPE: ClassVar[str] = "hallmark.vote.cast.v1"
    request_id: Identifier
    vote: Vote


class VoteWithdrawn(Message):
    """The vote that `voter` cast, in their own name or `on_behalf_of` somebody, is taken back: by the voter, or by whom
    it was cast for."""

    TYPE: ClassVar[str] = "hallmark.vote.withdrawn.v1"
    request_id: Identifier
    voter: Line
    reason: Text = ""
    on_behalf_of: Line | None = None
    by: Line | None = None


class VoteRefused(Message):
    """Somebody tried to vote who must not: recorded, because a denial is evidence too."""

    TYPE: ClassVar[str] = "hallmark.vote.refused.v1"
    request_id: Identifier
    voter: Line
    choice: Choice
    code: Line
    detail: Text


class RequestCommented(Message):
    TYPE: ClassVar[str] = "hallmark.request.commented.v1"
    request_id: Identifier
    author: Line
    text: Annotated[Text, Field(min_length=1)]


class RequestEscalated(Message):
    """A step of the policies' escalation came due: `to` are reminded or told, or may vote for `rule` from now on."""

    TYPE: ClassVar[str] = "hallmark.request.escalated.v1"
    request_id: Identifier
    step: Line
    action: Literal["remind", "notify", "add_approvers"]
    to: Groups
    rule: Line | None = None
    ask: Text = ""


class RequestClosed(Message):
    """The request ended without a decision: it expired, or the registry closed the transition on its own."""

    TYPE: ClassVar[str] = "hallmark.request.closed.v1"
    request_id: Identifier
    code: Line
    detail: Text


# -- break-glass --------------------------------------------------------------------------------------------------


class BreakGlass(Payload):
    """An emergency: one allowed person lets the request pass without what is named in `skips`.

    It is good until `until`; `page` are told at once; `review_by` is when the people of `review` have to have looked,
    and `on_overdue` what comes of it when they have not.
    """

    by: Line
    groups: Groups
    reason: Reason
    at: AwareDatetime
    auth_method: Line
    request_digest: Digest
    skips: tuple[Line, ...]
    page: Groups
    until: AwareDatetime
    review: Groups
    review_count: Annotated[int, Field(ge=0, le=20)]
    review_by: AwareDatetime
    on_overdue: tuple[Literal["page", "freeze_model"], ...] = ("page", "freeze_model")


class GlassBroken(Message):
    TYPE: ClassVar[str] = "hallmark.glass.broken.v1"
    request_id: Identifier
    glass: BreakGlass


class ReviewGiven(Message):
    """Somebody looked at what was done in an emergency. `closes`: with it enough people have found it justified.

    When it was not, `page` are told, and the model is not promoted until enough people accept it after all.
    """

    TYPE: ClassVar[str] = "hallmark.review.given.v1"
    request_id: Identifier
    reviewer: Line
    groups: Groups
    justified: bool
    comment: Reason
    at: AwareDatetime
    auth_method: Line
    closes: bool
    page: Groups = ()


class ReviewOverdue(Message):
    """Nobody looked in time: `page` are told again, and with `frozen` the model is not promoted until somebody has."""

    TYPE: ClassVar[str] = "hallmark.review.overdue.v1"
    request_id: Identifier
    page: Groups
    frozen: bool


# -- what is signed -----------------------------------------------------------------------------------------------


class Decision(Transition):
    """What the signature covers. `transition_id` makes it good for one transition only.

    `waivers` names what the policy lets pass for this once: `unsafe-artifact` lets a quarantined version move.
    `rollback_to` was approved with it: the version that its stage returns to when this one is revoked.
    `added_approvers`: the groups that an escalation let vote too, by rule. `opened_at` and `bound_at`: when the request
    was opened, and since when it has rested on these policies and inputs. `baseline`: the version in its target then,
    which the gates compared with (0: there was none; None: the record is older than this field).
    """

    decision_id: Identifier
    verdict: Verdict
    reason: Text
    requested_by: Line
    policies: tuple[PolicyRef, ...]
    gates: tuple[Criterion, ...]
    votes: tuple[Vote, ...]
    inputs_digest: Digest
    request_digest: Digest
    decided_at: AwareDatetime
    expires_at: AwareDatetime
    waivers: tuple[Line, ...] = ()
    waived: tuple[Waiver, ...] = ()
    rollback_to: VersionNumber | None = None
    break_glass: BreakGlass | None = None
    added_approvers: dict[Line, Groups] = Field(default_factory=dict)
    opened_at: AwareDatetime | None = None
    bound_at: AwareDatetime | None = None
    baseline: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None


def approvals_of(decision: Decision) -> tuple[Approval, ...]:
    """Who approved, as the change that rests on the decision tells it."""
    return tuple(
        Approval(name=v.voter, at=v.at, meaning=v.meaning) for v in decision.votes if v.choice is Choice.APPROVE
    )


def policies_of(decision: Decision) -> str:
    """The policies it was decided by, as the change that rests on the decision tells them."""
    return ", ".join(f"{p.name} r{p.revision} {p.digest}" for p in decision.policies)[:500] or "none"


class RequestDecided(Message):
    """`decision` in clear for readers; `jws` is the compact JWS (EdDSA) over its exact bytes, which alone counts.

    `inputs` (of `inputs_digest`) and `documents` (the text of each policy, by its digest) are what it was decided on,
    so that anybody can decide it again: `hallmark decision verify`.
    """

    TYPE: ClassVar[str] = "hallmark.request.decided.v1"
    decision: Decision
    jws: Jws
    inputs: dict[str, Any] = Field(default_factory=dict)
    documents: dict[Digest, Text] = Field(default_factory=dict)


class ApprovalLapsed(Message):
    """The approval is older than its policy allows, and the version is still where it let it in: ask again."""

    TYPE: ClassVar[str] = "hallmark.approval.lapsed.v1"
    request_id: Identifier
    decided_at: AwareDatetime
    on_lapse: Line


class Revocation(Payload):
    """What the signature of a revocation covers. `fallback` is the version that its stage is to return to."""

    revocation_id: Identifier
    workspace: WorkspaceName
    model: ModelName
    version: VersionNumber
    digest: Digest
    artifact_digest: Digest
    revoked_by: Line
    reason: Reason
    fallback: VersionNumber | None
    revoked_at: AwareDatetime


class RevocationOrdered(Message):
    """`revocation` in clear for readers; `jws` is the compact JWS (EdDSA) over its exact bytes, which alone counts."""

    TYPE: ClassVar[str] = "hallmark.revocation.ordered.v1"
    revocation: Revocation
    jws: Jws


# -- evidence and people ------------------------------------------------------------------------------------------


class Evidence(Payload):
    """A file (by its SHA-256) or a link that speaks for a version. With a `result` it is an attestation: what a check,
    of a CI job for instance, found."""

    evidence_id: Identifier
    type: Key
    title: Line
    digest: Digest | None = None
    size: Annotated[int, Field(ge=0)] | None = None
    media_type: Line | None = None
    url: Annotated[str, Field(max_length=2_000, pattern=r"^https?://[\x21-\x7e]+$")] | None = None
    result: Literal["pass", "fail", "inconclusive"] | None = None
    detail: Text = ""
    posted_by: Line
    groups: Groups = ()
    service: bool
    at: AwareDatetime


class EvidenceAttached(Message):
    TYPE: ClassVar[str] = "hallmark.evidence.attached.v1"
    workspace: WorkspaceName
    model: ModelName
    version: VersionNumber
    digest: Digest
    evidence: Evidence


class DelegationGranted(Message):
    """From `starts` to `ends`, `delegate` may vote on requests where `delegator` may. Rights do not travel further."""

    TYPE: ClassVar[str] = "hallmark.delegation.granted.v1"
    delegation_id: Identifier
    delegator: Line
    delegate: Line
    starts: AwareDatetime
    ends: AwareDatetime
    reason: Text = ""


class DelegationEnded(Message):
    TYPE: ClassVar[str] = "hallmark.delegation.ended.v1"
    delegation_id: Identifier
    delegator: Line
    delegate: Line
    ended_by: Line


class MembershipChanged(Message):
    """The groups somebody is in, as a token that was issued to them at `issued_at` told, or without it the directory
    (`by`). Votes are checked with both again when a decision is made."""

    TYPE: ClassVar[str] = "hallmark.membership.changed.v1"
    subject: Line
    groups: Groups
    person: bool
    by: Line
    issued_at: AwareDatetime | None = None
    email: Line | None = None


class AccountLinked(Message):
    """Somebody showed that an account of another system is theirs, while signed in to both: what it does there counts
    as theirs, where policies allow it. `account` is a digest of its name."""

    TYPE: ClassVar[str] = "hallmark.account.linked.v1"
    subject: Line
    system: Literal["slack"]
    account: Digest


class AccountUnlinked(Message):
    TYPE: ClassVar[str] = "hallmark.account.unlinked.v1"
    subject: Line
    system: Literal["slack"]
    account: Digest


EVENTS = (
    PolicyPublished,
    PolicyProposed,
    RequestOpened,
    RequestRebound,
    GatesEvaluated,
    GateAnswered,
    GateWaived,
    VoteCast,
    VoteWithdrawn,
    VoteRefused,
    RequestCommented,
    RequestEscalated,
    RequestClosed,
    GlassBroken,
    ReviewGiven,
    ReviewOverdue,
    RequestDecided,
    ApprovalLapsed,
    RevocationOrdered,
    EvidenceAttached,
    DelegationGranted,
    DelegationEnded,
    MembershipChanged,
    AccountLinked,
    AccountUnlinked,
)
