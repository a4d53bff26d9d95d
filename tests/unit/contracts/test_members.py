"""What is known of somebody, from tokens and from the directory."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from contracts.members import Known, Said, token_of

NOON = datetime(2026, 1, 14, 12, tzinfo=UTC)


def token(minute: int, *groups: str, person: bool = True) -> Said:
    return token_of("ben", groups, person, NOON + timedelta(minutes=minute))


def told(minute: int, *groups: str, person: bool = True) -> Said:
    return Said(frozenset(groups), person, "the directory", NOON + timedelta(minutes=minute))


def known(*said: Said) -> Known:
    """After hearing these, in this order."""
    found = Known("ben")
    for one in said:
        found = found.with_told(one) if one.by == "the directory" else found.with_token(one, None)
    return found


@pytest.mark.parametrize(
    ("said", "groups", "person"),
    [
        ((), "", True),
        ((token(1, "a", "b"),), "a b", True),
        ((told(1, "a"),), "", True),  # the directory gives nothing
        ((told(1, "a", person=False),), "", False),
        ((token(1, "a", "b"), told(2, "b", "c")), "b", True),
        ((token(1, "a", "b"), told(2)), "", True),
        ((token(1, "a"), told(2, "x"), told(3, "a")), "a", True),  # back again
        ((token(1, "a"), told(2, "a", person=False)), "a", False),
        ((token(1, "a", person=False), told(2, "a")), "a", False),
        ((told(2), token(1, "a")), "", True),
        ((told(2), token(3, "a")), "a", True),  # the token is the newer word
        ((told(2, person=False), token(3, "a")), "a", True),
        ((token(3, "a"), told(2)), "a", True),
        ((token(2, "a"), token(1, "b")), "a", True),
        ((token(1, "b"), token(2, "a")), "a", True),
        ((token(1, "a"), told(2), token(3, "x"), token(1, "a")), "x", True),
    ],
)
def test_the_groups_that_count(said: tuple[Said, ...], groups: str, person: bool) -> None:
    found = known(*said)
    assert (found.groups, found.person) == (frozenset(groups.split()), person)


def test_tokens_come_in_any_order() -> None:
    word = (token(1, "a"), told(2, "b"), token(3, "b", "c"), told(4, "c", "d"))
    assert {known(*order).groups for order in permutations((word[0], word[2]))} == {frozenset({"b", "c"})}
    tokens_late = [order for order in permutations(word) if order.index(word[1]) < order.index(word[3])]
    assert {known(*order) for order in tokens_late} == {known(*word)}


def test_a_token_that_hides_the_address_does_not_make_it_unknown() -> None:
    found = Known("ben").with_token(token(1), "ben@x.org").with_token(token(2), None)
    assert found.email == "ben@x.org"
    assert found.with_token(token(1), "old@x.org").email == "ben@x.org"
    assert found.with_token(token(3), "new@x.org").email == "new@x.org"


def test_who_told_last() -> None:
    assert known(token(1), told(2)).latest == told(2)
    assert known(told(2), token(3)).at == NOON + timedelta(minutes=3)
    with pytest.raises(LookupError, match="ben"):
        _ = Known("ben").latest
