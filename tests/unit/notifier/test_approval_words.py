"""What Slack and e-mail say of requests, votes, emergencies, policies, revocations and delegations."""

from datetime import timedelta
from typing import Any

import pytest

from contracts.approval import (
    EVENTS,
    AccountLinked,
    AccountUnlinked,
    ApprovalLapsed,
    Choice,
    DelegationEnded,
    DelegationGranted,
    EvidenceAttached,
    GateAnswered,
    GatesEvaluated,
    GateWaived,
    GlassBroken,
    MembershipChanged,
    PolicyProposed,
    PolicyPublished,
    RequestClosed,
    RequestCommented,
    RequestDecided,
    RequestEscalated,
    RequestOpened,
    RequestRebound,
    ReviewGiven,
    ReviewOverdue,
    RevocationOrdered,
    VoteCast,
    VoteRefused,
    VoteWithdrawn,
)
from contracts.payload import Message
from contracts.registry import VersionRevoked
from notifier.wording import notice

from .rendering import AT, SUBJECT, mail, said, slack

DIGEST = "sha256:" + "a" * 64
POLICY = {"name": "prod", "revision": 3, "digest": DIGEST}
VERSION: dict[str, Any] = {"workspace": "default", "model": "churn", "version": 2}
PLACE: dict[str, Any] = {
    **VERSION,
    "transition_id": "t1",
    "kind": "promotion",
    "digest": DIGEST,
    "artifact_digest": DIGEST,
    "from_stage": "Staging",
    "to_stage": "Production",
    "requested_by": "ana",
}
BOUND: dict[str, Any] = {
    "policies": [POLICY, {**POLICY, "name": "eu", "revision": 1}],
    "inputs": {},
    "inputs_digest": DIGEST,
    "request_digest": DIGEST,
    "expires_at": AT + timedelta(days=3),
}
SIGNED: dict[str, Any] = {"at": AT, "auth_method": "token", "request_digest": DIGEST}
VOTE: dict[str, Any] = {**SIGNED, "voter": "ben", "choice": "approve", "rule": "prod/risk", "meaning": "I accept"}
FOR_CY: dict[str, Any] = {**VOTE, "voter": "dan", "on_behalf_of": "cy"}
GATE = {"gate": "prod/auc", "expression": "metrics.auc >= 0.9", "result": "pass", "message": ""}
WAIVER: dict[str, Any] = {**SIGNED, "gate": "prod/latency", "by": "olga", "reason": "a small\nmachine"}
GLASS: dict[str, Any] = {
    **SIGNED,
    "by": "olga",
    "groups": ["oncall"],
    "reason": "payments are down",
    "skips": ["approvals", "schedule"],
    "page": ["service:oncall", "group:risk"],
    "until": AT + timedelta(hours=4),
    "review": ["risk"],
    "review_count": 2,
    "review_by": AT + timedelta(days=2),
}
REVOCATION: dict[str, Any] = {
    **VERSION,
    "revocation_id": "r1",
    "digest": DIGEST,
    "artifact_digest": DIGEST,
    "revoked_by": "olga",
    "reason": "poisoned",
    "fallback": 1,
    "revoked_at": AT,
}
EVIDENCE: dict[str, Any] = {
    "evidence_id": "e1",
    "type": "model-card",
    "title": "Model card",
    "url": "https://ci.example.org/1",
    "posted_by": "ci",
    "service": True,
    "at": AT,
}
DECISION: dict[str, Any] = {
    **PLACE,
    "decision_id": "d1",
    "verdict": "approved",
    "reason": "approved by ben, dan",
    "policies": [POLICY],
    "gates": [GATE],
    "votes": [VOTE, FOR_CY],
    "inputs_digest": DIGEST,
    "request_digest": DIGEST,
    "decided_at": AT,
    "expires_at": AT,
}
REVIEW: dict[str, Any] = {
    "request_id": "t1",
    "reviewer": "rita",
    "groups": ["risk"],
    "comment": "it could not wait",
    "at": AT,
    "auth_method": "token",
}
ABOUT_POLICY = "policy:prod"


def made(kind: type[Message], /, **body: Any) -> Message:
    return kind.model_validate(body)


