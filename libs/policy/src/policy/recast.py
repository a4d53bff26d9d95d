"""Votes of the past, cast again: by the same people, with the groups and the sign-in that were recorded."""

from dataclasses import replace
from datetime import UTC, datetime

from contracts.approval import Choice, Vote
from policy.case import Ballot, Case, Person, Refusal
from policy.needs import Needs
from policy.people import electorate, judged

NEVER = datetime(1, 1, 1, tzinfo=UTC)


def cast_again(
    case: Case, needs: Needs, vote: Vote, before: tuple[Vote, ...] = (), *, rule: str | None = None
) -> Vote | Refusal | None:
    """What the vote comes to after those `before` it. That the voter is a person, and may vote on the model at all, is
    taken for granted: a record does not say more than that the vote was taken."""
    groups = frozenset(vote.groups)
    delegated = vote.on_behalf_of is not None
    voter = _person(vote, vote.voter, frozenset() if delegated else groups, vote.email)
    principal = _person(vote, vote.on_behalf_of, groups) if vote.on_behalf_of is not None else None
    ballot = Ballot(vote.choice, vote.comment, vote.request_digest, rule)
    return judged(replace(case, votes=before), needs, voter, ballot, vote.at, principal)


def rule_of(case: Case, needs: Needs, vote: Vote) -> str | None:
    """The rule that it was cast for, if that still exists and the voter is still asked by it."""
    rule = needs.rule(vote.rule) if vote.choice is Choice.APPROVE else None
    return rule.id if rule is not None and frozenset(vote.groups) & electorate(case, rule) else None


def _person(vote: Vote, subject: str, groups: frozenset[str], email: str | None = None) -> Person:
    return Person(
        subject=subject,
        groups=groups,
        person=True,
        may_vote=True,
        method=vote.auth_method,
        authenticated_at=vote.authenticated_at or NEVER,
        email=email,
    )
