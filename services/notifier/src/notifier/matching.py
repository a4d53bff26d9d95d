"""What selects an event: globs of types and models, stages, names it addresses, and CEL over all of it. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import Any, Protocol

from contracts.audience import recipients_of
from contracts.envelope import Envelope
from contracts.lifecycle import parse_subject
from policy.cost import Size
from policy.expressions import Expression, ExpressionError, Kind, environment

# Steps of one expression on one event: some milliseconds, since the consumer waits for it.
MOST_STEPS = 1_000_000
INT64 = 2**63
VARIABLES: dict[str, Any] = {
    **dict.fromkeys(
        ("event.id", "event.type", "event.source", "event.subject", "event.actor", "event.correlationid"), Kind.STRING
    ),
    **dict.fromkeys(("event.workspace", "event.model"), Kind.STRING),
    **dict.fromkeys(("event.version", "event.sequence"), Kind.INT),
    "event.time": Kind.TIMESTAMP,
    "data": Kind.Map(Kind.STRING, Kind.DYN),
}
_ENVIRONMENT = environment(VARIABLES)
_USUAL = {name: Size.unknown(500) for name, kind in VARIABLES.items() if kind == Kind.STRING} | {
    "data": Size(5_000, 30, 50, 1_000)
}
NO_KEY = "Key not found in map"


class Selector(Protocol):
    """`types` and `model` are globs. With `stages` only events that enter or leave one of these; with `cel` only those
    it holds for."""

    @property
    def types(self) -> tuple[str, ...]: ...
    @property
    def model(self) -> str: ...
    @property
    def stages(self) -> tuple[str, ...]: ...
    @property
    def cel(self) -> str | None: ...


def place_of(subject: str) -> tuple[str | None, str, int | None]:
    """The workspace, model and version that a subject names; None and nothing where it names none."""
    if subject.startswith("workspace:"):
        return subject.removeprefix("workspace:"), "", None
    if ":" in subject:  # of a policy or a person: names of workspaces and models have none
        return None, "", None
    try:
        return parse_subject(subject)
    except ValueError:
        return None, "", None


@dataclass(frozen=True)
class Seen:
    """An event as filters look at it; each part is worked out when one first asks."""

    envelope: Envelope

    @cached_property
    def place(self) -> tuple[str | None, str, int | None]:
        """The workspace, model and version it is about; None and nothing where its subject names none."""
        return place_of(self.envelope.subject)

    @property
    def workspace(self) -> str | None:
        return self.place[0]

    @property
    def model(self) -> str:
        return self.place[1]

    @property
    def everybodys(self) -> bool:
        """Policies govern every workspace, and so do requests to change them. Other events outside of workspaces
        (rejected commands, groups of people) are not for all to read."""
        return self.envelope.subject.startswith("policy:")

    @cached_property
    def recipients(self) -> frozenset[str]:
        """The names it is addressed to. Raises EnvelopeError when the body is not what the type says."""
        return recipients_of(self.envelope)

    @cached_property
    def data(self) -> Mapping[str, Any]:
        """The body; empty when it is no JSON object. Integers beyond 64 bits are doubles, CEL has no others."""
        try:
            body = json.loads(self.envelope.value, parse_int=_number)
        except (ValueError, RecursionError):
            return {}
        return body if isinstance(body, dict) else {}

    @cached_property
    def stages(self) -> frozenset[str]:
        """The stages that a version leaves and enters by it, or would, in small letters: nobody tells stages apart by
        capitals."""
        inner = self.data.get("decision")
        told = inner if isinstance(inner, dict) else self.data
        found = (told.get(name) for name in ("from_stage", "to_stage"))
        return frozenset(stage.lower() for stage in found if isinstance(stage, str))

    @cached_property
    def request(self) -> str | None:
        """The request for approval that it is about: the id of its transition."""
        inner = self.data.get("decision")
        for told in (self.data, inner if isinstance(inner, dict) else {}):
            for name in ("request_id", "transition_id"):
                if isinstance(found := told.get(name), str):
                    return found
        return None

    @cached_property
    def variables(self) -> dict[str, Any]:
        """For CEL. What the event has none of is empty, and 0."""
        sent, (workspace, model, version) = self.envelope, self.place
        return {
            "event.id": sent.id,
            "event.type": sent.type,
            "event.source": sent.source,
            "event.subject": sent.subject,
            "event.actor": sent.actor or "",
            "event.correlationid": sent.correlationid,
            "event.workspace": workspace or "",
            "event.model": model,
            "event.version": version or 0,
            "event.sequence": sent.sequence or 0,
            "event.time": sent.time,
            "data": self.data,
        }

    @cached_property
    def sizes(self) -> dict[str, Size]:
        """Bounds, without walking the body: no part of it is larger than its bytes."""
        whole = 1 + len(self.envelope.value)
        texts = {name: Size.unknown(1 + len(v.encode())) for name, v in self.variables.items() if isinstance(v, str)}
        rest = {name: Size() for name in self.variables if name not in texts}
        return {**rest, **texts, "data": Size(whole, len(self.data), whole, whole)}


def _number(text: str) -> int | float:
    return value if len(text) < 20 and -INT64 <= (value := int(text)) < INT64 else float(text)


@lru_cache(maxsize=5_000)
def compiled(text: str) -> Expression:
    """A filter, type-checked: `event.*` and `data` are what it may look at.

    Raises:
        ExpressionError: what is wrong with it.
    """
    return Expression(text, _ENVIRONMENT, _USUAL, most=MOST_STEPS)


def selects(what: Selector, event: Seen) -> bool:
    """Whether the event is of a wanted type, model and stage, and the expression holds.

    Raises:
        ExpressionError: it has no answer for this event.
    """
    return (
        fnmatchcase(event.model, what.model)
        and any(fnmatchcase(event.envelope.type, pattern) for pattern in what.types)
        and (not what.stages or not event.stages.isdisjoint(stage.lower() for stage in what.stages))
        and (what.cel is None or _holds(what.cel, event))
    )


def _holds(text: str, event: Seen) -> bool:
    try:
        return compiled(text).holds(event.variables, event.sizes)
    except ExpressionError as error:
        if NO_KEY in str(error):
            raise ExpressionError(f"{error}: ask with has(data.NAME) first") from error
        raise
