"""A request as people and policies judge it: who asked, what was said of it, and who they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from contracts.approval import BreakGlass, Choice, GateAnswered, Vote, Waiver


@dataclass(frozen=True)
class Person:
    """A caller. `may_vote`: the access file lets them vote on this model at all. `method`: how they signed in, several
    ways with spaces in between. `issued_at`: when their groups were known (by default when they signed in)."""

    subject: str
    groups: frozenset[str]
    person: bool
    may_vote: bool
    method: str
    authenticated_at: datetime
    email: str | None = None
    issued_at: datetime | None = None

    @property
    def names(self) -> frozenset[str]:
        return names(self.subject, self.email)


def names(subject: str, email: str | None = None) -> frozenset[str]:
    """What somebody goes by, whatever the case. Who shares one of them is taken for the same person."""
    return frozenset({subject.casefold(), (email or subject).casefold()})


@dataclass(frozen=True)
class Ballot:
    """What the voter sent. Only `choice` is required on the wire."""

    choice: Choice
    comment: str = ""
    request_digest: str | None = None
    rule: str | None = None


@dataclass(frozen=True)
class Refusal:
    """`code` is stable; `recorded` refusals become an event, because a denial is evidence too."""

    code: str
    detail: str
    recorded: bool = False


@dataclass(frozen=True)
class Member:
    """What is known of somebody now: the groups they are in (none when they may not vote), and whether they are a
    person. `breaking`: the groups as far as they may break the glass."""

    groups: frozenset[str]
    person: bool = True
    email: str | None = None
    breaking: frozenset[str] = frozenset()


Members = Callable[[str], Member | None]


def nobody(_: str) -> Member | None:
    """No later news of anybody: votes count with the groups they were cast with."""
    return None


@dataclass(frozen=True)
class Case:
    """A request as it is to be judged. `bound_at`: when it got its present digest; the votes, waivers and answers and
    the emergency are of then and later. `added`: groups that an escalation let vote too, by rule."""

    requested_by: str
    request_digest: str
    inputs: Mapping[str, Any]
    opened_at: datetime
    bound_at: datetime
    votes: tuple[Vote, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    answers: tuple[GateAnswered, ...] = ()
    added: Mapping[str, frozenset[str]] = field(default_factory=dict)
    glass: BreakGlass | None = None
