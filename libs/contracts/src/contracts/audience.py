"""Whom an event addresses: the names that a policy wrote, or the people that it is about. Pure.

A name says what it names: `group:risk`, `user:ann`, `service:oncall`, `channel:ml`. They are compared as they stand:
nothing here knows who is in a group.
"""

import re
from collections.abc import Iterable
from typing import get_args

from contracts.approval import (
    AccountLinked,
    AccountUnlinked,
    DelegationEnded,
    DelegationGranted,
    GlassBroken,
    MembershipChanged,
    RequestEscalated,
    RequestRebound,
    ReviewGiven,
    ReviewOverdue,
    VoteCast,
    VoteWithdrawn,
)
from contracts.audit import SearchAlerted
from contracts.envelope import Envelope

Addressing = (
    GlassBroken
    | ReviewGiven
    | ReviewOverdue
    | RequestEscalated
    | RequestRebound
    | VoteCast
    | VoteWithdrawn
    | DelegationGranted
    | DelegationEnded
    | MembershipChanged
    | AccountLinked
    | AccountUnlinked
    | SearchAlerted
)
ADDRESSING: dict[str, type[Addressing]] = {kind.TYPE: kind for kind in get_args(Addressing)}
_NAME = re.compile(r"(?:group|user|service|channel):[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?")


def recipients_of(envelope: Envelope) -> frozenset[str]:
    """The names that the event is addressed to; most events have none.

    Raises:
        EnvelopeError: the body is not what the type says.
    """
    kind = ADDRESSING.get(envelope.type)
    return frozenset(_named(envelope.payload(kind))) if kind else frozenset()


def strange_names(names: Iterable[str]) -> list[str]:
    """Those that no event can be addressed to."""
    return [name for name in names if not _NAME.fullmatch(name)]


def user(subject: str) -> str:
    return f"user:{subject}"


def _named(event: Addressing) -> Iterable[str]:  # noqa: PLR0911 - one line an event
    match event:
        case GlassBroken():
            return event.glass.page
        case ReviewGiven() | ReviewOverdue():
            return event.page
        case RequestEscalated():
            return event.to
        case RequestRebound():
            return map(user, event.voided)
        case VoteCast():
            return [user(event.vote.on_behalf_of)] if event.vote.on_behalf_of else []
        case VoteWithdrawn():
            return [user(event.voter), user(event.on_behalf_of)] if event.on_behalf_of else []
        case DelegationGranted() | DelegationEnded():
            return [user(event.delegator), user(event.delegate)]
        case MembershipChanged() | AccountLinked() | AccountUnlinked():
            return [user(event.subject)]
        case SearchAlerted():
            return [user(event.owner)]
