"""Whatever people do and policies say: no approval that a naive reading forbids, and what is stricter never lets more
through."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.unit.policy.conftest import (
    AT,
    HOUR,
    OTHER,
    answer,
    asks,
    case_of,
    document,
    glass,
    in_force,
    inputs,
    needs_at,
    vote,
    waiver,
)

from contracts.approval import Choice, Verdict, Vote
from policy.case import Ballot, Case, Person
from policy.document import parse
from policy.outlook import Outlook, outlook
from policy.people import judged, tally
from policy.reader import PolicyError

PEOPLE = ["ana", "trainer", "carl", "eve", "ben", "bo", "rita", "rolf"]  # asked, author, committer, editor, and others
GROUPS = ["reviewers", "risk", "others"]
EXCLUDED = ["version.committers", "policy.last_editor"]
BASE = 20  # raise it for a long run

# -- random policies ----------------------------------------------------------------------------------------------

groups = st.lists(st.sampled_from(["group:reviewers", "group:risk"]), min_size=1, max_size=2, unique=True)
rule = st.builds(
    lambda n, wanted, count: {"id": f"r{n}", "meaning": "I looked", "from": wanted, "count": count},
    st.integers(0, 1),
    groups,
    st.sampled_from([1, 1, 1, 2]),
)


def rules(least: int, most: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(rule, min_size=least, max_size=most, unique_by=lambda given: str(given["id"]))


gates = st.lists(
    st.builds(
        lambda n, kind, more: {"id": f"g{n}", **kind, **more},
        st.integers(0, 2),
        st.sampled_from(
            [
                *[{"cel": "true"}] * 12,
                {"cel": "false"},
                {"cel": "candidate.metrics.auc >= 0.9"},
                {"cel": "candidate.metrics.none >= 0.9"},
                {"cel": "candidate.metrics.auc >= baseline.metrics.auc"},
                {"webhook": {"url": "https://checks.example.org/x", "secret": "checks"}},
                {"attestation": {"type": "scan", "from": ["group:ci"]}},
            ]
        ),
        st.sampled_from(
            [
                {},
                {"level": "warn"},
                {"waivable_by": ["group:leads"]},
                {"asks": ["group:leads"], "on_error": "inconclusive"},
                {"never_skip": True},
                {"on_no_baseline": "pass"},
            ]
        ),
    ),
    max_size=2,
    unique_by=lambda gate: str(gate["id"]),
)
approvals = st.fixed_dictionaries(
    {"rules": rules(0, 2)},
    optional={
        "deny": st.fixed_dictionaries({"count": st.integers(1, 2)}, optional={"from": groups}),
        "delegation": st.just({"allowed": True}),
        "valid_for": st.sampled_from(["30m", "3h"]),
        "separation_of_duties": st.lists(st.sampled_from(EXCLUDED), unique=True).map(
            lambda more: {"exclude": ["requester", "version.author", *more]}
        ),
    },
)
specs = st.fixed_dictionaries(
    {"approvals": approvals, "gates": gates},
    optional={
        "schedule": st.sampled_from(
            [
                {},
                {"min_wait": "1h"},
                {"min_wait": "3h"},
                {"windows": [{"tz": "UTC", "from": "11:00", "to": "13:00"}]},
                {"windows": [{"tz": "UTC", "from": "14:00", "to": "16:00"}]},
            ]
        ),
        "request": st.sampled_from([{}, {}, {"evidence": ["card"]}, {"fields": {"ticket": {"required": True}}}]),
        "unsafe_artifact": st.just({"waivable_by": ["group:leads"]}),
        "break_glass": st.just(
            {"allowed": ["group:oncall"], "page": ["group:risk"], "review": {"from": ["group:risk"]}}
        ),
    },
)
possible = specs.filter(lambda spec: not refused(document("p", **spec)))


def refused(text: str) -> bool:
    """A gate that is inconclusive while nobody is asked, for one."""
    try:
        parse(text)
    except PolicyError:
        return True
    return False


def policies(least: int, most: int) -> st.SearchStrategy[list[str]]:
    """Some policies, each with the name of its place."""
    return st.lists(possible, min_size=least, max_size=most).map(
        lambda given: [document(f"p{n}", **spec) for n, spec in enumerate(given)]
    )


# -- random cases -------------------------------------------------------------------------------------------------


def frozen(unsafe: bool, card: bool, baseline: bool, ticket: bool) -> dict[str, Any]:
    """The request lacks nothing most of the time."""
    changed = inputs(
        candidate={
            "unsafe": unsafe,
            "evidence": {"card": {}} if card else {},
            "lineage": {"committers": ["carl"]},
            "attestations": [{"type": "scan", "posted_by": "ci", "groups": ["ci"], "title": "t", "result": "pass"}],
        },
        request={"policy_editors": ["eve"], "fields": {"ticket": "x"} if ticket else {}},
    )
    return {**changed, "baseline": {"metrics": {"auc": 0.5}} if baseline else None}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A request with votes as they may be recorded: nobody is in two of them."""
    seldom = st.sampled_from([False] * 7 + [True])
    often = seldom.map(lambda value: not value)
    case = case_of(draw(st.builds(frozen, seldom, often, often, often)))
    voters = draw(st.lists(st.sampled_from(PEOPLE[2:]), max_size=6, unique=True))
    voters += draw(st.sampled_from([[], [], [], PEOPLE[:1], PEOPLE[1:2]]))
    votes = tuple(
        vote(
            case,
            who,
            *sorted(draw(st.sampled_from([{"reviewers", "risk"}] * 3 + [{"reviewers"}, {"others"}]))),
            choice=Choice.REJECT if draw(seldom) and draw(st.booleans()) else Choice.APPROVE,
            rule=f"p{draw(st.sampled_from([0, 0, 1, 2]))}/r{draw(st.integers(0, 1))}",
            comment="because",
            at=AT - draw(st.sampled_from([0, 0, 0, 1, 2])) * HOUR,
            request_digest=OTHER if draw(seldom) and draw(st.booleans()) else case.request_digest,
            on_behalf_of=f"{who}'s boss" if draw(seldom) else None,
        )
        for who in voters
    )
    ids = [f"p{n}/g{m}" for n in range(3) for m in range(3)]
    chosen = st.lists(st.sampled_from([*ids, "registry/unsafe-artifact"]), max_size=5, unique=True)
    waivers = tuple(waiver(case, gate) for gate in draw(chosen))
    results = st.sampled_from(["pass", "pass", "fail", "inconclusive", "error"])
    answers = tuple(answer(case, gate, draw(results)) for gate in draw(chosen))
    broken = glass(case, *draw(st.sampled_from([("approvals",), ("schedule", "gates"), ("approvals", "gates")])))
    return replace(case, votes=votes, waivers=waivers, answers=answers, glass=broken if draw(seldom) else None)