# The event, what it is about, its line, and what else is shown.
TOLD: list[tuple[Message, str, str, list[str]]] = [
    (
        made(RequestOpened, **PLACE, **BOUND, reason="better", fields={"change_ticket": "CHG1"}),
        SUBJECT,
        "churn: v2 waits for approval to enter Production. Asked by ana: 'better'.",
        ["Under: prod r3 and eu r1", "Next: the gates;", "change_ticket: CHG1", "Request: t1", "until: 2026-11-24"],
    ),
    (
        made(RequestRebound, request_id="t1", cause="candidate:\nevidence", voided=["ben", "cy"], **BOUND),
        SUBJECT,
        (
            "churn: v2: the request has changed: candidate: evidence. "
            "The votes, waivers and emergencies of ben and cy count no more."
        ),
        ["Request: t1", "Under: prod r3 and eu r1"],
    ),
    (
        made(GatesEvaluated, request_id="t1", gates=[GATE], passed=True, inputs_digest=DIGEST),
        SUBJECT,
        "churn: v2: the gates passed. prod/auc: metrics.auc &gt;= 0.9 passed.",
        [],
    ),
    (
        made(
            GatesEvaluated,
            request_id="t1",
            gates=[{**GATE, "result": "pending"}, {**GATE, "gate": "prod/fair", "result": "waived"}],
            passed=False,
            inputs_digest=DIGEST,
        ),
        SUBJECT,
        (
            "churn: v2: the gates do not let it pass. prod/auc: metrics.auc &gt;= 0.9 has not answered yet; "
            "prod/fair: metrics.auc &gt;= 0.9 was waived."
        ),
        [],
    ),
    (
        made(
            GateAnswered,
            request_id="t1",
            gate="prod/scan",
            result="fail",
            message="2 findings",
            evidence=DIGEST,
            by="scanner",
            request_digest=DIGEST,
        ),
        SUBJECT,
        "churn: v2: the gate prod/scan says fail. Answered by scanner: '2 findings'.",
        [f"Evidence: {DIGEST}"],
    ),
    (
        made(GateWaived, request_id="t1", waiver=WAIVER),
        SUBJECT,
        "churn: v2: the gate prod/latency was waived. Waived by olga: 'a small machine'.",
        [],
    ),
    (
        made(VoteCast, request_id="t1", vote={**VOTE, "comment": "read it"}),
        SUBJECT,
        "churn: v2: ben voted to approve. Meaning: I accept: 'read it'.",
        ["For: prod/risk", "Request: t1"],
    ),
    (
        made(VoteCast, request_id="t1", vote=FOR_CY),
        SUBJECT,
        "churn: v2: dan voted to approve, on behalf of cy. Meaning: I accept.",
        [],
    ),
    (
        made(VoteCast, request_id="q1", vote=VOTE),
        ABOUT_POLICY,
        "Policy prod: ben voted to approve. Meaning: I accept.",
        [],
    ),
    (
        made(VoteWithdrawn, request_id="t1", voter="ben", reason="read it again"),
        SUBJECT,
        "churn: v2: ben took the vote back. Withdrawn by ben: 'read it again'.",
        [],
    ),
    (
        made(VoteWithdrawn, request_id="t1", voter="dan", on_behalf_of="cy", by="cy"),
        SUBJECT,
        "churn: v2: cy took the vote of dan on behalf of cy back. Withdrawn by cy.",
        [],
    ),
    (
        VoteRefused(request_id="t1", voter="ana", choice=Choice.APPROVE, code="own-request", detail="it is yours"),
        SUBJECT,
        "churn: v2: the vote of ana was refused: it is yours.",
        [],
    ),
    (
        made(RequestCommented, request_id="t1", author="ben", text="why\nnow?"),
        SUBJECT,
        "churn: v2: a comment on the request. Written by ben: 'why now?'.",
        ["Request: t1"],
    ),
    (
        made(
            RequestEscalated,
            request_id="t1",
            step="prod/1",
            action="remind",
            to=["group:risk"],
            ask="prod/risk: 0 of 2",
        ),
        SUBJECT,
        "churn: v2: the request still waits: prod/risk: 0 of 2. A reminder to group:risk.",
        ["Step: prod/1", "Request: t1"],
    ),
    (
        made(RequestEscalated, request_id="t1", step="prod/2", action="notify", to=["group:leads", "user:cy"]),
        SUBJECT,
        "churn: v2: the request still waits. group:leads and user:cy should know.",
        [],
    ),
    (
        made(
            RequestEscalated,
            request_id="t1",
            step="prod/3",
            action="add_approvers",
            to=["group:leads"],
            rule="prod/risk",
        ),
        SUBJECT,
        "churn: v2: the request still waits. From now on group:leads may vote too, for prod/risk.",
        [],
    ),
    (
        made(RequestClosed, request_id="q1", code="rejected", detail="ada rejected: no"),
        ABOUT_POLICY,
        "Policy prod: the request for approval was closed (rejected): ada rejected: no.",
        [],
    ),
    (
        made(GlassBroken, request_id="t1", glass=GLASS),
        SUBJECT,
        (
            "churn: v2: EMERGENCY, olga lets it pass without approvals and schedule. "
            "olga pages service:oncall and group:risk: 'payments are down'."
        ),
        ["Good until: 2026-11-21 14:00 UTC", "To be reviewed by: 2 of risk before 2026-11-23 10:00 UTC"],
    ),
    (
        made(ReviewGiven, **REVIEW, justified=True, closes=True),
        SUBJECT,
        "churn: v2: the emergency was justified; the review is closed. Reviewed by rita: 'it could not wait'.",
        [],
    ),
    (
        made(ReviewGiven, **REVIEW, justified=False, closes=False),
        SUBJECT,
        "churn: v2: the emergency was NOT justified; the model is frozen. Reviewed by rita: 'it could not wait'.",
        [],
    ),
    (
        made(ReviewGiven, **REVIEW, justified=False, closes=False, page=["service:oncall"]),
        SUBJECT,
        (
            "churn: v2: the emergency was NOT justified; the model is frozen. "
            "rita pages service:oncall: 'it could not wait'."
        ),
        [],
    ),
    (
        made(ReviewOverdue, request_id="t1", page=["group:risk"], frozen=True),
        SUBJECT,
        (
            "churn: v2: nobody has reviewed the emergency in time; the model is not promoted until somebody has. "
            "This pages group:risk."
        ),
        [],
    ),
    (
        made(RequestDecided, decision=DECISION, jws="a.b.c"),
        SUBJECT,
        (
            "churn: v2 was approved for Production. Asked by ana, votes of ben and dan (for cy): "
            "'approved by ben, dan'. prod/auc: metrics.auc &gt;= 0.9 passed."
        ),
        ["Request: t1"],
    ),
    (
        made(
            RequestDecided,
            decision={**DECISION, "votes": [], "gates": [], "break_glass": GLASS, "waived": [WAIVER], "rollback_to": 1},
            jws="a.b.c",
        ),
        SUBJECT,
        "churn: v2 was approved for Production in an emergency. Asked by ana: 'approved by ben, dan'.",
        [
            "prod/latency waived by olga: a small machine",
            "Emergency, by olga: payments are down",
            "If revoked, back to: v1",
        ],
    ),
    (
        made(
            RequestDecided,
            decision={**DECISION, "verdict": "rejected", "reason": "ben rejected: no", "gates": []},
            jws="a.b.c",
        ),
        SUBJECT,
        "churn: v2 was rejected for Production. Asked by ana, votes of ben and dan (for cy): 'ben rejected: no'.",
        [],
    ),
    (
        made(ApprovalLapsed, request_id="t1", decided_at=AT, on_lapse="alert"),
        SUBJECT,
        "churn: v2: the approval of 2026-11-21 has lapsed; ask for it again.",
        [],
    ),
    (
        made(ApprovalLapsed, request_id="t1", decided_at=AT, on_lapse="moot"),
        SUBJECT,
        "churn: v2: the approval of 2026-11-21 has lapsed; nothing rests on it any more.",
        [],
    ),
    (
        made(RevocationOrdered, revocation=REVOCATION, jws="a.b.c"),
        SUBJECT,
        "churn: v2 is to be revoked, nobody may use it. Ordered by olga: 'poisoned'.",
        ["Returns to: v1"],
    ),
    (
        made(
            VersionRevoked,
            **VERSION,
            digest=DIGEST,
            revoked_by="olga",
            reason="poisoned",
            fallback=1,
            revocation="a.b.c",
        ),
        SUBJECT,
        "churn: v2 is REVOKED, servers must stop using it. Revoked by olga: 'poisoned'.",
        ["Version: 2", "Returns to: v1"],
    ),
    (
        made(EvidenceAttached, **VERSION, digest=DIGEST, evidence=EVIDENCE),
        SUBJECT,
        "churn: v2 has new evidence, model-card: Model card. Posted by ci.",
        ["Link: https://ci.example.org/1"],
    ),
    (
        made(
            EvidenceAttached,
            **VERSION,
            digest=DIGEST,
            evidence={
                **EVIDENCE,
                "type": "scan",
                "title": "Nightly",
                "result": "fail",
                "detail": "2 findings",
                "digest": DIGEST,
            },
        ),
        SUBJECT,
        "churn: v2: the check scan says fail: Nightly. Posted by ci: '2 findings'.",
        [f"File: {DIGEST}"],
    ),
    (
        made(
            PolicyProposed, request_id="q1", policy=POLICY, document="", requested_by="root", reason="stricter", **BOUND
        ),
        ABOUT_POLICY,
        "Policy prod: revision 3 waits for approval. Asked by root: 'stricter'.",
        ["Request: q1", "Under: prod r3 and eu r1"],
    ),
    (
        made(
            PolicyPublished,
            policy=POLICY,
            document="",
            published_by="root",
            approved_by=[{"name": "ada", "at": AT, "meaning": "I agree"}],
        ),
        ABOUT_POLICY,
        "Policy prod: revision 3 is in force. Published by root, approved by ada.",
        [],
    ),
    (
        made(
            DelegationGranted,
            delegation_id="g1",
            delegator="cy",
            delegate="dan",
            starts=AT,
            ends=AT + timedelta(days=2),
            reason="holiday",
        ),
        "delegation:cy",
        "dan may vote for cy until 2026-11-23 10:00 UTC. Granted by olga: 'holiday'.",
        ["From: 2026-11-21 10:00 UTC", "Delegation: g1"],
    ),
    (
        made(DelegationEnded, delegation_id="g1", delegator="cy", delegate="dan", ended_by="dan"),
        "delegation:cy",
        "dan votes for cy no more. Ended by dan.",
        ["Delegation: g1"],
    ),
    (
        made(MembershipChanged, subject="ben", groups=["reviewers", "risk"], person=True, by="token of ben"),
        "member:ben",
        "ben: is known to be in reviewers and risk now. Told by token of ben.",
        [],
    ),
    (
        made(AccountLinked, subject="ben", system="slack", account="sha256:" + "c" * 64),
        "account:sha256:c",
        (
            "ben: an account of slack acts for them now. Linked by olga: 'If that was not you: "
            "hallmark notify slack unlink, and tell the operator.'."
        ),
        [],
    ),
    (
        made(AccountUnlinked, subject="ben", system="slack", account="sha256:" + "c" * 64),
        "account:sha256:c",
        "ben: no account of slack acts for them any more.",
        [],
    ),
]


@pytest.mark.parametrize(("message", "subject", "line", "shown"), TOLD, ids=lambda given: getattr(given, "TYPE", None))
def test_every_event_is_told_in_one_line_and_rendered(
    message: Message, subject: str, line: str, shown: list[str]
) -> None:
    text, blocks = slack(message, subject)
    assert text == line
    headline, plain, html = mail(message, subject)
    assert line.replace("&gt;", ">").startswith(headline)
    assert plain.startswith(headline)
    assert headline in html
    for fact in shown:
        assert fact in plain
        label, _, value = fact.partition(": ")
        assert f"*{label}*\n{value}" in blocks or (label in blocks and value in blocks)


def test_no_event_is_forgotten() -> None:
    assert {type(message) for message, *_ in TOLD} == {*EVENTS, VersionRevoked}


def test_a_request_that_nobody_has_to_be_asked_for_any_more_names_nobody() -> None:
    quiet = made(RequestRebound, request_id="t1", cause="its inputs", **{**BOUND, "policies": []})
    assert notice(said(quiet)).summary == "churn: v2: the request has changed: its inputs."
    assert ("Under", "no policy") in notice(said(quiet)).facts
