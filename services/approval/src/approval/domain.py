"""Requests and votes, pure: `cast` judges a vote, `verdict` says whether a request is decided, `evolve` folds events.

Four eyes cannot be switched off: the requester and the author of the version never count, nor does anything that is
not a person. Both are checked when a vote is cast and again when the decision is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from contracts.approval import (
    Choice,
    Decision,
    GatesEvaluated,
    PolicyRef,
    RequestClosed,
    RequestDecided,
    RequestOpened,
    Verdict,
    Vote,
    VoteCast,
    VoteRefused,
)
from contracts.canonical import canonical_json
from contracts.payload import Message, Payload
from contracts.registry import Criterion, StageRequested

OPEN, EXPIRED = "open", "expired"
EXPIRY = "request-expired"


@dataclass(frozen=True)
class Rule:
    """`count` different people out of `groups` must approve; each counts for one rule only."""

    id: str
    groups: frozenset[str]
    count: int
    meaning: str


@dataclass(frozen=True)
class Voter:
    """Who votes. `may_vote`: the access file lets them vote on this model at all."""

    subject: str
    groups: frozenset[str]
    person: bool
    may_vote: bool
    method: str


@dataclass(frozen=True)
class Ballot:
    """What the voter sent. `rule` and `request_digest` are optional on the wire."""

    choice: Choice
    comment: str = ""
    request_digest: str | None = None
    rule: str | None = None


@dataclass(frozen=True)
class Refusal:
    """`code` is stable; `recorded` refusals become an event, because a denial is evidence too."""

    code: str
    detail: str
    recorded: bool = False


class Request(Payload):
    """One request as its events have made it."""

    opened: RequestOpened
    opened_at: datetime
    correlationid: str
    gates: tuple[Criterion, ...] = ()
    gates_passed: bool | None = None
    votes: tuple[Vote, ...] = ()
    refusals: tuple[VoteRefused, ...] = ()
    decision: Decision | None = None
    jws: str | None = None
    closed: RequestClosed | None = None
    last_event: str = ""

    @property
    def status(self) -> str:
        if self.closed is not None:
            return EXPIRED if self.closed.code == EXPIRY else str(Verdict.REJECTED)
        if self.decision is None:
            return OPEN
        late = self.decision.verdict is Verdict.REJECTED and self.decision.decided_at >= self.opened.expires_at
        return EXPIRED if late else str(self.decision.verdict)

    @property
    def outlived(self) -> bool:
        """Whether the policy's expiry came before the registry's, which then still waits for an answer."""
        return self.opened.expires_at < datetime.fromisoformat(self.opened.inputs["request"]["expires_at"])

    @property
    def author(self) -> str:
        """Who registered the version; part of the frozen inputs, so nobody can change it under a vote."""
        return str(self.opened.inputs["candidate"]["registered_by"])


def digest_of(value: Any) -> str:
    return f"sha256:{sha256(canonical_json(value)).hexdigest()}"


def request_digest(asked: StageRequested, policies: Sequence[PolicyRef], inputs_digest: str) -> str:
    """What votes bind to. Another version, policy, input, stage or transition gives another digest."""
    return digest_of(
        {
            "version_digest": asked.digest,
            "artifact_digest": asked.artifact_digest,
            "policy_digests": sorted(p.digest for p in policies),
            "inputs_digest": inputs_digest,
            "from": str(asked.from_stage),
            "to": str(asked.to_stage),
            "transition": asked.transition_id,
        }
    )


def cast(request: Request, rules: Sequence[Rule], voter: Voter, ballot: Ballot, at: datetime) -> Vote | Refusal | None:
    """The vote to record, the refusal, or None when this vote is already recorded."""
    if ballot.request_digest not in (None, request.opened.request_digest):
        return Refusal("request-changed", "this is not the request you saw; read it again before you vote")
    if any(v.voter == voter.subject and v.choice is ballot.choice for v in request.votes):
        return None
    refusal = (
        _over(request, at)
        or _excluded(request, voter.subject)
        or _not_entitled(rules, voter, ballot)
        or _unfit(request, voter, ballot)
    )
    if refusal is not None:
        return refusal
    rule = _rule_for(request, rules, voter, ballot)
    return Vote(
        voter=voter.subject,
        choice=ballot.choice,
        rule=rule.id,
        meaning=rule.meaning,
        comment=ballot.comment,
        at=at,
        auth_method=voter.method,
        request_digest=request.opened.request_digest,
    )


def _over(request: Request, at: datetime) -> Refusal | None:
    if request.status == EXPIRED or (request.status == OPEN and at >= request.opened.expires_at):
        return Refusal(EXPIRY, f"the request expired at {request.opened.expires_at.isoformat()}")
    if request.status != OPEN:
        return Refusal("request-closed", f"the request is {request.status} already")
    return None


def _excluded(request: Request, subject: str) -> Refusal | None:
    if subject == request.opened.requested_by:
        return Refusal("own-request", f"{subject} asked for this; another person must vote", recorded=True)
    if subject == request.author:
        return Refusal("own-version", f"{subject} registered this version; another person must vote", recorded=True)
    return None


def _not_entitled(rules: Sequence[Rule], voter: Voter, ballot: Ballot) -> Refusal | None:
    if not voter.person:
        return Refusal("service-account", f"{voter.subject} is a service account; only people vote", recorded=True)
    if not any(voter.groups & r.groups for r in rules if ballot.rule in (None, r.id)) or not voter.may_vote:
        wanted = ", ".join(sorted({g for r in rules for g in r.groups})) or "nobody"
        return Refusal("not-an-approver", f"{voter.subject} may not vote here; asked are: {wanted}", recorded=True)
    return None


def _unfit(request: Request, voter: Voter, ballot: Ballot) -> Refusal | None:
    if any(v.voter == voter.subject for v in request.votes):
        return Refusal("already-voted", f"{voter.subject} has voted otherwise; a vote cannot be changed")
    if ballot.choice is Choice.REJECT and not ballot.comment.strip():
        return Refusal("comment-required", "say in 'comment' why you reject")
    return None


def _rule_for(request: Request, rules: Sequence[Rule], voter: Voter, ballot: Ballot) -> Rule:
    """The named rule, else the first of the voter's rules that still needs somebody, else the first."""
    mine = [r for r in rules if voter.groups & r.groups and ballot.rule in (None, r.id)]
    have = tally(request, rules)
    return next((r for r in mine if have[r.id] < r.count), mine[0])


