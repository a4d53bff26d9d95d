"""One sentence per event for people: who did what, why, on which evidence. Pure."""

from audit.domain import ID_USED_TWICE, Reading, clean
from audit.summary import approval, audit, notifier, registry
from audit.summary.common import say
from contracts.registry import COMMANDS

__all__ = [
    "approval",
    "audit",
    "notifier",
    "registry",
    "summarise",
]  # importing the modules adds their sentences to `say`


def summarise(reading: Reading) -> str:
    """The sentence of a record, also of one that could not be read."""
    if reading.flaw is not None and reading.flaw.code == ID_USED_TWICE and reading.message is not None:
        return clean(f"{say(reading.message)}; {reading.flaw.detail} ({reading.flaw.code})")
    if reading.flaw is not None:
        return clean(f"A record that is no good event: {reading.flaw.detail} ({reading.flaw.code})")
    assert reading.message is not None
    text = say(reading.message)
    if isinstance(reading.message, COMMANDS):
        # The actor of a command is what its producer claims; the token that proves it is not in the log.
        actor = reading.envelope.actor if reading.envelope else None
        text = f"A command asks to {text}" + (f"; sent as {actor}" if actor else "")
    return clean(text)
