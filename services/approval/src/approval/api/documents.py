"""A request as people read it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from approval.domain import Comment, PastEmergency, PastVote, PastWaiver, Request
from approval.sight import Glance
from contracts.approval import (
    BreakGlass,
    Decision,
    PolicyProposed,
    PolicyRef,
    RequestEscalated,
    ReviewGiven,
    Vote,
    VoteRefused,
    Waiver,
)
from contracts.registry import Criterion
from policy.needs import Needs
from policy.people import electorate, tally


class RuleState(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)
    id: str
    groups: list[str] = Field(alias="from")
    count: int
    meaning: str
    have: int


class You(BaseModel):
    """Whether the reader may vote; if not, `code` and `detail` say why. `on_behalf_of`: for whom they may."""

    may_vote: bool
    code: str | None = None
    detail: str | None = None
    on_behalf_of: list[str] = Field(default_factory=list)
    voted: bool = False


class RequestDocument(BaseModel):
    """`document` is the text of the policy that a change of policy asks for. `you` is there for one request, not in
    lists."""

    request_id: str
    kind: str
    workspace: str
    model: str
    version: int
    from_stage: str
    to_stage: str
    status: str
    phase: str
    waits_for: str
    requested_by: str
    reason: str
    fields: dict[str, str]
    policies: tuple[PolicyRef, ...]
    gates: tuple[Criterion, ...]
    rules: list[RuleState]
    votes: tuple[Vote, ...]
    past_votes: tuple[PastVote, ...]
    refusals: tuple[VoteRefused, ...]
    waivers: tuple[Waiver, ...]
    past_waivers: tuple[PastWaiver, ...]
    comments: tuple[Comment, ...]
    escalations: tuple[RequestEscalated, ...]
    emergency: BreakGlass | None
    past_emergencies: tuple[PastEmergency, ...]
    reviews: tuple[ReviewGiven, ...]
    inputs: dict[str, Any]
    inputs_digest: str
    request_digest: str
    decision: Decision | None
    jws: str | None
    document: str | None
    opened_at: str
    decided_at: str | None
    expires_at: str
    you: You | None = None


class RequestList(BaseModel):
    items: list[RequestDocument]
    next: str | None


def document(request: Request, glance: Glance, standing: Any | None, you: You | None = None) -> RequestDocument:
    opened, asked = request.opened, request.inputs["request"]
    proposed = opened if isinstance(opened, PolicyProposed) else None
    return RequestDocument(
        request_id=request.request_id,
        kind=request.kind,
        workspace="*" if proposed else request.place[0],
        model=proposed.policy.name if proposed else request.place[1],
        version=proposed.policy.revision if proposed else opened.version,  # type: ignore[union-attr]
        from_stage=asked["from"],
        to_stage=asked["to"],
        status=request.status,
        phase=standing.phase if standing else "decided",
        waits_for=standing.waits_for if standing and request.status == "open" else "",
        requested_by=opened.requested_by,
        reason=opened.reason,
        fields=asked.get("fields") or {},
        policies=request.policies,
        gates=request.gates,
        rules=_rules(request, glance),
        votes=request.votes,
        past_votes=request.past_votes,
        refusals=request.refusals,
        waivers=request.waivers,
        past_waivers=request.past_waivers,
        comments=request.comments,
        escalations=request.escalated,
        emergency=request.glass,
        past_emergencies=request.past_emergencies,
        reviews=request.reviews,
        inputs=request.inputs,
        inputs_digest=request.inputs_digest,
        request_digest=request.request_digest,
        decision=request.decision,
        jws=request.jws,
        document=proposed.document if proposed else None,
        opened_at=request.opened_at.isoformat(),
        decided_at=request.ended_at.isoformat() if request.ended_at else None,
        expires_at=request.expires_at.isoformat(),
        you=you,
    )


def _rules(request: Request, glance: Glance) -> list[RuleState]:
    case, needs = request.case, glance.needs
    have = tally(case, needs, glance.at, glance.members)
    return [rule_state(request, needs, rule.id, have[rule.id]) for rule in needs.rules]


def rule_state(request: Request, needs: Needs, rule_id: str, have: int) -> RuleState:
    rule = needs.rule(rule_id)
    assert rule is not None
    groups = sorted(f"group:{group}" for group in electorate(request.case, rule))
    return RuleState.model_validate(
        {"id": rule.id, "from": groups, "count": rule.count, "meaning": rule.meaning, "have": have}
    )


def manifest(request: Request) -> str:
    """The printable signature manifest: name, time, meaning and method of every signature (21 CFR 11.50)."""
    decision, asked = request.decision, request.inputs["request"]
    lines = [
        f"Request {request.request_id}",
        f"{request.subject}: {asked['kind']} from {asked['from']} to {asked['to']}",
        f"Asked for by {request.opened.requested_by} at {request.opened_at.isoformat()}: {request.opened.reason}",
        f"Bound to {request.request_digest}",
        *(f"Policy {ref.name}, revision {ref.revision}, {ref.digest}" for ref in request.policies),
        "",
        "Signatures",
    ]
    for vote in request.votes:
        behalf = f" for {vote.on_behalf_of}" if vote.on_behalf_of else ""
        lines += [f"  {vote.voter}{behalf}: {vote.choice}", f"    at {vote.at.isoformat()}, by {vote.auth_method}"]
        lines += [f"    meaning: {vote.meaning}"] + ([f"    comment: {vote.comment}"] if vote.comment else [])
    for waiver in request.waivers:
        lines += [f"  {waiver.by}: waives {waiver.gate}", f"    at {waiver.at.isoformat()}, by {waiver.auth_method}"]
        lines += [f"    reason: {waiver.reason}"]
    if glass := request.glass:
        lines += [f"  {glass.by}: breaks the glass", f"    at {glass.at.isoformat()}, by {glass.auth_method}"]
        lines += [f"    reason: {glass.reason}"]
    for review in request.reviews:
        finding = "justified" if review.justified else "not justified"
        lines += [f"  {review.reviewer}: the emergency was {finding}", f"    at {review.at.isoformat()}"]
        lines += [f"    comment: {review.comment}"]
    if not (request.votes or request.waivers or request.glass):
        lines.append("  none")
    lines.append("")
    if decision is not None:
        lines += [f"Decision {decision.decision_id}: {decision.verdict} at {decision.decided_at.isoformat()}"]
        lines += [f"  {decision.reason}", f"  JWS {request.jws}"]
    else:
        lines.append(f"Status: {request.status}")
    return "\n".join(lines) + "\n"
