"""Requests, pure: what binds them, and how their events fold into a state."""

from datetime import datetime
from typing import Any, Literal

from contracts.approval import (
    ApprovalLapsed,
    BreakGlass,
    Decision,
    GateAnswered,
    GatesEvaluated,
    GateWaived,
    GlassBroken,
    PolicyProposed,
    PolicyPublished,
    PolicyRef,
    RequestClosed,
    RequestCommented,
    RequestDecided,
    RequestEscalated,
    RequestOpened,
    RequestRebound,
    ReviewGiven,
    ReviewOverdue,
    Verdict,
    Vote,
    VoteCast,
    VoteRefused,
    VoteWithdrawn,
    Waiver,
)
from contracts.lifecycle import stream_of, subject_of
from contracts.payload import Message, Payload
from contracts.registry import Criterion
from policy.case import Case
from policy.people import owners

# Streams of policies begin with it; it is also the lock of all changes of policies, which are made one by one.
POLICIES = "policy:"
OPEN, APPROVED, REJECTED, EXPIRED, CANCELLED = "open", "approved", "rejected", "expired", "cancelled"
EXPIRY = "request-expired"
_ENDS = {EXPIRY: EXPIRED, "cancelled": CANCELLED, "withdrawn": CANCELLED}
Status = Literal["open", "approved", "rejected", "expired", "cancelled"]


class PastVote(Payload):
    """A vote that counts no more, and why. `withdrawn_by`: who took it back, if somebody did."""

    vote: Vote
    why: str
    withdrawn_by: str | None = None


class PastWaiver(Payload):
    """A waiver that counts no more, and why."""

    waiver: Waiver
    why: str


class PastEmergency(Payload):
    """An emergency that let nothing pass and is over, and why."""

    emergency: BreakGlass
    why: str


class Comment(Payload):
    author: str
    text: str
    at: datetime


