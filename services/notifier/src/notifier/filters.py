"""Filters as they are asked for: checked before they are saved."""

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.approval import EVENTS as APPROVAL_EVENTS
from contracts.audience import ADDRESSING, strange_names
from contracts.audit import SearchAlerted
from contracts.notifier import (
    Channel,
    DeliveryDead,
    Digest,
    Format,
    Grouped,
    SubscriptionDisabled,
    SubscriptionFaltered,
)
from contracts.registry import EVENTS as REGISTRY_EVENTS
from contracts.registry import CommandRejected
from kit.problems import Problem
from notifier.bundling import knows
from notifier.domain import ADDRESSED_TYPES, DEFAULT_TYPES, unknown_types
from notifier.matching import VARIABLES, compiled
from policy.expressions import ExpressionError

# A rejected command is its sender's own business: they are answered by correlation id. Of audit's events, alerts are
# for others than auditors.
KNOWN_TYPES = tuple(
    sorted(event.TYPE for event in (*REGISTRY_EVENTS, *APPROVAL_EVENTS, SearchAlerted) if event is not CommandRejected)
)
# About deliveries: they are told to those who ask for them by these names, never to a pattern that has them by chance.
OWN_TYPES = (DeliveryDead.TYPE, SubscriptionDisabled.TYPE, SubscriptionFaltered.TYPE)
OWN_PREFIXES = ("hallmark.delivery.", "hallmark.subscription.", "hallmark.group.")
LOOKS_AT = ", ".join(VARIABLES)


@dataclass(frozen=True)
class Filters:
    types: tuple[str, ...]
    audience: tuple[str, ...]
    stages: tuple[str, ...]
    cel: str | None


def asks_for_own(types: tuple[str, ...]) -> bool:
    """Whether a pattern is about deliveries and subscriptions, whoever's they are."""
    return any(pattern.startswith(OWN_PREFIXES) for pattern in types)


def checked_filters(
    types: tuple[str, ...], audience: tuple[str, ...], stages: tuple[str, ...], cel: str | None
) -> Filters:
    """Each thing once, with the types that are usual where none are given.

    Raises:
        Problem: 422, no event can match, or the expression is wrong.
    """
    audience = tuple(dict.fromkeys(audience))
    types = tuple(dict.fromkeys(types)) or (ADDRESSED_TYPES if audience else DEFAULT_TYPES)
    if strange := strange_names(audience):
        says = "write group:NAME, user:NAME, service:NAME or channel:NAME"
        raise Problem(422, "unknown-recipient", f"no event is addressed to {', '.join(strange)}; {says}")
    check_types(types, (*KNOWN_TYPES, *OWN_TYPES))
    if audience and (mute := unknown_types(types, ADDRESSING)):
        known = ", ".join(sorted(ADDRESSING))
        raise Problem(422, "type-not-addressed", f"{', '.join(mute)} is addressed to nobody; with names: {known}")
    check_expression(cel)
    return Filters(types, audience, tuple(dict.fromkeys(stages)), cel)


def check_types(types: Sequence[str], known: Sequence[str] = KNOWN_TYPES) -> None:
    """Raises Problem 422 when no event can match."""
    if strange := unknown_types(types, known):
        says = f"no event is called {', '.join(strange)}; known are {', '.join(known)}"
        raise Problem(422, "unknown-type", says)


def check_expression(cel: str | None) -> None:
    """Raises Problem 422 when it is wrong."""
    try:
        compiled(cel) if cel is not None else None
    except ExpressionError as error:
        raise Problem(422, "bad-expression", f"cel: {error}; it may look at {LOOKS_AT}") from error


def check_bundling(bundling: Grouped | Digest | None, channel: Channel, format_: Format) -> None:
    """Raises Problem 422 when there is no such time zone, or no message about many events there or in that format."""
    if bundling is not None and channel is Channel.PAGERDUTY:
        raise Problem(422, "channel-has-no-groups", "PagerDuty groups what pages by itself; leave 'bundling' out")
    if isinstance(bundling, Digest) and not knows(bundling.zone):
        raise Problem(422, "unknown-zone", f"there is no time zone {bundling.zone!r}; write one like Europe/Berlin")
    if bundling is not None and format_ not in (Format.CLOUDEVENTS, Format.SLACK):
        raise Problem(422, "format-has-no-groups", f"{format_} has no message about many events; leave 'bundling' out")
