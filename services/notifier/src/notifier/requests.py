"""Which request for approval an event is about, and whether it ends it. Pure.

A request has the id of the transition that it is about, so what the registry says of the transition is of it, too.
"""

import json

from contracts.approval import GlassBroken, RequestClosed, RequestDecided, ReviewGiven, ReviewOverdue
from contracts.envelope import Envelope
from contracts.registry import StageChanged, StageRefused

ENDS = frozenset({RequestDecided.TYPE, RequestClosed.TYPE, StageChanged.TYPE, StageRefused.TYPE})
EMERGENCY = frozenset({GlassBroken.TYPE, ReviewGiven.TYPE, ReviewOverdue.TYPE})


def request_of(envelope: Envelope) -> str | None:
    """The id of the request, if it is about one."""
    body = json.loads(envelope.value)
    decision = body.get("decision")
    inner = decision if isinstance(decision, dict) else {}
    found = body.get("request_id") or body.get("transition_id") or inner.get("transition_id")
    return found if isinstance(found, str) else None
