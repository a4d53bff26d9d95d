"""Reminders, and what makes them needless: a request that is decided reminds nobody any more. Pure."""

from contracts.approval import (
    PolicyPublished,
    RequestClosed,
    RequestDecided,
    RequestEscalated,
    ReviewGiven,
    ReviewOverdue,
)
from contracts.envelope import Envelope
from contracts.registry import StageChanged, StageRefused


def cancel_key(envelope: Envelope) -> str | None:
    """Of a reminder: what it reminds of. None of everything else, which is told whatever comes after it.

    Raises:
        EnvelopeError: the body is not what the type says.
    """
    match envelope.type:
        case RequestEscalated.TYPE:
            return request_key(envelope.payload(RequestEscalated).request_id)
        case ReviewOverdue.TYPE:
            return _review(envelope.payload(ReviewOverdue).request_id)
    return None


def cancels(envelope: Envelope) -> str | None:
    """What nobody needs to be reminded of any more: a request that was decided or closed, a review that is complete.

    Raises:
        EnvelopeError: the body is not what the type says.
    """
    found: str | None = None
    match envelope.type:
        case RequestDecided.TYPE:
            found = request_key(envelope.payload(RequestDecided).decision.transition_id)
        case RequestClosed.TYPE:
            found = request_key(envelope.payload(RequestClosed).request_id)
        case PolicyPublished.TYPE:
            request_id = envelope.payload(PolicyPublished).request_id
            found = request_key(request_id) if request_id else None
        case StageChanged.TYPE:
            found = request_key(envelope.payload(StageChanged).transition_id)
        case StageRefused.TYPE:
            found = request_key(envelope.payload(StageRefused).transition_id)
        case ReviewGiven.TYPE:
            given = envelope.payload(ReviewGiven)
            found = _review(given.request_id) if given.closes else None
    return found


def request_key(request_id: str) -> str:
    """What `cancels` gives of the end of a request."""
    return f"request:{request_id}"


def _review(request_id: str) -> str:
    return f"review:{request_id}"