class Request(Payload):
    """One request, about a version or about a policy, as its events have made it. Votes, waivers, answers and the
    emergency are of what it rests on now: when that changes, they are past for good, though it may change back."""

    opened: RequestOpened | PolicyProposed
    opened_at: datetime
    correlationid: str
    rebound: RequestRebound | None = None
    bound_at: datetime
    gates: tuple[Criterion, ...] = ()
    gates_passed: bool | None = None
    votes: tuple[Vote, ...] = ()
    past_votes: tuple[PastVote, ...] = ()
    refusals: tuple[VoteRefused, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    past_waivers: tuple[PastWaiver, ...] = ()
    answers: tuple[GateAnswered, ...] = ()
    comments: tuple[Comment, ...] = ()
    escalated: tuple[RequestEscalated, ...] = ()
    glass: BreakGlass | None = None
    past_emergencies: tuple[PastEmergency, ...] = ()
    reviews: tuple[ReviewGiven, ...] = ()
    overdue: ReviewOverdue | None = None
    decision: Decision | None = None
    jws: str | None = None
    published: PolicyPublished | None = None
    lapsed: ApprovalLapsed | None = None
    closed: RequestClosed | None = None
    ended_at: datetime | None = None
    last_event: str = ""

    @property
    def request_id(self) -> str:
        return self.opened.request_id if isinstance(self.opened, PolicyProposed) else self.opened.transition_id

    @property
    def stream(self) -> str:
        if isinstance(self.opened, PolicyProposed):
            return policy_stream(self.opened.policy.name)
        return stream_of(self.opened.workspace, self.opened.model)

    @property
    def subject(self) -> str:
        if isinstance(self.opened, PolicyProposed):
            return self.stream
        return subject_of(self.opened.workspace, self.opened.model, self.opened.version)

    @property
    def place(self) -> tuple[str, str]:
        """Workspace and model that rights are asked for; changes of policies concern all of them."""
        return ("*", "*") if isinstance(self.opened, PolicyProposed) else (self.opened.workspace, self.opened.model)

    @property
    def kind(self) -> str:
        return str(self.inputs["request"]["kind"])

    @property
    def _bound(self) -> RequestOpened | PolicyProposed | RequestRebound:
        return self.rebound or self.opened

    @property
    def policies(self) -> tuple[PolicyRef, ...]:
        return self._bound.policies

    @property
    def inputs(self) -> dict[str, Any]:
        return self._bound.inputs

    @property
    def inputs_digest(self) -> str:
        return self._bound.inputs_digest

    @property
    def request_digest(self) -> str:
        return self._bound.request_digest

    @property
    def expires_at(self) -> datetime:
        return self._bound.expires_at

    @property
    def status(self) -> Status:
        if self.closed is not None:
            return _ENDS.get(self.closed.code, REJECTED)  # type: ignore[return-value]
        if self.published is not None:
            return "approved"
        if self.decision is None:
            return "open"
        late = self.decision.verdict is Verdict.REJECTED and self.decision.decided_at >= self.decision.expires_at
        if late:
            return "expired"
        return "approved" if self.decision.verdict is Verdict.APPROVED else "rejected"

    @property
    def outlived(self) -> bool:
        """Whether the policy's expiry came before the registry's, which then still waits for an answer."""
        return self.expires_at < datetime.fromisoformat(self.inputs["request"]["expires_at"])

    @property
    def reviewed(self) -> bool:
        """Whether enough people have found the emergency justified, and nobody has objected since."""
        return bool(self.reviews) and self.reviews[-1].closes

    @property
    def standing_reviews(self) -> tuple[ReviewGiven, ...]:
        """The last objection and what was said since: an objection starts the count anew."""
        objections = [n for n, review in enumerate(self.reviews) if not review.justified]
        return self.reviews[objections[-1] :] if objections else self.reviews

    @property
    def target(self) -> str:
        """The stage, or `@alias`, that is asked for."""
        return str(self.inputs["request"]["to"])

    @property
    def holds_until(self) -> datetime | None:
        """Until when the registry may carry it out, once it is approved."""
        if self.decision is None or self.decision.verdict is Verdict.REJECTED or self.lapsed is not None:
            return None
        return self.decision.expires_at

    @property
    def freezes_at(self) -> datetime | None:
        """From when on the model may not be promoted because of the emergency, as it stands: from an objection, or when
        it is overdue to be reviewed."""
        if self.glass is None or self.status != APPROVED or self.reviewed:
            return None
        objection = [review.at for review in self.standing_reviews if not review.justified]
        deadline = [self.glass.review_by] if "freeze_model" in self.glass.on_overdue else []
        return min(objection + deadline, default=None)

    @property
    def added(self) -> dict[str, frozenset[str]]:
        """The groups that escalations let vote, by rule; the policies that it is bound to now still know the step."""
        found: dict[str, frozenset[str]] = {}
        for step in self.escalated:
            if step.rule is not None and (self.rebound is None or step.step in self.rebound.steps):
                groups = frozenset(one.removeprefix("group:") for one in step.to)
                found[step.rule] = found.get(step.rule, frozenset()) | groups
        return found

    @property
    def acted(self) -> frozenset[str]:
        """Whose it is, and whose votes, waivers, emergency and reviews are on it, whether or not they count."""
        people = owners(self.case) | {who for vote in self.votes for who in (vote.voter, vote.on_behalf_of) if who}
        people |= {waiver.by for waiver in self.waivers} | {review.reviewer for review in self.reviews}
        return frozenset(people | ({self.glass.by} if self.glass else set()))

    @property
    def case(self) -> Case:
        return Case(
            requested_by=self.opened.requested_by,
            request_digest=self.request_digest,
            inputs=self.inputs,
            opened_at=self.opened_at,
            bound_at=self.bound_at,
            votes=self.votes,
            waivers=self.waivers,
            answers=self.answers,
            added=self.added,
            glass=self.glass,
        )


def policy_stream(name: str) -> str:
    return f"{POLICIES}{name}"


def evolve(request: Request | None, message: Message, *, at: datetime, correlationid: str, event_id: str) -> Request:
    """The request after one of its events.

    Raises:
        ValueError: the event does not belong to a request in this state.
    """
    if isinstance(message, RequestOpened | PolicyProposed):
        if request is not None:
            raise ValueError(f"request {request.request_id} is opened twice")
        return Request(opened=message, opened_at=at, bound_at=at, correlationid=correlationid, last_event=event_id)
    if request is None:
        raise ValueError(f"{message.TYPE} of no request")
    changes = _afterwards(request, message, at)
    if changes is None:
        if request.status != OPEN:
            raise ValueError(f"{message.TYPE} on a request that is {request.status}")
        changes = _meanwhile(request, message, at)
    return request.model_copy(update={**changes, "last_event": event_id})


def _afterwards(request: Request, message: Message, at: datetime) -> dict[str, Any] | None:
    """What may also happen to a request that is decided; None for everything else."""
    match message:
        case RequestCommented():
            said = Comment(author=message.author, text=message.text, at=at)
            return {"comments": (*request.comments, said)}
        case ReviewGiven():
            return {"reviews": (*request.reviews, message)}
        case ReviewOverdue():
            return {"overdue": message}
        case ApprovalLapsed():
            return {"lapsed": message}
    return None


def _meanwhile(request: Request, message: Message, at: datetime) -> dict[str, Any]:  # noqa: PLR0911 - one line an event
    match message:
        case RequestRebound():
            return {"rebound": message, "bound_at": at, **_voided(request, message.cause)}
        case GatesEvaluated():
            return {"gates": message.gates, "gates_passed": message.passed}
        case GateAnswered():
            return {"answers": (*request.answers, message)}
        case GateWaived():
            return {"waivers": (*request.waivers, message.waiver)}
        case VoteCast():
            return {"votes": (*request.votes, message.vote)}
        case VoteWithdrawn():
            by, whose = message.by or message.voter, (message.voter, message.on_behalf_of)
            why = "withdrawn" if by == message.voter else f"withdrawn by {by}"
            why = f"{why}: {message.reason}" if message.reason else why
            kept = tuple(v for v in request.votes if (v.voter, v.on_behalf_of) != whose)
            gone = tuple(PastVote(vote=v, why=why, withdrawn_by=by) for v in request.votes if v not in kept)
            return {"votes": kept, "past_votes": (*request.past_votes, *gone)}
        case VoteRefused():
            return {"refusals": (*request.refusals, message)}
        case RequestEscalated():
            return {"escalated": (*request.escalated, message)}
        case GlassBroken():
            return {**_emergency_over(request, f"{message.glass.by} broke the glass anew"), "glass": message.glass}
        case RequestDecided():
            return {"decision": message.decision, "jws": message.jws, "ended_at": at}
        case PolicyPublished():
            return {"published": message, "ended_at": at}
        case RequestClosed():
            return {"closed": message, "ended_at": at}
    raise ValueError(f"{message.TYPE} is no event of a request")


def _voided(request: Request, why: str) -> dict[str, Any]:
    votes = tuple(PastVote(vote=vote, why=why) for vote in request.votes)
    waivers = tuple(PastWaiver(waiver=waiver, why=why) for waiver in request.waivers)
    return {
        "votes": (),
        "past_votes": (*request.past_votes, *votes),
        "waivers": (),
        "past_waivers": (*request.past_waivers, *waivers),
        "answers": (),
        **_emergency_over(request, why),
    }


def _emergency_over(request: Request, why: str) -> dict[str, Any]:
    over = (PastEmergency(emergency=request.glass, why=why),) if request.glass else ()
    return {"glass": None, "past_emergencies": (*request.past_emergencies, *over)}
