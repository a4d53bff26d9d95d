"""Who is who: several names of one person are one, and addresses are known of people who do not call."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.policy.conftest import (
    AT,
    BAD,
    LEADS,
    NO,
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
    stands,
    vote,
    waiver,
    with_votes,
)

from contracts.approval import Choice
from policy.case import Case, Member, Person
from policy.needs import Needs
from policy.people import approvals, counted, denial, judged, owners, why_not

LENT = {"allowed": True, "max": "14d"}
EXCLUDE = {"exclude": ["requester", "version.author", "version.committers"]}
MAIL = "cora@example.org"


def needs(**more: Any) -> Needs:
    rule = {**REVIEW, "count": 2}
    return needs_at(in_force(document("p", **asks(rule, delegation=LENT, separation_of_duties=EXCLUDE, **more))))


def committed(*who: str) -> Case:
    return case_of(inputs(candidate={"lineage": {"committers": [*who]}}))


# -- one person ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "again",
    [
        person("BEN"),
        person("BEN", email="ben@x.org"),
        person("benjamin", email="Ben@X.org"),
        person("ben@x.org"),
    ],
)
def test_one_person_under_several_names_is_heard_once(again: Person) -> None:
    wanted = needs()
    case = cast(case_of(), wanted, person("ben", email="ben@x.org"))
    assert judged(case, wanted, again, YES, AT) is None
    assert code(judged(case, wanted, again, NO, AT)) == "already-voted"
    assert code(judged(case, wanted, person("dora"), YES, AT, again)) == "already-voted"
    assert code(judged(case, wanted, person("bo", email="bo@x.org"), YES, AT)) == "taken"


def test_a_delegate_clicks_twice_under_two_names() -> None:
    wanted = needs()
    case = cast(case_of(), wanted, person("dora"), principal=person("rita"))
    assert judged(case, wanted, person("Dora"), YES, AT, person("Rita")) is None
    assert code(judged(case, wanted, person("Dora"), YES, AT)) == "already-voted"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"voter": "ben"}, {"voter": "BEN"}),
        ({"voter": "ben", "email": "b@x.org"}, {"voter": "benjamin", "email": "B@x.org"}),
        ({"voter": "dora", "on_behalf_of": "ben"}, {"voter": "BEN"}),
        ({"voter": "dora", "on_behalf_of": "ben"}, {"voter": "dirk", "on_behalf_of": "Ben"}),
    ],
)
def test_recorded_votes_of_one_person_are_one(first: dict[str, Any], second: dict[str, Any]) -> None:
    case = case_of()
    two = with_votes(case, vote(case, **first), vote(case, **second))
    assert len(approvals(two, needs(), AT)) == 1
    against = with_votes(case, *(vote(case, choice=Choice.REJECT, **one) for one in (first, second)))
    assert denial(against, needs(deny={"count": 2}), AT) is None
    assert denial(against, needs(deny={"count": 1}), AT) is not None


def test_an_address_that_is_known_of_a_delegator_tells_who_they_are() -> None:
    case = case_of()
    two = with_votes(case, vote(case, "dora", on_behalf_of="ben"), vote(case, "benjamin", email="ben@x.org"))
    members = {"ben": Member(frozenset({"reviewers"}), email="BEN@x.org")}
    assert len(approvals(two, needs(), AT)) == 2
    assert len(approvals(two, needs(), AT, members.get)) == 1


# -- addresses of people who do not call --------------------------------------------------------------------------


@pytest.mark.parametrize("cast_by", [{"voter": "dora", "on_behalf_of": "cora"}, {"voter": "cora"}])
def test_a_committer_does_not_get_in_by_a_delegate_nor_by_a_token_without_the_address(cast_by: dict[str, str]) -> None:
    case = committed(MAIL)
    made = vote(case, **cast_by)
    assert why_not(case, needs(), made, AT) is None
    members = {"cora": Member(frozenset({"reviewers"}), email=MAIL.upper())}
    found = why_not(case, needs(), made, AT, members.get)
    assert found == f"{MAIL} has commits in this version; another person must vote"


def test_a_committer_cannot_be_voted_for() -> None:
    outcome = judged(committed(MAIL), needs(), person("dora"), YES, AT, person("cora", email=MAIL))
    assert code(outcome) == "own-commits"


def test_a_committer_waives_nothing() -> None:
    case = committed(MAIL)
    text = document("p", gates=[{**BAD, **LEADS}], **asks(REVIEW, separation_of_duties=EXCLUDE))
    case = replace(case, waivers=(waiver(case, "p/bad", "cora"),))
    leads = frozenset({"leads"})
    assert stands(case, text, members={"cora": Member(leads)}.get).phase == "people"
    assert stands(case, text, members={"cora": Member(leads, email=MAIL)}.get).phase == "gates"


OWNERS = [("ana", "own-request"), ("trainer", "own-version"), ("eve", "own-policy")]


@pytest.mark.parametrize(("who", "why"), OWNERS)
def test_whose_it_is_has_no_second_account(who: str, why: str) -> None:
    duties = {"exclude": ["requester", "version.author", "policy.last_editor"]}
    text = document("p", gates=[{**BAD, **LEADS}], **asks(REVIEW, separation_of_duties=duties, delegation=LENT))
    case = case_of(inputs(request={"policy_editors": ["eve"]}))
    assert owners(case) == {"ana", "trainer", "eve"}
    wanted = needs_at(in_force(text), dict(case.inputs))
    known, other = {who: Member(frozenset(), email=MAIL.upper())}.get, person("other", "reviewers", email=MAIL)
    assert code(judged(case, wanted, other, YES, AT)) == "taken"
    assert code(judged(case, wanted, other, YES, AT, members=known)) == why
    assert code(judged(case, wanted, person("dora"), YES, AT, other, known)) == why
    assert code(judged(case, wanted, person("dora", email="dora@x.org"), YES, AT, members=known)) == "taken"
    made = vote(case, "other", email=MAIL)
    assert why_not(case, wanted, made, AT) is None
    assert why_not(case, wanted, made, AT, known) is not None
    case = replace(case, waivers=(waiver(case, "p/bad", "other"),))
    both = {who: Member(frozenset(), email=MAIL), "other": Member(frozenset({"leads"}), email=MAIL)}
    assert stands(case, text).phase == "people"
    assert stands(case, text, members=both.get).phase == "gates"


# -- what goes on record ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [Choice.APPROVE, Choice.REJECT])
def test_who_voted_under_two_names_goes_on_record_once(choice: Choice) -> None:
    case = case_of()
    three = with_votes(
        case,
        vote(case, "ben", choice=choice),
        vote(case, "benjamin", choice=choice, email="b@x.org"),
        vote(case, "bo", choice=choice),
    )
    members = {"ben": Member(frozenset({"reviewers"}), email="B@x.org")}
    assert [one.voter for one in counted(three, needs(), AT)] == ["ben", "benjamin", "bo"]
    assert [one.voter for one in counted(three, needs(deny={"count": 2}), AT, members.get)] == ["ben", "bo"]


def test_of_one_persons_rejections_that_goes_on_record_which_ends_it() -> None:
    """The first is enough for no policy."""
    a, b = ({"count": count, "from": [f"group:{group}"]} for group, count in (("reviewers", 2), ("risk", 1)))
    texts = [document("a", **asks(REVIEW, deny=a)), document("b", **asks(RISK, deny=b))]
    wanted, case = needs_at(in_force(*texts)), case_of()
    two = with_votes(
        case,
        vote(case, "ben", choice=Choice.REJECT),
        vote(case, "benjamin", "risk", choice=Choice.REJECT, email="b@x.org"),
    )
    members = {"ben": Member(frozenset({"reviewers"}), email="b@x.org")}
    assert denial(two, wanted, AT, members.get) == two.votes[1]
    assert counted(two, wanted, AT, members.get) == two.votes[1:]
    assert denial(replace(two, votes=two.votes[1:]), wanted, AT) == two.votes[1]
