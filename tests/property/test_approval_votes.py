"""Whatever people do, in whatever order: no approval that a naive reading of the rules forbids."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.approval.conftest import AT, apply, waiting

from approval.domain import Ballot, Rule, Voter, cast, verdict
from contracts.approval import Choice, Verdict, Vote, VoteCast

PEOPLE = ["ana", "trainer", "ben", "bo", "rita", "rolf"]  # ana asked, trainer is the author
GROUPS = ["reviewers", "risk", "others"]

rules = st.lists(
    st.builds(
        lambda n, groups, count: Rule(f"p/{n}", frozenset(groups), count, "I looked"),
        st.integers(0, 9),
        st.sets(st.sampled_from(GROUPS[:2]), min_size=1),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda rule: rule.id,
)
attempts = st.lists(
    st.tuples(
        st.sampled_from(PEOPLE),
        st.sets(st.sampled_from(GROUPS)),
        st.booleans(),  # a person
        st.booleans(),  # may vote, says the access file
        st.sampled_from(list(Choice)),
        st.sampled_from(["", "because"]),
        st.sampled_from([None, "right", "wrong"]),
        st.integers(0, 80),  # hours after the request was opened; it lives 72
    ),
    max_size=25,
)


@given(rules, attempts)
def test_no_forbidden_approval(rules: list[Rule], attempts: list[tuple]) -> None:  # type: ignore[type-arg]
    request = waiting()
    heard: dict[str, tuple[Choice, frozenset[str]]] = {}
    for subject, groups, person, may, choice, comment, digest, hours in attempts:
        named = {None: None, "right": request.opened.request_digest, "wrong": f"sha256:{'9' * 64}"}[digest]
        voter = Voter(subject, frozenset(groups), person, may, "token")
        outcome = cast(request, rules, voter, Ballot(choice, comment, named), AT + timedelta(hours=hours))
        entitled = (
            subject not in ("ana", "trainer")
            and person
            and may
            and any(set(groups) & rule.groups for rule in rules)
            and hours < 72
            and digest != "wrong"
            and (choice is Choice.APPROVE or comment)
            and subject not in heard
        )
        assert isinstance(outcome, Vote) == bool(entitled)
        if isinstance(outcome, Vote):
            heard[subject] = (choice, frozenset(groups))
            request = apply(request, VoteCast(request_id="t-1", vote=outcome))
    found = verdict(request, rules)
    if any(choice is Choice.REJECT for choice, _ in heard.values()):
        assert found is not None
        assert found[0] is Verdict.REJECTED
    elif found is not None:
        assert found[0] is Verdict.APPROVED
        people = [groups for choice, groups in heard.values() if choice is Choice.APPROVE]
        assert assignable(people, [rule.groups for rule in rules for _ in range(rule.count)])


def assignable(people: list[frozenset[str]], seats: list[frozenset[str]]) -> bool:
    """Whether each seat can have a person of its own: the naive oracle, by trying everything."""
    if not seats:
        return True
    return any(
        assignable(people[:n] + people[n + 1 :], seats[1:]) for n, groups in enumerate(people) if groups & seats[0]
    )
