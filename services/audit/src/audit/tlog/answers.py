"""The shapes of the log's HTTP answers."""

from datetime import datetime

from pydantic import Field

from audit.answers import Answer

BASE64 = "base64"


class Entry(Answer):
    """`leaf` is the exact bytes that `leaf_hash` (hex) is over: SHA-256(0x00 || leaf)."""

    index: int
    recorded_at: datetime
    topic: str
    partition: int
    offset: int
    event_id: str | None
    type: str | None
    problem: str | None
    leaf: str = Field(json_schema_extra={"contentEncoding": BASE64})
    leaf_hash: str


class EntryPage(Answer):
    """`next` is the `start` of the next page."""

    items: list[Entry]
    next: str | None


class Inclusion(Answer):
    """Hashes in base64, `leaf_hash` in hex; `checkpoint` signs `root` for `size`."""

    index: int
    size: int
    root: str
    leaf_hash: str
    proof: list[str]
    checkpoint: str


class Consistency(Answer):
    """Hashes in base64. `checkpoint` is the newest."""

    first: int = Field(alias="from")
    second: int = Field(alias="to")
    from_root: str
    to_root: str
    proof: list[str]
    checkpoint: str


class Bad(Answer):
    """`index` is the first bad entry, or the first after the last good checkpoint, or null when it is about none."""

    index: int | None
    problem: str


class Verdict(Answer):
    """What came of hashing the whole log again."""

    ok: bool
    first_bad: Bad | None
    size: int | None = None
    root: str | None = None
    checked: int | None = None
    checkpoint: str | None = None


class Books(Answer):
    """One partition, in its newest `epoch` (a new one begins when the broker forgot its log).

    The log holds `entries` records from `lowest` up to but without `next`; the broker has those from `earliest` up to
    but without `latest`. `holes` are offsets (from, until), of any epoch, of records that are not in the log and should
    be; the first 100 are told, `missing` counts all of them. `unconfirmed` are offsets that are not in the log, and
    that the broker must still explain. `unread` ones are still on their way. What the broker was not asked is null.

    `never_read` counts the offsets before our very first record of which the broker has none any more; no hole.
    """

    topic: str
    partition: int
    epoch: int | None
    lowest: int | None
    next: int | None
    entries: int
    earliest: int | None
    latest: int | None
    unread: int | None
    holes: list[tuple[int, int]]
    unconfirmed: list[tuple[int, int]]
    missing: int
    never_read: int


class StreamHole(Answer):
    """A stream with a missing `sequence`: it should have every one from 1 to `highest`, and has `found` of them."""

    topic: str
    stream: str
    lowest: int
    highest: int
    found: int


class Completeness(Answer):
    """`complete` is null when nothing is known to be missing, but the broker could not be asked (`broker` says why), or
    has not explained every gap yet."""

    items: list[Books]
    streams: list[StreamHole]
    broker: str | None
    complete: bool | None
