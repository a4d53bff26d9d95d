"""Votes, verdicts and the fold, without a database."""

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.approval.conftest import AT, INPUTS_DIGEST, POLICY, apply, asked, opened, waiting

from approval.domain import (
    Ballot,
    Refusal,
    Request,
    Rule,
    Voter,
    cast,
    evolve,
    request_digest,
    tally,
    verdict,
)
from contracts.approval import (
    Choice,
    Decision,
    GatesEvaluated,
    PolicyPublished,
    PolicyRef,
    RequestClosed,
    RequestDecided,
    Verdict,
    Vote,
    VoteCast,
)
from contracts.lifecycle import Stage
from contracts.registry import Criterion, Transition

ONE = (Rule("production/review", frozenset({"reviewers"}), 1, "I reviewed it"),)
TWO = (Rule("p/one", frozenset({"reviewers"}), 1, "a"), Rule("p/two", frozenset({"reviewers", "risk"}), 1, "b"))
YES, NO = Ballot(Choice.APPROVE), Ballot(Choice.REJECT, "because")


def voter(subject: str = "ben", *groups: str, person: bool = True, may: bool = True) -> Voter:
    return Voter(subject, frozenset(groups or ("reviewers",)), person, may, "token")


def voted(request: Request, subject: str, ballot: Ballot = YES, rules: tuple[Rule, ...] = ONE, *groups: str) -> Request:
    vote = cast(request, rules, voter(subject, *groups), ballot, AT)
    assert isinstance(vote, Vote), vote
    return apply(request, VoteCast(request_id="t-1", vote=vote))


def decided(request: Request, outcome: Verdict, at: Any = AT) -> Request:
    of = request.opened
    decision = Decision(
        **{name: getattr(of, name) for name in Transition.model_fields},
        decision_id="d-1",
        verdict=outcome,
        reason="test",
        requested_by=of.requested_by,
        policies=of.policies,
        gates=request.gates,
        votes=request.votes,
        inputs_digest=of.inputs_digest,
        request_digest=of.request_digest,
        decided_at=at,
        expires_at=at + timedelta(minutes=15),
    )
    return apply(request, RequestDecided(decision=decision, jws="x"))


@pytest.mark.parametrize(
    ("who", "ballot", "code", "recorded"),
    [
        (voter("ana"), YES, "own-request", True),
        (voter("ana"), NO, "own-request", True),
        (voter("ana", person=False), YES, "own-request", True),
        (voter("trainer"), YES, "own-version", True),
        (voter("bot", person=False), YES, "service-account", True),
        (voter("dora", "ml-engineers"), YES, "not-an-approver", True),
        (voter("ben", may=False), YES, "not-an-approver", True),
        (voter("ben"), Ballot(Choice.APPROVE, rule="production/none"), "not-an-approver", True),
        (voter("ben"), Ballot(Choice.REJECT), "comment-required", False),
        (voter("ben"), Ballot(Choice.APPROVE, request_digest=f"sha256:{'9' * 64}"), "request-changed", False),
    ],
)
def test_refusals(who: Voter, ballot: Ballot, code: str, recorded: bool) -> None:
    refusal = cast(waiting(), ONE, who, ballot, AT)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.recorded) == (code, recorded)


def test_a_vote_carries_what_it_means_and_is_bound_to() -> None:
    request = waiting()
    vote = cast(request, ONE, voter(), Ballot(Choice.APPROVE, "fine", request.opened.request_digest), AT)
    assert vote == Vote(
        voter="ben",
        choice=Choice.APPROVE,
        rule="production/review",
        meaning="I reviewed it",
        comment="fine",
        at=AT,
        auth_method="token",
        request_digest=request.opened.request_digest,
    )


def test_the_same_vote_again_is_none_and_another_is_refused() -> None:
    request = voted(waiting(), "ben")
    assert cast(request, ONE, voter(), YES, AT) is None
    refusal = cast(request, ONE, voter(), NO, AT)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "already-voted"


@pytest.mark.parametrize("late", [timedelta(0), timedelta(days=1)])
def test_a_late_vote(late: timedelta) -> None:
    refusal = cast(waiting(), ONE, voter(), YES, waiting().opened.expires_at + late)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "request-expired"


def test_nobody_votes_on_what_is_decided() -> None:
    request = decided(voted(waiting(), "ben"), Verdict.APPROVED)
    refusal = cast(request, ONE, voter("bo"), YES, AT)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "request-closed"
    assert cast(request, ONE, voter("ben"), YES, AT) is None  # the answer to a call whose answer was lost


