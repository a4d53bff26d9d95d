"""What the views tell of an entry: its row of the timeline, and its fact. Pure."""

from dataclasses import replace
from typing import Any

from audit.domain import ID_USED_TWICE, Flaw, Reading, about, clean
from audit.facts import fact_of
from audit.leaf import Leaf
from audit.outcome import outcome_of
from audit.summary import summarise

Row = dict[str, Any]


def rows(index: int, leaf: Leaf, reading: Reading) -> tuple[Row, Row | None]:
    """The row of the timeline, but for what other entries say of it, and the fact if the entry tells one."""
    envelope, whom = reading.envelope, about(reading)
    of = {"workspace": whom.workspace, "model": whom.model, "version": whom.version}
    at = envelope.time if envelope else leaf.recorded_at
    row = {
        "index": index,
        "at": at,
        "recorded_at": leaf.recorded_at,
        "topic": leaf.topic,
        "event_id": envelope.id if envelope else None,
        "type": envelope.type if envelope else None,
        "subject": envelope.subject if envelope else None,
        "stream": envelope.key if envelope else None,
        "sequence": envelope.sequence if envelope else None,
        "actor": envelope.actor if envelope else None,
        "correlationid": envelope.correlationid if envelope else None,
        "causationid": envelope.causationid if envelope else None,
        "revised": None,
        **of,
        **told(reading),
    }
    fact = fact_of(reading)
    if envelope is None or fact is None:
        return row, None
    return row, {"index": index, "at": at, "type": envelope.type, **of, **fact}


def told(reading: Reading) -> Row:
    """What late rules may change."""
    problem = f"{reading.flaw.code}: {reading.flaw.detail}" if reading.flaw else None
    return {"summary": summarise(reading), "problem": problem, "outcome": outcome_of(reading)}


def twice(reading: Reading, rival: int) -> Reading:
    """The reading of an event whose id the entry `rival` has as well."""
    why, flaw = f"the entry {rival} has the same id and says something else", reading.flaw
    if flaw is None:
        return replace(reading, flaw=Flaw(ID_USED_TWICE, why))
    return replace(reading, flaw=replace(flaw, detail=clean(f"{flaw.detail}; {why}")))
