"""People: who may vote, whose votes count, and why not."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.policy.conftest import (
    AT,
    HOUR,
    NO,
    OTHER,
    REVIEW,
    RISK,
    YES,
    asks,
    case_of,
    cast,
    code,
    document,
    in_force,
    inputs,
    needs_at,
    person,
    vote,
    with_votes,
)

from contracts.approval import Choice, Vote
from policy.case import Ballot, Member, Person, Refusal
from policy.needs import Needs
from policy.people import approvals, denial, excluded, judged, tally, why_not

STRICTEST = {"exclude": ["requester", "version.author", "version.committers", "policy.last_editor"]}


def needs(*rules: dict[str, Any], **more: Any) -> Needs:
    return needs_at(in_force(document("p", **asks(*(rules or (REVIEW,)), **more))))


def known(**members: tuple[str, ...]) -> Any:
    return {name: Member(frozenset(groups)) for name, groups in members.items()}.get


# -- who may vote -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "ballot", "expected", "recorded"),
    [
        (person(), YES, "taken", False),
        (person(), NO, "taken", False),
        (person("ana"), YES, "own-request", True),
        (person("ana"), NO, "own-request", True),
        (person("ana", person=False), YES, "own-request", True),
        (person("Ana"), YES, "own-request", True),
        (person("x", email="ANA"), YES, "own-request", True),
        (person("trainer"), YES, "own-version", True),
        (person("bot", person=False), YES, "service-account", True),
        (person("dora", "ml-engineers"), YES, "not-an-approver", True),
        (person("dora", "ml-engineers"), NO, "not-an-approver", True),
        (person("ben", may_vote=False), YES, "not-an-approver", True),
        (person(), Ballot(Choice.APPROVE, rule="p/none"), "not-an-approver", True),
        (person(), Ballot(Choice.APPROVE, rule="p/review"), "taken", False),
        (person(), Ballot(Choice.REJECT, rule="p/none", comment="because"), "taken", False),
        (person(), Ballot(Choice.REJECT), "comment-required", False),
        (person(), Ballot(Choice.REJECT, " \n"), "comment-required", False),
        (person(), Ballot(Choice.APPROVE, request_digest=OTHER), "request-changed", False),
    ],
)
def test_refusals(who: Person, ballot: Ballot, expected: str, recorded: bool) -> None:
    outcome = judged(case_of(), needs(), who, ballot, AT)
    assert code(outcome) == expected
    if isinstance(outcome, Refusal):
        assert outcome.recorded is recorded
        assert outcome.detail


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        (person("carl"), "own-commits"),
        (person("CARL"), "own-commits"),
        (person("x", email="Dana@Example.Org"), "own-commits"),
        (person("dana@example.org"), "own-commits"),
        (person("x", email="dana@example.com"), "taken"),
        (person("x", email=""), "taken"),
        (person("eve"), "own-policy"),
        (person("Eve"), "own-policy"),
        (person("ben"), "taken"),
    ],
)
def test_separation_of_duties_by_subject_or_address_whatever_the_case(who: Person, expected: str) -> None:
    given = inputs(
        candidate={"lineage": {"committers": ["carl", "dana@EXAMPLE.org"]}}, request={"policy_editors": ["eve"]}
    )
    case = case_of(given)
    assert code(judged(case, needs(separation_of_duties=STRICTEST), who, YES, AT)) == expected
    assert code(judged(case, needs(), who, YES, AT)) == "taken"  # by default only the requester and the author


def test_who_is_excluded_and_why() -> None:
    given = inputs(candidate={"lineage": {"committers": ["carl"]}}, request={"policy_editors": ["eve"]})
    found = excluded(case_of(given), needs(separation_of_duties=STRICTEST))
    assert {who: refusal.code for who, refusal in found.items()} == {
        "eve": "own-policy",
        "carl": "own-commits",
        "trainer": "own-version",
        "ana": "own-request",
    }


def test_a_change_of_policy_has_no_author() -> None:
    given = inputs(candidate=None, request={"kind": "policy"})
    assert set(excluded(case_of(given), needs(separation_of_duties=STRICTEST))) == {"ana"}


# -- the vote -----------------------------------------------------------------------------------------------------


def test_a_vote_carries_what_it_means_and_is_bound_to() -> None:
    case = case_of()
    who = person("ben", "b", "reviewers", email="ben@example.org", authenticated_at=AT - HOUR)
    assert judged(case, needs(), who, Ballot(Choice.APPROVE, "fine", case.request_digest), AT) == Vote(
        voter="ben",
        choice=Choice.APPROVE,
        rule="p/review",
        meaning="I reviewed it",
        comment="fine",
        at=AT,
        auth_method="token",
        request_digest=case.request_digest,
        groups=("b", "reviewers"),
        authenticated_at=AT - HOUR,
        email="ben@example.org",
    )


def test_the_same_vote_again_is_none_and_another_is_refused() -> None:
    case = cast(case_of(), needs(), person())
    assert judged(case, needs(), person(), YES, AT) is None
    assert code(judged(case, needs(), person(), NO, AT)) == "already-voted"


def test_a_vote_that_is_too_old_may_be_cast_again() -> None:
    wanted = needs(valid_for="1h")
    case = cast(case_of(), wanted, person())
    assert judged(case, wanted, person(), YES, AT + HOUR) is None
    late = AT + HOUR + timedelta(seconds=1)
    assert tally(case, wanted, late) == {"p/review": 0}
    again = cast(case, wanted, person(), at=late)
    assert tally(again, wanted, late) == {"p/review": 1}


@pytest.mark.parametrize(
    ("signature", "who", "expected"),
    [
        ({"reauthenticate_within": "5m"}, person(authenticated_at=AT - timedelta(minutes=5)), "taken"),
        (
            {"reauthenticate_within": "5m"},
            person(authenticated_at=AT - timedelta(minutes=5, seconds=1)),
            "authentication-too-old",
        ),
        ({"methods": ["webauthn", "otp"]}, person(method="otp"), "taken"),
        ({"methods": ["webauthn", "otp"]}, person(method="pwd otp"), "taken"),
        ({"methods": ["webauthn", "otp"]}, person(method="token"), "authentication-too-weak"),
        ({"methods": ["webauthn", "otp"]}, person(method="pwd sms"), "authentication-too-weak"),
        ({"methods": ["token", "slack"]}, person(method="slack"), "taken"),
        ({"methods": ["token"]}, person(method="slack"), "authentication-too-weak"),
        ({}, person(method="slack"), "authentication-too-weak"),
        ({"methods": ["slack"], "reauthenticate_within": "5m"}, person(method="slack"), "authentication-too-weak"),
    ],
)
def test_step_up(signature: dict[str, Any], who: Person, expected: str) -> None:
    outcome = judged(case_of(), needs(signature=signature), who, YES, AT)
    assert code(outcome) == expected
    assert not (isinstance(outcome, Refusal) and outcome.recorded)  # they may try again


def test_no_method_that_all_policies_accept() -> None:
    texts = [document(name, **asks(REVIEW, signature={"methods": [name]})) for name in ("a", "b")]
    outcome = judged(case_of(), needs_at(in_force(*texts)), person(method="a"), YES, AT)
    assert isinstance(outcome, Refusal)
    assert "(there is none)" in outcome.detail


# -- one person, one rule -----------------------------------------------------------------------------------------


def test_one_person_counts_for_one_rule() -> None:
    wanted, case = needs(REVIEW, {**RISK, "from": ["group:risk", "group:reviewers"]}), case_of()
    case = cast(case, wanted, person("ben"))
    assert tally(case, wanted, AT) == {"p/review": 1, "p/risk": 0}
    case = cast(case, wanted, person("rita", "risk"))
    assert tally(case, wanted, AT) == {"p/review": 1, "p/risk": 1}


def test_a_vote_goes_to_the_rule_that_still_needs_somebody() -> None:
    wanted, case = needs(REVIEW, {**RISK, "from": ["group:reviewers"]}), case_of()
    for who in ("ben", "bo", "bea"):
        case = cast(case, wanted, person(who))
    assert [v.rule for v in case.votes] == ["p/review", "p/risk", "p/review"]


def test_a_vote_that_counts_no_more_fills_no_rule() -> None:
    wanted = needs(REVIEW, {**RISK, "from": ["group:reviewers"]}, valid_for="1h")
    case = with_votes(case_of(), vote(case_of(), "old", at=AT - 2 * HOUR))
    assert cast(case, wanted, person("ben")).votes[-1].rule == "p/review"


def test_a_person_may_choose_the_rule() -> None:
    wanted = needs(REVIEW, {**RISK, "from": ["group:reviewers"]})
    case = cast(case_of(), wanted, person(), Ballot(Choice.APPROVE, rule="p/risk"))
    assert (case.votes[0].rule, case.votes[0].meaning) == ("p/risk", "I accept the risk")


def test_a_record_that_counts_a_person_twice_does_not() -> None:
    wanted, case = needs(REVIEW, RISK), case_of()
    twice = with_votes(
        case, vote(case, "ben", "reviewers", "risk"), vote(case, "ben", "reviewers", "risk", rule="p/risk")
    )
    assert tally(twice, wanted, AT) == {"p/review": 1, "p/risk": 0}
    assert [v.rule for v in approvals(twice, wanted, AT)] == ["p/review"]


# -- delegation ---------------------------------------------------------------------------------------------------

DELEGATION = {"allowed": True}


def test_b_votes_for_a() -> None:
    case = cast(case_of(), needs(delegation=DELEGATION), person("ben", "others"), principal=person("rita"))
    (made,) = case.votes
    assert (made.voter, made.on_behalf_of, made.groups) == ("ben", "rita", ("reviewers",))
    assert tally(case, needs(delegation=DELEGATION), AT) == {"p/review": 1}
    assert tally(case, needs(), AT) == {"p/review": 0}


@pytest.mark.parametrize(
    ("voter", "principal", "expected"),
    [
        (person("ben", "others"), person("rita"), "taken"),
        (person("ben"), person("rita", "others"), "not-an-approver"),  # the right is hers, not his
        (person("ben", "others"), person("rita", may_vote=False), "not-an-approver"),
        (person("ben", "others", may_vote=False), person("rita"), "not-an-approver"),
        (person("ben", "others"), person("ana"), "own-request"),  # never for an excluded person
        (person("ana", "others"), person("rita"), "own-request"),  # nor by one
        (person("trainer", "others"), person("rita"), "own-version"),
        (person("bot", "others", person=False), person("rita"), "service-account"),
        (person("ben", "others"), person("bot", person=False), "service-account"),
        (person("ben", "others"), person("x", email="trainer"), "own-version"),
    ],
)
def test_delegation(voter: Person, principal: Person, expected: str) -> None:
    assert code(judged(case_of(), needs(delegation=DELEGATION), voter, YES, AT, principal)) == expected


def test_delegation_must_be_allowed() -> None:
    outcome = judged(case_of(), needs(), person("ben", "others"), YES, AT, person("rita"))
    assert code(outcome) == "delegation-not-allowed"


def test_nobody_is_heard_twice_by_delegation() -> None:
    wanted, rita = needs(delegation=DELEGATION), person("rita")
    case = cast(case_of(), wanted, person("ben"), principal=rita)
    assert judged(case, wanted, person("ben"), YES, AT, rita) is None  # a double click
    assert code(judged(case, wanted, person("ben"), YES, AT)) == "already-voted"
    assert code(judged(case, wanted, rita, YES, AT)) == "already-voted"
    assert code(judged(case, wanted, person("carl"), YES, AT, rita)) == "already-voted"
    assert code(judged(case, wanted, person("carl"), YES, AT, person("ben"))) == "already-voted"


# -- what counts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"request_digest": OTHER}, "changed since"),
        ({"at": AT - 3 * HOUR}, "older than"),
        ({"voter": "ana"}, "ana asked for this"),
        ({"voter": "trainer"}, "trainer registered"),
        ({"voter": "x", "email": "TRAINER"}, "trainer registered"),
        ({"on_behalf_of": "ana"}, "ana asked for this"),
        ({"on_behalf_of": "rita"}, None),
        ({"rule": "p/none"}, "no such rule"),
        ({"groups": ("others",)}, "none of the groups reviewers"),
    ],
)
def test_a_recorded_vote_is_checked_again(changes: dict[str, Any], why: str | None) -> None:
    """Even one that should never have been taken."""
    case = case_of()
    found = why_not(case, needs(valid_for="2h", delegation=DELEGATION), vote(case, **changes), AT)
    assert found == why or (found is not None and why is not None and why in found)


@pytest.mark.parametrize(
    ("members", "counts"),
    [
        ({"ben": Member(frozenset({"reviewers"}))}, 1),
        ({"ben": Member(frozenset({"others"}))}, 0),
        ({"ben": Member(frozenset())}, 0),
        ({"ben": Member(frozenset({"reviewers"}), person=False)}, 0),
        ({"rita": Member(frozenset())}, 1),
        ({}, 1),  # no news of them
    ],
)
def test_groups_may_have_changed_since(members: dict[str, Member], counts: int) -> None:
    case = cast(case_of(), needs(), person())
    assert tally(case, needs(), AT, members.get) == {"p/review": counts}


def test_the_groups_that_count_are_those_of_whom_a_vote_is_for() -> None:
    wanted = needs(delegation=DELEGATION)
    case = cast(case_of(), wanted, person("ben", "others"), principal=person("rita"))
    assert tally(case, wanted, AT, known(ben=("others",), rita=("reviewers",))) == {"p/review": 1}
    assert tally(case, wanted, AT, known(ben=("reviewers",), rita=())) == {"p/review": 0}


@pytest.mark.parametrize("choice", [YES, NO])
def test_a_delegate_who_may_vote_no_more_does_not_count(choice: Ballot) -> None:
    wanted = needs(delegation=DELEGATION)
    case = cast(case_of(), wanted, person("ben", "others"), choice, principal=person("rita"))
    assert why_not(case, wanted, case.votes[0], AT, known(ben=("others",), rita=("reviewers",))) is None
    found = why_not(case, wanted, case.votes[0], AT, known(ben=(), rita=("reviewers",)))
    assert found == "ben has no role any more that lets them vote on this model"


def test_approvers_that_an_escalation_added() -> None:
    late = replace(case_of(), added={"p/review": frozenset({"leads"})})
    lea = person("lea", "leads")
    assert code(judged(case_of(), needs(), lea, YES, AT)) == "not-an-approver"
    assert tally(cast(late, needs(), lea), needs(), AT) == {"p/review": 1}
    assert denial(cast(late, needs(), lea, NO), needs(), AT) is not None


# -- denials ------------------------------------------------------------------------------------------------------


def test_one_rejection_ends_it_by_default() -> None:
    case = cast(cast(case_of(), needs(), person("bo")), needs(), person(), NO)
    found = denial(case, needs(), AT)
    assert found is not None
    assert (found.voter, found.rule, found.comment) == ("ben", "p/review", "because")


def test_how_many_and_who_may_deny() -> None:
    wanted = needs(deny={"count": 2, "from": ["group:veto", "group:reviewers"]})
    case = cast(case_of(), wanted, person("vic", "veto"), NO)
    assert case.votes[0].rule == "deny"
    assert denial(case, wanted, AT) is None
    assert denial(cast(case, wanted, person("ben"), NO), wanted, AT) is not None
    assert code(judged(case, wanted, person("rita", "risk"), NO, AT)) == "not-an-approver"


def test_a_rejection_of_somebody_who_left_does_not_count() -> None:
    case = cast(case_of(), needs(), person(), NO)
    assert denial(case, needs(), AT, known(ben=())) is None
    assert denial(case, needs(), AT, known(ben=("reviewers",))) is not None


def test_a_rejection_counts_as_what_it_was_cast() -> None:
    """Who goes from one group that may reject to another neither takes it along nor takes it back."""
    texts = [document(n, **asks(REVIEW, deny={"count": c, "from": [f"group:{n}"]})) for n, c in (("a", 2), ("b", 1))]
    wanted = needs_at(in_force(*texts))
    case = cast(case_of(), wanted, person("rita", "a"), NO)
    for groups in (("b",), ("a", "b")):
        assert denial(case, wanted, AT, known(rita=groups)) is None
        two = cast(case, wanted, person("otto", "a"), NO)
        assert denial(two, wanted, AT, known(rita=groups)) == two.votes[1]
        assert denial(two, wanted, AT, known(rita=("reviewers",))) is None


@pytest.mark.parametrize("who", ["ana", "trainer"])
def test_four_eyes_hold_for_rejections_too(who: str) -> None:
    case = case_of()
    assert denial(with_votes(case, vote(case, who, choice=Choice.REJECT)), needs(), AT) is None


@pytest.mark.parametrize(
    "more", [{"valid_for": "1m"}, {"separation_of_duties": STRICTEST}, {"delegation": {}}, {"deny": {"count": 9}}]
)
def test_another_policy_does_not_silence_a_rejection(more: dict[str, Any]) -> None:
    """What it asks of approvals is asked of approvals."""
    case = case_of(inputs(candidate={"lineage": {"committers": ["carl"]}}))
    against = vote(case, "carl", choice=Choice.REJECT, at=AT - HOUR, on_behalf_of="rita")
    a, b = document("a", **asks(REVIEW, delegation=DELEGATION)), document("b", **asks(RISK, **more))
    for texts in ([a], [a, b]):
        assert denial(with_votes(case, against), needs_at(in_force(*texts), dict(case.inputs)), AT) == against