def stands(case: Case, texts: Sequence[str]) -> Outlook:
    return outlook(case, needs_at(in_force(*texts), dict(case.inputs)), AT)


# -- what is stricter ---------------------------------------------------------------------------------------------


@settings(max_examples=BASE * 20)
@given(cases(), policies(1, 2), possible, st.booleans())
def test_another_policy_never_lets_more_through(case: Case, texts: list[str], more: Any, first: bool) -> None:
    """Strictest wins: what is rejected or waits does so under one more policy, too."""
    extra = document(f"p{len(texts)}", **more)
    before, after = stands(case, texts), stands(case, [extra, *texts] if first else [*texts, extra])
    if before.verdict is not Verdict.APPROVED:
        assert after.verdict is not Verdict.APPROVED
    if before.verdict is Verdict.REJECTED:
        assert after.verdict is Verdict.REJECTED


@settings(max_examples=BASE * 20)
@given(cases(), policies(1, 3), st.sampled_from(PEOPLE), st.integers(0, 2), st.integers(0, 1))
def test_one_more_approval_never_rejects(case: Case, texts: list[str], who: str, policy: int, rule: int) -> None:
    before = stands(case, texts)
    more = vote(case, f"{who}2", "reviewers", "risk", rule=f"p{policy}/r{rule}")
    after = stands(replace(case, votes=(*case.votes, more)), texts)
    if before.verdict is not Verdict.REJECTED:
        assert after.verdict is not Verdict.REJECTED
    if before.verdict is Verdict.APPROVED:
        assert after.verdict is Verdict.APPROVED


