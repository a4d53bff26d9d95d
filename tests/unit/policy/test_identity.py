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
from policy.needs import Needs
from policy.people import Case, Member, Person, approvals, denial, judged, why_not

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
