"""Events the approval service writes, and the decision it signs."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import AwareDatetime, Field

from contracts.payload import Digest, Identifier, Jws, Line, Message, Payload, Reason, Text
from contracts.registry import Criterion, Transition

DECISION_TYPE = "hallmark-decision+jws"


class Verdict(StrEnum):
    APPROVED = "approved"
    REJECTED = "rejected"


class Choice(StrEnum):
    APPROVE = "approve"
    REJECT = "reject"


class PolicyRef(Payload):
    """One immutable revision of a policy."""

    name: Line
    revision: Annotated[int, Field(ge=1)]
    digest: Digest


class PolicyPublished(Message):
    TYPE: ClassVar[str] = "hallmark.policy.published.v1"
    policy: PolicyRef
    document: Text
    published_by: Line


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


class GatesEvaluated(Message):
    TYPE: ClassVar[str] = "hallmark.gates.evaluated.v1"
    request_id: Identifier
    gates: tuple[Criterion, ...]
    passed: bool
    inputs_digest: Digest


class Vote(Payload):
    voter: Line
    choice: Choice
    rule: Line
    meaning: Line
    comment: Text = ""
    at: AwareDatetime
    auth_method: Line
    request_digest: Digest


class VoteCast(Message):
    TYPE: ClassVar[str] = "hallmark.vote.cast.v1"
    request_id: Identifier
    vote: Vote


class VoteRefused(Message):
    """Somebody tried to vote who must not: recorded, because a denial is evidence too."""

    TYPE: ClassVar[str] = "hallmark.vote.refused.v1"
    request_id: Identifier
    voter: Line
    choice: Choice
    code: Line
    detail: Text


class Decision(Transition):
    """What the signature covers. `transition_id` makes it good for one transition only.

    `waivers` names what the policy lets pass for this once: `unsafe-artifact` lets a quarantined version move.
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


class RequestDecided(Message):
    """`decision` in clear for readers; `jws` is the compact JWS (EdDSA) over its exact bytes, which alone counts."""

    TYPE: ClassVar[str] = "hallmark.request.decided.v1"
    decision: Decision
    jws: Jws


class RequestClosed(Message):
    """The request ended without a decision: it expired, or the registry closed the transition on its own."""

    TYPE: ClassVar[str] = "hallmark.request.closed.v1"
    request_id: Identifier
    code: Line
    detail: Text


EVENTS = (PolicyPublished, RequestOpened, GatesEvaluated, VoteCast, VoteRefused, RequestDecided, RequestClosed)
