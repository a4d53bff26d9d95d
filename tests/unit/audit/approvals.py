"""Every event of the approval service, and what its sentence must name."""

from datetime import UTC, datetime, timedelta
from typing import Any

from contracts import approval
from contracts.approval import BreakGlass, Choice, Decision, Evidence, PolicyRef, Revocation, Verdict, Vote, Waiver
from contracts.lifecycle import Stage, TransitionKind
from contracts.payload import Message
from contracts.registry import Approval, Criterion

DIGEST = "sha256:" + "a" * 64
AT = datetime(2026, 11, 20, tzinfo=UTC)
PLACE: dict[str, Any] = {
    "transition_id": "t1",
    "kind": TransitionKind.PROMOTION,
    "workspace": "default",
    "model": "fraud",
    "version": 2,
    "digest": DIGEST,
    "artifact_digest": DIGEST,
    "from_stage": Stage.STAGING,
    "to_stage": Stage.PRODUCTION,
}
OF_VERSION: dict[str, Any] = {"workspace": "default", "model": "fraud", "version": 2}
GATE = Criterion(gate="accuracy", expression="metrics.accuracy > 0.9", result="passed", message="0.95")
APPROVED = Approval(name="ben", at=AT, meaning="approval")
POLICY = PolicyRef(name="prod", revision=3, digest=DIGEST)
SIGNED: dict[str, Any] = {"at": AT, "auth_method": "token", "request_digest": DIGEST}
BOUND: dict[str, Any] = {
    "policies": (POLICY,),
    "inputs": {"candidate": {"metrics": {"accuracy": 0.95}}},
    "inputs_digest": DIGEST,
    "request_digest": DIGEST,
    "expires_at": AT,
}
VOTE = Vote(
    voter="ben", choice=Choice.APPROVE, rule="second-person", meaning="approval", comment="looks good", **SIGNED
)
FOR_CY = VOTE.model_copy(update={"voter": "dan", "on_behalf_of": "cy"})
WAIVER = Waiver(gate="prod/latency", by="olga", groups=("leads",), reason="measured on a small machine", **SIGNED)
GLASS = BreakGlass(
    by="olga",
    groups=("oncall",),
    reason="payments are down",
    skips=("approvals", "schedule"),
    page=("service:oncall", "group:risk"),
    until=AT + timedelta(hours=4),
    review=("risk",),
    review_count=2,
    review_by=AT + timedelta(days=2),
    **SIGNED,
)
DECISION = Decision(
    **PLACE,
    decision_id="d1",
    verdict=Verdict.APPROVED,
    reason="all rules are met",
    requested_by="ana",
    policies=(POLICY,),
    gates=(GATE,),
    votes=(VOTE, FOR_CY),
    inputs_digest=DIGEST,
    request_digest=DIGEST,
    decided_at=AT,
    expires_at=AT,
    waived=(WAIVER,),
    rollback_to=1,
    break_glass=GLASS,
    added_approvers={"prod/risk": ("risk-leads",)},
)
REVOCATION = Revocation(
    revocation_id="r1", **OF_VERSION, digest=DIGEST, artifact_digest=DIGEST, revoked_by="olga", reason="poisoned",
    fallback=1, revoked_at=AT,
)  # fmt: skip
EVIDENCE = Evidence(
    evidence_id="e1",
    type="model-card",
    title="Model card",
    digest=DIGEST,
    url="https://ci.example.org/1",
    result="fail",
    detail="no section on bias",
    posted_by="ci",
    service=True,
    at=AT,
)
# Of a policy or of people, and so of no workspace.
OF_NONE = (
    approval.PolicyPublished,
    approval.PolicyProposed,
    approval.DelegationGranted,
    approval.DelegationEnded,
    approval.AccountLinked,
    approval.AccountUnlinked,
    approval.MembershipChanged,
)
ACCOUNT = "sha256:" + "c" * 64
APPROVALS: list[tuple[Message, list[str]]] = [
    (
        approval.PolicyPublished(
            policy=POLICY, document="", published_by="olga", request_id="q1", approved_by=(APPROVED,)
        ),
        ["olga published revision 3 of the policy prod", "approved by ben"],
    ),
    (
        approval.PolicyProposed(
            request_id="q1", policy=POLICY, document="", requested_by="olga", reason="stricter", **BOUND
        ),
        ["olga asked for revision 3 of the policy prod under prod r3: stricter"],
    ),
    (
        approval.RequestOpened(**PLACE, **BOUND, requested_by="ana", reason="better", fields={"change_ticket": "CHG1"}),
        ["ana", "prod r3", "better", "change_ticket=CHG1"],
    ),
    (
        approval.RequestRebound(request_id="t1", cause="candidate: evidence", voided=("ben", "cy"), **BOUND),
        ["has changed: candidate: evidence", "the votes, waivers and emergencies of ben, cy count no more"],
    ),
    (
        approval.GatesEvaluated(request_id="t1", gates=(GATE,), passed=True, inputs_digest=DIGEST),
        ["passed", "accuracy"],
    ),
    (
        approval.GateAnswered(
            request_id="t1",
            gate="prod/scan",
            result="inconclusive",
            message="no answer",
            evidence=DIGEST,
            by="webhook",
            request_digest=DIGEST,
        ),
        ["webhook answered the gate prod/scan: inconclusive: no answer", "evidence sha256:aaa"],
    ),
    (
        approval.GateWaived(request_id="t1", waiver=WAIVER),
        ["olga waived the gate prod/latency: measured on a small machine"],
    ),
    (approval.VoteCast(request_id="t1", vote=VOTE), ["ben voted to approve", "looks good"]),
    (approval.VoteWithdrawn(request_id="t1", voter="ben", reason="read it again"), ["ben took", "read it again"]),
    (
        approval.VoteWithdrawn(request_id="t1", voter="dora", on_behalf_of="ben", by="ben", reason="not mine"),
        ["ben took the vote of dora for ben back", "not mine"],
    ),
    (
        approval.VoteRefused(request_id="t1", voter="ana", choice=Choice.APPROVE, code="own", detail="asked herself"),
        ["ana", "refused", "asked herself"],
    ),
    (approval.RequestCommented(request_id="t1", author="ben", text="why\nnow?"), ["ben commented: why now?"]),
    (
        approval.RequestEscalated(
            request_id="t1",
            step="prod/2",
            action="add_approvers",
            to=("group:risk-leads",),
            rule="prod/risk",
            ask="prod/risk: 0 of 2",
        ),
        ["group:risk-leads may vote for the rule prod/risk from now on: prod/risk: 0 of 2", "step prod/2"],
    ),
    (
        approval.RequestClosed(request_id="t1", code="expired", detail="nobody voted in time"),
        ["without a decision", "nobody voted in time"],
    ),
    (
        approval.GlassBroken(request_id="t1", glass=GLASS),
        [
            "olga broke the glass past approvals, schedule: payments are down",
            "paged: service:oncall, group:risk",
            "2 of risk review it before 2026-11-22 00:00:00 UTC",
        ],
    ),
    (
        approval.ReviewGiven(
            request_id="t1",
            reviewer="rita",
            groups=("risk",),
            justified=False,
            comment="it could wait",
            at=AT,
            auth_method="token",
            closes=True,
        ),
        ["rita found the emergency not justified: it could wait", "closed"],
    ),
    (
        approval.ReviewOverdue(request_id="t1", page=("group:risk",), frozen=True),
        ["in time", "paged: group:risk", "not promoted"],
    ),
    (
        approval.RequestDecided(decision=DECISION, jws="a.b.c", inputs={"model": {}}, documents={DIGEST: "kind: x"}),
        [
            "ana",
            "approved",
            "ben (approve), dan for cy (approve)",
            "accuracy",
            "olga waived the gate prod/latency",
            "prod/risk was opened to risk-leads",
            "olga broke the glass",
            "returns to v1",
        ],
    ),
    (
        approval.ApprovalLapsed(request_id="t1", decided_at=AT, on_lapse="alert"),
        ["approval of 2026-11-20 00:00:00 UTC has lapsed: ask again"],
    ),
    (
        approval.RevocationOrdered(revocation=REVOCATION, jws="a.b.c"),
        ["olga ordered that nobody uses fraud v2 any more: poisoned", "return to v1"],
    ),
    (
        approval.EvidenceAttached(**OF_VERSION, digest=DIGEST, evidence=EVIDENCE),
        [
            "ci attached model-card to fraud v2: Model card (sha256:aaaa",
            "https://ci.example.org/1",
            "says fail: no section on bias",
        ],
    ),
    (
        approval.DelegationGranted(
            delegation_id="g1", delegator="cy", delegate="dan", starts=AT, ends=AT + timedelta(days=3), reason="holiday"
        ),
        ["dan may vote for cy from 2026-11-20 00:00:00 UTC to 2026-11-23 00:00:00 UTC: holiday"],
    ),
    (
        approval.DelegationEnded(delegation_id="g1", delegator="cy", delegate="dan", ended_by="dan"),
        ["dan ended the delegation g1 of cy"],
    ),
    (
        approval.MembershipChanged(subject="ben", groups=("reviewers", "risk"), person=True, by="token of ben"),
        ["ben is in the groups reviewers, risk from now on, by token of ben"],
    ),
    (approval.AccountLinked(subject="ben", system="slack", account=ACCOUNT), ["ben linked an account of slack"]),
    (approval.AccountUnlinked(subject="ben", system="slack", account=ACCOUNT), ["ben unlinked an account of slack"]),
]


def key_of(message: Message) -> str:
    """The stream that the service writes it to."""
    match message:
        case approval.PolicyPublished() | approval.PolicyProposed():
            return f"policy:{message.policy.name}"
        case approval.DelegationGranted() | approval.DelegationEnded():
            return f"delegation:{message.delegator}"
        case approval.AccountLinked() | approval.AccountUnlinked():
            return f"account:{message.account}"
        case approval.MembershipChanged():
            return f"member:{message.subject}"
    return "default/fraud"
