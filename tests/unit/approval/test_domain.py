"""Requests as their events make them. How they are judged: tests/unit/policy."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.unit.approval.conftest import (
    AT,
    INPUTS_DIGEST,
    OTHER,
    POLICY,
    PROPOSED,
    apply,
    asked,
    glass,
    opened,
    proposed,
    vote,
    waiting,
    waiver,
)

from approval.domain import Request, evolve
from contracts.approval import (
    ApprovalLapsed,
    Decision,
    GateAnswered,
    GatesEvaluated,
    GateWaived,
    GlassBroken,
    MembershipChanged,
    PolicyPublished,
    RequestClosed,
    RequestCommented,
    RequestDecided,
    RequestEscalated,
    RequestRebound,
    ReviewGiven,
    ReviewOverdue,
    Verdict,
    VoteCast,
    VoteRefused,
    VoteWithdrawn,
)
from contracts.lifecycle import Stage
from contracts.payload import Message
from contracts.registry import Criterion, Transition
from policy.binding import digest_of_proposal, digest_of_transition

LATER = AT + timedelta(hours=1)


def decision(verdict: Verdict = Verdict.APPROVED, at: datetime = AT) -> RequestDecided:
    of = opened()
    made = Decision(
        **{name: getattr(of, name) for name in Transition.model_fields},
        decision_id="d-1",
        verdict=verdict,
        reason="test",
        requested_by=of.requested_by,
        policies=of.policies,
        gates=(),
        votes=(),
        inputs_digest=of.inputs_digest,
        request_digest=of.request_digest,
        decided_at=at,
        expires_at=of.expires_at,
    )
    return RequestDecided(decision=made, jws="x")


def closed(code: str) -> RequestClosed:
    return RequestClosed(request_id="t-1", code=code, detail="")


def cast(voter: str = "ben") -> VoteCast:
    return VoteCast(request_id="t-1", vote=vote(voter))


def rebound(**changes: Any) -> RequestRebound:
    given: dict[str, Any] = {
        "request_id": "t-1",
        "cause": "candidate: tags",
        "policies": (PROPOSED,),
        "inputs": {"candidate": {"registered_by": "tina"}, "request": opened().inputs["request"]},
        "inputs_digest": OTHER,
        "request_digest": OTHER,
        "expires_at": LATER,
        "voided": ("ben",),
    }
    return RequestRebound(**(given | changes))


def review(reviewer: str = "rita", *, closes: bool = False, justified: bool = True, at: datetime = AT) -> ReviewGiven:
    return ReviewGiven(
        request_id="t-1",
        reviewer=reviewer,
        groups=("risk",),
        justified=justified,
        comment="it was down",
        at=at,
        auth_method="token",
        closes=closes,
    )


def escalated(*groups: str, rule: str = "production/review") -> RequestEscalated:
    to = tuple(f"group:{group}" for group in groups)
    return RequestEscalated(request_id="t-1", step="production/1", action="add_approvers", to=to, rule=rule)


# -- statuses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([], "open"),
        ([decision()], "approved"),
        ([decision(Verdict.REJECTED)], "rejected"),
        ([decision(Verdict.REJECTED, opened().expires_at)], "expired"),
        ([decision(Verdict.REJECTED, opened().expires_at - timedelta(microseconds=1))], "rejected"),
        ([closed("request-expired")], "expired"),
        ([closed("cancelled")], "cancelled"),
        ([closed("withdrawn")], "cancelled"),
        ([closed("version-moved")], "rejected"),
    ],
)
def test_statuses(messages: list[Message], status: str) -> None:
    assert apply(waiting(), *messages).status == status


def test_a_change_of_policy() -> None:
    request = apply(None, proposed())
    assert (request.request_id, request.kind, request.place) == ("t-1", "policy", ("*", "*"))
    assert request.stream == request.subject == "policy:production"
    published = PolicyPublished(policy=PROPOSED, document="x", published_by="ana", request_id="t-1")
    assert apply(request, published).status == "approved"
    assert apply(request, closed("rejected")).status == "rejected"
    assert apply(request, closed("superseded")).status == "rejected"


def test_a_request_for_a_transition() -> None:
    request = waiting()
    assert (request.request_id, request.kind, request.place) == ("t-1", "promotion", ("default", "fraud"))
    assert (request.stream, request.subject) == ("default/fraud", "default/fraud/1")


def test_a_policy_may_expire_it_before_the_registry_does() -> None:
    assert not waiting().outlived
    assert apply(waiting(), rebound()).outlived


# -- what happens to it -------------------------------------------------------------------------------------------


def test_what_a_request_collects() -> None:
    gates = (Criterion(gate="p/good", expression="true", result="pass"),)
    answer = GateAnswered(request_id="t-1", gate="p/hook", result="pass", by="ci", request_digest=OTHER)
    refusal = VoteRefused(request_id="t-1", voter="ana", choice="approve", code="own-request", detail="x")
    request = apply(
        waiting(),
        GatesEvaluated(request_id="t-1", gates=gates, passed=False, inputs_digest=INPUTS_DIGEST),
        answer,
        GateWaived(request_id="t-1", waiver=waiver()),
        cast(),
        refusal,
        RequestCommented(request_id="t-1", author="bo", text="hm"),
        GlassBroken(request_id="t-1", glass=glass()),
    )
    assert (request.gates, request.gates_passed) == (gates, False)
    assert request.answers == (answer,)
    assert request.waivers == (waiver(),)
    assert request.votes == (vote(),)
    assert request.refusals == (refusal,)
    assert [(comment.author, comment.text, comment.at) for comment in request.comments] == [("bo", "hm", AT)]
    assert request.glass == glass()
    assert (request.status, request.last_event) == ("open", "e-6")


def test_a_vote_that_is_withdrawn_stays_visible() -> None:
    request = apply(
        waiting(), cast("ben"), cast("bo"), VoteWithdrawn(request_id="t-1", voter="ben", reason="I was wrong")
    )
    assert [one.voter for one in request.votes] == ["bo"]
    assert [(past.vote.voter, past.why) for past in request.past_votes] == [("ben", "withdrawn: I was wrong")]


def test_what_is_bound_anew_voids_the_votes_visibly() -> None:
    request = apply(waiting(), cast())
    request = apply(request, rebound(), at=LATER)
    assert request.votes == ()
    assert [(past.vote.voter, past.why) for past in request.past_votes] == [("ben", "candidate: tags")]
    assert (request.policies, request.inputs_digest, request.request_digest) == ((PROPOSED,), OTHER, OTHER)
    assert (request.expires_at, request.opened_at, request.bound_at) == (LATER, AT, LATER)


def test_what_is_bound_anew_voids_waivers_answers_and_the_emergency_too() -> None:
    answer = GateAnswered(request_id="t-1", gate="p/hook", result="pass", by="ci", request_digest=OTHER)
    waived, broken = GateWaived(request_id="t-1", waiver=waiver()), GlassBroken(request_id="t-1", glass=glass())
    request = apply(waiting(), answer, waived, broken, rebound())
    assert (request.waivers, request.answers, request.glass) == ((), (), None)
    assert [(past.waiver, past.why) for past in request.past_waivers] == [(waiver(), "candidate: tags")]
    assert [(past.emergency, past.why) for past in request.past_emergencies] == [(glass(), "candidate: tags")]
    assert not request.acted & {"lea", "olga"}
    again = apply(request, waived, broken)
    assert (again.waivers, again.glass, again.past_waivers) == ((waiver(),), glass(), request.past_waivers)
    twice = apply(again, broken)
    assert [past.why for past in twice.past_emergencies] == ["candidate: tags", "olga broke the glass anew"]


def test_who_may_vote_after_escalations() -> None:
    request = apply(waiting(), escalated("leads"), escalated("leads", "board"), escalated("x", rule="production/risk"))
    assert request.added == {
        "production/review": frozenset({"leads", "board"}),
        "production/risk": frozenset({"x"}),
    }
    reminder = RequestEscalated(request_id="t-1", step="production/2", action="remind", to=("group:reviewers",))
    assert apply(waiting(), reminder).added == {}


def test_whom_a_step_added_goes_when_the_policies_know_it_no_more() -> None:
    request = apply(waiting(), escalated("leads"), escalated("x", rule="production/risk"))
    steps = tuple(step.step for step in request.escalated)
    without = apply(request, rebound().model_copy(update={"steps": ()}))
    assert without.added == {}
    assert apply(without, rebound().model_copy(update={"steps": steps})).added == request.added
    assert apply(without, escalated("y")).added == {}


def test_the_case_is_what_the_events_made() -> None:
    request = apply(waiting(), cast(), GateWaived(request_id="t-1", waiver=waiver()), escalated("leads"))
    request = apply(request, GlassBroken(request_id="t-1", glass=glass()), at=LATER)
    case = request.case
    assert (case.requested_by, case.request_digest, case.inputs) == ("ana", request.request_digest, request.inputs)
    assert (case.opened_at, case.bound_at) == (AT, AT)
    assert (case.votes, case.waivers, case.glass) == (request.votes, request.waivers, glass())
    assert case.added == {"production/review": frozenset({"leads"})}


# -- afterwards ---------------------------------------------------------------------------------------------------


def emergency(*reviews: ReviewGiven, **changes: Any) -> Request:
    broken = GlassBroken(request_id="t-1", glass=glass().model_copy(update=changes))
    return apply(waiting(), broken, decision(), *reviews)


def test_the_review_of_an_emergency() -> None:
    deadline = glass().review_by
    request = emergency(review("rita"))
    assert (request.reviewed, request.freezes_at) == (False, deadline)
    late = apply(request, ReviewOverdue(request_id="t-1", page=(), frozen=True))
    assert (late.reviewed, late.freezes_at) == (False, deadline)
    done = apply(late, review("rolf", closes=True))
    assert (done.reviewed, done.freezes_at, done.status) == (True, None, "approved")


def test_an_emergency_that_is_overdue_may_freeze_nothing() -> None:
    assert emergency(on_overdue=("page",)).freezes_at is None


def test_an_emergency_that_let_nothing_pass_freezes_nothing() -> None:
    request = apply(waiting(), GlassBroken(request_id="t-1", glass=glass()))
    assert request.freezes_at is None
    assert apply(request, decision(Verdict.REJECTED)).freezes_at is None


@pytest.mark.parametrize("on_overdue", [("page",), ("page", "freeze_model")])
def test_an_objection_freezes_at_once_and_starts_the_count_anew(on_overdue: tuple[str, ...]) -> None:
    objection = review("rolf", justified=False, at=LATER)
    request = emergency(review("rita"), objection, on_overdue=on_overdue)
    assert (request.reviewed, request.freezes_at, request.standing_reviews) == (False, LATER, (objection,))
    request = apply(request, review("rita"))
    assert (request.freezes_at, len(request.standing_reviews)) == (LATER, 2)
    request = apply(request, review("rosa", closes=True))
    assert (request.reviewed, request.freezes_at) == (True, None)
    request = apply(request, review("ruth", justified=False, at=LATER))
    assert (request.reviewed, request.freezes_at) == (False, LATER)


def test_what_may_still_happen_to_what_is_decided() -> None:
    request = apply(
        waiting(),
        decision(),
        RequestCommented(request_id="t-1", author="bo", text="hm"),
        ApprovalLapsed(request_id="t-1", decided_at=AT, on_lapse="alert"),
    )
    assert (len(request.comments), request.lapsed is not None, request.status) == (1, True, "approved")


@pytest.mark.parametrize(
    "message",
    [cast(), VoteWithdrawn(request_id="t-1", voter="ben"), GlassBroken(request_id="t-1", glass=glass()), rebound(),
     GateWaived(request_id="t-1", waiver=waiver()), decision(), closed("x"), escalated("leads")],
    ids=lambda message: type(message).__name__,
)  # fmt: skip
def test_nothing_else_happens_to_what_is_over(message: Message) -> None:
    for end in (decision(), closed("cancelled")):
        with pytest.raises(ValueError, match="on a request that is"):
            apply(apply(waiting(), end), message)


def test_events_out_of_place_are_errors() -> None:
    facts: dict[str, Any] = {"at": AT, "correlationid": "c", "event_id": "e"}
    with pytest.raises(ValueError, match="opened twice"):
        evolve(waiting(), opened(), **facts)
    with pytest.raises(ValueError, match="of no request"):
        evolve(None, closed("x"), **facts)
    alien = MembershipChanged(subject="ben", groups=(), person=True, by="x")
    with pytest.raises(ValueError, match="no event of a request"):
        evolve(waiting(), alien, **facts)


def test_a_request_survives_its_own_json() -> None:
    """It is kept as JSON between events."""
    request = apply(waiting(), cast(), escalated("leads"), GlassBroken(request_id="t-1", glass=glass()))
    assert Request.model_validate_json(request.model_dump_json()) == request


# -- what votes bind to -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": OTHER},
        {"artifact_digest": OTHER},
        {"from_stage": Stage.ARCHIVED},
        {"to_stage": Stage.ARCHIVED},
        {"transition_id": "t-2"},
    ],
)
def test_the_request_digest_binds(changes: dict[str, Any]) -> None:
    known = digest_of_transition(asked(), (POLICY,), INPUTS_DIGEST)
    assert digest_of_transition(asked(**changes), (POLICY,), INPUTS_DIGEST) != known


def test_the_request_digest_binds_policies_and_inputs() -> None:
    known = digest_of_transition(asked(), (POLICY,), INPUTS_DIGEST)
    assert digest_of_transition(asked(), (PROPOSED,), INPUTS_DIGEST) != known
    assert digest_of_transition(asked(), (POLICY, PROPOSED), INPUTS_DIGEST) != known
    assert digest_of_transition(asked(), (POLICY,), OTHER) != known
    assert digest_of_transition(asked(reason="another"), (POLICY,), INPUTS_DIGEST) == known  # part of the inputs
    both = digest_of_transition(asked(), (POLICY, PROPOSED), INPUTS_DIGEST)
    assert digest_of_transition(asked(), (PROPOSED, POLICY), INPUTS_DIGEST) == both


def test_the_digest_of_a_change_of_policy_binds() -> None:
    known = digest_of_proposal("t-1", PROPOSED, (POLICY,), INPUTS_DIGEST)
    assert digest_of_proposal("t-2", PROPOSED, (POLICY,), INPUTS_DIGEST) != known
    assert digest_of_proposal("t-1", PROPOSED.model_copy(update={"revision": 3}), (POLICY,), INPUTS_DIGEST) != known
    assert digest_of_proposal("t-1", PROPOSED, (), INPUTS_DIGEST) != known
    assert digest_of_proposal("t-1", PROPOSED, (POLICY,), OTHER) != known
