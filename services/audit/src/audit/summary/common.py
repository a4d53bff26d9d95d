"""What every sentence is made with."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import singledispatch
from typing import Any

from contracts import registry
from contracts.payload import Message

SHOWN = 8


@singledispatch
def say(message: Message) -> str:
    """The sentence of a message; each type has its own."""
    return message.TYPE


def place(m: registry.Transition) -> str:
    if m.to_stage.startswith("@"):
        return f"{m.to_stage} of {m.model} to v{m.version}"
    return f"{m.model} v{m.version} from {m.from_stage} to {m.to_stage}"


def version(m: Any) -> str:
    return f"{m.model} v{m.version}"


def gates(criteria: Iterable[registry.Criterion]) -> str:
    said = names(f"{c.gate}: {c.result}" + (f" ({c.message})" if c.message else "") for c in criteria)
    return f"; gates: {said}" if said else ""


def because(reason: str) -> str:
    """`: why`, or nothing."""
    return f": {line(reason)}" if reason else ""


def line(text: str) -> str:
    return " ".join(text.split())


def names(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def some(parts: Sequence[str]) -> str:
    """The first of many."""
    return names(parts[:SHOWN]) + (f", and {len(parts) - SHOWN} more" if len(parts) > SHOWN else "")


def when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
