"""One entry of the log as an export shows it: the exact bytes, and what they say in fields for people. Pure."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from audit.domain import Reading, about, read
from audit.leaf import Detached, Leaf, decode
from audit.summary import summarise
from contracts.payload import Payload

FIELDS = (
    "index", "leaf_hash", "recorded_at", "topic", "partition", "offset", "at", "event_id", "type", "subject",
    "stream", "sequence", "workspace", "model", "version", "actor", "correlationid", "causationid", "reason",
    "summary", "problem", "copy_of",
)  # fmt: skip
# What a spreadsheet takes for a formula, also in the wide forms of East Asia: after any separator, and after blanks and
# quotes. Blanks that are separators begin a cell of their own, so that nothing is looked at twice.
_BLANK = r"(?:[^\S\t\r\n]|[\x00-\x08\x0b\x0c\x0e-\x20\u200b\ufeff\"'])*+"
_FORMULA = re.compile(rf"(^|[;\t\r\n])(?={_BLANK}[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n])")


@dataclass(frozen=True)
class Stored:
    """An entry as the log has it. `body`: the whole leaf, where `leaf` only carries its digest."""

    index: int
    leaf: bytes
    leaf_hash: bytes
    body: bytes | None = None

    @property
    def full(self) -> bytes:
        return self.leaf if self.body is None else self.body


@dataclass(frozen=True)
class Row:
    """A stored entry and what it says. Every field but the first three is None where nothing is said."""

    stored: Stored
    fields: dict[str, Any]
    reading: Reading
    leaf: Leaf | None


def row_of(stored: Stored, problem: str | None = None, copy_of: int | None = None) -> Row:
    """Never raises: an entry that cannot be read has no more than its bytes. `problem`: what was found when it came;
    `copy_of`: the entry that this one only repeats."""
    fields: dict[str, Any] = dict.fromkeys(FIELDS)
    fields |= {"index": stored.index, "leaf_hash": stored.leaf_hash.hex(), "problem": problem, "copy_of": copy_of}
    try:
        leaf = decode(stored.full)
    except ValueError as error:
        return Row(stored, fields | {"problem": problem or f"bad-leaf: {error}"}, Reading(), None)
    fields |= {
        "recorded_at": leaf.recorded_at,
        "topic": leaf.topic,
        "partition": leaf.partition,
        "offset": leaf.offset,
    }
    if isinstance(leaf, Detached):
        return Row(stored, fields | {"problem": problem or "no-body: the bytes are not at hand"}, Reading(), None)
    reading = reading_of(leaf)
    if reading.flaw is not None:
        fields["problem"] = problem or f"{reading.flaw.code}: {reading.flaw.detail}"
    envelope, whom = reading.envelope, about(reading)
    if envelope is not None:
        fields |= {
            "at": envelope.time,
            "event_id": envelope.id,
            "type": envelope.type,
            "subject": envelope.subject,
            "stream": envelope.key,
            "sequence": envelope.sequence,
            "actor": envelope.actor,
            "correlationid": envelope.correlationid,
            "causationid": envelope.causationid,
        }
    fields |= {"workspace": whom.workspace, "model": whom.model, "version": whom.version}
    fields |= {"reason": reason_of(reading), "summary": summarise(reading)}
    return Row(stored, fields, reading, leaf)


def reading_of(leaf: Leaf) -> Reading:
    """What a leaf's record says; a topic that is not known is read as nothing."""
    try:
        return read(leaf.topic, leaf.key, leaf.headers, leaf.value)
    except KeyError:
        return Reading()


def reason_of(reading: Reading) -> str | None:
    """Why, in the words of whoever did it."""
    body: Payload | None = reading.message
    for name in ("vote", "decision", "revocation", "waiver", "glass"):
        inner = getattr(body, name, None)
        body = inner if isinstance(inner, Payload) else body
    for name in ("reason", "comment"):
        text = getattr(body, name, None)
        if isinstance(text, str) and text:
            return text
    return None


def guarded(text: str) -> str:
    """The text with an apostrophe before whatever a spreadsheet would compute.

    Also within the text behind a `;`, a tab or a line end: where those part cells, a quoted cell of a file that is
    parted by commas breaks there. Source: OWASP, CSV Injection.
    """
    return _FORMULA.sub(r"\1'", text)


def plain(value: Any) -> Any:
    """The value as JSON has it: an instant is its ISO form in UTC."""
    return value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value