def test_verdicts() -> None:
    assert verdict(waiting(), ONE) is None
    assert verdict(waiting(), ()) == (Verdict.APPROVED, "no approval is asked for")
    assert verdict(voted(waiting(), "ben"), ONE) == (Verdict.APPROVED, "approved by ben")
    assert verdict(voted(waiting(), "ben", NO), ONE) == (Verdict.REJECTED, "ben rejected: because")
    nothing = verdict(waiting(policies=(), passed=False), ())
    assert nothing == (Verdict.REJECTED, "no policy allows a promotion from Staging to Production")


def test_a_failed_gate_names_itself() -> None:
    gates = (
        Criterion(gate="p/good", expression="true", result="pass"),
        Criterion(gate="p/bad", expression="false", result="fail", message="too low"),
    )
    message = GatesEvaluated(request_id="t-1", gates=gates, passed=False, inputs_digest=INPUTS_DIGEST)
    assert verdict(apply(None, opened(), message), ONE) == (Verdict.REJECTED, "gates failed: p/bad: fail, too low")


def test_a_rejection_weighs_more_than_any_approvals() -> None:
    request = voted(voted(waiting(), "ben"), "bo", NO)
    outcome = verdict(request, ONE)
    assert outcome is not None
    assert outcome[0] is Verdict.REJECTED


def test_one_person_counts_for_one_rule() -> None:
    request = voted(waiting(), "ben", YES, TWO)
    assert tally(request, TWO) == {"p/one": 1, "p/two": 0}
    assert verdict(request, TWO) is None
    request = voted(request, "rita", YES, TWO, "risk")
    assert tally(request, TWO) == {"p/one": 1, "p/two": 1}
    assert verdict(request, TWO) == (Verdict.APPROVED, "approved by ben, rita")


@pytest.mark.parametrize("subject", ["ana", "trainer"])
def test_four_eyes_are_checked_again_at_the_decision(subject: str) -> None:
    """A vote that should never have been taken does not count."""
    vote = cast(waiting(), ONE, voter(), YES, AT)
    assert isinstance(vote, Vote)
    request = apply(waiting(), VoteCast(request_id="t-1", vote=vote.model_copy(update={"voter": subject})))
    assert tally(request, ONE) == {"production/review": 0}
    assert verdict(request, ONE) is None


def test_a_vote_for_another_digest_does_not_count() -> None:
    vote = cast(waiting(), ONE, voter(), YES, AT)
    assert isinstance(vote, Vote)
    other = vote.model_copy(update={"request_digest": f"sha256:{'9' * 64}"})
    assert verdict(apply(waiting(), VoteCast(request_id="t-1", vote=other)), ONE) is None


def test_statuses() -> None:
    assert waiting().status == "open"
    assert decided(waiting(), Verdict.APPROVED).status == "approved"
    assert decided(waiting(), Verdict.REJECTED).status == "rejected"
    assert decided(waiting(), Verdict.REJECTED, waiting().opened.expires_at).status == "expired"
    assert apply(waiting(), RequestClosed(request_id="t-1", code="request-expired", detail="")).status == "expired"
    assert apply(waiting(), RequestClosed(request_id="t-1", code="withdrawn", detail="")).status == "rejected"


def test_events_out_of_place_are_errors() -> None:
    facts: dict[str, Any] = {"at": AT, "correlationid": "c", "event_id": "e"}
    with pytest.raises(ValueError, match="opened twice"):
        evolve(waiting(), opened(), **facts)
    with pytest.raises(ValueError, match="not open"):
        decided(decided(waiting(), Verdict.APPROVED), Verdict.APPROVED)
    with pytest.raises(ValueError, match="not open"):
        evolve(None, RequestClosed(request_id="t-1", code="x", detail=""), **facts)
    with pytest.raises(ValueError, match="no event of a request"):
        evolve(waiting(), PolicyPublished(policy=POLICY, document="", published_by="x"), **facts)


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": f"sha256:{'9' * 64}"},
        {"artifact_digest": f"sha256:{'9' * 64}"},
        {"from_stage": Stage.ARCHIVED},
        {"to_stage": Stage.ARCHIVED},
        {"transition_id": "t-2"},
    ],
)
def test_the_request_digest_binds(changes: dict[str, Any]) -> None:
    known = request_digest(asked(), (POLICY,), INPUTS_DIGEST)
    assert request_digest(asked(**changes), (POLICY,), INPUTS_DIGEST) != known


def test_the_request_digest_binds_policies_and_inputs() -> None:
    known = request_digest(asked(), (POLICY,), INPUTS_DIGEST)
    other = PolicyRef(name="production", revision=2, digest=f"sha256:{'9' * 64}")
    assert request_digest(asked(), (other,), INPUTS_DIGEST) != known
    assert request_digest(asked(), (POLICY, other), INPUTS_DIGEST) != known
    assert request_digest(asked(), (POLICY,), f"sha256:{'9' * 64}") != known
    assert request_digest(asked(reason="another"), (POLICY,), INPUTS_DIGEST) == known