def tally(request: Request, rules: Sequence[Rule]) -> dict[str, int]:
    """How many approvals count for each rule, people checked again."""
    people: dict[str, set[str]] = {r.id: set() for r in rules}
    for vote in request.votes:
        bound = vote.request_digest == request.opened.request_digest
        if vote.choice is Choice.APPROVE and bound and vote.rule in people and _excluded(request, vote.voter) is None:
            people[vote.rule].add(vote.voter)
    return {rule: len(who) for rule, who in people.items()}


def verdict(request: Request, rules: Sequence[Rule]) -> tuple[Verdict, str] | None:
    """What the gates and votes amount to, with the reason in words; None while people are still to be heard."""
    if not request.opened.policies:
        asked = request.opened
        return Verdict.REJECTED, f"no policy allows a {asked.kind} from {asked.from_stage} to {asked.to_stage}"
    if not request.gates_passed:
        missed = [f"{g.gate}: {g.result}{', ' + g.message if g.message else ''}" for g in request.gates]
        shown = [text for text, gate in zip(missed, request.gates, strict=True) if gate.result != "pass"]
        return Verdict.REJECTED, ("gates failed: " + "; ".join(shown))[:9_000]
    against = [v for v in request.votes if v.choice is Choice.REJECT and _excluded(request, v.voter) is None]
    if against:
        return Verdict.REJECTED, f"{against[0].voter} rejected: {against[0].comment}"[:9_000]
    have = tally(request, rules)
    if any(have[r.id] < r.count for r in rules):
        return None
    if not rules:
        return Verdict.APPROVED, "no approval is asked for"
    names = ", ".join(sorted({v.voter for v in request.votes}))
    return Verdict.APPROVED, f"approved by {names}"[:9_000]


def evolve(request: Request | None, message: Message, *, at: datetime, correlationid: str, event_id: str) -> Request:
    """The request after one of its events.

    Raises:
        ValueError: the event does not belong to a request in this state.
    """
    if isinstance(message, RequestOpened):
        if request is not None:
            raise ValueError(f"request {message.transition_id} is opened twice")
        return Request(opened=message, opened_at=at, correlationid=correlationid, last_event=event_id)
    if request is None or request.status != OPEN:
        raise ValueError(f"{message.TYPE} on a request that is not open")
    changes: dict[str, Any]
    match message:
        case GatesEvaluated():
            changes = {"gates": message.gates, "gates_passed": message.passed}
        case VoteCast():
            changes = {"votes": (*request.votes, message.vote)}
        case VoteRefused():
            changes = {"refusals": (*request.refusals, message)}
        case RequestDecided():
            changes = {"decision": message.decision, "jws": message.jws}
        case RequestClosed():
            changes = {"closed": message}
        case _:
            raise ValueError(f"{message.TYPE} is no event of a request")
    return request.model_copy(update={**changes, "last_event": event_id})