@settings(max_examples=BASE * 20)
@given(cases(), policies(1, 3), st.integers(0, 5))
def test_one_approval_less_never_approves(case: Case, texts: list[str], which: int) -> None:
    assume(which < len(case.votes) and case.votes[which].choice is Choice.APPROVE)
    fewer = replace(case, votes=(*case.votes[:which], *case.votes[which + 1 :]))
    before, after = stands(case, texts), stands(fewer, texts)
    if after.verdict is Verdict.APPROVED:
        assert before.verdict is Verdict.APPROVED


@settings(max_examples=BASE * 10)
@given(cases(), policies(1, 3), st.sampled_from(PEOPLE))
def test_one_more_rejection_never_approves(case: Case, texts: list[str], who: str) -> None:
    against = vote(case, f"{who}2", "reviewers", choice=Choice.REJECT)
    after = stands(replace(case, votes=(*case.votes, against)), texts)
    if after.verdict is Verdict.APPROVED:
        assert stands(case, texts).verdict is Verdict.APPROVED


@settings(max_examples=BASE * 10)
@given(cases(), policies(1, 2), st.randoms())
def test_the_order_of_policies_is_of_no_account(case: Case, texts: list[str], random: Any) -> None:
    other = [*texts]
    random.shuffle(other)
    first, second = stands(case, texts), stands(case, other)
    assert (first.verdict, first.phase, first.next_at) == (second.verdict, second.phase, second.next_at)


# -- a naive reading ----------------------------------------------------------------------------------------------

attempts = st.lists(
    st.tuples(
        st.sampled_from(PEOPLE),
        st.sets(st.sampled_from(GROUPS)),
        st.booleans(),  # a person
        st.booleans(),  # may vote, says the access file
        st.sampled_from(list(Choice)),
        st.sampled_from(["", "because"]),
        st.sampled_from([None, "right", "wrong"]),
        st.integers(0, 20),  # minutes since they signed in; 10 are allowed
    ),
    max_size=25,
)


@settings(max_examples=BASE * 10)
@given(rules(1, 2), attempts)
def test_no_forbidden_approval(asked: list[dict[str, Any]], attempts: list[tuple[Any, ...]]) -> None:
    case = case_of(frozen(False, True, True, True))
    duties = {"exclude": ["requester", "version.author", *EXCLUDED]}
    signature = {"reauthenticate_within": "10m"}
    text = document("p", **asks(*asked, separation_of_duties=duties, signature=signature))
    needs = needs_at(in_force(text), dict(case.inputs))
    heard: dict[str, tuple[Choice, frozenset[str]]] = {}
    for subject, member_of, person, may, choice, comment, digest, minutes in attempts:
        named = {None: None, "right": case.request_digest, "wrong": OTHER}[digest]
        voter = Person(subject, frozenset(member_of), person, may, "token", AT - timedelta(minutes=minutes))
        outcome = judged(case, needs, voter, Ballot(choice, comment, named), AT)
        entitled = (
            subject in PEOPLE[4:]
            and person
            and may
            and any(member_of & rule.groups for rule in needs.rules)
            and minutes <= 10
            and digest != "wrong"
            and (choice is Choice.APPROVE or comment)
            and subject not in heard
        )
        assert isinstance(outcome, Vote) == bool(entitled)
        if isinstance(outcome, Vote):
            heard[subject] = (choice, frozenset(member_of))
            case = replace(case, votes=(*case.votes, outcome))
    found = outlook(case, needs, AT)
    approved = [groups for choice, groups in heard.values() if choice is Choice.APPROVE]
    if len(approved) < len(heard):
        assert found.verdict is Verdict.REJECTED
    elif found.verdict is not None:
        assert found.verdict is Verdict.APPROVED
        assert assignable(approved, [rule.groups for rule in needs.rules for _ in range(rule.count)])
    else:
        assert any(have < rule.count for rule, have in zip(needs.rules, tally(case, needs, AT).values(), strict=True))


def assignable(people: list[frozenset[str]], seats: list[frozenset[str]]) -> bool:
    """Whether each seat can have a person of its own: the naive oracle, by trying everything."""
    if not seats:
        return True
    return any(
        assignable(people[:n] + people[n + 1 :], seats[1:]) for n, groups in enumerate(people) if groups & seats[0]
    )
